"""Derivatives by gates, against torch.autograd.functional one example and one layer at a time."""

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
    found = derivatives.by_gates(logits[:, 1], taps)["3"]
    expected = torch.stack([jacobian(model, image, "3")[1] for image in images])
    assert torch.allclose(found, expected) and not images.requires_grad


def test_most_probable_classes():
    logits = torch.tensor([[0.0, 3.0, 2.0, 1.0], [5.0, 1.0, 2.0, 4.0]])
    assert derivatives.most_probable(logits, 2).tolist() == [[1, 2], [0, 3]]
    assert derivatives.most_probable(logits, 2, torch.tensor([0, 3])).tolist() == [[0, 1, 2], [3, 0, 2]]
    every = derivatives.most_probable(logits, 9, torch.tensor([0, 3]))
    assert every.sort(dim=1).values.tolist() == [[0, 1, 2, 3]] * 2
