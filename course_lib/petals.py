"""Procedural flowers: a fine-grained image classification task made of numbers.

A *species* is a handful of numbers about shape: how many petals, how wide, how pointed. Everything else in a picture
(colour, pattern, pose, light, background) is left to chance and shared by all species, so that a classifier has to
learn shapes. The drawing is plain arithmetic on all pixels at once, and this file goes in the order in which a picture
is made: species, dice, shape, colour, surroundings, composition.

Shapes: `N` images of `S` by `S` pixels. One number an image is (N, 1, 1), one number a pixel (N, S, S), a colour
(N, 3, 1, 1), a picture (N, 3, S, S). The picture reaches from -1 to 1 in x and y, a petal from 0 to 1.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import torch

CHUNK = 64  # images drawn at once: enough to keep the processor busy, few enough for its cache
DICE = 160  # random numbers an image has for everything but the noise of its pixels (129 are in use)
STREAMS = ("train", "val", "test", "world train", "world val", "world test", "species")  # independent random numbers

# ------------------------------------------------------------------------------------------------------------ species


@dataclass(frozen=True)
class Species:
    """What all flowers of one kind have in common.

    A petal's outline is width * x^base * (1 - x)^tip, x from the centre to the tip: a large `base` makes a narrow foot,
    a small `tip` a blunt end, a large one a point. `width` is relative to the petal's share of the circle, `notch` the
    depth of the cut in its end, `skew` how far it leans sideways; `centre` is one of CENTRES and `size` its radius.
    """

    name: str
    petals: int
    layers: int
    width: float
    base: float
    tip: float
    notch: float
    skew: float
    centre: str
    size: float


SPECIES = (  # the first ten are the default task
    #       name       petals layers width base  tip  notch skew  centre   size
    Species("trillium", 3, 1, 0.85, 0.80, 0.80, 0.00, 0.00, "star", 0.20),
    Species("dogwood", 4, 1, 1.00, 0.80, 0.30, 0.22, 0.00, "disc", 0.16),
    Species("buttercup", 5, 1, 1.20, 0.75, 0.22, 0.00, 0.00, "ring", 0.28),
    Species("periwinkle", 5, 1, 0.95, 0.95, 0.25, 0.00, 0.60, "star", 0.14),
    Species("lily", 6, 1, 0.72, 0.60, 0.95, 0.00, 0.00, "ring", 0.30),
    Species("daffodil", 6, 1, 0.95, 0.55, 0.60, 0.00, 0.00, "trumpet", 0.44),
    Species("cosmos", 8, 1, 0.95, 0.95, 0.22, 0.10, 0.00, "disc", 0.20),
    Species("daisy", 18, 1, 0.85, 0.60, 0.25, 0.00, 0.00, "disc", 0.32),
    Species("dahlia", 13, 3, 1.05, 0.80, 0.60, 0.00, 0.00, "disc", 0.14),
    Species("camellia", 6, 3, 1.30, 0.70, 0.22, 0.06, 0.00, "ring", 0.16),
    Species("snowdrop", 3, 2, 0.62, 0.85, 0.42, 0.00, 0.00, "disc", 0.10),
    Species("poppy", 4, 1, 1.40, 0.60, 0.12, 0.00, 0.00, "ring", 0.30),
    Species("wallflower", 4, 1, 0.75, 0.95, 0.18, 0.00, 0.00, "disc", 0.11),
    Species("primrose", 5, 1, 1.10, 0.90, 0.22, 0.26, 0.00, "star", 0.24),
    Species("borage", 5, 1, 0.72, 0.55, 1.10, 0.00, 0.00, "cone", 0.20),
    Species("turk's cap lily", 6, 1, 0.50, 0.60, 0.80, 0.00, 0.40, "ring", 0.34),
    Species("crocus", 6, 2, 0.95, 0.80, 0.45, 0.00, 0.00, "star", 0.22),
    Species("anemone", 8, 1, 1.15, 0.65, 0.40, 0.00, 0.00, "ring", 0.36),
    Species("coneflower", 13, 1, 0.70, 0.70, 0.30, 0.08, 0.00, "cone", 0.36),
    Species("aster", 20, 2, 0.65, 0.60, 0.60, 0.00, 0.00, "disc", 0.22),
)


class Centre(NamedTuple):
    """How a kind of centre is drawn: depth of the rays cut into its outline, darkness of the hole in it, a ring of
    stamens (1) instead of a disc (0), height above the petals, grain of the surface."""

    rays: float
    hole: float
    ring: float
    height: float
    grain: float


CENTRES = {
    "disc": Centre(rays=0.0, hole=0.0, ring=0.0, height=0.0, grain=0.35),
    "ring": Centre(rays=0.0, hole=0.0, ring=1.0, height=0.0, grain=0.0),
    "star": Centre(rays=0.6, hole=0.0, ring=0.0, height=0.0, grain=0.0),
    "trumpet": Centre(rays=0.12, hole=0.75, ring=0.0, height=0.15, grain=0.0),
    "cone": Centre(rays=0.0, hole=0.0, ring=0.0, height=0.45, grain=0.6),
}


def world(count: int) -> list[Species]:
    """`count` invented species to pre-train on; the i-th is the same however many are asked for."""
    dice = Dice(range(count), seed=0, stream="species")
    shape = {
        "petals": dice.uniform(math.log(3), math.log(21)).exp().floor().int(),
        "layers": (1 + dice.chance(0.4) + dice.chance(0.2)).int(),
        "width": dice.uniform(0.5, 1.35),
        "base": dice.uniform(0.55, 1.0),
        "tip": dice.uniform(0.12, 1.1),
        "notch": dice.chance(0.3) * dice.uniform(0.08, 0.28),
        "skew": dice.chance(0.25) * dice.uniform(0.2, 0.7),
        "centre": dice.whole(0, len(CENTRES) - 1).int(),
        "size": dice.uniform(0.1, 0.4),
    }
    rows = zip(*(values.flatten().tolist() for values in shape.values()), strict=True)
    kinds = list(CENTRES)
    invented = (Species(f"world {i}", *row) for i, row in enumerate(rows))
    return [replace(species, centre=kinds[species.centre]) for species in invented]


def _table(species: Sequence[Species]) -> SimpleNamespace:
    """The numbers of one species an image, those of its centre among them: a tensor (N, 1, 1) each."""
    rows = [{**vars(one), **CENTRES[one.centre]._asdict()} for one in species]
    numbers = [key for key in rows[0] if key not in ("name", "centre")]
    return SimpleNamespace(**{key: torch.tensor([float(row[key]) for row in rows]).view(-1, 1, 1) for key in numbers})


# --------------------------------------------------------------------------------------------------------------- dice


class Dice:
    """Random numbers of the images with the given indices: each has its own stream, so it never depends on the others.

    Philox is counter based: (seed, stream, index) name a place in its sequence, the same on every platform. Each method
    throws once for every image and returns a tensor (N, 1, 1).
    """

    def __init__(self, indices: Iterable[int], seed: int, stream: str, pixels: int = 0):
        key, noise = [seed, STREAMS.index(stream)], math.ceil(pixels / 8)
        raw = [np.random.Philox(key=key, counter=[0, 0, 0, i]).random_raw(DICE + noise) for i in indices]
        raw = np.stack(raw)
        self._uniform = torch.from_numpy((raw[:, :DICE] >> np.uint64(40)).astype(np.float32) / 2**24)
        self.noise = torch.from_numpy(raw[:, DICE:].astype("<u8").view(np.uint8)[:, :pixels])
        self._used = 0

    def __len__(self) -> int:
        return len(self._uniform)

    def uniform(self, low: float = 0.0, high: float = 1.0) -> torch.Tensor:
        self._used += 1
        return low + (high - low) * self._uniform[:, self._used - 1].view(-1, 1, 1)

    def whole(self, low: int, high: int) -> torch.Tensor:
        """A whole number from `low` to `high`, both included."""
        return self.uniform(low, high + 1).floor()

    def chance(self, probability: float) -> torch.Tensor:
        """1 with this probability, else 0."""
        return (self.uniform() < probability).float()

    def angle(self) -> torch.Tensor:
        return self.uniform(-math.pi, math.pi)

    def colour(self, palette: torch.Tensor, spread: float = 0.06) -> torch.Tensor:
        """A colour of the palette, every channel a little off: (N, 3, 1, 1)."""
        colour = palette[self.whole(0, len(palette) - 1).long().flatten()]
        off = torch.cat([self.uniform(-spread, spread) for _ in range(3)], dim=1)
        return (colour[:, :, None] + off).clamp(0, 1)[..., None]


# -------------------------------------------------------------------------------------------------------------- shape


def _grid(size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """x and y of every pixel's middle, (1, S) and (S, 1); y points down."""
    line = (torch.arange(size) + 0.5) * (2 / size) - 1
    return line.view(1, -1), line.view(-1, 1)


