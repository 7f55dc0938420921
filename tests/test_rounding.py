"""Scores that the rounding of float32 decides are told from those that any device finds."""

import pytest
import torch
from torch import nn

from attacks.judging import FINAL, Judgement, judge_scores
from attacks.victim import ModelVictim
from benchmark.rounding import ROUNDING, judge_with_doubt, usual_spread
from datasets.tasks.classification import Classification
from registry import Randomness
from tests.toy_tasks import Detection, Detector, detection_batch
from tests.toys import NoisyInput, batch_for, images, linear


class Fixed(nn.Module):
    """Returns the first values of an image as logits."""

    def forward(self, inputs):
        return inputs.flatten(1)[:, :2]


def test_rows_on_a_boundary_are_in_doubt():
    inputs = torch.zeros(4, 1, 4, 4)
    gaps = torch.tensor([1.0, 0.5, 1e-5, 1e-3])
    inputs[:, 0, 0, 0] = gaps
    victim = ModelVictim(Fixed(), Classification(2), slots=4)
    batch = batch_for(linear(2), inputs).with_target("label", torch.zeros(4, dtype=torch.int64))
    assert usual_spread(victim, batch) == pytest.approx(float(gaps.median()))
    scores, doubt = judge_with_doubt(victim, batch, FINAL, spread=0.5)
    assert scores.tolist() == [1, 1, 1, 1]
    assert doubt.tolist() == [0, 0, 1, 0]
    assert ROUNDING * 0.5 > 1e-5


def test_the_scores_are_the_canonical_ones_and_doubt_is_a_share_of_the_draws():
    base = linear(3)
    batch, judgement = batch_for(base, images(9)), Judgement(first=5, count=8)
    victim = ModelVictim(NoisyInput(base), Classification(3), slots=16, randomness=Randomness.SAMPLE)
    scores, doubt = judge_with_doubt(victim, batch, judgement, spread=1e4)  # everything within 1 is near
    assert torch.equal(scores, judge_scores(victim, batch, judgement))
    assert 0 < doubt.mean() < 1
    assert set((doubt * 8).tolist()) <= set(range(9))


def test_outputs_that_are_no_logits_are_never_in_doubt():
    batch = detection_batch(3)
    victim = ModelVictim(Detector(), Detection(), slots=4)
    assert usual_spread(victim, batch) == 0
    assert judge_with_doubt(victim, batch, FINAL, spread=0.0)[1].tolist() == [0, 0, 0]
