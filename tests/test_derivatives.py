"""Derivatives by gates, against torch.autograd.functional one example and one layer at a time."""

import weakref

import pytest
import torch
from networks import CASES, batches, small_vgg

from course_lib import derivatives
from course_lib.feature_maps import Chain


def jacobian(model, image, name):
    """(classes, C): derivative of one example's logits by one layer's gates, without the module under test."""
    chain = Chain(model)
    gates = torch.ones(chain.layers[name].channels).to(image)
    return torch.autograd.functional.jacobian(lambda g: chain.run(image[None], gates={name: g})[0], gates)


@pytest.mark.parametrize("case", CASES)
def test_slopes_of_chosen_logits(case):
    model, (images, labels) = CASES[case][0](), CASES[case][1]()[0]
    chain = Chain(model)
    logits, taps = derivatives.run(chain, images, chain.layers)
    classes = derivatives.most_probable(logits, 2, labels)
    slopes = derivatives.logit_slopes(logits, taps, classes)
    for name, layer in chain.layers.items():
        assert slopes[name].shape == (len(images), 3, layer.channels) and not slopes[name].requires_grad
        for image, wanted, found in zip(images, classes, slopes[name], strict=True):
            assert torch.allclose(found, jacobian(model, image, name)[wanted], rtol=1e-9, atol=1e-12)


def test_frozen_weights_and_no_gradient_left():
    model, (images, _) = small_vgg().requires_grad_(False), batches(3, 8, 8)[0]
    logits, taps = derivatives.run(Chain(model), images, ["3"])
    assert list(taps) == ["3"]
    found = derivatives.logit_slopes(logits, taps, torch.ones(len(images), 1).long())["3"][:, 0]
    expected = torch.stack([jacobian(model, image, "3")[1] for image in images])
    assert torch.allclose(found, expected) and not images.requires_grad


def test_most_probable_classes():
    logits = torch.tensor([[0.0, 3.0, 2.0, 1.0], [5.0, 1.0, 2.0, 4.0]])
    assert derivatives.most_probable(logits, 2).tolist() == [[1, 2], [0, 3]]
    assert derivatives.most_probable(logits, 2, torch.tensor([0, 3])).tolist() == [[0, 1, 2], [3, 0, 2]]
    every = derivatives.most_probable(logits, 9, torch.tensor([0, 3]))
    assert every.sort(dim=1).values.tolist() == [[0, 1, 2, 3]] * 2


def squares(p, labels, classes, draws=0):
    """The matrix that the directions make up, (N, K, K): the sum of d d'."""
    factor, directions = derivatives.curvature_directions(p, labels, classes, draws, torch.Generator().manual_seed(0))
    of_loss = p - torch.nn.functional.one_hot(labels, p.shape[1])
    every = [factor.sqrt() * of_loss, *directions]
    return sum(d[:, :, None] * d[:, None, :] for d in every), len(directions)


@pytest.mark.parametrize("outputs", [1, 2, 3, 5])
def test_directions_make_up_the_hessian_of_the_loss(outputs):
    torch.manual_seed(outputs)
    p, labels = torch.randn(7, outputs).double().softmax(1), torch.randint(outputs, (7,))
    hessian = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    for classes in (outputs, 99):
        found, count = squares(p, labels, classes, draws=3)
        assert torch.allclose(found, hessian, atol=1e-12)
        assert count == max(0, outputs - 2)  # nothing is left to draw for
    found, count = squares(p, labels, 1, draws=20_000)
    assert torch.allclose(found, hessian, atol=0.01)


def test_sure_and_wrong_answers_lose_no_precision():
    logits = torch.tensor([[60.0, 40.0, 20.0, 1.0], [0.0, 9.0, 8.0, -30.0], [200.0, 0.0, 0.0, 0.0]]).double()
    labels = torch.tensor([0, 3, 0])
    p = logits.softmax(1)
    _, directions = derivatives.curvature_directions(p.float(), labels, 2, 0, torch.Generator())
    _, expected = derivatives.curvature_directions(p, labels, 2, 0, torch.Generator())
    for found, right in zip(directions, expected, strict=True):
        assert torch.allclose(found.double(), right, rtol=1e-5, atol=1e-18)


def test_a_walk_gives_the_gradients_of_a_plain_backward_pass():
    model, images = small_vgg(batch_norm=True), batches(3, 8, 8)[0][0]
    chain = Chain(model)
    logits, taps = derivatives.run(chain, images, chain.layers)
    twice = torch.stack([torch.ones_like(logits), torch.randn_like(logits)])
    plain = [torch.autograd.grad(logits, list(taps.values()), d, retain_graph=True) for d in twice]
    for at, (name, z, gradients) in enumerate(derivatives.walk_back(logits, twice, dict(taps)), start=1):
        assert z.equal(taps[name]) and list(taps)[-at] == name
        assert all(torch.equal(found, right[-at]) for found, right in zip(gradients, plain, strict=True))
    assert at == 3


def test_a_walk_frees_what_lies_behind_it():
    model, images = small_vgg(), batches(3, 8, 8)[0][0]
    chain = Chain(model)
    logits, taps = derivatives.run(chain, images, chain.layers)
    maps, gradients_seen = [weakref.ref(z) for z in reversed(taps.values())], []
    for at, (_, _, gradients) in enumerate(derivatives.walk_back(logits, [torch.ones_like(logits)] * 2, taps)):
        assert all(ref() is None for ref in [*maps[:at], *gradients_seen])
        gradients_seen += [weakref.ref(gradient) for gradient in gradients]
    assert at == 2 and not taps
    with pytest.raises(RuntimeError, match="second time"):
        logits.sum().backward()
