"""Metrics of several draws: their values by hand, for whom they exist, and how pages call them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from attacks.victim import ModelVictim
from benchmark import draw_metrics as module
from benchmark.draw_metrics import observe
from benchmark.summary import Summary
from datasets.batch import Batch
from datasets.tasks.classification import Classification
from registry import DRAW_METRICS, Member, Randomness
from reports.html import metric_spec
from reports.rows import OWN_METRICS
from tests.test_architectures import spec as data_set
from tests.toys import NoisyInput, RandomWeights, attack, batch_for, images, linear, protocol_of

N = 6


class Coin(nn.Module):
    """Says class 0 strongly in one of four draws and class 1 weakly in the others, for each image by itself."""

    def forward(self, inputs):
        strong = torch.rand(len(inputs), 1) < 0.25
        return torch.where(strong, torch.tensor([3.0, 0.0]), torch.tensor([0.0, 0.1]))


def batch_of(label: int) -> Batch:
    inputs = images(N, shape=(1, 4, 4))
    return Batch(sample_ids=torch.arange(N), inputs=inputs, targets={"label": torch.full((N,), label)})


def victim_of(model: nn.Module, randomness: Randomness, **options) -> ModelVictim:
    return ModelVictim(model.eval(), Classification(2), slots=4, randomness=randomness, **options)


def drawn(victim: ModelVictim, batch: Batch):
    return observe(victim, batch).metrics


def test_deterministic_models_have_none():
    assert drawn(victim_of(linear(2, shape=(1, 4, 4)), Randomness.NONE), batch_of(0)) == {}


def test_a_coin_is_read_in_three_ways():
    found = drawn(victim_of(Coin(), Randomness.SAMPLE), batch_of(1))
    assert set(found) == {spec.name for spec in DRAW_METRICS}
    assert {estimate.n for estimate in found.values()} == {N}
    assert 0.5 < found["draws10_mean"].value < 0.95  # three quarters of 60 draws
    assert found["draws32_worst"].value == 0  # one of 32 draws is wrong for each image
    assert found["draws32_averaged"].value < 0.5  # mean probability of class 1: 0.75 * 0.525 + 0.25 * 0.047 = 0.41
    other = drawn(victim_of(Coin(), Randomness.SAMPLE), batch_of(0))
    assert other["draws10_mean"].value == pytest.approx(1 - found["draws10_mean"].value)
    assert other["draws32_averaged"].value == pytest.approx(1 - found["draws32_averaged"].value)
    assert other["draws32_worst"].value == 0


def test_mean_and_worst_are_those_of_the_single_draws(monkeypatch):
    """Random weights: each draw is one model for all images."""
    monkeypatch.setattr(module, "DRAWS", 5)
    monkeypatch.setattr(module, "SINGLE", 3)
    model, batch = RandomWeights(linear(2, shape=(1, 4, 4)), 2.0), batch_of(0)
    victim = victim_of(model, Randomness.MODEL)
    draws = [module.Draws(torch.full_like(batch.sample_ids, module.FIRST + k)) for k in range(5)]
    outputs = torch.stack([victim.outputs(batch, draw) for draw in draws])
    right = (outputs.argmax(2) == 0).double()
    assert 0 < float(right.mean()) < 1
    found = drawn(victim, batch)
    assert found["draws10_mean"].value == pytest.approx(float(right[:3].mean()))
    assert found["draws32_worst"].value == pytest.approx(float(right.amin(0).mean()))
    averaged = (outputs.softmax(2).mean(0).argmax(1) == 0).double()
    assert found["draws32_averaged"].value == pytest.approx(float(averaged.mean()))


def test_predictions_are_those_of_the_averaged_draws_and_none_of_an_attacked_one():
    """Draw 0 is the one that a frozen-draw attack descends on; a strong minority of draws decides the average."""
    victim, batch = victim_of(Coin(), Randomness.SAMPLE), batch_of(1)
    found = observe(victim, batch)
    assert float((found.facts["prediction"] == 1).mean()) == found.metrics["draws32_averaged"].value < 0.5
    assert found.predictions.shape == (32, N)  # of single draws, three quarters of which say 1
    assert float((found.predictions == 1).mean()) > 0.6
    assert (victim.outputs(batch).argmax(1) == 1).any()
    plain = victim_of(linear(2, shape=(1, 4, 4)), Randomness.NONE)
    assert observe(plain, batch).predictions.tolist() == [plain.outputs(batch).argmax(1).tolist()]


def test_numbers_are_the_same_again_and_for_other_seeds_others():
    batch = batch_of(1)
    first, again = (drawn(victim_of(Coin(), Randomness.SAMPLE), batch) for _ in range(2))
    assert first == again
    other = drawn(victim_of(Coin(), Randomness.SAMPLE, seed=5), batch)
    assert first["draws10_mean"] != other["draws10_mean"]


@pytest.mark.parametrize("spec", DRAW_METRICS, ids=lambda spec: spec.name)
def test_pages_know_their_titles_under_every_task(spec):
    for task in ("classification", "segmentation", "some other"):
        assert metric_spec(task, spec.name).title == spec.title


@pytest.mark.parametrize("randomness", [Randomness.SAMPLE, Randomness.NONE])
def test_records_hold_them_clean_and_at_each_budget_on_the_stored_points(randomness):
    base = linear(2, shape=(1, 4, 4))
    batch = batch_for(base, images(N))
    model = NoisyInput(base, sigma=0.05) if randomness is Randomness.SAMPLE else base
    protocol = protocol_of(Member(name="pgd", attack="attacks.gradient:PGD", options={"steps": 5}), eps=(0.02, 0.3))
    outcome = attack(model, batch, protocol, randomness=randomness)
    victim = victim_of(model, randomness)
    summary = Summary(victim, batch, data_set(shape=(1, 4, 4)), outcome)
    names = {spec.name for spec in DRAW_METRICS}
    if randomness is Randomness.NONE:
        assert not names & (set(summary.clean) | set(summary.budgets[0].metrics))
        return
    assert summary.clean | drawn(victim, batch) == summary.clean
    for result, found in zip(summary.budgets, outcome.budgets, strict=True):
        expected = drawn(victim, batch.with_inputs(found.points))
        assert names == set(expected)
        assert result.metrics | expected == result.metrics
    assert summary.budgets[1].metrics["draws32_worst"].value < summary.clean["draws10_mean"].value


def test_boards_show_them_beside_corpus_metrics():
    assert not OWN_METRICS & {spec.name for spec in DRAW_METRICS}
