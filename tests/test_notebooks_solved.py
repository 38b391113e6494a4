"""Every notebook with the reference solutions written into its stubs, in profile `ci`: all checks say Right."""

import nbformat
import pytest

from course_lib.classroom import runner, solved


@pytest.mark.parametrize("path", runner.numbered(), ids=lambda path: path.stem)
def test_once_it_is_solved_every_check_says_right(path, tmp_path):
    # Where nothing but the check looks at an answer, the lesson is the same as unsolved, and is left out here.
    copy = solved.write(path, tmp_path / "solved" / path.name, checks_alone=not solved.uses_answers(path))
    (outcome,) = runner.run([copy], tmp_path, profile="ci")
    assert outcome.error == ""
    ran = [cell for cell in nbformat.read(tmp_path / path.name, as_version=4).cells if "check" in cell.metadata.tags]
    assert len(ran) >= 2 and all(cell.outputs[0].text.startswith("Right: ") for cell in ran)
