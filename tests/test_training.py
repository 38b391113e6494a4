"""Training: repeatable to the last bit, equal to a plain loop, and clear about what goes wrong."""

import math

import pytest
import torch
from networks import batches, small_vgg
from torch import nn
from torch.nn import functional as F
from torch.utils.data import Subset, TensorDataset

from course_lib import criteria, datasets, oracle, training
from course_lib.feature_maps import Chain
from course_lib.training import evaluate, fit, fit_head, random_flip_and_shift


def examples(n=30, seed=0):
    """Images (3, 8, 8) of four classes that a network can learn."""
    images, labels = batches(3, 8, 8, n=1, size=n, seed=seed)[0]
    return TensorDataset(images + labels[:, None, None, None] - 1.5, labels)


def state(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(a, b):
    return list(a) == list(b) and all(torch.equal(value, b[name]) for name, value in a.items())


def trained(seed=0, drawn_before=0, **options):
    model = small_vgg(batch_norm=True, dropout=True)
    torch.rand(drawn_before)
    losses = fit(model, examples(), seed=seed, progress=False, **{"updates": 9, "batch_size": 7, **options})
    return state(model), losses


# ----------------------------------------------------------------------------------------------------------------- fit


def test_same_seed_same_weights_to_the_last_bit():
    first = trained(augment=True)
    again, other = trained(augment=True, drawn_before=3), trained(augment=True, seed=1)
    assert same(first[0], again[0]) and first[1] == again[1]
    assert not same(first[0], other[0])


def test_the_number_of_workers_does_not_matter():
    with_workers = trained(augment=True, workers=2)
    assert trained(augment=True)[1] == with_workers[1]
    assert same(trained(augment=True)[0], with_workers[0])


def test_nor_does_it_for_what_is_measured():
    model, data = small_vgg(), examples()
    names = ["taylor", "obd", "apoz", "mutual_information"]

    def measured(workers):
        read = datasets.batches(data, 20, batch_size=7, workers=workers)
        scores = criteria.score(model, read, names, progress=False)
        scores["oracle"] = oracle.ablate(model, read, progress=False)
        return scores, evaluate(model, data, batch_size=7, workers=workers)

    (alone, said), (with_workers, said_with_workers) = measured(0), measured(2)
    assert said == said_with_workers
    assert all(same(scores, with_workers[name]) for name, scores in alone.items())


def test_the_loss_falls_and_the_network_learns():
    model, data = small_vgg(), examples(64)
    losses = fit(model, data, epochs=12, lr=5e-3, batch_size=16, progress=False)
    assert len(losses) == 48
    assert sum(losses[-4:]) < 0.5 * sum(losses[:4])
    assert evaluate(model, data).accuracy > 0.7
    assert not model.training


@pytest.mark.parametrize("epochs, batch_size, updates", [(1, 7, 5), (2, 30, 2), (0.5, 10, 2), (0, 7, 0), (2, 7, 9)])
def test_epochs_are_counted_in_updates(epochs, batch_size, updates):
    model = small_vgg()
    assert len(fit(model, examples(30), epochs=epochs, batch_size=batch_size, progress=False)) == updates


def test_every_example_is_seen_once_an_epoch():
    seen = []
    model = small_vgg()
    model.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].clone()))
    data = examples(30)
    fit(model, data, updates=10, batch_size=7, progress=False)
    assert [len(x) for x in seen] == [7, 7, 7, 7, 2] * 2
    for epoch in (torch.cat(seen[:5]), torch.cat(seen[5:])):
        assert torch.equal(epoch.flatten(1).sum(1).sort()[0], data.tensors[0].flatten(1).sum(1).sort()[0])
    assert not torch.equal(torch.cat(seen[:5]), torch.cat(seen[5:]))  # in another order


def test_a_last_batch_of_one_example_is_left_out():
    model = nn.Sequential(nn.Conv2d(3, 4, 8), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4, 4)).double()
    fit(model, examples(29), updates=5, batch_size=7, progress=False)  # 29 = 4 * 7 + 1
    assert len(fit(small_vgg(), examples(3), epochs=1, batch_size=1, progress=False)) == 3
    assert len(fit(small_vgg(), examples(1), updates=2, batch_size=7, progress=False)) == 2


