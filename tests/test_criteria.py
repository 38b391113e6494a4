"""Every criterion against a slow computation that shares no code with it."""

import itertools
import math
import weakref

import pytest
import torch
from networks import CASES, batches, small_vgg
from scipy import stats
from sklearn.metrics import mutual_info_score
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from course_lib import criteria, oracle
from course_lib.feature_maps import Chain

NINE = {
    "random",
    "min_weight",
    "l1_norm",
    "activation_mean",
    "activation_std",
    "apoz",
    "mutual_information",
    "obd",
    "taylor",
}
BEYOND_THE_PAPER = {"second_order", "linear_logits"}


def one_by_one(model, data):
    """(z, dC/dz, label) of every example by itself, layer "3" of small_vgg, with hooks and plain autograd."""
    seen = {}
    place = model[4] if not isinstance(model[4], torch.nn.BatchNorm2d) else model[6]
    handle = place.register_forward_hook(lambda *args: seen.update(z=args[2]))
    for images, labels in data:
        for image, label in zip(images, labels, strict=True):
            cost = torch.nn.functional.cross_entropy(model(image[None]), label[None])
            gradient = torch.autograd.grad(cost, seen["z"])[0]
            yield seen["z"][0].detach(), gradient[0], int(label)
    handle.remove()


@pytest.fixture
def model():
    return small_vgg()


@pytest.fixture
def data():
    return batches(3, 8, 8, n=3, size=6)


@pytest.fixture
def own():
    """Whatever criteria the test registers are gone after it."""
    before = set(criteria.CRITERIA)
    yield
    for name in set(criteria.CRITERIA) - before:
        del criteria.CRITERIA[name]


def test_the_criteria_are_there():
    assert set(criteria.CRITERIA) >= NINE | BEYOND_THE_PAPER


def test_taylor_is_the_mean_of_absolute_spatial_means(model, data):
    expected = torch.zeros(6).double()
    for z, gradient, _ in one_by_one(model, data):
        for c in range(6):
            products = [float(z[c, i, j] * gradient[c, i, j]) for i in range(4) for j in range(4)]
            expected[c] += abs(math.fsum(products) / 16) / 18
    found = criteria.score(model, data, "taylor")["taylor"]["3"]
    assert torch.allclose(found, expected, rtol=1e-9)


def test_the_order_of_mean_and_absolute_value_matters(model, data):
    terms = torch.stack([(z * gradient).mean((1, 2)) for z, gradient, _ in one_by_one(model, data)])
    found = criteria.score(model, data, "taylor")["taylor"]["3"]
    assert torch.allclose(found, terms.abs().mean(0))
    assert not torch.allclose(found, terms.mean(0).abs(), rtol=0.05)  # absolute value last, as often seen


def test_taylor_is_the_gate_derivative_over_the_map_size(model, data):
    chain, total = Chain(model), 0.0
    for images, labels in data:
        gates = torch.ones(len(images), 6, dtype=torch.float64, requires_grad=True)
        logits = chain.run(images, gates={"3": gates})
        cost = torch.nn.functional.cross_entropy(logits, labels, reduction="sum")
        total = total + torch.autograd.grad(cost, gates)[0].abs().sum(0) / 16 / 18
    assert torch.allclose(criteria.score(model, data, "taylor")["taylor"]["3"], total)


def test_activation_criteria(model, data):
    z = torch.stack([z for z, _, _ in one_by_one(model, data)])  # (N, C, H, W)
    found = criteria.score(model, data, ["activation_mean", "activation_std", "apoz"])
    for c in range(6):
        values = z[:, c].flatten().tolist()
        mean = math.fsum(values) / len(values)
        assert found["activation_mean"]["3"][c].item() == pytest.approx(mean)
        deviation = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / len(values))
        assert found["activation_std"]["3"][c].item() == pytest.approx(deviation)
        assert found["apoz"]["3"][c].item() == sum(v > 0 for v in values) / len(values)


def test_apoz_counts_positives_where_maps_can_be_negative(data):
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 5, 3), nn.LeakyReLU(), nn.Flatten(), nn.Linear(5 * 36, 4)]
    model = nn.Sequential(*layers).double()
    z = torch.cat([model[:2](images) for images, _ in data])
    assert (z < 0).any()
    assert torch.allclose(criteria.score(model, data, "apoz")["apoz"]["0"], (z > 0).double().mean((0, 2, 3)))


