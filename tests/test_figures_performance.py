"""The figure of benchmarks shows the ratios that were recorded."""

import pandas as pd
import pytest
from drawing import drawn

from course_lib.classroom import figures, picture

pytestmark = pytest.mark.usefixtures("figure_style")


def test_ratios_are_where_they_were_measured():
    rows = [("small", "naive", 4.0, 2.0), ("small", "captum", 8.0, 2.0), ("large", "naive", 5.0, None)]
    rows.append(("large", "nobody", None, None))
    figure = drawn(figures.ratios(pd.DataFrame(rows, columns=["work", "against", "ratio", "arithmetic_limit"])))
    axes = figure.axes[0]
    assert {line.get_label(): list(line.get_xdata()) for line in axes.lines} == {
        "than naive": [4.0, 5.0],
        "than captum": [8.0],
    }
    assert axes.patches[0].get_width() == pytest.approx(2)
    assert "times faster" in picture.words(picture.closed(figure))
