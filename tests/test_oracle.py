"""The oracle: exact equals naive equals captum; errors; memory."""

import weakref

import pytest
import torch
from networks import CASES, batches, small_vgg

from course_lib import oracle
from course_lib.feature_maps import Chain
from course_lib.oracle import exact, stages


def largest_difference(found, expected):
    """Relative to the layer's largest effect."""
    return max(float((found[n] - expected[n]).abs().max() / expected[n].abs().max()) for n in expected)


@pytest.mark.parametrize("case", CASES)
def test_exact_equals_naive(case):
    model, data = CASES[case][0](), CASES[case][1]()
    naive = oracle.ablate(model, data, method="naive")
    assert set(naive) == set(Chain(model).layers)
    assert largest_difference(oracle.ablate(model, data), naive) < 1e-10


def test_exact_equals_naive_in_single_precision():
    model, data = small_vgg().float(), [(x.float(), y) for x, y in batches(3, 8, 8)]
    assert largest_difference(oracle.ablate(model, data), oracle.ablate(model, data, method="naive")) < 1e-5


def test_exact_equals_captum():
    attr = pytest.importorskip("captum.attr", reason="captum is in the extra 'compare'")
    model, (images, labels) = small_vgg(), batches(3, 8, 8, n=1)[0]

    def negative_loss(x):
        return -torch.nn.functional.cross_entropy(model(x), labels, reduction="none")

    truth = oracle.effects(model, [(images, labels)])
    ablation = attr.LayerFeatureAblation(negative_loss, model[1])
    masks = torch.arange(5).view(1, 5, 1, 1).expand(1, 5, 8, 8)
    found = ablation.attribute(images, layer_baselines=0, layer_mask=masks)[:, :, 0, 0]
    assert torch.allclose(found, truth["0"], rtol=1e-5, atol=1e-12)


def test_signed_change_of_the_mean_loss_by_hand():
    model, data = small_vgg(), batches(3, 8, 8)
    x, y = torch.cat([images for images, _ in data]), torch.cat([labels for _, labels in data])
    with torch.no_grad():
        before = torch.nn.functional.cross_entropy(model(x), y)
        model[3].weight[2], model[3].bias[2] = 0, 0  # without its weights and bias, a kernel's map is zero
        after = torch.nn.functional.cross_entropy(model(x), y)
    assert oracle.ablate(small_vgg(), data)["3"][2].item() == pytest.approx(float(after - before), rel=1e-9)


@pytest.mark.parametrize("memory_limit", [1, 1 << 12, 1 << 30])
def test_the_memory_limit_does_not_change_the_result(memory_limit):
    model, data = small_vgg(batch_norm=True), batches(3, 8, 8)
    limited = oracle.ablate(model, data, memory_limit=memory_limit)
    assert largest_difference(limited, oracle.ablate(model, data)) < 1e-12


def test_the_memory_limit_is_respected(monkeypatch):
    model, data, seen, kept = small_vgg(), batches(3, 8, 8), [], []
    real, real_base = stages.Reader.change, exact.Base.__init__

    def watched(self, d):
        seen.append(real(self, d).nbytes)
        return real(self, d)

    def watched_base(self, *arguments):
        real_base(self, *arguments)
        tensors = [*self._minus, *(tensor for group in self._kept for tensor in group)]
        kept.append(sum(tensor.nbytes for tensor in {id(tensor): tensor for tensor in tensors}.values()))

    monkeypatch.setattr(stages.Reader, "change", watched)
    monkeypatch.setattr(exact.Base, "__init__", watched_base)
    oracle.ablate(model, data, memory_limit=100_000)
    assert 9 * max(seen) <= 50_000 and max(kept) <= 50_000  # nine stages
    assert max(seen) > 2_500 and max(kept) > 15_000  # and it is made use of


def test_batches_are_taken_one_by_one_and_not_kept(monkeypatch):
    seen, most = [], []
    real = exact.Base.__init__

    def watched(self, *arguments):
        seen.append(weakref.ref(self))
        real(self, *arguments)

    def generate():
        for images, labels in batches(3, 8, 8, n=6):
            most.append(sum(reference() is not None for reference in seen))
            images = images.clone()
            seen.append(weakref.ref(images))
            yield images, labels

    monkeypatch.setattr(exact.Base, "__init__", watched)
    found = oracle.effects(small_vgg(), generate())
    assert len(seen) == 12 and max(most) <= 2  # the last batch and what was made of it, never more
    assert largest_difference(found, oracle.effects(small_vgg(), batches(3, 8, 8, n=6))) < 1e-12


class Killed(Exception):
    pass


def kill_after(monkeypatch, layers):
    """The exact oracle, killed after it has measured so many layers."""
    real, left = exact.Base.changes, [layers]

    def changes(*arguments, **options):
        if not left[0]:
            raise Killed
        left[0] -= 1
        return real(*arguments, **options)

    monkeypatch.setattr(exact.Base, "changes", changes)


