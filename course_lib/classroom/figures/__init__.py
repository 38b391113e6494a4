"""The figures of the course: one function each, data in, matplotlib Figure out."""

from course_lib.classroom.figures.pictures import contact_sheet, feature_map_gallery
from course_lib.classroom.figures.pruning import (
    cost_by_layer,
    map_counts,
    pruning_curves,
    realised_speed,
    shares,
    surviving_maps,
)
from course_lib.classroom.figures.taylor import (
    correlations,
    criterion_scatter,
    estimates,
    expansion,
    half_normal,
    loss_along_gate,
    orders,
    scales,
)

__all__ = [
    "contact_sheet",
    "feature_map_gallery",
    "cost_by_layer",
    "map_counts",
    "pruning_curves",
    "realised_speed",
    "shares",
    "surviving_maps",
    "correlations",
    "criterion_scatter",
    "estimates",
    "expansion",
    "half_normal",
    "loss_along_gate",
    "orders",
    "scales",
]
