"""Is it the weights or the shape? A lottery ticket on digits, and a pruned residual network trained from scratch.

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
from course_lib.classroom import checkpoints, results
from course_lib.datasets import Splits
from course_lib.feature_maps import copy_with

Masks = dict[str, Tensor]  # weight name -> True where the weight stays

DENSITIES = (0.5, 0.25, 0.12, 0.06, 0.03)
EPOCHS = (4, 12)  # of training the small network from scratch; the first is also that of fine-tuning


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
    for density in densities:
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


def scratch(splits: Splits, share: float = 0.5, epochs: Sequence[int] = EPOCHS, seed: int = 0) -> Iterator[dict]:
    """Remove a share of every layer's maps from the residual network, and train what is left in several ways.

    Yields:
        what, epochs and accuracy (on the test images) of: the network as it was and right after the cut; fine-tuned for
        `epochs[0]`, the maps chosen by the criterion of 2019 or at random; the same shape from new random weights, for
        each of `epochs`; and the same criterion and fine-tuning on a network that had been trained for 3 epochs only.
    """
    shape, ends = tuple(splits.train[0][0].shape), {}

    def row(what: str, model: nn.Module, trained: float) -> dict:
        ends[what] = training.evaluate(model, splits.test).accuracy
        numbers = {"macs": residual.macs(model, shape), "params": cost.parameters(model)}
        return {"what": what, "epochs": trained, "accuracy": ends[what], **numbers}

    def train(model: nn.Module, length: float, lr: float) -> nn.Module:
        training.fit(model, splits.train, epochs=length, lr=lr, augment=True, seed=seed, label=f"{length} epochs")
        return model

    begun = {"": models.trained("resnet-petals"), ", short start": checkpoints.train_residual(splits, 3, seed)}
    for name, big in begun.items():
        yield row(f"whole{name}", big, 3 if name else 12)
        small = residual.remove(big, cut(big, splits, share, seed), shape)
        yield row(f"right after the cut{name}", small, 0)
        yield row(f"fine-tuned{name}", train(copy_with(small, {}), epochs[0], 1e-3), epochs[0])
    generator = torch.Generator().manual_seed(seed)
    chance = {name: torch.rand(maps, generator=generator) for name, maps in counts(begun[""], shape).items()}
    some = residual.remove(begun[""], residual.lowest(chance, share), shape)
    yield row("fine-tuned, random maps", train(some, epochs[0], 1e-3), epochs[0])
    for length in epochs:
        torch.manual_seed(seed)
        yield row("from scratch", train(residual.ResNet(**small.sizes), length, 4e-3), length)


def cut(model: nn.Module, splits: Splits, share: float, seed: int, images: int = 640) -> dict[str, Tensor]:
    """The plan of the 2019 criterion: in every group this share of the maps."""
    coupled = residual.groups(model, tuple(splits.train[0][0].shape))
    slopes = residual.gate_slopes(model, datasets.batches(splits.train, images, seed=seed))
    return residual.lowest(residual.taylor_2019(slopes, coupled), share)


def counts(model: nn.Module, image_shape: tuple[int, ...]) -> dict[str, int]:
    """Feature maps of each group, by its first convolution."""
    makers = [group.makers[0] for group in residual.groups(model, image_shape)]
    return {name: model.get_submodule(name).out_channels for name in makers}


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
        splits = datasets.load("digits" if given.what == "lottery" else "petals", seed=seed)
        found = lottery(splits, seed=seed) if given.what == "lottery" else pd.DataFrame(scratch(splits, seed=seed))
        parts.append(found.assign(seed=seed))
        results.record(pd.concat(parts), out, command=command, seed=None)  # after every seed: nothing is lost
        print(parts[-1].to_string(float_format="{:.3f}".format), flush=True)


if __name__ == "__main__":
    main()
