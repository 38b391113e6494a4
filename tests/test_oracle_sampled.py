"""The sampled oracle: unbiased by design, honest about its error, and the exact oracle where the budget is whole."""

import pytest
import torch
from networks import CASES, batches, small_vgg, volumes
from scipy import stats
from torch import nn

from course_lib import oracle, ranking
from course_lib.oracle import sampling


def close(a, b, **options):
    assert list(a) == list(b)
    for name in a:
        torch.testing.assert_close(a[name], b[name], **options)


@pytest.mark.parametrize("case", CASES)
def test_the_whole_budget_gives_the_exact_oracle_and_no_error(case):
    model, data = (make() for make in CASES[case])
    found = oracle.estimate(model, data, budget=1)
    close(found.scores, oracle.ablate(model, data, method="naive"), atol=1e-7, rtol=0)
    for name in found.scores:
        assert (found.standard_error[name] == 0).all()
        assert (found.low[name] == found.high[name]).all()
    assert found.share <= 1


def test_a_part_of_the_budget_is_unbiased():
    model, data = small_vgg(batch_norm=True), batches(3, 8, 8, size=8)
    truth = oracle.ablate(model, data, method="naive")
    found = [oracle.estimate(model, data, 0.25, seed=seed, progress=False) for seed in range(60)]
    for name in truth:
        scores = torch.stack([one.scores[name] for one in found])
        off = (scores.mean(0) - truth[name]).abs()
        assert (off <= 4.5 * scores.std(0) / len(found) ** 0.5 + 1e-7).all()
        assert (scores.std(0) > 0).any()


def test_the_guess_is_exact_where_the_logits_are_linear_in_the_gate():
    model, data = volumes(), batches(2, 4, 6, 6, classes=3)
    last = list(oracle.ablate(model, data))[-1]
    found = oracle.estimate(model, data, 0.2, layers=[last])
    close(found.scores, oracle.ablate(model, data, [last], method="naive"), atol=1e-6, rtol=1e-5)
    assert (found.standard_error[last] < 1e-6).all()


def test_the_guess_moves_the_named_logits_and_leaves_the_others():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 7, generator=generator, dtype=torch.float64)
    classes = torch.tensor([[2, 0, 5]] * 4)
    slopes = torch.randn(4, 3, 6, generator=generator, dtype=torch.float64)
    change, doubt = sampling.guess(logits, slopes, classes)
    for n in range(4):
        for c in range(6):
            after = logits[n].clone()
            after[classes[n]] -= slopes[n, :, c]
            expected = after.logsumexp(0) - after[2] - logits[n].logsumexp(0) + logits[n, 2]
            assert change[n, c] == pytest.approx(float(expected))
            off = (after.softmax(0) - nn.functional.one_hot(torch.tensor(2), 7)).abs()
            rest = 1 - after.softmax(0)[classes[n]].sum()
            expected = (off[classes[n]] * slopes[n, :, c].abs()).sum() + rest * slopes[n, :, c].abs().mean()
            assert doubt[n, c] == pytest.approx(float(expected))


def skewed(n, columns, seed=0):
    """Doubts (N, C) that differ widely, as they do in networks."""
    generator = torch.Generator().manual_seed(seed)
    return (2 * torch.randn(n, columns, generator=generator)).exp()


def test_chances_are_proportional_to_doubt_and_add_up_to_the_budget():
    doubt = skewed(30, 50)
    doubt[3] = 0
    p = sampling.chances(doubt, 0.21)
    assert ((p >= 0) & (p <= 1)).all()
    assert (p[3] == 0).all() and (p[doubt > 0] > 0).all()
    each = p.sum(0)
    torch.testing.assert_close(each, each.round())
    assert set(each.round().tolist()) == {6.0, 7.0} and each.sum().round() == 0.21 * 30 * 50
    for c in range(50):
        ratio = (p / doubt)[(p[:, c] < 1) & (doubt[:, c] > 0), c]
        assert ratio.max() == pytest.approx(float(ratio.min()), rel=1e-5)


def test_as_many_pairs_as_are_in_doubt_are_all_sure():
    doubt = torch.tensor([[1.0, 0.0], [2.0, 0.0], [3.0, 5.0]])
    assert sampling.chances(doubt, 1.0).tolist() == [[1, 0], [1, 0], [1, 1]]


def test_each_pair_is_drawn_with_its_probability_and_each_map_as_often_as_it_should():
    p = sampling.chances(skewed(12, 1), 0.4)
    copies = 40_000
    drawn = sampling.draw(p.expand(-1, copies), torch.Generator().manual_seed(1))
    assert set(drawn.sum(0).tolist()) == {round(float(p.sum()))}
    error = (p * (1 - p) / copies).sqrt()
    assert ((drawn.double().mean(1, keepdim=True) - p).abs() <= 4.5 * error).all()
    assert drawn[p[:, 0] == 1].all()


