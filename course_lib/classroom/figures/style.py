"""Names and colours: a criterion looks the same in every figure of the course."""

from __future__ import annotations

import seaborn

TITLES = {
    "linear_logits": "Linear logits",
    "second_order": "Second order",
    "taylor": "Taylor",
    "taylor_flops": "Taylor, FLOPs regularised",
    "obd": "OBD",
    "activation_mean": "Activation mean",
    "activation_std": "Activation s.d.",
    "apoz": "APoZ",
    "mutual_information": "Mutual information",
    "min_weight": "Minimum weight",
    "l1_norm": "L1 norm",
    "random": "Random",
    "scratch": "From scratch",
}
# seaborn's colour-blind safe palette; its grey, the eighth, is for random, which looks at nothing.
_PALETTE = seaborn.color_palette("colorblind", 10)
_GREY = _PALETTE.pop(7)
_PALETTE.append(_PALETTE.pop(7))  # yellow is faint on white: for the one that is drawn least
_OWN = {  # beside the palette's nine: darker than they are
    "linear_logits": (0.33, 0.15, 0.53),
    "second_order": (0.36, 0.23, 0.0),
    "random": _GREY,
    "scratch": (0.0, 0.0, 0.0),
}
COLOURS = dict(zip([name for name in TITLES if name not in _OWN], _PALETTE, strict=True)) | _OWN
MARKERS = dict(zip(TITLES, "pHos^vDPX*<>d", strict=True))


def title(name: str) -> str:
    """The name of a criterion as it stands in a figure; one of your own as you called it."""
    return TITLES.get(name, name.replace("_", " "))


def colour(name: str) -> tuple[float, float, float]:
    """The colour of a criterion, in every figure; black for one of your own."""
    return COLOURS.get(name, (0.0, 0.0, 0.0))


def layer_labels(names: list[str]) -> list[str]:
    """conv1_1 ... conv5_3 for the 13 layers of VGG-16, conv1 ... for other networks."""
    if len(names) == 13:
        return [f"conv{block}_{i}" for block, n in enumerate((2, 2, 3, 3, 3), 1) for i in range(1, n + 1)]
    return [f"conv{i}" for i in range(1, len(names) + 1)]