def test_with_an_optimizer_it_is_the_plain_loop():
    model, twin, data = small_vgg(), small_vgg(), examples(12)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    found = fit(model, data, updates=4, batch_size=12, optimizer=optimizer, progress=False)
    velocity = {name: torch.zeros_like(p) for name, p in twin.named_parameters()}
    for loss in found:
        cost = -F.log_softmax(twin(data.tensors[0]), 1)[torch.arange(12), data.tensors[1]].mean()
        assert loss == pytest.approx(cost.item(), rel=1e-9)
        gradients = torch.autograd.grad(cost, list(twin.parameters()))
        with torch.no_grad():
            for (name, p), gradient in zip(twin.named_parameters(), gradients, strict=True):
                velocity[name] = 0.9 * velocity[name] + gradient
                p -= 0.05 * velocity[name]
    for a, b in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.allclose(a, b, rtol=1e-9, atol=1e-12)
    assert optimizer.param_groups[0]["lr"] == 0.05


def test_without_an_optimizer_the_rate_goes_up_and_down_to_nothing(monkeypatch):
    rates = []
    step = torch.optim.AdamW.step
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda o, *a: rates.append(o.param_groups[0]["lr"]) or step(o, *a))
    fit(small_vgg(), examples(8), updates=20, lr=0.02, progress=False)
    top = rates.index(max(rates))
    assert max(rates) == pytest.approx(0.02) and 2 <= top <= 4
    assert rates[:top] == sorted(rates[:top]) and rates[top:] == sorted(rates[top:], reverse=True)
    assert rates[-1] < 1e-3 * max(rates)


def test_a_penalty_adds_its_gradient_and_not_its_value():
    def moved(penalty):
        model = small_vgg()
        before, sgd = state(model), torch.optim.SGD(model.parameters(), lr=0.5)
        losses = fit(model, examples(6), updates=1, batch_size=6, optimizer=sgd, penalty=penalty, progress=False)
        return losses, model[3].weight.detach() - before["3.weight"], before["3.weight"]

    plain, without, _ = moved(None)
    penalised, moved_by, weight = moved(lambda model: 3 * model[3].weight.square().sum())
    assert penalised == plain
    assert torch.allclose(moved_by, without - 0.5 * 6 * weight, rtol=1e-9)


def test_watching_changes_nothing():
    watched, losses = trained(watch=lambda *_: None)
    weights, same_losses = trained()
    assert same(watched, weights) and losses == same_losses


def test_a_watcher_sees_each_update_before_it_is_made():
    model, seen = small_vgg(batch_norm=False), []

    def watch(taps, logits, labels):
        x = taps["0"].detach().requires_grad_()
        by_hand = F.cross_entropy(Chain(model).run(x, start=Chain(model).layers["0"].gate_at + 1), labels)
        expected = torch.autograd.grad(by_hand, x)[0]
        seen.append((torch.allclose(taps["0"].grad, expected, atol=1e-7), logits.shape, len(labels)))

    fit(model, examples(), updates=3, batch_size=7, progress=False, watch=watch)
    assert seen == [(True, (7, 4), 7)] * 3


@pytest.mark.parametrize("updates", range(1, 9))
def test_a_few_updates(updates):
    assert len(fit(small_vgg(), examples(4), updates=updates, progress=False)) == updates


def test_frozen_weights_stay():
    model = small_vgg()
    for p in model[:9].parameters():
        p.requires_grad_(False)
    before = state(model)
    fit(model, examples(), updates=3, progress=False)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"9.weight", "9.bias", "11.weight", "11.bias"}


@pytest.mark.parametrize("how", [{}, {"epochs": 1, "updates": 5}])
def test_epochs_or_updates(how):
    with pytest.raises(ValueError, match="either epochs=... or updates="):
        fit(small_vgg(), examples(), **how)


def test_a_loss_that_is_no_number_ends_the_training():
    model = small_vgg()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e200)
    with pytest.raises(FloatingPointError, match="learning rate"):
        fit(model, examples(), updates=9, optimizer=optimizer, progress=False)
    data = examples()
    data.tensors[0][3, 0, 0, 0] = math.nan
    with pytest.raises(FloatingPointError, match="NaN"):
        fit(small_vgg(), data, epochs=1, progress=False)
    with pytest.raises(FloatingPointError, match="NaN"):
        evaluate(small_vgg(), data)


@pytest.mark.parametrize("label", [4, -1])
def test_labels_beyond_the_outputs(label):
    data = examples()
    data.tensors[1][3] = label
    with pytest.raises(ValueError, match=f"{label}.*the network has 4 outputs"):
        fit(small_vgg(), data, epochs=1, progress=False)
    with pytest.raises(ValueError, match="the network has 4 outputs"):
        evaluate(small_vgg(), data)


