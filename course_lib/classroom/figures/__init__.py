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

__all__ = [
    "contact_sheet",
    "feature_map_gallery",
    "cost_by_layer",
    "map_counts",
    "pruning_curves",
    "realised_speed",
    "shares",
    "surviving_maps",
]