def test_the_estimated_variance_is_the_variance():
    doubt = skewed(40, 1)
    residuals = doubt.double() * torch.randn(40, 1, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    p = sampling.chances(doubt, 0.25).expand(-1, 20_000)
    drawn = sampling.draw(p, torch.Generator().manual_seed(3))
    looked_at = residuals.where(drawn, torch.nan)  # what was not drawn cannot have been used
    mean, error = sampling.horvitz_thompson(looked_at, doubt.expand_as(p), p, drawn)
    scatter = mean.std()
    assert (mean.mean() - residuals.mean()).abs() <= 4.5 * scatter / 20_000**0.5
    assert error.square().mean().sqrt() == pytest.approx(float(scatter), rel=0.1)


def trained_like(seed=0):
    """A small network with decisive answers, on labels that it mostly gives: losses as skewed as after training."""
    model, data = small_vgg(seed=seed), batches(3, 8, 8, n=4, size=20, seed=seed)
    with torch.no_grad():
        images = torch.cat([images for images, _ in data])
        final = model[-1]
        outputs = model(images)
        final.weight /= outputs.std(0)[:, None] / 4
        final.bias.copy_((final.bias - outputs.mean(0)) / outputs.std(0) * 4)
        data = [(images, torch.where(labels == 0, labels, model(images).argmax(1))) for images, labels in data]
    return model, data


def test_intervals_hold_the_exact_oracle_as_often_as_they_say():
    hits, total = 0, 0
    for network in range(3):
        model, data = trained_like(network)
        truth = torch.cat(list(oracle.ablate(model, data).values()))
        for seed in range(12):
            found = oracle.estimate(model, data, 0.15, seed=seed, progress=False)
            low, high = (torch.cat(list(side.values())) for side in (found.low, found.high))
            hits += int(((low - 1e-9 <= truth) & (truth <= high + 1e-9)).sum())
            total += len(truth)
    # Maps and seeds are drawn independently, so hits are binomial: outside 93 to 97 % once in a thousand at most.
    assert stats.binom.ppf(0.001, total, 0.93) <= hits <= stats.binom.ppf(0.999, total, 0.97)


def test_a_larger_budget_and_less_confidence_make_shorter_intervals():
    model, data = trained_like()

    def width(**options):
        found = oracle.estimate(model, data, **options)
        return float(sum((found.high[name] - found.low[name]).sum() for name in found.low))

    assert width(budget=0.4) < width(budget=0.1)
    assert width(budget=0.1, confidence=0.5) == pytest.approx(
        width(budget=0.1) * stats.norm.ppf(0.75) / stats.norm.ppf(0.975)
    )


def test_the_same_seed_draws_the_same_and_the_batches_do_not_matter():
    model, data = small_vgg(), batches(3, 8, 8, n=4)
    one = oracle.estimate(model, data, 0.3, seed=7)
    together = [(torch.cat([x for x, _ in data]), torch.cat([y for _, y in data]))]
    close(one.scores, oracle.estimate(model, together, 0.3, seed=7).scores)
    close(one.scores, oracle.estimate(model, data, 0.3, seed=7, memory_limit=1).scores)
    other = oracle.estimate(model, data, 0.3, seed=8)
    assert any((one.scores[name] != other.scores[name]).any() for name in one.scores)


def test_a_budget_is_a_share_or_a_number():
    model, data = small_vgg(), batches(3, 8, 8, n=4)  # 20 images, 18 maps
    by_share, by_number = (oracle.estimate(model, data, budget) for budget in (0.25, 90))
    close(by_share.scores, by_number.scores)
    assert by_share.evaluations <= 90
    assert by_share.share == by_share.evaluations / 360


def test_evaluations_that_cannot_matter_are_not_drawn():
    model, data = small_vgg(), batches(3, 8, 8)
    with torch.no_grad():
        model[0].bias[2] = -1e6
    found = oracle.estimate(model, data, budget=1)
    assert found.scores["0"][2] == 0 and found.standard_error["0"][2] == 0
    assert found.evaluations <= 10 * 17


def test_maps_without_any_slope_are_measured_all_the_same():
    model, data = small_vgg(), batches(3, 8, 8)
    with torch.no_grad():
        model[3].bias.fill_(-3.0)  # the second layer is silent as long as all maps of the first are there
        model[3].weight.fill_(-1.0)
    found = oracle.estimate(model, data, budget=1)
    close(found.scores, oracle.ablate(model, data, method="naive"), atol=1e-7, rtol=0)
    assert found.evaluations >= 10 * 5 - 10  # hardly any map of the first layer is silent


def test_some_maps_of_some_layers():
    model, data = small_vgg(), batches(3, 8, 8)
    some = {"3": [4, 1]}
    found = oracle.estimate(model, data, 1, layers=some)
    close(found.scores, oracle.ablate(model, data, some), equal_nan=True, atol=1e-7, rtol=0)
    assert found.standard_error["3"].isnan().tolist() == [True, False, True, True, False, True]
    assert found.evaluations <= 20


def test_what_is_refused():
    model, data = small_vgg(), batches(3, 8, 8)
    with pytest.raises(TypeError, match=r"read twice.*list\(batches\)"):
        oracle.estimate(model, iter(data))
    with pytest.raises(ValueError, match="no examples"):
        oracle.estimate(model, [])
    with pytest.raises(ValueError, match=r"budget of 0.1 is 1 evaluations .*give budget=0.2"):
        oracle.estimate(model, data, 0.1)
    with pytest.raises(ValueError, match="budget of -1"):
        oracle.estimate(model, data, -1)
    with pytest.raises(ValueError, match="confidence is 95"):
        oracle.estimate(model, data, confidence=95)
    with pytest.raises(KeyError, match="layer"):
        oracle.estimate(model, data, layers=["conv"])
    with pytest.raises(ValueError, match="dtype"):
        oracle.estimate(model, data, dtype=torch.float16)


def test_pictures_that_change_between_the_passes_are_refused():
    class Restless(list):
        def __iter__(self):
            self.reverse()
            return super().__iter__()

    with pytest.raises(ValueError, match="other pictures"):
        oracle.estimate(small_vgg(), Restless(batches(3, 8, 8)), 0.5)


def noisy_oracle(seed, error=0.3):
    """Known truth and an estimate of it, with normal errors of known size."""
    generator = torch.Generator().manual_seed(seed)
    truth = {name: torch.randn(40, generator=generator, dtype=torch.float64) for name in ("a", "b")}
    errors = {name: torch.full((40,), error, dtype=torch.float64) for name in truth}
    seen = {n: t + errors[n] * torch.randn(40, generator=generator, dtype=torch.float64) for n, t in truth.items()}
    criterion = {n: t.abs() + 0.3 * torch.rand(40, generator=generator, dtype=torch.float64) for n, t in truth.items()}
    return truth, criterion, oracle.Estimate(seen, errors, 0.95, 0, 0.1)


def test_the_spearman_interval_is_one_of_the_correlation_with_the_exact_oracle():
    plain, corrected, inside = [], [], []
    for seed in range(30):
        truth, criterion, estimate = noisy_oracle(seed)
        right = ranking.spearman(criterion, truth)
        found = estimate.spearman(criterion, draws=30, seed=seed)
        plain.append(ranking.spearman(criterion, estimate.scores).mean - right.mean)
        corrected.append(found.value.mean - right.mean)
        inside += [
            low <= exact <= high for low, exact, high in zip(*map(numbers, (found.low, right, found.high)), strict=True)
        ]
    plain, corrected = torch.tensor(plain), torch.tensor(corrected)
    assert plain.mean() < -0.02  # noise hides some of the correlation
    assert corrected.mean().abs() < plain.mean().abs() / 2
    assert sum(inside) >= stats.binom.ppf(0.001, len(inside), 0.93)


def numbers(correlation):
    return [*correlation.per_layer.values(), correlation.mean, correlation.all_layers]


def test_without_errors_the_spearman_interval_is_a_point():
    truth, criterion, estimate = noisy_oracle(0, error=0.0)
    for absolute in (True, False):
        found, right = (
            estimate.spearman(criterion, absolute=absolute),
            ranking.spearman(criterion, truth, absolute=absolute),
        )
        for side in found:
            assert numbers(side) == pytest.approx(numbers(right))


def test_bounds_of_a_correlation_stay_within_one():
    truth, _, estimate = noisy_oracle(1)
    found = estimate.spearman({name: t.abs() for name, t in truth.items()})
    assert all(-1 <= n <= 1 for side in found for n in numbers(side))
    assert all(
        low <= n <= high for low, n, high in zip(*map(numbers, (found.low, found.value, found.high)), strict=True)
    )


def test_halves_that_agree_and_halves_that_do_not():
    generator = torch.Generator().manual_seed(0)
    steady = torch.randn(1, 300, generator=generator, dtype=torch.float64).expand(9, -1)
    noise = torch.randn(10, 300, generator=generator, dtype=torch.float64)
    assert oracle.split_half({"a": steady}).mean == pytest.approx(1)
    assert abs(oracle.split_half({"a": noise}).mean) < 4.5 / 300**0.5
    mixed = {"a": 3 * steady[:8] + noise[:8], "b": noise[:8].clone()}
    mixed["b"][:, 7] = torch.nan  # not measured
    found = oracle.split_half(mixed)
    assert found.per_layer["a"] > 0.5 and abs(found.per_layer["b"]) < 4.5 / 299**0.5
    signed = oracle.split_half({"a": steady + noise[:9]}, absolute=False)
    assert signed.mean > oracle.split_half({"a": steady + noise[:9]}).mean
    with pytest.raises(ValueError, match="at least two"):
        oracle.split_half({"a": steady[:1]})
