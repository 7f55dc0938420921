"""Certificates: bounds hold for every input of a ball, and a score under a bound fails the evaluation and the pages."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from statsmodels.stats.proportion import proportion_confint
from torch import nn

from attacks.draws import KeyedRandom
from attacks.keyed_noise import KeyedNoise
from benchmark.certificates import with_certificates
from datasets.batch import Batch
from defenses.architectures.normalize import Normalize
from defenses.build import defended_model
from defenses.certified import closed_form, intervals, smoothing
from defenses.certified.smoothing import Smoothed
from defenses.recipes import distillation, interval_training
from registry import DATASETS, DEFENSES, Budget, Norm, linf, load_entries
from registry.errors import InvalidEntryError, ViolatedCertificateError
from results.certificates import CERTIFIED, MAJORITY, check_certificates, violated
from tests.example_records import example_budget, example_record, example_samples
from tests.test_recipes import toy_dataset
from tests.toys import images, linear

load_entries()
L2 = Norm.L2


def box_network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    layers = [Normalize(), nn.Conv2d(1, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 4, 3, 1, 1, groups=2), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(64, 10), nn.ReLU(), nn.Linear(10, 3)).double().eval()


def labelled(model: nn.Module, inputs: torch.Tensor) -> Batch:
    with torch.no_grad():
        label = model(inputs).argmax(1)
    return Batch(sample_ids=torch.arange(len(inputs)), inputs=inputs, targets={"label": label})


def test_interval_bounds_contain_every_sampled_output():
    model, inputs, eps = box_network(), images(5, shape=(1, 8, 8), low=0.0, high=1.0).double(), 0.05
    low, high = (inputs - eps).clamp(min=0), (inputs + eps).clamp(max=1)
    for depth in range(1, len(model) + 1):
        lower, upper = intervals.interval_bounds(model[:depth], low, high)
        for corner in range(200):
            share = torch.rand(inputs.shape, dtype=torch.float64)
            share = share.round() if corner % 2 else share  # corners of the box are extreme
            outputs = model[:depth](low + share * (high - low))
            assert (outputs >= lower - 1e-12).all()
            assert (outputs <= upper + 1e-12).all()


def test_interval_bounds_of_one_layer_are_reached():
    layer, inputs = nn.Linear(6, 4).double(), torch.rand(3, 6, dtype=torch.float64)
    lower, upper = intervals.interval_bounds([layer], inputs - 0.1, inputs + 0.1)
    for k in range(4):
        assert torch.allclose(layer(inputs + 0.1 * layer.weight[k].sign())[:, k], upper[:, k])
        assert torch.allclose(layer(inputs - 0.1 * layer.weight[k].sign())[:, k], lower[:, k])


def test_unknown_layers_have_no_interval_arithmetic():
    with pytest.raises(InvalidEntryError, match="no interval arithmetic for a layer of type Sigmoid"):
        intervals.interval_bounds([nn.Sigmoid()], torch.zeros(1, 2), torch.ones(1, 2))


def test_lowest_margins_lie_under_those_of_an_attack_and_are_exact_without_a_ball():
    model, inputs = box_network(1), images(30, shape=(1, 8, 8)).double()
    batch = labelled(model, inputs)
    label = batch.targets["label"]

    def margins(points):
        logits = model(points)
        return logits.gather(1, label[:, None]) - logits

    assert torch.allclose(intervals.lowest_margins(model, inputs, label, 0.0), margins(inputs))
    bound, point = intervals.lowest_margins(model, inputs, label, 0.05), inputs.clone()
    for _ in range(30):
        point = point.detach().requires_grad_(True)
        lowest = margins(point).scatter(1, label[:, None], torch.inf).amin(1)
        (gradient,) = torch.autograd.grad(lowest.sum(), point)
        point = torch.minimum(torch.maximum(point - 0.01 * gradient.sign(), inputs - 0.05), inputs + 0.05).clamp(0, 1)
        assert (margins(point) >= bound - 1e-12).all()
    certified = intervals.certify(model.float(), labelled(model, inputs.float()), [linf(e) for e in (0.001, 0.05, 0.5)])
    counts = certified.sum(1).tolist()
    assert counts[0] > counts[1] >= counts[2] == 0


def steep_linear() -> nn.Module:
    """Returns logits (p + 1e8 q, 0) of images of two pixels p and q."""
    layer = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 1e8], [0.0, 0.0]]))
    return nn.Sequential(nn.Flatten(), layer)


def steep_intervals() -> nn.Sequential:
    """Returns logits (p + 1e8 max(q - 1/2, 0), 0) of images of two pixels p and q."""
    first, last = nn.Linear(2, 2), nn.Linear(2, 2)
    with torch.no_grad():
        first.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1e8]]))
        first.bias.copy_(torch.tensor([0.0, -5e7]))
        last.weight.copy_(torch.tensor([[1.0, 1.0], [0.0, 0.0]]))
        last.bias.zero_()
    return nn.Sequential(nn.Flatten(), first, nn.ReLU(), last)


STEEP = [(closed_form.certify_linear, steep_linear), (intervals.certify, steep_intervals)]


@pytest.mark.parametrize(("certify", "build"), STEEP, ids=["linear", "intervals"])
def test_the_certificate_of_a_sample_does_not_depend_on_its_neighbours(certify, build):
    inputs = torch.tensor([[0.3, 0.0], [0.3, 1.0]]).reshape(2, 1, 1, 2)
    batch = labelled(build(), inputs)
    assert batch.targets["label"].tolist() == [0, 0]
    together = certify(build(), batch, [linf(0.1)])
    alone = torch.cat([certify(build(), batch.take(torch.tensor([row])), [linf(0.1)]) for row in (0, 1)], 1)
    assert torch.equal(together, alone)
    assert together.tolist() == [[1.0, 1.0]]


@pytest.mark.parametrize(("certify", "build"), STEEP, ids=["linear", "intervals"])
def test_margins_within_rounding_are_not_certified(certify, build):
    batch = labelled(build(), torch.tensor([0.5, 0.0]).reshape(1, 1, 1, 2))
    budgets = [linf(eps) for eps in (0.4, 0.5 * (1 - 4e-6))]  # of a margin of 0.5 they leave 0.1 and 2e-6
    assert certify(build(), batch, budgets)[:, 0].tolist() == [1.0, 0.0]


def test_interval_training_proves_more_than_standard_training():
    data = toy_dataset()
    spec, val = data.spec, data.splits["val"].all()
    proven = {}
    for eps in (0.0, 0.08):
        torch.manual_seed(0)
        model = intervals.build(spec, width=4, hidden=16)
        options = {"epochs": 25, "batch_size": 16, "lr": 1e-2, "eps": eps, "flip": False, "validate_every": 25}
        training = interval_training.train(model, data, options, seed=0, device="cpu")
        assert training.selected_epoch == 25
        proven[eps] = float(intervals.certify(model, val, [linf(0.05)]).mean())
    assert proven[0.08] > proven[0.0] + 0.2


def test_distillation_trains_at_a_temperature_and_keeps_it_out_of_the_model():
    data = toy_dataset()

    def net() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 2))

    spreads, told = {}, []

    def tell(share: float, text: str) -> None:
        told.append(share)

    for temperature in (1.0, 8.0):
        model = net()
        options = {"epochs": 20, "batch_size": 16, "lr": 2e-2, "flip": False, "shift": 0, "validate_every": 5}
        training = distillation.train(
            model, data, options | {"temperature": temperature}, seed=0, device="cpu", progress=tell
        )
        assert max(row["val_clean"] for row in training.curve if "val_clean" in row) > 0.9
        with torch.no_grad():
            logits = model(data.splits["val"].all().inputs)
        spreads[temperature] = float((logits[:, 0] - logits[:, 1]).abs().median())
    assert spreads[8.0] > 2 * spreads[1.0]
    assert told[-1] == pytest.approx(1.0)
    assert all(0 < share <= 1 for share in told)
    with pytest.raises(InvalidEntryError, match="temperature must be above 0"):
        distillation.train(net(), data, {"temperature": 0.0}, seed=0, device="cpu")


def test_the_confidence_bound_is_the_clopper_pearson_one():
    right = np.array([0, 1, 37, 999, 1000])
    expected = proportion_confint(right, 1000, alpha=2 * smoothing.CONFIDENCE, method="beta")[0]
    assert smoothing.lower_confidence(right, 1000) == pytest.approx(np.nan_to_num(expected), abs=1e-12)


@pytest.mark.parametrize(
    ("norm", "eps", "radius"),
    [(Norm.L2, 0.5, 0.5), (Norm.L1, 0.5, 0.5), (Norm.LINF, 0.1, 0.1 * 48**0.5), (Norm.L0, 4, 12**0.5)],
)
def test_every_ball_lies_in_the_euclidean_one_around_it(norm, eps, radius):
    assert smoothing.euclidean_radius(Budget(norm=norm, eps=eps), (3, 4, 4)) == pytest.approx(radius)


def exact_probability(model: Smoothed, batch: Batch) -> torch.Tensor:
    """Returns the probability that a draw of a noisy two-class linear model is right, in closed form."""
    weight = model.net.weight[1] - model.net.weight[0]
    margin = (batch.inputs.flatten(1) - 0.5) @ weight * (2 * batch.targets["label"] - 1)
    return torch.from_numpy(stats.norm.cdf((margin / (model.sigma * weight.norm())).detach().numpy()))


def test_smoothing_bounds_lie_under_the_truth_of_a_linear_model_and_near_it():
    model = Smoothed(linear(2), 0.25)
    batch = labelled(model.net, images(40, low=0.1, high=0.9))
    direction = (model.net.weight[1] - model.net.weight[0]).detach().reshape(1, 4, 4)
    sign = 1 - 2.0 * batch.targets["label"].reshape(-1, 1, 1, 1)
    radii = (0.05, 0.2)
    bounds = smoothing.certify(model, batch, [Budget(norm=L2, eps=radius) for radius in radii])
    for radius, bound in zip(radii, bounds, strict=True):
        worst = batch.with_inputs(batch.inputs + radius * sign * direction / direction.norm())
        truth = exact_probability(model, worst)
        assert (bound <= truth + 1e-6).all()
        assert float((truth - bound).mean()) < 0.08
        counted = smoothing.count_right(model, worst, 400) / 400
        assert not violated(counted.numpy(), bound.numpy(), stochastic=True).any()
        assert 0.05 < float((bound > 0.5).float().mean()) < 0.95


def test_smoothing_certificates_do_not_depend_on_the_batch():
    model = Smoothed(linear(2), 0.25)
    batch = labelled(model.net, images(5))
    order = torch.tensor([4, 2, 0, 1, 3])
    counts = smoothing.count_right(model, batch, 70)
    assert torch.equal(smoothing.count_right(model, batch.take(order), 70), counts[order])
    assert 0 < int(counts.min()) < int(counts.max()) <= 70


def test_pgd_at_the_certified_radius_does_not_violate_the_certificate(tmp_path, monkeypatch):
    data = DATASETS["phantom2"].load(tmp_path)
    batch = data.splits["test"].take(np.arange(8))
    model, _ = defended_model(DEFENSES["Cohen2019Smoothing"], data.spec, 0, None)
    monkeypatch.setattr(smoothing, "DRAWS", 100)
    eps, label = 0.25, batch.targets["label"]
    bound = smoothing.certify(model, batch, [Budget(norm=L2, eps=eps)])[0]
    assert 2 <= int((bound > 0.5).sum()) < 8
    point, random = batch.inputs.clone(), KeyedRandom(seed=1)
    for step in range(6):
        point = point.detach().requires_grad_(True)
        with KeyedNoise(random.keys(batch.sample_ids, step)):
            loss = nn.functional.cross_entropy(model(point), label, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, point)
        change = (point + 0.1 * gradient / gradient.flatten(1).norm(dim=1)[:, None, None, None]).clamp(0, 1)
        change = (change - batch.inputs).detach()
        point = batch.inputs + change * (eps / change.flatten(1).norm(dim=1).clamp(min=eps))[:, None, None, None]
    scores = smoothing.count_right(model, batch.with_inputs(point.detach()), 100) / 100
    assert not violated(scores.numpy(), bound.numpy(), stochastic=True).any()
    assert float(scores.mean()) < float(smoothing.count_right(model, batch, 100).float().mean() / 100)


def certified_table(bounds: list[float]) -> pd.DataFrame:
    return example_samples().assign(certified_0=bounds)


def test_a_forged_certificate_is_found():
    record = example_record()
    honest = certified_table([0, 0, 1, 0, 0, 1, 0, 0])
    check_certificates(record, honest)
    forged = certified_table([0, 0, 1, 0, 1, 1, 0, 0])
    with pytest.raises(ViolatedCertificateError, match=r"1 samples score less at Linf 0\.01569 .* sample 4 scores 0"):
        check_certificates(record, forged)


def test_scores_of_draws_may_scatter_around_a_bound_but_not_far_below():
    scores, bounds = np.array([0.70, 0.70, 0.70]), np.array([0.69, 0.90, 0.99])
    assert violated(scores, bounds, stochastic=True).tolist() == [False, False, True]
    assert violated(scores, bounds, stochastic=False).tolist() == [False, True, True]


def proves(bounds: list[float]):
    """Returns a certificate that claims these bounds at every budget."""
    return lambda model, batch, budgets: torch.tensor([bounds] * len(budgets))


def test_an_evaluation_adds_certificates_and_fails_where_one_is_violated():
    record, samples = example_record(budgets=(example_budget(),)), example_samples()
    batch = Batch(sample_ids=torch.arange(8), inputs=images(8))
    plain = DEFENSES["Gowal2018IBP"]
    none = replace(plain, certificate=None)
    assert with_certificates(none, linear(2), batch, record, samples) == (record, samples)
    entry = replace(plain, certificate=proves([0.0, 0, 1, 0, 0, 0, 0, 0]))
    filled, table = with_certificates(entry, linear(2), batch, record, samples)
    assert filled.budgets[0].metrics[CERTIFIED].value == pytest.approx(1 / 8)
    assert MAJORITY not in filled.budgets[0].metrics
    assert table["certified_0"].tolist() == [0, 0, 1, 0, 0, 0, 0, 0]
    forged = replace(plain, certificate=proves([1.0] * 8))
    with pytest.raises(ViolatedCertificateError, match="the certificate of the entry or the suite is wrong"):
        with_certificates(forged, linear(2), batch, record, samples)


def test_a_stochastic_defense_also_states_its_certified_majority():
    scores = [0.6, 0.2, 1, 0, 0, 1, 0, 0.3]
    record = example_record(defense={"name": "Noisy", "randomness": "sample"})
    batch = Batch(sample_ids=torch.arange(8), inputs=images(8))
    entry = replace(DEFENSES["Cohen2019Smoothing"], certificate=proves([0.6, 0.2, 0.9, 0, 0, 0.4, 0, 0]))
    filled, _ = with_certificates(entry, linear(2), batch, record, example_samples(scores))
    metrics = filled.budgets[0].metrics
    assert metrics[MAJORITY].value == pytest.approx(2 / 8)
    assert metrics[CERTIFIED].value == pytest.approx(2.1 / 8)
