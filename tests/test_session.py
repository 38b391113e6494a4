"""Sessions: profiles, overrides, devices, repeatability."""

import dataclasses
import gc
import itertools
import random
import re
import subprocess
import sys

import matplotlib
import numpy as np
import pytest
import threadpoolctl
import torch
from networks import small_vgg
from PIL import Image

import course_lib
from course_lib import datasets, models
from course_lib.classroom import needs, session


@pytest.fixture(autouse=True)
def as_it_was():
    yield
    torch.use_deterministic_algorithms(False)
    matplotlib.rcdefaults()


def test_start_prints_one_line_that_says_what_was_chosen(capsys):
    lab = course_lib.start("ci", seed=3)
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    for said in ("profile ci", "seed 3", "cpu", torch.__version__, course_lib.__version__):
        assert said in out
    assert (lab.profile, lab.seed, lab.device) == (session.PROFILES["ci"], 3, torch.device("cpu"))


def test_the_papers_profile_says_what_it_wants_and_what_long_cells_need_before_the_first_of_them(
    capsys, monkeypatch, tmp_path
):
    monkeypatch.setenv("COURSE_LIB_CACHE", str(tmp_path))
    sizes = {"dataset": "petals", "network": "vgg16-world", "image_size": 32, "train_images": 40, "test_images": 20}
    lab = course_lib.start("paper", device="cpu", epochs=1, oracle_images=8, maps_per_step=66, **sizes)
    greeting, warning = capsys.readouterr().out.splitlines()
    assert "profile paper" in greeting and "wants a GPU, and there is none here" in warning
    assert "python -m course_lib doctor" in warning
    tuned, splits = [], lab.splits()
    monkeypatch.setattr(session.training, "fit", lambda *_, **__: tuned.append(capsys.readouterr().out))
    lab.network(splits)
    assert re.search(r"fine-tuning.*: \d+ \w+; the oracle: .*; a pruning curve: .*GB of memory, .*GB of disk", tuned[0])
    begun = len(tuned)
    lab.network(splits)
    said = capsys.readouterr().out
    assert "a pruning curve" in said and "fine-tuning" not in said and len(tuned) == begun > 0
    lab.network(splits, quiet=True)
    course_lib.start("ci").network(splits)
    assert capsys.readouterr().out.count("\n") == 1  # the greeting


def test_a_network_in_the_cache_is_of_the_pictures_that_are_asked_for(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("COURSE_LIB_CACHE", str(tmp_path / "cache"))
    how = {"dataset": "folder", "image_size": 32, "train_images": 4, "test_images": 2, "epochs": 0}
    labs = []
    for folder, grey in (("night", 40), ("day", 200)):
        for part, kind, number in itertools.product(("train", "val", "test"), "ab", range(3)):
            (tmp_path / folder / part / kind).mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (32, 32), (grey, grey, number)).save(tmp_path / folder / part / kind / f"{number}.png")
        labs.append(course_lib.start("ci", data_root=str(tmp_path / folder), **how))
    tuned, fit = [], session.training.fit_head
    monkeypatch.setattr(session.training, "fit_head", lambda *a, **k: tuned.append(a) or fit(*a, **k))
    for lab in (*labs, *labs):
        lab.network(lab.splits())
    assert len(tuned) == 2


def test_little_memory_is_said_before_long_work(monkeypatch):
    model, data = models.trained("vgg16-petals"), datasets.load("petals", train=8, val=1, test=1).train
    parts = {"one": needs.Needs(2 << 30, 10**12, 3 << 30), "other": needs.Needs(1 << 30, 10**9)}
    monkeypatch.setattr(needs, "rate", lambda *_: 1e9)
    monkeypatch.setattr(needs, "available", lambda *_: 4 << 30)
    said = needs.foretold(parts, model, data)
    assert "one: 17 minutes; other: 1 seconds" in said and said.endswith("2.1 GB of memory, 3.2 GB of disk.")
    monkeypatch.setattr(needs, "available", lambda *_: 1 << 30)
    assert needs.foretold(parts, model, data).endswith("Only 1.1 GB of memory are free: choose a smaller image_size.")


def test_the_same_seed_repeats_everything_and_another_does_not():
    def draws(seed):
        course_lib.start("ci", seed=seed)
        return random.random(), np.random.rand(), torch.rand(1).item()  # noqa: NPY002

    assert draws(1) == draws(1)
    assert all(a != b for a, b in zip(draws(1), draws(2), strict=True))


def test_results_repeat_by_default():
    course_lib.start("laptop")
    assert torch.are_deterministic_algorithms_enabled()
    assert torch.is_deterministic_algorithms_warn_only_enabled()


def test_overrides_replace_fields():
    lab = course_lib.start("laptop", oracle_images=8, dataset="digits")
    assert (lab.profile.oracle_images, lab.profile.dataset) == (8, "digits")
    assert lab.profile.name == "laptop" and session.PROFILES["laptop"].oracle_images != 8


