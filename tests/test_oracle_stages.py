"""Changes through single stages, and the exact oracle on networks of every kind, against the definition."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from networks import batches, chains, shake_batch_norm, small_vgg
from torch import nn

from course_lib import oracle
from course_lib.feature_maps import ACTIVATIONS, Chain, UnsupportedModel
from course_lib.oracle import exact, stages

ReLU, Pool, Conv = nn.ReLU, nn.MaxPool2d, nn.Conv2d


def network(*layers):
    model = nn.Sequential(*layers)
    torch.manual_seed(0)
    for module in model.modules():
        if hasattr(module, "weight") and module.weight is not None:
            module.reset_parameters()
    shake_batch_norm(model)
    return model.double().eval()


def two(between, behind, features, kernels=(3, 3)):
    """Two convolutions, of four and five maps, something after each, and a linear layer."""
    return lambda: [
        *[nn.Conv2d(3, 4, kernels[0]), *between],
        *[nn.Conv2d(4, 5, kernels[1]), *behind],
        *[nn.Flatten(), nn.Linear(features, 4)],
    ]


def three(conv, *behind, **options):
    """Three convolutions, of four, five and three maps, the first with everything at its default."""
    return [conv(2, 4, 3), ReLU(), conv(4, 5, 3, **options), ReLU(), conv(5, 3, 2), ReLU(), *behind]


def with_norms():
    norms = [nn.BatchNorm2d(4), nn.BatchNorm2d(5), nn.BatchNorm2d(3), nn.BatchNorm1d(6), nn.BatchNorm1d(6)]
    body = [Conv(3, 4, 3), norms[0], ReLU(), Conv(4, 5, 3), ReLU(), norms[1], Pool(2), Conv(5, 3, 2), norms[2]]
    return [*body, nn.Flatten(), nn.Linear(3, 6), norms[3], ReLU(), norms[4], nn.Linear(6, 4)]


def with_repeating_average():
    head = [nn.AdaptiveAvgPool2d(7), nn.Flatten(), nn.Dropout(), nn.Linear(5 * 49, 6), ReLU(), nn.Linear(6, 4)]
    return [Conv(3, 4, 3), ReLU(), Conv(4, 5, 3), ReLU(), *head]


NETWORKS = {
    "odd sizes": (two([ReLU(), Pool(2)], [ReLU(), Pool(2)], 5 * 2), (3, 13, 15)),
    "tiles that are left over": (two([ReLU()], [ReLU(), Pool((2, 3))], 5 * 6), (3, 9, 14)),
    "pooling before ReLU": (two([Pool(2), ReLU()], [Pool(2), ReLU()], 5), (3, 11, 11)),
    "pooling without ReLU": (two([ReLU()], [Pool(2)], 5 * 4), (3, 9, 9)),
    "overlapping pooling": (two([ReLU(), Pool(3, 2)], [ReLU(), Pool(3, 2, padding=1)], 5 * 4, (3, 2)), (3, 11, 11)),
    "pooling rounded up": (two([ReLU()], [ReLU(), Pool(2, ceil_mode=True)], 5 * 9, (1, 1)), (3, 5, 5)),
    "adaptive max": (two([ReLU()], [nn.AdaptiveMaxPool2d(2)], 5 * 4, (1, 1)), (3, 5, 5)),
    "two poolings": (two([ReLU()], [ReLU(), Pool(2), Pool(2)], 5 * 4, (1, 1)), (3, 8, 8)),
    "averages that repeat": (with_repeating_average, (3, 6, 7)),
    "averages that shrink": (two([ReLU(), nn.AvgPool2d(2)], [ReLU(), nn.AdaptiveAvgPool2d(1)], 5), (3, 10, 10)),
    "one map": (lambda: [Conv(1, 1, 3), ReLU(), Conv(1, 1, 3), ReLU(), nn.Flatten(), nn.Linear(4, 4)], (1, 6, 6)),
    "batch norm everywhere": (with_norms, (3, 9, 9)),
    "one dimension": (
        lambda: three(nn.Conv1d, nn.MaxPool1d(2), nn.Flatten(), nn.Linear(3 * 2, 4), padding="same", dilation=2),
        (2, 7),
    ),
    "three dimensions": (
        lambda: three(nn.Conv3d, nn.MaxPool3d((1, 2, 1)), nn.Flatten(), nn.Linear(3 * 12, 4), padding=1, stride=2),
        (2, 7, 12, 9),
    ),
}


def worst(found, truth):
    """The largest error, relative to the layer's largest effect."""
    return max(float((found[name] - truth[name]).abs().max() / truth[name].abs().max()) for name in truth)


def data_for(shape, classes=4):
    return batches(*shape, classes=classes, n=2, size=3)