def test_weight_criteria_need_no_data(model):
    found = criteria.score(model, None, ["min_weight", "l1_norm"])
    kernel = model[3].weight[2].flatten().tolist()
    assert found["min_weight"]["3"][2].item() == pytest.approx(sum(w * w for w in kernel) / len(kernel))
    assert found["l1_norm"]["3"][2].item() == pytest.approx(sum(map(abs, kernel)))


def test_mutual_information_equals_scikit_learn(model):
    data = batches(3, 8, 8, n=1, size=64)
    x = torch.stack([z.mean((1, 2)) for z, _, _ in one_by_one(model, data)])
    found = criteria.score(model, data, "mutual_information")["mutual_information"]["3"]
    for c in range(6):
        edges = torch.quantile(x[:, c].float(), torch.linspace(0, 1, 9)[1:-1]).tolist()
        bins = [sum(float(v) > edge for edge in edges) for v in x[:, c].float()]
        assert found[c].item() == pytest.approx(mutual_info_score(data[0][1].tolist(), bins), abs=1e-6)


def test_mutual_information_finds_the_map_that_tells_the_label(model):
    images, labels = torch.randn(64, 3, 8, 8).double(), torch.arange(64) % 4
    with torch.no_grad():  # map 1 shows the label, through a channel that the images carry it in
        model[0].weight.zero_(), model[0].bias.zero_()
        model[0].weight[1, 0, 1, 1] = 1
    images[:, 0] = labels[:, None, None] + 1.0
    found = criteria.score(model, [(images, labels)], "mutual_information")["mutual_information"]["0"]
    assert found[1].item() == pytest.approx(math.log(4))
    assert found[[0, 2, 3, 4]].abs().max() < 1e-9


def exact_gate_hessian(model, data, name):
    """Mean over examples of the diagonal of the full Hessian by the gates, from torch.autograd.functional."""
    channels, total = Chain(model).layers[name].channels, 0.0
    for images, labels in data:
        for image, label in zip(images, labels, strict=True):

            def cost(gate, image=image, label=label):
                logits = Chain(model).run(image[None], gates={name: gate})
                return torch.nn.functional.cross_entropy(logits, label[None])

            hessian = torch.autograd.functional.hessian(cost, torch.ones(channels).double())
            total += hessian.diagonal()
    return total / sum(len(labels) for _, labels in data)


def test_obd_converges_to_the_exact_hessian_diagonal(model, data):
    expected = exact_gate_hessian(model, data, "3")
    many, few = (criteria.score(model, data, "obd", draws=draws)["obd"]["3"] for draws in (1000, 1))
    assert torch.allclose(many, expected, rtol=0.05)
    assert not torch.allclose(few, expected, rtol=0.05)


@pytest.mark.parametrize("case", CASES)
def test_obd_of_all_classes_is_the_exact_hessian_diagonal(case):
    model, data = CASES[case][0](), CASES[case][1]()
    found = criteria.score(model, data, "obd", classes=99, draws=0)["obd"]
    for name in found:
        assert torch.allclose(found[name], exact_gate_hessian(model, data, name), rtol=1e-8, atol=1e-14)


def test_obd_is_unbiased_whatever_the_signs(model, data, monkeypatch):
    """With four classes there are sixteen sign vectors: their plain average is exact."""
    total = 0.0
    for signs in itertools.product([0.0, 0.9], repeat=4):
        monkeypatch.setattr(torch, "rand", lambda shape, signs=signs, **_: torch.tensor(signs).expand(shape))
        total = total + criteria.score(model, data[:1], "obd")["obd"]["3"] / 16
    assert torch.allclose(total, exact_gate_hessian(model, data[:1], "3"))


def test_the_label_alone_is_a_lower_bound_of_obd(model, data):
    bounds = [criteria.score(model, data, "obd", classes=n, draws=0)["obd"]["3"] for n in range(4)]
    assert all((less < more).all() for less, more in itertools.pairwise(bounds[:3]))
    assert torch.equal(bounds[2], bounds[3])  # of four classes, one remains behind the label and two others


def loss_along_gates(model, image, label, name):
    """C(g) of one example as a function of one layer's gates, and open gates."""
    chain = Chain(model)

    def loss(g):
        return torch.nn.functional.cross_entropy(chain.run(image[None], gates={name: g[None]}), label[None])

    return loss, torch.ones(chain.layers[name].channels, dtype=torch.float64)