def test_nothing_to_train_or_evaluate_on():
    empty = Subset(examples(), [])
    with pytest.raises(ValueError, match="training set is empty"):
        fit(small_vgg(), empty, updates=1)
    with pytest.raises(ValueError, match="evaluate on is empty"):
        evaluate(small_vgg(), empty)


def test_half_precision_on_a_cpu_is_refused():
    for use in (lambda m: fit(m, examples(), updates=1), lambda m: evaluate(m, examples())):
        with pytest.raises(TypeError, match=r"model\.float\(\)"):
            use(small_vgg().half())


# ------------------------------------------------------------------------------------------------------------ fit_head


def test_only_the_output_layer_is_trained_and_as_if_it_were_in_its_place():
    model, twin, data = small_vgg(dropout=True), small_vgg(), examples(64)
    before = state(model)
    fit_head(model, data, epochs=5, lr=0.02, seed=3)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"12.weight", "12.bias"}
    for p in list(twin.parameters())[:-2]:
        p.requires_grad_(False)
    fit(twin, data, epochs=5, lr=0.02, seed=3, progress=False)  # without dropout: the features are those of evaluation
    assert torch.allclose(list(model.parameters())[-2], list(twin.parameters())[-2], rtol=1e-7, atol=1e-10)
    assert evaluate(model, data).loss < evaluate(small_vgg(), data).loss


# ------------------------------------------------------------------------------------------------------------ evaluate


@pytest.mark.parametrize("batch_size", [256, 7])
def test_evaluate_by_hand(batch_size):
    model, data = small_vgg(batch_norm=True, dropout=True), examples()
    right, losses = 0, []
    with torch.no_grad():
        for image, label in data:
            p = model(image[None])[0].softmax(0)
            right += int(p.argmax() == label)
            losses.append(-math.log(p[label]))
    found = evaluate(model, data, batch_size=batch_size)
    assert found.accuracy == right / 30
    assert found.loss == pytest.approx(sum(losses) / 30, rel=1e-9)


def test_evaluate_changes_nothing():
    model = small_vgg(batch_norm=True, dropout=True).train()
    model[1].eval()
    modes, before = [m.training for m in model.modules()], state(model)
    assert evaluate(model, examples()) == evaluate(model, examples())
    assert [m.training for m in model.modules()] == modes
    assert same(state(model), before)


# -------------------------------------------------------------------------------------------------------- augmentation


@pytest.mark.parametrize("shape", [(3, 16, 16), (1, 8, 24), (2, 5, 5)])
def test_each_image_is_shifted_by_up_to_an_eighth_and_perhaps_mirrored(shape):
    channels, height, width = shape
    images = torch.randn(40, *shape)
    found = random_flip_and_shift(images, torch.Generator().manual_seed(0))
    assert found.shape == images.shape and found.dtype == images.dtype
    y, x = height // 8, width // 8
    seen = set()
    for before, after in zip(images, found, strict=True):
        candidates = {}
        for mirrored in (False, True):
            source = before.flip(2) if mirrored else before
            for down in range(-y, y + 1):
                for right in range(-x, x + 1):
                    # beyond its edge an image is mirrored: position -1 shows 1, position H shows H - 2
                    rows = [min(abs(i), 2 * (height - 1) - abs(i)) for i in range(down, down + height)]
                    columns = [min(abs(j), 2 * (width - 1) - abs(j)) for j in range(right, right + width)]
                    candidates[mirrored, down, right] = source[:, rows][:, :, columns]
        hits = [key for key, candidate in candidates.items() if torch.equal(candidate, after)]
        assert len(hits) == 1
        seen.add(hits[0])
    assert {mirrored for mirrored, _, _ in seen} == {False, True}
    assert {down for _, down, _ in seen} == set(range(-y, y + 1))
    assert {right for _, _, right in seen} == set(range(-x, x + 1))


def test_augmentation_repeats_with_its_seed_and_leaves_its_input():
    images = torch.randn(8, 3, 16, 16)
    before = images.clone()
    one, two = (random_flip_and_shift(images, torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(one, two) and torch.equal(images, before)
    assert not torch.equal(one, random_flip_and_shift(images, torch.Generator().manual_seed(6)))


def test_augment_is_used_in_training_only():
    calls = []
    real = training.random_flip_and_shift
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "random_flip_and_shift", lambda *a: calls.append(1) or real(*a))
        trained()
        evaluate(small_vgg(), examples())
        assert not calls
        trained(augment=True)
    assert len(calls) == 9
