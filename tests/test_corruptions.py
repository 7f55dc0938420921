"""Corruptions: their strengths, the same change alone and in any batch, and means instead of worst cases."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from attacks.ball import whole_box
from attacks.corruptions import KINDS, Corruption
from attacks.draws import KeyedRandom
from attacks.engine import run_protocol
from attacks.victim import Access, ModelVictim
from datasets.batch import Batch
from datasets.tasks.classification import Classification
from registry import AttackProtocol, Budget, CellFacts, Member, Norm, ThreatKind, ThreatModel
from registry.errors import InvalidEntryError

RNG = KeyedRandom(seed=0, stream=3)


def batch_of(inputs: torch.Tensor) -> Batch:
    labels = torch.zeros(len(inputs), dtype=torch.int64)
    return Batch(sample_ids=torch.arange(len(inputs)) + 5, inputs=inputs, targets={"label": labels})


def corrupted(kind: str, severity: int, batch: Batch) -> torch.Tensor:
    return Corruption(kind=kind, severity=severity).run(None, batch, whole_box(batch.inputs), RNG)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 16, 20), (2, 1, 16, 16)])
def test_a_sample_is_changed_alike_alone_and_in_any_batch(kind, shape):
    images = torch.rand(4, *shape, generator=torch.Generator().manual_seed(1))
    batch = batch_of(images)
    together = corrupted(kind, 3, batch)
    assert together.shape == images.shape and together.dtype == torch.float32
    assert float(together.min()) >= 0 and float(together.max()) <= 1
    assert not torch.equal(together, images)
    rows = torch.tensor([2, 0])
    assert torch.allclose(corrupted(kind, 3, batch.take(rows)), together[rows], atol=1e-6)
    if kind in ("poisson", "gaussian", "impulse"):
        same = batch_of(images[:1].expand(2, *shape))
        one, other = corrupted(kind, 3, same)
        assert not torch.equal(one, other)  # samples have draws of their own


@pytest.mark.parametrize("kind", KINDS)
def test_severity_hurts_more_and_more(kind):
    grid = torch.linspace(0.1, 0.9, 32)
    smooth = (grid[:, None] * grid.flip(0)).reshape(1, 1, 32, 32)
    pattern = ((torch.arange(32)[:, None] + torch.arange(32)) % 3 == 0).float().reshape(1, 1, 32, 32)
    batch = batch_of((0.5 * smooth + 0.4 * pattern).expand(8, 1, 32, 32))
    errors = [float((corrupted(kind, level, batch) - batch.inputs).square().mean()) for level in range(1, 6)]
    assert errors == sorted(errors) and errors[0] > 0


def test_noise_has_the_stated_strength():
    grey = batch_of(torch.full((40, 1, 32, 32), 0.5))
    assert float(corrupted("gaussian", 1, grey).std()) == pytest.approx(0.04, rel=0.03)
    shot = corrupted("poisson", 1, grey)  # variance of counts is their mean: 0.1 * sqrt(0.5)
    assert float(shot.std()) == pytest.approx(0.1 * 0.5**0.5, rel=0.03)
    assert float(shot.mean()) == pytest.approx(0.5, abs=0.005)
    assert np.allclose((shot / 0.01).round() * 0.01, shot, atol=1e-5)  # whole counts
    impulse = corrupted("impulse", 5, grey)
    assert float((impulse == 0).float().mean()) == pytest.approx(0.035, abs=0.004)
    assert float((impulse == 1).float().mean()) == pytest.approx(0.035, abs=0.004)
    assert torch.equal(corrupted("poisson", 5, batch_of(torch.zeros(2, 1, 4, 4))), torch.zeros(2, 1, 4, 4))


def test_contrast_and_blur_are_worked_by_hand():
    image = torch.tensor([[0.2, 0.8], [0.4, 0.6]]).reshape(1, 1, 2, 2)
    assert torch.allclose(corrupted("contrast", 2, batch_of(image)), 0.5 + 0.5 * (image - 0.5))
    point = torch.zeros(1, 1, 33, 33)
    point[..., 16, 16] = 1
    spread = corrupted("blur", 5, batch_of(point))
    sigma = 33 / 32
    ring = spread[0, 0, 16, 17] / spread[0, 0, 16, 16]
    assert float(ring) == pytest.approx(np.exp(-0.5 / sigma**2), rel=1e-3)
    assert float(spread.sum()) == pytest.approx(1, abs=1e-4)


class Bright(nn.Module):
    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        mean = inputs.flatten(1).mean(1)
        return torch.stack([mean, torch.full_like(mean, 0.5)], 1)


def test_a_score_may_rise_above_the_clean_one_and_from_one_severity_to_the_next():
    """Nothing is a worst case: a sample that is wrong before counts as right where a corruption helps it."""

    def members(facts, budget):
        return (Member(name="flip", attack="tests.test_corruptions:Flip", options={"severity": int(budget.size)}),)

    protocol = AttackProtocol(
        name="corruption:flip",
        title="Inverts at even severities",
        threat_model=ThreatModel(kind=ThreatKind.CORRUPTION, norm=Norm.SEVERITY),
        budgets=tuple(Budget(norm=Norm.SEVERITY, eps=level) for level in (1, 2, 3)),
        tasks=("classification",),
        members=members,
        cascades=False,
    )
    victim = ModelVictim(Bright(), Classification(2), slots=4)
    batch = batch_of(torch.tensor([0.9, 0.1, 0.2]).reshape(3, 1, 1, 1))
    facts = CellFacts(task="classification", n_classes=2)
    outcome = run_protocol(Access(victim=victim, search=victim), batch, protocol, facts)
    assert outcome.clean_scores.tolist() == [1, 0, 0]
    assert [budget.scores.tolist() for budget in outcome.budgets] == [[1, 0, 0], [0, 1, 1], [1, 0, 0]]
    assert outcome.budgets[1].found_by == ("flip",) * 3


class Flip:
    """Inverts images at even severities."""

    def __init__(self, *, severity: int) -> None:
        self._even = severity % 2 == 0

    def run(self, access, batch, ball, rng) -> torch.Tensor:
        return 1 - batch.inputs if self._even else batch.inputs


def test_unknown_corruptions_and_severities_are_refused():
    for options in ({"kind": "rain", "severity": 1}, {"kind": "blur", "severity": 6}):
        with pytest.raises(InvalidEntryError, match="severity of 1 to 5"):
            Corruption(**options)
