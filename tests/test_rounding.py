"""Scores that the rounding of float32 decides are told from those that any device finds."""

import pytest
import torch
from torch import nn

from attacks.judging import FINAL, Judgement, judge_scores
from attacks.victim import ModelVictim
from benchmark.rounding import ROUNDING, decision_margins, judge_with_doubt, usual_margin
from datasets.tasks.classification import Classification, MultiLabelClassification
from registry import Randomness
from tests.toy_tasks import Detection, Detector, detection_batch
from tests.toys import NoisyInput, batch_for, images, linear


class Fixed(nn.Module):
    """Returns the first values of an image as logits."""

    def forward(self, inputs):
        return inputs.flatten(1)[:, :2]


def fixed(first, others=0.0):
    """Returns a model's victim and batch of label 0, whose first logits are given."""
    inputs = torch.full((len(first), 1, 4, 4), others)
    inputs[:, 0, 0, 0] = torch.tensor(first)
    batch = batch_for(linear(2), inputs).with_target("label", torch.zeros(len(first), dtype=torch.int64))
    return ModelVictim(Fixed(), Classification(2), slots=4), batch


def test_rows_on_a_boundary_are_in_doubt():
    victim, batch = fixed([1.0, 0.5, 1e-5, 1e-3])
    assert usual_margin(victim, batch) == pytest.approx(1e-3)  # the lower one of the two in the middle
    scores, doubt = judge_with_doubt(victim, batch, FINAL, usual=0.5)
    assert scores.tolist() == [1, 1, 1, 1]
    assert doubt.tolist() == [0, 0, 1, 0]
    assert ROUNDING * 0.5 > 1e-5


def test_logits_that_decide_nothing_make_no_doubt():
    """A class that is ruled out by a huge logit, and a model that always says the same."""
    logits = torch.tensor([[1.0, 0.0, -1e6], [0.2, 1.2, -1e6], [3.0, 3.0 + 1e-5, -1e6]])
    margins = decision_margins(logits, Classification(3))[:, 0]
    assert (margins < ROUNDING * margins.median()).tolist() == [False, False, True]
    victim, batch = fixed([0.5] * 4)
    assert judge_with_doubt(victim, batch, FINAL, usual_margin(victim, batch))[1].tolist() == [0] * 4
    victim, batch = fixed([0.0] * 4)
    assert judge_with_doubt(victim, batch, FINAL, usual_margin(victim, batch))[1].tolist() == [0] * 4


def test_each_of_several_labels_is_a_decision_of_its_own():
    margins = decision_margins(torch.tensor([[5.0, 5.0, -3.0], [5.0, 1.0, 1e-7]]), MultiLabelClassification(3))
    assert (margins < ROUNDING * margins.median()).tolist() == [[False] * 3, [False, False, True]]


def test_the_scores_are_the_canonical_ones_and_doubt_is_a_share_of_the_draws():
    base = linear(3)
    batch, judgement = batch_for(base, images(9)), Judgement(first=5, count=8)
    victim = ModelVictim(NoisyInput(base), Classification(3), slots=16, randomness=Randomness.SAMPLE)
    scores, doubt = judge_with_doubt(victim, batch, judgement, usual=1e4)  # everything within 1 is near
    assert torch.equal(scores, judge_scores(victim, batch, judgement))
    assert 0 < doubt.mean() < 1
    assert set((doubt * 8).tolist()) <= set(range(9))


def test_outputs_that_are_no_logits_are_never_in_doubt():
    batch = detection_batch(3)
    victim = ModelVictim(Detector(), Detection(), slots=4)
    assert usual_margin(victim, batch) == 0
    assert judge_with_doubt(victim, batch, FINAL, usual=0.0)[1].tolist() == [0, 0, 0]