def _ramp(x: torch.Tensor, width: torch.Tensor | float) -> torch.Tensor:
    """0 for x below -width / 2, 1 above width / 2, a straight line between: a soft edge."""
    return (x / width + 0.5).clamp(0, 1)


def _pose(dice: Dice, size: int) -> SimpleNamespace:
    """Where the flower is and how it is turned: u, v and polar r, angle of every pixel, in the flower's own plane."""
    x, y = _grid(size)
    radius, squash, axis = dice.uniform(0.45, 0.9), dice.uniform(0.5, 1.0), dice.angle()
    x, y = x - dice.uniform(-0.28, 0.28), y - dice.uniform(-0.3, 0.22)
    u = (x * axis.cos() + y * axis.sin()) / radius
    v = (y * axis.cos() - x * axis.sin()) / (radius * squash)
    nearness = 1 + dice.uniform(-0.18, 0.18) * v  # perspective: the near side is larger
    u, v = u * nearness, v * nearness
    return SimpleNamespace(u=u, v=v, r=torch.hypot(u, v), angle=torch.atan2(v, u), pixel=2 / (size * radius),
                           squash=squash, spin=dice.angle())  # fmt: skip


def _individual(form: SimpleNamespace, dice: Dice) -> SimpleNamespace:
    """No two flowers of a species are alike."""
    for key, spread in {"width": 0.15, "base": 0.1, "tip": 0.25, "size": 0.2, "skew": 0.2, "notch": 0.2}.items():
        setattr(form, key, getattr(form, key) * dice.uniform(1 - spread, 1 + spread))
    return form


