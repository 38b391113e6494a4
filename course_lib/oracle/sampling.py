"""The statistics of the sampled oracle: guess every evaluation, draw the doubtful ones, weigh, and say how sure.

An evaluation is a pair of a picture and a closed gate. Everything here is done for the pairs of one layer at once:
N pictures and C feature maps.

Taught in: notebooks/06_oracle.ipynb.
"""

from __future__ import annotations

import torch
from torch import Tensor

from course_lib import derivatives

FLOOR = 0.1  # of a map's mean doubt, added to every pair: no residual is believed to be nothing
TINY = 1e-30  # instead of a division by nothing


def guess(logits: Tensor, slopes: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
    """What closing each gate would do to the loss if logits were linear in gates, and how much that is in doubt.

    Linear logits err about in proportion to how far they go, |slope|, and the loss listens to the logit of class k
    with the weight |q_k - [k is the label]|, q being the softmax there: doubt is the sum of the products.

    Args:
        logits: (N, outputs) with all gates open.
        slopes: (N, R, C), derivative of R of them by every gate; the other logits are taken to stay.
        classes: (N, R), which ones; the label's comes first.

    Returns:
        (N, C) change of the loss, in nats, and (N, C) doubt, not negative.
    """
    after, others, total = derivatives.closed(logits, slopes, classes)
    listens = (after - total[:, None]).exp()
    listens[:, 0] -= 1
    rest = (others - total).exp() * slopes.abs().mean(1)
    return derivatives.linear_change(logits, slopes, classes), (listens.abs() * slopes.abs()).sum(1) + rest


def with_floor(doubt: Tensor, alive: Tensor) -> Tensor:
    """Doubts (N, C) raised a little, so that a pair with a small one is drawn too, now and then.

    `alive`: (N, C), False where a map is zero on a picture. Closing it changes nothing there, and that is not in doubt.
    """
    floor = FLOOR * doubt.mean(0).clamp(min=FLOOR * float(doubt.mean()))
    return (doubt + floor).clamp(min=TINY) * alive


def chances(doubt: Tensor, share: float) -> Tensor:
    """Probabilities (N, C) of the pairs to be drawn: proportional to their doubt, but at most 1.

    Those of a map add up to its number of evaluations: a whole number next to share N, or as many as are in doubt.
    """
    doubt = doubt.double()
    maps = torch.arange(doubt.shape[1] + 1, dtype=torch.float64)
    each = (share * len(doubt) * maps + 1e-9).floor().diff().minimum((doubt > 0).sum(0))
    sure = torch.zeros_like(doubt, dtype=torch.bool)
    while True:
        rest = doubt.masked_fill(sure, 0.0)
        p = rest * ((each - sure.sum(0)) / rest.sum(0).clamp(min=TINY))
        more = (p > 1 - 1e-9) & ~sure
        if not more.any():
            return p.masked_fill(sure, 1.0)
        sure |= more


def draw(p: Tensor, generator: torch.Generator) -> Tensor:
    """Systematic sampling in random order: (N, C), True for the pairs drawn, each with its probability p.

    Lay the pairs of a map end to end, each as long as its p, and take those that hold one of the points u, u + 1,
    u + 2, ... for a random u. So every map has as many pairs drawn as its probabilities add up to.
    """
    order = torch.rand(p.shape, generator=generator).argsort(0)
    start = torch.rand(1, p.shape[1], generator=generator, dtype=torch.float64)
    ends = p.gather(0, order).cumsum(0) + start
    hit = ends.floor().diff(dim=0, prepend=start.floor()) > 0
    return torch.zeros_like(hit).scatter(0, order, hit) | (p == 1)


def horvitz_thompson(residuals: Tensor, doubt: Tensor, p: Tensor, drawn: Tensor) -> tuple[Tensor, Tensor]:
    """Mean residual of each map over all pictures from those drawn, and its standard error: (C,) each.

    A pair drawn with probability p stands for 1/p pairs (Horvitz and Thompson 1952), so the mean is unbiased. Its
    variance is half what the spread of the map's own residuals says, and half what its doubts predict, on the scale
    that fits the layer's maps: a few residuals of one map, of which some would be rare and large, are too few to tell.

    Args:
        residuals, doubt, p, drawn: (N, C). Residuals are looked at only where drawn.
    """
    weighed = torch.where(drawn, residuals / p.clamp(min=TINY), 0.0)
    predicted = torch.where(p > 0, (1 - p) / p.clamp(min=TINY) * doubt.double().square(), 0.0).sum(0)
    by_chance = drawn & (p < 1)
    n = by_chance.sum(0)
    mean = weighed.where(by_chance, 0.0).sum(0) / n.clamp(min=1)
    spread = ((weighed - mean).square() * (1 - p)).where(by_chance, 0.0).sum(0)
    own = spread * n / (n - 1).clamp(min=1)
    several = (n > 1) & (predicted > 0)
    scale = (own[several] / predicted[several]).mean() if several.any() else 0.0
    variance = torch.where(several, (own + scale * predicted) / 2, scale * predicted)
    return weighed.sum(0) / len(p), variance.sqrt() / len(p)
