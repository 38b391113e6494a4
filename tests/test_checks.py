"""Checks of exercises: each says what is wrong, in a student's words."""

import re

import pytest
import torch

from course_lib import criteria, ranking
from course_lib.classroom import checks

NAMES = sorted(checks.EXERCISES)
MISTAKES = [(name, sentence) for name in NAMES for sentence in checks.EXERCISES[name].mistakes]


@pytest.mark.parametrize("name", NAMES)
def test_the_reference_is_right(name):
    assert checks.judge(name, checks.EXERCISES[name].reference).kind == "right"


@pytest.mark.parametrize("name", NAMES)
def test_a_stub_is_not_started(name):
    def raises(*_):
        raise NotImplementedError

    for stub in (lambda *_: ..., lambda *_: None, raises):
        assert checks.judge(name, stub).kind == "not started"


@pytest.mark.parametrize(("name", "sentence"), MISTAKES)
def test_every_typical_mistake_is_named(name, sentence):
    verdict = checks.judge(name, checks.EXERCISES[name].mistakes[sentence])
    assert verdict.kind == "mistake" and sentence in verdict.sentence


@pytest.mark.parametrize("name", NAMES)
def test_there_are_at_least_two_mistakes_and_a_solution_to_show(name):
    assert len(checks.EXERCISES[name].mistakes) >= 2
    page = checks.solution(name).data
    assert page.startswith("<details><summary>") and "def" in page


def test_check_prints_one_sentence(capsys):
    assert checks.check("taylor", lambda maps: None) is None
    assert capsys.readouterr().out == "Not started yet: your function returns nothing.\n"


def test_what_was_raised_is_said_with_the_students_line():
    def taylor(maps):
        product = maps.gradient * maps.z
        return product.mean("everywhere")

    verdict = checks.judge("taylor", taylor)
    assert verdict.kind == "raised"
    assert 'return product.mean("everywhere")' in verdict.sentence
    assert "(3, 4, 5, 6)" in verdict.sentence


def test_a_wrong_shape_tells_both():
    verdict = checks.judge("taylor", lambda maps: (maps.gradient * maps.z).abs())
    assert verdict.kind == "wrong shape"
    assert "(3, 4, 5, 6)" in verdict.sentence and "(3, 4)" in verdict.sentence
    assert checks.judge("l2", lambda scores: scores["conv1"]).kind == "wrong shape"
    assert checks.judge("taylor", lambda maps: "done").kind == "wrong shape"


def test_wrong_values_show_an_example():
    verdict = checks.judge("taylor", lambda maps: 2 * criteria.taylor(maps))
    assert verdict.kind == "wrong values"
    yours, right = re.search(r"you have ([-\d.e]+), expected is ([-\d.e]+)", verdict.sentence).groups()
    assert float(yours) == pytest.approx(2 * float(right), rel=1e-3)


def test_a_function_may_change_its_input():
    def taylor(maps):
        maps.z.mul_(maps.gradient)
        return maps.z.mean(maps.positions).abs()

    assert checks.judge("taylor", taylor).kind == "right"


def test_lists_and_numpy_are_numbers_too():
    assert checks.judge("taylor", lambda maps: criteria.taylor(maps).numpy()).kind == "right"
    assert checks.judge("taylor", lambda maps: criteria.taylor(maps).tolist()).kind == "right"


def test_the_short_references_agree_with_the_library():
    for scores, n in checks.find("lowest").inputs(torch.Generator().manual_seed(1)):
        ours, librarys = checks.find("lowest").reference(scores, n), ranking.lowest(scores, n)
        assert {name: maps.tolist() for name, maps in ours.items()} == {k: v.tolist() for k, v in librarys.items()}


def test_an_unknown_exercise_is_answered_with_the_nearest():
    with pytest.raises(KeyError, match="Did you mean 'taylor'"):
        checks.judge("tailor", lambda maps: None)


def test_an_input_that_does_not_say_what_it_is_goes_by_its_type():
    verdict = checks.judge("change_of_loss", lambda chain, *rest: 1 / 0)
    assert "on Chain, an array of shape (5, 2, 6, 6)" in verdict.sentence