@pytest.mark.parametrize("case", CASES)
def test_second_order_is_the_parabola_at_the_closed_gate(case):
    model, data = CASES[case][0](), CASES[case][1]()
    found = criteria.score(model, data, "second_order", classes=99, draws=0)["second_order"]
    for name in found:
        parabola, examples = 0.0, 0
        for image, label in (pair for part in data for pair in zip(*part, strict=True)):
            loss, open_gates = loss_along_gates(model, image, label, name)
            slope = torch.autograd.functional.jacobian(loss, open_gates)
            bend = torch.autograd.functional.hessian(loss, open_gates).diagonal()
            parabola, examples = parabola - slope + bend / 2, examples + 1
        assert torch.allclose(found[name], (parabola / examples).abs(), rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("case", CASES)
def test_linear_logits_is_the_loss_of_logits_on_their_tangent(case):
    model, data = CASES[case][0](), CASES[case][1]()
    found = criteria.score(model, data, "linear_logits")["linear_logits"]  # few classes: all of them are moved
    for name in found:
        change, examples = 0.0, 0
        for image, label in (pair for part in data for pair in zip(*part, strict=True)):
            chain = Chain(model)
            logits = model(image[None])[0].detach()
            assert len(logits) <= criteria.LIKELIEST + 1
            slopes = torch.autograd.functional.jacobian(
                lambda g, image=image, name=name, chain=chain: chain.run(image[None], gates={name: g[None]})[0],
                torch.ones(chain.layers[name].channels, dtype=torch.float64),
            )  # (classes, C)
            after = [torch.nn.functional.cross_entropy(logits - column, label) for column in slopes.T]
            change, examples = (
                change + torch.stack(after) - torch.nn.functional.cross_entropy(logits, label),
                examples + 1,
            )
        assert torch.allclose(found[name], (change / examples).abs(), rtol=1e-7, atol=1e-12)


def test_linear_logits_is_the_oracle_of_the_last_layer():
    """After the last feature maps of this network everything is linear: nothing is left out."""
    model, data = CASES["by hand"][0](), CASES["by hand"][1]()
    last = list(Chain(model).layers)[-1]
    truth = oracle.ablate(model, data, [last], method="naive")[last]
    found = criteria.score(model, data, ["linear_logits", "second_order"], classes=99)
    assert torch.allclose(found["linear_logits"][last], truth.abs(), rtol=1e-6)
    assert not torch.allclose(found["second_order"][last], truth.abs(), rtol=1e-2)


@pytest.mark.parametrize("names, passes", [("activation_mean", 0), ("taylor", 1), ("obd", 2), ("linear_logits", 6)])
def test_no_gradient_of_a_weight_is_computed(names, passes):
    """A gradient of the weights would cost as much again as a forward pass; FLOPs do not depend on the machine."""
    model, data = small_vgg(), batches(3, 8, 8, n=1)
    with FlopCounterMode(display=False) as forward:
        model(data[0][0])
    with FlopCounterMode(display=False) as scoring:
        criteria.score(model, data, names, progress=False)
    first = 2 * 5 * 8 * 8 * 5 * 27  # the gradient of the images is not needed
    assert scoring.get_total_flops() == (1 + passes) * forward.get_total_flops() - passes * first


def test_nothing_of_a_batch_is_kept(model, own):
    """Batches are taken one by one; images, maps and gradients are gone before the next but one is asked for."""
    images_seen, maps_seen, alive = [], [], []

    @criteria.register("witness", needs="curvature")
    def witness(maps):
        alive.append(sum(ref() is not None for ref in maps_seen))
        maps_seen.append(weakref.ref(maps.gradient))
        return maps.mean

    def stream():
        for images, labels in batches(3, 8, 8, n=5):
            assert all(ref() is None for ref in images_seen[:-1])
            images = images.clone()
            images_seen.append(weakref.ref(images))
            yield images, labels

    criteria.score(model, stream(), ["witness", *NINE], progress=False)
    assert len(images_seen) == 5 and alive == [0] * 15  # three layers a batch, one gradient at a time


@pytest.mark.parametrize("case", CASES)
def test_every_criterion_runs_on_every_kind_of_network(case):
    model, data = CASES[case][0](), CASES[case][1]()
    for scores in criteria.score(model, data, list(criteria.CRITERIA)).values():
        for name, layer in Chain(model).layers.items():
            assert scores[name].shape == (layer.channels,)
            assert scores[name].dtype == torch.float64
            assert torch.isfinite(scores[name]).all()


def test_a_criterion_does_not_depend_on_its_company(model, data):
    together = criteria.score(model, data, list(criteria.CRITERIA), draws=2, classes=1)
    for name in NINE - {"obd", "random"}:  # these two share one source of random numbers
        assert torch.equal(criteria.score(model, data, name)[name]["3"], together[name]["3"])


def test_batches_may_be_cut_anywhere(model, data):
    names = sorted(NINE - {"obd", "mutual_information"})
    whole = [(torch.cat([x for x, _ in data]), torch.cat([y for _, y in data]))]
    a, b = criteria.score(model, data, names), criteria.score(model, whole, names)
    assert all(torch.allclose(a[n][layer], b[n][layer]) for n in names for layer in a[n])


def test_same_seed_same_scores(model, data):
    a, b = (criteria.score(model, data, ["random", "obd"], seed=3) for _ in range(2))
    c = criteria.score(model, data, ["random", "obd"], seed=4)
    for name in ("random", "obd"):
        assert torch.equal(a[name]["3"], b[name]["3"])
        assert not torch.equal(a[name]["3"], c[name]["3"])


def test_random_is_uniform_on_one_scale_in_every_layer():
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 2000, 1), torch.nn.Flatten(), torch.nn.Linear(2000, 2))
    found = criteria.score(model, None, "random")["random"]["0"]
    assert stats.kstest(found.numpy(), "uniform").pvalue > 1e-4