def _petals(form: SimpleNamespace, pose: SimpleNamespace, dice: Dice) -> SimpleNamespace:
    """All layers of petals, the largest first: how much of a pixel they cover, which part of a petal it shows."""
    ragged, phase = dice.uniform(0.0, 0.09), dice.angle()
    flower = SimpleNamespace(cover=0.0, along=0.0, across=0.0, edge=0.0, odd=0.0, shade=1.0)
    for layer, length in enumerate((1.0, 0.7, 0.42)):
        there = form.layers > layer
        petal = _petal(form, pose, layer, length, ragged, phase)
        if layer:
            flower.shade = flower.shade * (1 - 0.35 * there * (1 + petal.edge / 0.12).clamp(0, 1))  # its shadow
        cover = _ramp(petal.edge, pose.pixel) * there
        for key, value in {**vars(petal), "cover": 1.0, "shade": 1.0}.items():
            below = getattr(flower, key)
            setattr(flower, key, below + cover * (value - below))
    return flower


def _petal(form, pose, layer: int, length: float, ragged, phase) -> SimpleNamespace:
    """One layer: for every pixel its place on the nearest petal, and how far inside that petal's edge it is."""
    turn = pose.angle * (form.petals / (2 * math.pi)) + pose.spin + 0.5 * layer + form.skew * pose.r
    number = turn.round()
    across = (turn - number).abs()  # 0 in the middle of a petal, 1/2 between two
    number = number % form.petals

    cut = form.notch * (1 - across * 6).clamp(min=0)
    uneven = ragged * (number * 2.4 + phase).sin() * (1 - 4 * across * across)  # no two petals are of one length
    along = pose.r / (length * (1 + uneven) * (1 - cut))  # 0 at the foot, 1 at the tip

    inside = along.clamp(0.001, 0.999)
    widest = form.base / (form.base + form.tip)
    scale = form.base * widest.log() + form.tip * (1 - widest).log() - (widest * form.width / 2).log()
    outline = (form.base * inside.log() + form.tip * (1 - inside).log() - scale).exp()  # half the width at this place
    share = 2 * math.pi * length / form.petals
    edge = torch.minimum((outline - across * along) * share, (1 - along) * length)
    return SimpleNamespace(along=along, across=across, edge=edge, odd=number % 2)


