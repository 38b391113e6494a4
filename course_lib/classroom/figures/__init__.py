"""The figures of the course: one function each, data in, matplotlib Figure out."""

from course_lib.classroom.figures.oracle import (
    adding_up,
    agreement,
    closed_gate,
    closing_curves,
    halves,
    pairs,
    ranks_by_layer,
    sorted_effects,
)
from course_lib.classroom.figures.pictures import contact_sheet, feature_map_gallery
from course_lib.classroom.figures.pruning import (
    cost_by_layer,
    lead,
    map_counts,
    near_half,
    pruning_curves,
    realised_speed,
    shares,
    surviving_maps,
)
from course_lib.classroom.figures.style import layer_labels
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
    "adding_up",
    "agreement",
    "closed_gate",
    "closing_curves",
    "halves",
    "pairs",
    "ranks_by_layer",
    "sorted_effects",
    "layer_labels",
    "contact_sheet",
    "feature_map_gallery",
    "cost_by_layer",
    "lead",
    "map_counts",
    "near_half",
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
