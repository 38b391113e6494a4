"""Soft weight-sharing: one mixture of Gaussians is the prior of all weights and learns with them.

Weights gather around the components' means; one component stays at zero and takes the weights that can go. Then near
components are merged, every weight becomes the mean of its component, and few different numbers are left to store
(`weight_code`).

Ullrich, Meeds and Welling, Soft Weight-Sharing for Neural Network Compression (ICLR 2017), after Nowlan and Hinton
(1992). Everything is in nats unless it says bits.

Taught in: notebooks/11_soft_weight_sharing.ipynb.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from course_lib import loss
from course_lib.feature_maps import device_of, place
from course_lib.progress import track

PORTION = 2**14  # weights at a time: their (W, J) table stays in the processor's cache, which halves the time


class Components(NamedTuple):
    """A mixture of J Gaussians, component 0 the one at zero: three tensors (J,).

    Shares and variances as logarithms, so that neither a share of 1e-60 nor a tight component is rounded away.
    """

    means: Tensor
    log_variances: Tensor
    log_shares: Tensor

    @property
    def shares(self) -> Tensor:
        return self.log_shares.exp()

    @property
    def variances(self) -> Tensor:
        return self.log_variances.exp()

    @property
    def deviations(self) -> Tensor:
        return (self.log_variances / 2).exp()


def log_joint(weights: Tensor, components: Components) -> Tensor:
    """log(pi_j N(w_i | mu_j, sigma_j^2)): (W,) weights -> (W, J). Term of the sum in eq. 5."""
    height = components.log_shares - (math.log(2 * math.pi) + components.log_variances) / 2
    return height - ((weights[:, None] - components.means) / (math.sqrt(2) * components.deviations)).square()


def log_density(weights: Tensor, components: Components) -> Tensor:
    """log p(w) of each weight under the mixture: (W,) -> (W,). Eq. 5, summed without leaving the logarithms."""
    return log_joint(weights, components).logsumexp(1)


def responsibilities(weights: Tensor, components: Components) -> Tensor:
    """p(component j | w): (W,) -> (W, J); every row sums to one."""
    return log_joint(weights, components).softmax(1)


class Width(NamedTuple):
    """A Gamma hyper-prior of a component's precision 1 / sigma^2, with mean 1 / deviation^2.

    It has shape `strength` and rate `strength * deviation^2`, and so pulls as 2 (`strength` - 1) more weights would,
    whose squares add up to 2 `strength * deviation^2`.
    """

    deviation: float
    strength: float


class Prior(nn.Module):
    """The mixture as a module that learns: its parameters are means, logarithms of precisions, and of shares.

    Args:
        weights: (W,) the trained weights, over whose range the free means are spread evenly.
        free: number of free components; the one at zero comes on top (the paper has 16 + 1).
        zero_share: the fixed share pi_0 of the component at zero.
        zero_width, free_width: the components' hyper-priors. All components start as wide as the means are apart, so
            that neighbours overlap: the one at zero has to gather weights before it may narrow.
    """

    def __init__(self, weights: Tensor, *, free: int, zero_share: float, zero_width: Width, free_width: Width):
        super().__init__()
        if not 0 < zero_share < 1:
            raise ValueError(f"zero_share is a share between 0 and 1, not {zero_share}: the paper has 0.999.")
        low, high = float(weights.min()), float(weights.max())
        self.means = nn.Parameter(torch.linspace(low, high, free))
        self.log_precisions = nn.Parameter(torch.full((free + 1,), -2 * math.log((high - low) / free)))
        self.log_odds = nn.Parameter(torch.zeros(free))
        self.zero_share, self.zero_width, self.free_width = zero_share, zero_width, free_width
        self.to(weights.device)

    def components(self) -> Components:
        """The mixture as it is now; gradients flow."""
        means = torch.cat([self.means.new_zeros(1), self.means])
        free = math.log1p(-self.zero_share) + self.log_odds.log_softmax(0)
        return Components(means, -self.log_precisions, torch.cat([free.new_tensor([math.log(self.zero_share)]), free]))

    def forward(self, weights: Tensor) -> Tensor:
        """-log p(w, precisions): a scalar in nats, hyper-priors included. The complexity L^C of eq. 6 and 7."""
        zero, free = self.log_precisions[:1], self.log_precisions[1:]
        hyper = log_gamma(zero, self.zero_width).sum() + log_gamma(free, self.free_width).sum()
        components = self.components()
        return -sum(log_density(part, components).sum() for part in weights.split(PORTION)) - hyper


def log_gamma(log_precisions: Tensor, width: Width) -> Tensor:
    """log density of the Gamma hyper-prior at each precision."""
    shape, rate = width.strength, width.strength * width.deviation**2
    constant = shape * math.log(rate) - math.lgamma(shape)
    return constant + (shape - 1) * log_precisions - rate * log_precisions.exp()


# ------------------------------------------------------------------------------------------------------- the weights


def matrices(model: nn.Module) -> dict[str, Tensor]:
    """{layer: (outputs, inputs + 1)}: weights and, as the last column, biases: a bias is the weight of an input 1.

    Convolutions are flattened to (maps, channels * K * K + 1). Gradients flow.

    Raises:
        ValueError: a layer with other parameters, such as batch norm, which this course folds into the convolution
            before compressing.
    """
    found = {}
    for name, layer in model.named_modules():
        own = dict(layer.named_parameters(recurse=False))
        if isinstance(layer, nn.Linear | nn.Conv2d):
            columns = [layer.weight.flatten(1)] + ([] if layer.bias is None else [layer.bias[:, None]])
            found[name] = torch.cat(columns, 1)
        elif own:
            raise ValueError(
                f"Layer {name!r} ({type(layer).__name__}) has parameters of its own; only linear and convolutional "
                "layers are shared. Fold batch norm into the convolution before it."
            )
    return found


def flat_weights(model: nn.Module) -> Tensor:
    """All weights and biases of the model, (W,), layer by layer as `matrices` has them. Gradients flow."""
    return torch.cat([matrix.flatten() for matrix in matrices(model).values()])


def with_weights(model: nn.Module, weights: Tensor) -> nn.Module:
    """A copy of the model with these weights (W,), in the order of `flat_weights`; the given one is untouched."""
    copied, at = copy.deepcopy(model), 0
    found = matrices(copied)
    if (expected := sum(matrix.numel() for matrix in found.values())) != len(weights):
        raise ValueError(f"The network has {expected} weights and biases; {len(weights)} were given.")
    for name, matrix in found.items():
        layer = copied.get_submodule(name)
        new = weights[at : at + matrix.numel()].reshape(matrix.shape)
        inputs = layer.weight[0].numel()
        with torch.no_grad():
            layer.weight.copy_(new[:, :inputs].reshape(layer.weight.shape))
            if layer.bias is not None:
                layer.bias.copy_(new[:, inputs])
        at += matrix.numel()
    return copied


# ---------------------------------------------------------------------------------------------------------- retraining


class Epoch(NamedTuple):
    """Where retraining stands after so many epochs.

    Attributes:
        number: epochs done; 0 is the start.
        weights: (W,) float32, on the CPU.
        components: the mixture, on the CPU.
        misfit: mean cross-entropy of the epoch's batches, in nats (NaN at the start).
        complexity: -log p(w) with hyper-priors, in nats, at the end of the epoch.
    """

    number: int
    weights: Tensor
    components: Components
    misfit: float
    complexity: float


def retrain(
    model: nn.Module,
    dataset: Dataset,
    prior: Prior,
    *,
    tau: float,
    epochs: int,
    rates: tuple[float, float, float] = (1e-3, 2e-3, 1e-2),
    batch_size: int = 128,
    seed: int = 0,
    label: str = "retraining",
) -> Iterator[Epoch]:
    """Train network and mixture together, in place, and yield where they stand: at the start and after each epoch.

    The loss is eq. 6 divided by the number N of examples: cross-entropy + tau / N * (-log p(w)).

    Args:
        dataset: N examples (image, label).
        tau: weight of the prior. 1 is Bayes and the two-part code; the paper takes much less.
        rates: Adam's learning rates of three groups: the network; the means; the logarithms of precisions and shares.

    Raises:
        FloatingPointError: the loss became infinite or not a number: lower the rates.
    """
    groups = (model.parameters(), [prior.means], [prior.log_precisions, prior.log_odds])
    optimizer = torch.optim.Adam([{"params": p, "lr": rate} for p, rate in zip(groups, rates, strict=True)])
    order, device = torch.Generator().manual_seed(seed), device_of(model)
    loader = DataLoader(dataset, batch_size, shuffle=True, generator=order)
    torch.manual_seed(seed)  # dropout draws from the global generator
    yield _snapshot(0, model, prior, math.nan)
    for number in track(range(1, epochs + 1), label):
        model.train()
        total = 0.0
        for images, labels in loader:
            misfit = loss.per_example(model(place(images, device)), labels.to(device)).mean()
            total += misfit.item() * len(labels)
            optimizer.zero_grad(set_to_none=True)
            (misfit + tau / len(dataset) * prior(flat_weights(model))).backward()
            optimizer.step()
        yield _snapshot(number, model.eval(), prior, total / len(dataset))


@torch.no_grad()
def _snapshot(number: int, model: nn.Module, prior: Prior, misfit: float) -> Epoch:
    weights, components = flat_weights(model), prior.components()
    kept = Components(*(part.detach().cpu().clone() for part in components))
    return Epoch(number, weights.cpu().clone(), kept, misfit, float(prior(weights)))


# -------------------------------------------------------------------------------------------------- merge and quantise


def divergence(components: Components) -> Tensor:
    """KL(i || j) between every two components, in nats: (J, J).

    What it costs, a weight, to describe weights of component i in the code that is right for component j.
    """
    means, variances = components.means, components.variances
    ratio = variances[:, None] / variances
    distance = (means[:, None] - means).square() / variances
    return (ratio - 1 - ratio.log() + distance) / 2


def pool(shares: Tensor, means: Tensor, variances: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """One component for several: the sum of the shares, means and variances averaged by share (eq. 8).

    The variance leaves out how far the means lie apart: it is that of the mixture only where the means agree.
    """
    share = shares.sum()
    return share, (shares * means).sum() / share, (shares * variances).sum() / share


def join(components: Components, i: int, j: int) -> Components:
    """Components i < j pooled in place i. Component 0 keeps its mean, zero: what it takes in is pruned."""
    pair, scale = [i, j], components.log_shares[[i, j]].max()
    share, mean, variance = pool(
        (components.log_shares[pair] - scale).exp(), components.means[pair], components.variances[pair]
    )
    joined = Components(*(values.clone() for values in components))
    joined.means[i] = 0 if i == 0 else mean
    joined.log_variances[i], joined.log_shares[i] = variance.log(), share.log() + scale
    others = [k for k in range(len(joined.means)) if k != j]
    return Components(*(values[others] for values in joined))


def merge(components: Components, threshold: float) -> Components:
    """Join the two nearest components until all are further apart than the threshold.

    Near: the mean of KL(i || j) and KL(j || i), in nats.
    """
    while len(components.means) > 1:
        apart = divergence(components)
        apart = (apart + apart.T) / 2 + torch.diag(torch.full_like(components.means, math.inf))
        nearest = int(apart.argmin())
        i, j = sorted(divmod(nearest, len(apart)))
        if apart[i, j] > threshold:
            break
        components = join(components, i, j)
    return components


def assign(weights: Tensor, components: Components) -> Tensor:
    """The most responsible component of each weight: (W,) -> (W,) integers; 0 is pruned."""
    return log_joint(weights, components).argmax(1)


def quantise(model: nn.Module, components: Components) -> nn.Module:
    """A copy of the model in which each weight is the mean of its most responsible component."""
    weights = flat_weights(model).detach().cpu()
    return with_weights(model, components.means[assign(weights, components)].to(device_of(model)))