def _centre(form: SimpleNamespace, pose: SimpleNamespace, dice: Dice) -> SimpleNamespace:
    """The middle of the flower: cover and shade of every pixel."""
    size = form.size
    u, v = pose.u, pose.v + form.height * size * (1 - pose.squash) * 2
    wave = (pose.angle * form.petals.clamp(min=5)).cos()
    r = torch.hypot(u, v) / size
    disc = _ramp(1 - 0.5 * form.rays * (1 + wave) - r, pose.pixel / size)
    stamens = _ramp(0.3 - (r - 0.75).abs(), pose.pixel / size) * (0.6 + 0.4 * (pose.angle * 17).cos())
    stamens = torch.maximum(stamens, _ramp(0.35 - r, pose.pixel / size))
    grain = 1 + form.grain * (u * 37).sin() * (v * 37).sin()
    shade = grain * (1.1 - 0.4 * r * r) * (1 - form.hole * _ramp(0.6 - r, 0.5))
    return SimpleNamespace(cover=torch.lerp(disc, stamens, form.ring), shade=shade.clamp(0, 1.4))


# ------------------------------------------------------------------------------------------------------------- colour

PETAL_COLOURS = torch.tensor([
    [0.97, 0.96, 0.94], [0.98, 0.92, 0.72], [0.98, 0.84, 0.18], [0.96, 0.58, 0.14], [0.86, 0.16, 0.14],
    [0.96, 0.66, 0.74], [0.86, 0.22, 0.52], [0.52, 0.20, 0.62], [0.30, 0.34, 0.80], [0.72, 0.66, 0.92],
])  # fmt: skip
CENTRE_COLOURS = torch.tensor([
    [0.98, 0.80, 0.16], [0.90, 0.56, 0.12], [0.42, 0.24, 0.12], [0.22, 0.12, 0.14], [0.66, 0.74, 0.28],
    [0.96, 0.92, 0.78],
])  # fmt: skip
GREENS = torch.tensor([[0.22, 0.44, 0.18], [0.32, 0.52, 0.22], [0.16, 0.34, 0.20], [0.42, 0.54, 0.30]])
BACKGROUNDS = torch.tensor([
    [0.16, 0.28, 0.14], [0.30, 0.42, 0.22], [0.44, 0.52, 0.34], [0.34, 0.27, 0.18], [0.52, 0.62, 0.70],
    [0.10, 0.12, 0.11],
])  # fmt: skip


def _pattern(flower: SimpleNamespace, pose: SimpleNamespace, dice: Dice) -> torch.Tensor:
    """Where petals show their second colour, from 0 to 1: one of eight patterns, by chance."""
    along, across = flower.along, flower.across
    patterns = (
        torch.zeros_like(along),  # plain
        _ramp(0.42 - along, 0.2),  # eye
        _ramp(0.05 - flower.edge, 0.05),  # picotee: a coloured edge
        0.7 * (across * 28).cos().clamp(min=0) * (1.1 - along).clamp(0, 1),  # veins
        _ramp((pose.u * 21).sin() * (pose.v * 21).sin() - 0.45, 0.3),  # spots
        (1 - ((along - 0.4) * 5).square() - (across * 5).square()).clamp(min=0),  # blotch
        _ramp(along - 0.78, 0.2),  # tip
        0.8 * flower.odd,  # every other petal
    )
    which = dice.whole(0, len(patterns) - 1)
    return sum(pattern * (which == i) for i, pattern in enumerate(patterns))


def _light(flower: SimpleNamespace, pose: SimpleNamespace, dice: Dice) -> torch.Tensor:
    """Brightness of the petals: light from one side, darker towards the foot and between two petals."""
    way, strength = dice.angle(), dice.uniform(0.05, 0.3)
    side = 1 + strength * (pose.u * way.cos() + pose.v * way.sin())
    relief = (0.72 + 0.4 * flower.along).clamp(max=1.05) - dice.uniform(0.2, 0.5) * (2 * flower.across) ** 3
    return flower.shade * side * relief * (0.7 + 4 * flower.edge).clamp(0.7, 1)


# ------------------------------------------------------------------------------------------------------- surroundings


def _background(dice: Dice, size: int) -> torch.Tensor:
    """Far leaves, earth and sky, out of focus, and flowers far behind as discs of light (bokeh): (N, 3, S, S)."""
    corners = torch.stack([dice.colour(BACKGROUNDS, 0.1).flatten(1) for _ in range(6)], dim=2).view(-1, 3, 3, 2)
    picture = torch.nn.functional.interpolate(corners, size=(size, size), mode="bilinear", align_corners=True)
    x, y = _grid(size)
    for _ in range(4):
        radius, strength = dice.uniform(0.08, 0.4), dice.uniform(0.0, 0.7)
        r = torch.hypot(x - dice.uniform(-1, 1), y - dice.uniform(-1, 1))
        cover = _ramp(radius - r, 0.1) * strength
        picture = torch.lerp(picture, dice.colour(PETAL_COLOURS), cover[:, None])
    return picture


