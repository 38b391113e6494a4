"""Is it the weights or the shape? On digits: a lottery ticket, and a pruned residual network trained from scratch.

Frankle and Carbin, The Lottery Ticket Hypothesis, ICLR 2019; Liu et al., Rethinking the Value of Network Pruning, ICLR
2019. Taught in: notebooks/12_after_2017.ipynb.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn

from course_lib import cost, datasets, models, residual, training
from course_lib.classroom import results
from course_lib.datasets import Splits
from course_lib.feature_maps import Scores, copy_with
from course_lib.progress import track

Masks = dict[str, Tensor]  # weight name -> True where the weight stays

DENSITIES = (0.5, 0.25, 0.12, 0.06, 0.03)


class MaskedAdam(torch.optim.Adam):
    """Adam, and after each step the weights that are masked are zero again."""

    def __init__(self, model: nn.Module, masks: Masks, lr: float = 2e-3):
        super().__init__(model.parameters(), lr=lr)
        self.masked = [(model.get_parameter(name), mask) for name, mask in masks.items()]
        self.close()

    def step(self, closure=None):
        super().step(closure)
        self.close()

    @torch.no_grad()
    def close(self) -> None:
        for weight, mask in self.masked:
            weight.mul_(mask)


def largest(model: nn.Module, density: float) -> Masks:
    """Masks that keep this share of the weights of every layer (not biases), those of largest magnitude in it."""
    masks = {}
    for name, weight in model.named_parameters():
        if weight.dim() > 1:
            sizes = weight.detach().abs()
            threshold = sizes.flatten().sort(descending=True).values[max(1, round(density * weight.numel())) - 1]
            masks[name] = sizes >= threshold
    return masks


def shuffled(masks: Masks, seed: int) -> Masks:
    """As many weights stay in each layer, but others."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: mask.flatten()[torch.randperm(mask.numel(), generator=generator)].view_as(mask)
        for name, mask in masks.items()
    }


def lottery(
    splits: Splits, densities: Sequence[float] = DENSITIES, updates: int = 400, early: int = 80, seed: int = 0
) -> pd.DataFrame:
    """Iterative magnitude pruning with rewinding, and what the ticket is compared with: a row a trained network.

    Of every trained ticket the largest weights stay, are put back to where they began, and are trained again. At each
    density four networks are trained for as many updates: the ticket; its mask with new random weights; its mask with
    the trained weights of the dense network (fine-tuning); and the ticket's first weights in a shuffled mask.

    Returns:
        Columns what, density, early (test accuracy after so many updates) and accuracy (at the end).
    """
    pixels = splits.train[0][0].numel()

    def fresh(number: int) -> nn.Module:
        torch.manual_seed(number)
        return models.lenet_300_100(len(splits.classes), pixels=pixels, hidden=(100, 50))

    def train(start: nn.Module, masks: Masks) -> tuple[nn.Module, dict]:
        model = copy_with(start, {})
        how = {"optimizer": MaskedAdam(model, masks), "progress": False}
        training.fit(model, splits.train, updates=early, seed=seed, **how)
        soon = training.evaluate(model, splits.test).accuracy
        training.fit(model, splits.train, updates=updates - early, seed=seed + 1, **how)
        return model, {"early": soon, "accuracy": training.evaluate(model, splits.test).accuracy}

    first = fresh(seed)
    dense, found = train(first, {})
    rows, ticket = [{"what": "dense network", "density": 1.0, **found}], dense
    for density in track(densities, "tickets"):
        masks = largest(ticket, density)
        starts = {
            "winning ticket": (first, masks),
            "new random weights": (fresh(seed + 1000), masks),
            "fine-tuned": (dense, masks),
            "shuffled mask": (first, shuffled(masks, seed)),
        }
        for what, (start, kept) in starts.items():
            model, found = train(start, kept)
            ticket = model if what == "winning ticket" else ticket
            rows.append({"what": what, "density": density, **found})
    return pd.DataFrame(rows)


def scratch(
    splits: Splits, share: float = 0.5, epochs: int = 6, few: int = 2, short: int = 1, seed: int = 0
) -> Iterator[dict]:
    """Train a small residual network, remove a share of every layer's maps, and train what is left in several ways.

    Yields:
        what, epochs, accuracy (on the test images), macs and params of: the whole network, trained for all `epochs`,
        and right after the cut; fine-tuned for a `few`, the maps chosen by the criterion of 2019 or at random; the same
        shape from new random weights, for a `few` epochs and for all; and the same criterion and fine-tuning on a
        network that was stopped after a `short` training.
    """
    shape = tuple(splits.train[0][0].shape)

    def train(model: nn.Module, length: int) -> nn.Module:
        training.fit(model, splits.train, epochs=length, lr=4e-3, seed=seed)
        return model

    def fresh(number: int) -> nn.Module:
        torch.manual_seed(number)
        return residual.resnet(len(splits.classes), widths=(16, 32), blocks=1, in_channels=shape[0])

    def row(what: str, model: nn.Module, length: int) -> dict:
        numbers = {"macs": residual.macs(model, shape), "params": cost.parameters(model)}
        return {"what": what, "epochs": length, "accuracy": training.evaluate(model, splits.test).accuracy, **numbers}

    for name, length in ((", short start", short), ("", epochs)):
        big = train(fresh(seed), length)
        yield row(f"whole{name}", big, length)
        small = residual.remove(big, residual.lowest(importance(big, splits, seed), share), shape)
        yield row(f"right after the cut{name}", small, 0)
        yield row(f"fine-tuned{name}", train(copy_with(small, {}), few), few)
    generator = torch.Generator().manual_seed(seed)
    chance = {maker: torch.rand(len(s), generator=generator) for maker, s in importance(big, splits, seed).items()}
    some = residual.remove(big, residual.lowest(chance, share), shape)
    yield row("fine-tuned, random maps", train(some, few), few)
    for length in (few, epochs):
        torch.manual_seed(seed + 1000)
        yield row("from scratch", train(residual.ResNet(**small.sizes), length), length)


def importance(model: nn.Module, splits: Splits, seed: int, images: int = 640) -> Scores:
    """The criterion of 2019 on training images, for every group of coupled layers."""
    coupled = residual.groups(model, tuple(splits.train[0][0].shape))
    slopes = residual.gate_slopes(model, datasets.batches(splits.train, images, seed=seed))
    return residual.taylor_2019(slopes, coupled)


def main(arguments: list[str] | None = None) -> None:
    """Run one of the two experiments, once for each seed, and record the rows."""
    parser = argparse.ArgumentParser(prog="python -m course_lib.classroom.rethinking", description=main.__doc__)
    parser.add_argument("what", choices=["lottery", "scratch"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="one run for each (default: 0)")
    parser.add_argument("--out", type=Path, help="the table to write (default: results/<what>.csv)")
    given = parser.parse_args(arguments)
    out = given.out or Path("results") / f"{given.what}.csv"
    command, parts = f"{parser.prog} {given.what} --seeds {' '.join(map(str, given.seeds))}", []
    for seed in given.seeds:
        splits = datasets.load("digits")
        found = lottery(splits, seed=seed) if given.what == "lottery" else pd.DataFrame(scratch(splits, seed=seed))
        parts.append(found.assign(seed=seed))
        results.record(pd.concat(parts), out, command=command, seed=None)  # after every seed: nothing is lost
        print(parts[-1].to_string(float_format="{:.3f}".format), flush=True)


if __name__ == "__main__":
    main()