def test_dropout_is_off_while_scoring_and_the_mode_comes_back(data):
    model = small_vgg(dropout=True).train()
    names = ["taylor", "activation_mean"]
    found, expected = criteria.score(model, data, names), criteria.score(small_vgg(), data, names)
    assert model.training
    assert all(torch.equal(found[n]["3"], expected[n]["3"]) for n in names)


def test_no_gradient_is_left_on_the_weights(model, data):
    criteria.score(model, data, list(criteria.CRITERIA))
    assert all(parameter.grad is None for parameter in model.parameters())


def test_frozen_weights_can_be_scored(model, data):
    expected = criteria.score(model, data, ["taylor"])["taylor"]["0"]
    model.requires_grad_(False)
    assert torch.equal(criteria.score(model, data, ["taylor"])["taylor"]["0"], expected)


def test_a_criterion_of_your_own_is_one_function(model, data, own):
    @criteria.register("largest", needs="activations")
    def largest(maps):
        return maps.z.amax(maps.positions)

    found = criteria.score(model, data, ["largest"])["largest"]["3"]
    expected = torch.stack([z.amax((1, 2)) for z, _, _ in one_by_one(model, data)]).mean(0)
    assert torch.allclose(found, expected)


def test_a_criterion_of_your_own_may_remember_and_finish(model, data, own):
    @criteria.register("spread_of_slopes", needs="gradients", finish=lambda m: m[:, 1] - m[:, 0] ** 2)
    def spread_of_slopes(maps):
        maps.memory["batches"] = maps.memory.get("batches", 0) + 1
        slope = (maps.gradient * maps.z).sum(maps.positions)
        assert maps.memory["batches"] <= len(data)
        return torch.stack([slope, slope.square()], dim=-1)

    found = criteria.score(model, data, ["spread_of_slopes", "taylor"])["spread_of_slopes"]["3"]
    slopes = torch.stack([(z * gradient).sum((1, 2)) for z, gradient, _ in one_by_one(model, data)])
    assert torch.allclose(found, slopes.var(0, correction=0))


def test_many_classes_need_no_memory_for_each_example(data, own):
    joint = []

    @criteria.register("watch", needs="activations")
    def watch(maps):
        joint.append(criteria.mutual_information(maps))
        return maps.mean

    criteria.score(small_vgg(classes=1000), data[:1], ["watch"])
    assert [tuple(part.shape) for part in joint] == [(1, channels, 8, 1000) for channels in (7, 6, 5)]
    assert all(part.sum() == 6 * part.shape[1] for part in joint)


def test_errors_say_what_to_do(model, data):
    with pytest.raises(KeyError, match="Did you mean 'taylor'"):
        criteria.score(model, data, ["tailor"])
    with pytest.raises(KeyError, match="Known: 0, 3, 5"):
        criteria.score(model, data, ["taylor"], layers=["9"])
    with pytest.raises(ValueError, match="empty"):
        criteria.score(model, iter([]), ["taylor"])
    with pytest.raises(ValueError, match="classes=-1"):
        criteria.score(model, data, ["obd"], classes=-1)
    with pytest.raises(ValueError, match="4 outputs"):
        criteria.score(model, [(data[0][0], data[0][1] + 3)], ["taylor"])
    with pytest.raises(FloatingPointError, match="NaN"):
        criteria.score(model, [(data[0][0] * torch.nan, data[0][1])], ["taylor"])