@pytest.mark.parametrize("name", NETWORKS)
def test_exact_equals_naive_and_bfloat16_comes_near(name):
    layers, shape = NETWORKS[name]
    model, data = network(*layers()), data_for(shape)
    truth = oracle.effects(model, data, method="naive")
    assert worst(oracle.effects(model, data), truth) < 1e-10
    assert worst(oracle.effects(model, data, memory_limit=1), truth) < 1e-10
    assert worst(oracle.effects(model, data, dtype=torch.bfloat16), truth) < 0.05


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation(activation):
    layers = [
        nn.Conv2d(3, 4, 3),
        activation(),
        nn.Conv2d(4, 5, 3),
        activation(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(5 * 4, 4),
    ]
    model, data = network(*layers), data_for((3, 9, 9))
    truth = oracle.effects(model, data, method="naive")
    assert worst(oracle.effects(model, data), truth) < 1e-10
    assert worst(oracle.effects(model, data, dtype=torch.bfloat16), truth) < 0.05


@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
@pytest.mark.parametrize("padding", [1, "same", (2, 0)])
def test_every_padding(mode, padding):
    layers = [nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3, padding=padding, padding_mode=mode), nn.ReLU()]
    layers += [
        nn.Conv2d(5, 3, 3, padding=padding, padding_mode=mode),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(3),
        nn.Flatten(),
        nn.Linear(27, 4),
    ]
    model, data = network(*layers), data_for((3, 8, 9))
    assert worst(oracle.effects(model, data), oracle.effects(model, data, method="naive")) < 1e-10


@given(st.data())
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
def test_exact_equals_naive_on_random_chains(data):
    model, shape = data.draw(chains())
    images = batches(*shape, classes=3, n=1, size=2)
    model = model.double()
    found, truth = oracle.effects(model, images), oracle.effects(model, images, method="naive")
    assert all(torch.allclose(found[name], truth[name], rtol=1e-8, atol=1e-12) for name in truth)


def test_bfloat16_rounds_the_change_and_not_the_activations():
    model, data = network(*two([ReLU()], [ReLU()], 5 * 25)()), data_for((3, 9, 9))
    with torch.no_grad():
        model[2].weight *= 0.01
        model[2].bias += 1000  # activations a hundred thousand times as large as any change
        model[5].bias -= model[5].weight.sum(1) * 1000
    truth = oracle.effects(model, data, ["0"], method="naive")
    assert float(truth["0"].abs().max()) < 0.1
    assert worst(oracle.effects(model, data, ["0"], dtype=torch.bfloat16), truth) < 0.02


@pytest.mark.parametrize("name", ["odd sizes", "overlapping pooling", "batch norm everywhere", "averages that repeat"])
@torch.inference_mode()
def test_no_change_stays_no_change_to_the_last_bit(name):
    layers, shape = NETWORKS[name]
    image = data_for(shape)[0][0][:1]
    for stage, x, y in stages.stages(Chain(network(*layers())), image, torch.bfloat16):
        d = stage.change(torch.zeros_like(torch.cat([x, x]), dtype=torch.bfloat16), *stage.keep(x, y, -y.bfloat16()))
        assert d.shape == torch.cat([y, y]).shape and not d.any()


def test_averages_are_folded_into_the_linear_layer_only_where_that_saves_work():
    def weights(name):
        layers, shape = NETWORKS[name]
        found = stages.stages(Chain(network(*layers())), data_for(shape)[0][0], torch.float64)
        return [stage.weights for stage, _, _ in found if isinstance(stage, stages.Reader)]

    assert weights("averages that repeat")[2] == 6 * 5 * 2 * 3  # positions before the pooling, not 7 x 7
    assert weights("averages that shrink")[2] == 4 * 5  # positions after it, not 2 x 2


def test_dead_maps_are_not_computed():
    model, data = small_vgg(), batches(3, 8, 8, n=1, size=1)
    with torch.no_grad():
        model[3].bias[[0, 2, 5]] = -1e6
    chain, (images, labels), done = Chain(model), data[0], []
    network = exact.Network(chain, images)
    real = exact.Base._measure
    with torch.inference_mode(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(exact.Base, "_measure", lambda self, *a: done.append(a[2].tolist()) or real(self, *a))
        found = exact.Base(network, images, labels).changes(chain.layers["3"], torch.arange(6))
    assert done == [[1, 3, 4]]
    assert found[0, [0, 2, 5]].tolist() == [0, 0, 0]


def test_chosen_rows_and_maps_and_the_work_they_are():
    model, (images, labels) = small_vgg(batch_norm=True), batches(3, 8, 8, n=1)[0]
    chain, moved = Chain(model), []
    network = exact.Network(chain, images[:1])
    layer = next(iter(chain.layers.values()))
    with torch.inference_mode():
        base = exact.Base(network, images, labels)
        whole = base.changes(layer, torch.arange(layer.channels))
        part = base.changes(layer, torch.tensor([3, 1]), torch.tensor([4, 0, 2]), moved.append)
    assert torch.allclose(part, whole[[4, 0, 2]][:, [3, 1]], rtol=1e-10)
    assert sum(moved) == 6 * network.macs_per_map(layer)


def test_work_is_counted_by_hand():
    chain = Chain(small_vgg())
    network = exact.Network(chain, batches(3, 8, 8)[0][0][:1])
    behind = 7 * 6 * 9 * 16 + 9 * 28 + 4 * 9
    assert network.macs_per_map(chain.layers["0"]) == 6 * 9 * 16 + behind  # one of five maps of the second layer
    assert network.macs_per_map(chain.layers["5"]) == 9 * 4 + 4 * 9


def test_batch_norm_without_running_statistics_is_refused():
    model, data = network(*with_norms()), data_for((3, 9, 9))
    model[1].running_mean = model[1].running_var = None
    with pytest.raises(UnsupportedModel, match='track_running_stats=False.*method="naive"'):
        oracle.effects(model, data)
    assert oracle.effects(model, data, method="naive")