@pytest.mark.parametrize("layers", [0, 1, 4])
def test_a_killed_run_goes_on_to_identical_numbers(layers, tmp_path, monkeypatch):
    model, data = small_vgg().float(), [(x.float(), y) for x, y in batches(3, 8, 8, n=3)]
    whole = oracle.effects(model, data)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_after(patch, layers)
        oracle.effects(model, data, folder=tmp_path)
    with monkeypatch.context() as patch:
        kill_after(patch, 9 - layers)  # three layers for each of three batches: no layer twice
        again = oracle.effects(model, data, folder=tmp_path, progress=False)
    assert all(torch.equal(again[name], whole[name]) for name in whole)
    with monkeypatch.context() as patch:
        kill_after(patch, 0)
        assert all(torch.equal(e, whole[n]) for n, e in oracle.effects(model, data, folder=tmp_path).items())


def test_a_folder_of_another_run_is_refused_in_words(tmp_path):
    data = batches(3, 8, 8)
    oracle.effects(small_vgg(), data, folder=tmp_path)
    others = [
        ("weights", {"model": small_vgg(seed=1)}),
        ("images and labels", {"batches": data[::-1]}),
        ("maps", {"layers": {"3": [1]}}),
        ("dtype", {"dtype": torch.bfloat16}),
        ("method", {"method": "naive"}),
        ("memory_limit", {"memory_limit": 1 << 20}),
    ]
    for what, change in others:
        arguments = {"model": small_vgg(), "batches": data, "folder": tmp_path} | change
        with pytest.raises(ValueError, match=f"another run.*{what}.*another folder"):
            oracle.effects(**arguments)
    gelu = small_vgg()
    gelu[1] = torch.nn.GELU()
    with pytest.raises(ValueError, match="architecture"):
        oracle.effects(gelu, data, folder=tmp_path)


def test_a_damaged_piece_is_refused(tmp_path):
    oracle.effects(small_vgg(), batches(3, 8, 8), folder=tmp_path)
    piece = sorted(tmp_path.glob("[!.]*"))[0]
    piece.write_bytes(piece.read_bytes()[:-8])
    with pytest.raises(ValueError, match="piece_00000"):
        oracle.effects(small_vgg(), batches(3, 8, 8), folder=tmp_path)


def test_types_in_which_changes_are_computed():
    model, data = small_vgg(), batches(3, 8, 8)
    truth = oracle.effects(model, data, method="naive")
    errors = [largest_difference(oracle.effects(model, data, dtype=d), truth) for d in oracle.asked.DTYPES]
    assert errors[1] < 1e-10 < errors[0] < 1e-5 < errors[2] < 0.03  # double, single, bfloat16: each in its own type
    with pytest.raises(ValueError, match="float16.*bfloat16"):
        oracle.effects(model, data, dtype=torch.float16)
    with pytest.raises(ValueError, match="naive"):
        oracle.effects(model, data, method="naive", dtype=torch.bfloat16)


def test_the_bar_counts_macs_and_ends_full(monkeypatch, tmp_path):
    model, data, bars = small_vgg(), batches(3, 8, 8), []
    monkeypatch.delenv("COURSE_LIB_PROGRESS", raising=False)
    with torch.no_grad():
        model[3].bias[2] = -1e6  # a dead map is work that is done
    real = oracle.meter
    monkeypatch.setattr(oracle, "meter", lambda *a, **k: bars.append(real(*a, **k)) or bars[-1])
    for method in oracle.METHODS:
        oracle.effects(model, data, method=method, folder=tmp_path / method)
    oracle.effects(model, data, folder=tmp_path / "exact")
    assert all(bar.n == bar.total > 0 for bar in bars)
    assert bars[1].total > 2 * bars[0].total  # naive: the whole network for every map
    assert bars[2].initial == bars[2].total  # nothing was measured again


def test_some_maps_of_some_layers():
    model, data = small_vgg(), batches(3, 8, 8)
    part, whole = oracle.ablate(model, data, {"3": [4, 1]}), oracle.ablate(model, data)
    assert list(part) == ["3"]
    assert torch.isnan(part["3"]).tolist() == [True, False, True, True, False, True]
    assert torch.allclose(part["3"][[1, 4]], whole["3"][[1, 4]], rtol=1e-12)
    for method in oracle.METHODS:  # none of a layer, too
        assert torch.isnan(oracle.ablate(model, data, {"3": []}, method)["3"]).all()


def test_mode_and_weights_are_left_as_they_were():
    model = small_vgg(batch_norm=True, dropout=True).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    oracle.ablate(model, batches(3, 8, 8))
    assert model.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_a_dead_map_has_no_effect():
    model = small_vgg()
    with torch.no_grad():
        model[3].bias[2] = -1e6
    assert oracle.ablate(model, batches(3, 8, 8))["3"][2] == 0


def test_errors_say_what_to_do():
    model, data = small_vgg(), batches(3, 8, 8)
    with pytest.raises(KeyError, match="'exact'"):
        oracle.ablate(model, data, method="exat")
    with pytest.raises(KeyError, match="Known: 0, 3, 5"):
        oracle.ablate(model, data, ["7"])
    with pytest.raises(IndexError, match="0 to 4"):
        oracle.ablate(model, data, {"0": [5]})
    with pytest.raises(ValueError, match="twice"):
        oracle.ablate(model, data, {"0": [2, 2]})
    with pytest.raises(ValueError, match="empty"):
        oracle.ablate(model, [])
    with pytest.raises(ValueError, match="4 outputs"):
        oracle.ablate(model, [(data[0][0], data[0][1] + 3)])
    data[0][0][0] = torch.nan
    with pytest.raises(FloatingPointError, match="NaN"):
        oracle.ablate(model, data)
