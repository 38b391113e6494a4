"""Export: the ONNX file answers as the network does, is whole or absent, and is timed as a network is."""

import copy
import importlib.util
import os
import subprocess
import sys

import pytest
import torch
from networks import batches, small_vgg, volumes, written_by_hand
from torch import nn

from course_lib import cost, export
from course_lib.surgery import remove

needs_extra = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, export.PACKAGES)), reason="needs the extra 'export'"
)
NETWORKS = {
    "batch norm, dropout, cut": (
        lambda: remove(small_vgg(batch_norm=True, dropout=True), {"0": [1, 3], "7": [0]}),
        (3, 8, 8),
    ),
    "by hand": (written_by_hand, (3, 9, 8)),
    "volumes": (volumes, (2, 4, 6, 6)),
}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A network in training mode, and its file."""
    model = NETWORKS["batch norm, dropout, cut"][0]().train()
    return model, export.onnx(model, (3, 8, 8), tmp_path_factory.mktemp("export") / "new folder" / "small.onnx")


@needs_extra
def test_the_runtime_reports_nothing_and_leaves_nothing_in_the_home_folder(exported, tmp_path):
    given = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    words = f"from course_lib import export; import torch; export.load({str(exported[1])!r})(torch.zeros(1, 3, 8, 8))"
    subprocess.run([sys.executable, "-c", words], check=True, env=given | {"HOME": str(tmp_path)})
    assert not list(tmp_path.rglob("*onnxruntime*"))


def answers(model, images):
    with torch.no_grad():
        return copy.deepcopy(model).eval()(images.double())


@needs_extra
@pytest.mark.parametrize("name", list(NETWORKS)[1:])
def test_other_forms_answer_as_the_network_does(name, tmp_path):
    build, shape = NETWORKS[name]
    model = build()
    run = export.load(export.onnx(model, shape, tmp_path / "network.onnx"))
    for n in (1, 7):
        images = batches(*shape, n=1, size=n)[0][0]
        assert torch.allclose(run(images).double(), answers(model, images), rtol=1e-4, atol=1e-4)


@needs_extra
@pytest.mark.parametrize("n", [1, 2, 5])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_any_number_of_images_in_any_layout(exported, n, layout):
    model, path = exported
    images = batches(3, 8, 8, n=1, size=n)[0][0].to(memory_format=layout).requires_grad_()
    found = export.load(path)(images)
    assert found.shape == (n, 4) and found.dtype == torch.float32
    assert torch.allclose(found.double(), answers(model, images), rtol=1e-4, atol=1e-4)


@needs_extra
def test_the_model_is_untouched_and_one_file_is_written(exported):
    model, path = exported
    assert all(module.training for module in model.modules())
    assert {p.dtype for p in model.parameters()} == {torch.float64}
    assert [file.name for file in path.parent.iterdir()] == ["small.onnx"]  # no .data file, nothing temporary


@needs_extra
def test_exported_networks_are_timed(exported):
    found = cost.latency(export.load(exported[1]), (3, 8, 8), batch_size=2, seconds=0.01)
    assert found.median_ms > 0 and (found.batch_size, found.threads) == (2, 1)


@needs_extra
def test_another_shape_is_refused(exported):
    with pytest.raises(ValueError, match=r"small.onnx was exported for images of shape \[3, 8, 8\]; .*\[3, 16, 16\]"):
        export.load(exported[1])(torch.rand(2, 3, 16, 16))
    with pytest.raises(ValueError, match=r"Images of shape \(1, 8, 8\) do not fit the network"):
        export.onnx(exported[0], (1, 8, 8), "never.onnx")


@needs_extra
def test_files_that_are_missing_or_damaged(exported, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"export\.onnx"):
        export.load(tmp_path / "none.onnx")
    (tmp_path / "half.onnx").write_bytes(exported[1].read_bytes()[:3000])
    with pytest.raises(ValueError, match="half.onnx is not a whole ONNX file"):
        export.load(tmp_path / "half.onnx")


@needs_extra
def test_a_file_that_answers_otherwise_is_not_kept(exported, tmp_path, monkeypatch):
    def wrong(model, arguments, path, **options):
        path.write_bytes(exported[1].read_bytes())  # the weights of another network

    monkeypatch.setattr(torch.onnx, "export", wrong)
    other = remove(small_vgg(batch_norm=True, seed=1), {"0": [1, 3], "7": [0]})
    (tmp_path / "network.onnx").write_text("what was there before")
    with pytest.raises(ArithmeticError, match="answers differ by .* No file was written"):
        export.onnx(other, (3, 8, 8), tmp_path / "network.onnx")
    assert (tmp_path / "network.onnx").read_text() == "what was there before"
    assert len(list(tmp_path.iterdir())) == 1


@needs_extra
def test_weights_that_are_no_numbers_are_not_exported(exported, tmp_path, monkeypatch):
    model = nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten(), nn.Linear(2 * 36, 3))
    model[2].weight.data[0, 0] = torch.nan
    with pytest.raises(ArithmeticError, match="differ by nan"):
        export.onnx(model, (3, 8, 8), tmp_path / "network.onnx")
    assert not list(tmp_path.iterdir())


def test_without_the_extra_it_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr(export, "PACKAGES", ("numpy", "no_such_package"))
    for call in (lambda: export.onnx(small_vgg(), (3, 8, 8), tmp_path / "x.onnx"), lambda: export.load("x.onnx")):
        with pytest.raises(ImportError, match=r"needs no_such_package, .*pip install 'course-lib\[export\]'"):
            call()


def test_importing_it_loads_none_of_the_extra():
    code = "import sys; from course_lib import export; print([m for m in sys.modules if m.startswith('onnx')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_same_network_makes_the_same_program(tmp_path):
    """A run that was killed and goes on ends with the same file, whatever was drawn at random before."""
    made = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        network = small_vgg().float()
        torch.manual_seed(seed)
        made.append(export.program(network, (3, 8, 8), tmp_path / f"{seed}" / "small.pt2").read_bytes())
    assert made[0] == made[1]