def _leaf(dice: Dice, size: int, near: float) -> SimpleNamespace:
    """A leaf pointing anywhere, its foot `near` the middle of the picture: cover and shade."""
    x, y = _grid(size)
    way, width, length = dice.angle(), dice.uniform(0.12, 0.26), dice.uniform(0.8, 1.5)
    x, y = x - near * dice.uniform(-1, 1), y - near * dice.uniform(-1, 1)
    along = (x * way.cos() + y * way.sin()) / length
    across = y * way.cos() - x * way.sin() + 0.3 * (along - 0.5) ** 2
    edge = width * 4 * along * (1 - along) - across.abs()
    shade = 0.75 + 0.35 * _ramp(across, 0.06) - 0.3 * _ramp(0.015 - across.abs(), 0.03)
    return SimpleNamespace(cover=_ramp(edge, 2 / size), shade=shade)


def _stem(dice: Dice, size: int) -> torch.Tensor:
    """Cover of a bent stem from the middle to the lower edge."""
    x, y = _grid(size)
    across = (x - dice.uniform(-0.1, 0.1) - dice.uniform(-0.35, 0.35) * y * y).abs()
    return _ramp(dice.uniform(0.025, 0.06) - across, 2 / size) * _ramp(y, 0.1)


# -------------------------------------------------------------------------------------------------------- composition


def _paint(picture: torch.Tensor, colour: torch.Tensor, cover: torch.Tensor, shade: torch.Tensor) -> torch.Tensor:
    return torch.lerp(picture, colour * shade[:, None], cover[:, None])


def _flower(picture: torch.Tensor, species: Sequence[Species], dice: Dice, size: int) -> torch.Tensor:
    """The picture with a flower painted over it."""
    form, pose = _individual(_table(species), dice), _pose(dice, size)
    flower = _petals(form, pose, dice)
    first, second = dice.colour(PETAL_COLOURS), dice.colour(PETAL_COLOURS)
    colour = torch.lerp(first, second, _pattern(flower, pose, dice)[:, None])
    picture = _paint(picture, colour, flower.cover, _light(flower, pose, dice))
    centre = _centre(form, pose, dice)
    return _paint(picture, dice.colour(CENTRE_COLOURS), centre.cover, centre.shade)


def _camera(picture: torch.Tensor, dice: Dice) -> torch.Tensor:
    """Exposure, tint of the light and noise of the sensor; bytes from 0 to 255."""
    exposure = dice.uniform(0.7, 1.25)[..., None]
    tint = torch.cat([dice.uniform(0.92, 1.08) for _ in range(3)], dim=1)[..., None]
    noise = dice.noise.view_as(picture).float() - 127.5
    picture = picture * (255 * exposure * tint) + noise * dice.uniform(0.02, 0.16)[..., None]
    return picture.round().clamp(0, 255).byte()


def render(species: Sequence[Species], dice: Dice, size: int) -> torch.Tensor:
    """One picture of each of the given species, drawn with the given dice: bytes (N, 3, S, S)."""
    picture = _background(dice, size)
    green = dice.colour(GREENS)
    picture = _paint(picture, green, _stem(dice, size), torch.ones(1, 1, 1))
    for _ in range(2):
        leaf = _leaf(dice, size, near=0.4)
        picture = _paint(picture, dice.colour(GREENS), leaf.cover, leaf.shade)
    picture = _flower(picture, species, dice, size)
    for _ in range(2):  # in front of the flower, now and then
        leaf = _leaf(dice, size, near=0.9)
        picture = _paint(picture, green, leaf.cover * dice.chance(0.35), leaf.shade)
    return _camera(picture, dice)


def chunks(species: Sequence[Species], count: int, size: int, seed: int, stream: str) -> Iterator[torch.Tensor]:
    """Images 0 to count - 1 in portions of CHUNK; image i shows species[i % len(species)].

    All portions are drawn in full and by one thread, so that an image has the same bytes whatever `count` is and
    however many threads there are.
    """
    for start in range(0, count, CHUNK):
        indices = range(start, start + CHUNK)
        with _one_thread():
            dice = Dice(indices, seed, stream, pixels=3 * size * size)
            images = render([species[i % len(species)] for i in indices], dice, size)
        yield images[: count - start]


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
