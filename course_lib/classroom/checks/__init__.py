"""Exercises: a student's function against the library's own, and an answer that names the mistake.

In a notebook: ``checks.check("taylor", taylor)`` in the cell below the student's stub, ``checks.solution("taylor")`` in
the next. An exercise is one call of `add`: the library's function, random inputs, and the mistakes that are typical.
"""

# One module of exercises for each notebook; importing it adds them.
from course_lib.classroom.checks import (  # noqa: F401
    after_2017,
    baselines,
    comparison,
    description_length,
    evidence,
    oracle,
    over_complexity,
    prune_alexnet,
    prune_vgg16,
    taylor,
    vc_dimension,
    weight_sharing,
)
from course_lib.classroom.checks.engine import EXERCISES, check, find, judge, solution

__all__ = ["EXERCISES", "check", "find", "judge", "solution"]