@pytest.mark.parametrize(
    ("arguments", "nearest"),
    [({"profile": "labtop"}, "laptop"), ({"oracle_image": 8}, "oracle_images"), ({"name": "ci"}, "name")],
)
def test_an_unknown_profile_or_field_is_answered_with_the_nearest(arguments, nearest):
    with pytest.raises(ValueError, match=nearest):
        session.choose(**{"profile": "ci", **arguments})


def test_the_search_for_garbage_leaves_out_what_is_there_when_a_session_starts():
    gc.unfreeze()
    session.start("ci")
    assert gc.get_freeze_count() > 10_000


def test_one_curve_is_a_list_of_one_and_not_of_letters():
    assert session.choose("ci", curves=["random"]).curves == ["random"]
    with pytest.raises(ValueError, match=r"curves='random': give a list of criteria, curves=\['random'\]"):
        session.choose("ci", curves="random")
    with pytest.raises(ValueError, match=r"update_budgets=20: give a list of numbers, update_budgets=\[20\]"):
        session.choose("ci", update_budgets=20)


def test_ci_is_the_smaller_and_no_profile_is_out_of_range():
    ci, laptop, paper = (session.PROFILES[name] for name in ("ci", "laptop", "paper"))
    for field in ("train_images", "test_images", "oracle_images", "score_images", "epochs", "updates", "seeds"):
        assert getattr(ci, field) < getattr(laptop, field)
    for profile in (ci, laptop, paper):
        assert 0 < profile.maps_left < 1
    assert (paper.dataset, paper.network, paper.image_size) == ("flowers102", "vgg16-imagenet", 224)


def test_splits_asks_for_the_profiles_data(monkeypatch):
    asked = {}
    monkeypatch.setattr(session.datasets, "load", lambda name, **options: asked.update(name=name, **options))
    lab = course_lib.start("ci", seed=5, train_images=7, test_images=None)
    lab.splits()
    assert asked == {"name": "petals", "image_size": 32, "root": None, "seed": 5, "train": 7}


def test_the_oracle_is_computed_for_all_maps_or_for_a_seeded_sample_of_each_layer():
    model = small_vgg()
    assert session.Lab(session.PROFILES["laptop"], 0, torch.device("cpu")).choice(model) is None
    few = session.choose("paper", oracle_maps=6)
    sample = session.Lab(few, 0, torch.device("cpu")).choice(model)
    assert {name: len(set(maps)) for name, maps in sample.items()} == {"0": 5, "3": 6, "5": 6}
    assert sample["0"] == [0, 1, 2, 3, 4] and all(maps == sorted(maps) for maps in sample.values())
    assert sample == session.Lab(few, 0, torch.device("cpu")).choice(model)
    assert sample != session.Lab(few, 1, torch.device("cpu")).choice(model)


def test_the_paper_takes_the_best_device_and_the_others_the_cpu(monkeypatch):
    monkeypatch.setattr(session, "_AVAILABLE", {"cuda": lambda: False, "mps": lambda: True, "cpu": lambda: True})
    assert session._device(None, best=True).type == "mps"
    assert session._device(None, best=False).type == "cpu"
    assert session._device("mps", best=False).type == "mps"
    with pytest.raises(ValueError, match="'cuda' is not available here. Available: mps, cpu"):
        session._device("cuda", best=True)
    with pytest.raises(ValueError, match="'gpu' is not available"):
        session._device("gpu", best=True)


def test_every_field_of_a_profile_is_described():
    for field in dataclasses.fields(session.Profile):
        assert field.name in session.Profile.__doc__.split("Attributes:")[1]


def test_importing_the_package_is_light_and_offers_its_names():
    code = "import sys, course_lib; assert 'torch' not in sys.modules; print(*dir(course_lib))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"start", "doctor", "explore", "models", "pruning"} <= set(run.stdout.split())


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'strat'"):
        course_lib.strat  # noqa: B018


@pytest.mark.parametrize(("cores", "few"), [(48, session.MOST_THREADS), (2, 2)])
def test_a_session_takes_few_threads_however_many_cores_there_are_but_the_papers_takes_all(monkeypatch, cores, few):
    asked = []
    monkeypatch.setattr(session.torch, "set_num_threads", asked.append)
    monkeypatch.setattr(session.torch, "get_num_threads", lambda: 48)
    monkeypatch.setattr(session.joblib, "cpu_count", lambda: cores)
    for profile in ("ci", "laptop", "paper"):
        course_lib.start(profile)
    assert asked == [few, few]


def test_small_matrices_are_multiplied_by_one_thread_and_torch_keeps_its_own():
    before = torch.get_num_threads()
    course_lib.start("ci")
    blas = [library for library in threadpoolctl.threadpool_info() if library["user_api"] == "blas"]
    assert blas and all(library["num_threads"] == 1 for library in blas)
    assert torch.get_num_threads() == before
