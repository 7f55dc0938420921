"""A stochastic victim is searched in TF32 where a GPU knows it and the model answers alike; it is never judged so."""

import pytest
import torch
from torch import nn

import attacks.rounded
from attacks.hardware import knows_tf32, tf32_allowed
from attacks.queries import Spent
from attacks.rounded import rounded
from attacks.victim import ModelVictim
from benchmark.access import Subject, access_to, described
from datasets.tasks.classification import Classification
from registry import DATASETS, PROTOCOLS, Need, Randomness, load_entries
from tests.toys import NoisyInput, batch_for, images, linear

BATCH = batch_for(linear(3), images(5))


class Rounds(nn.Module):
    """Computes otherwise where TF32 is allowed, as convolutions of a GPU do, and remembers whether it was."""

    def __init__(self, base, by):
        super().__init__()
        self.base, self.by, self.seen = base, by, []

    def forward(self, inputs):
        allowed = torch.backends.cudnn.allow_tf32 and torch.backends.cuda.matmul.allow_tf32
        self.seen.append(allowed)
        return self.base(inputs) * (1 + self.by * allowed)


@pytest.fixture
def a_gpu(monkeypatch):
    monkeypatch.setattr(attacks.rounded, "knows_tf32", lambda device: True)
    with torch.backends.cudnn.flags(allow_tf32=False):
        yield


def victim(model):
    return ModelVictim(NoisyInput(model).eval(), Classification(3), slots=16, randomness=Randomness.SAMPLE)


def objective(outputs, batch, progress):
    return outputs.sum(1)


def test_a_model_that_answers_alike_is_searched_in_tf32(a_gpu):
    own = victim(Rounds(linear(3), 1e-3))
    other = rounded(own, BATCH)
    assert other.tf32
    assert not own.tf32
    assert other.model is own.model
    own.model.base.seen.clear()
    for each in (own, other):
        each.answer(BATCH, objective, torch.zeros(5), gradient=True)
    assert own.model.base.seen == [False, True]
    assert not torch.backends.cudnn.allow_tf32


def test_a_model_that_answers_otherwise_stays_as_it_is(a_gpu):
    own = victim(Rounds(linear(3), 0.5))
    assert rounded(own, BATCH) is own


def test_the_comparison_leaves_no_counts_and_no_state(a_gpu):
    own = victim(Rounds(linear(3), 1e-3))
    rounded(own, BATCH)
    assert own.spent == Spent()
    assert own.model.base.seen == []


def test_what_was_allowed_before_is_allowed_after_an_error():
    with torch.backends.cudnn.flags(allow_tf32=False), pytest.raises(ZeroDivisionError), tf32_allowed():
        assert torch.backends.cudnn.allow_tf32
        raise ZeroDivisionError
    assert not torch.backends.cuda.matmul.allow_tf32


def test_a_cpu_knows_no_tf32():
    assert not knows_tf32(torch.device("cpu"))
    own = victim(linear(3))
    assert rounded(own, BATCH) is own


def test_only_the_search_is_rounded_and_the_record_says_so(a_gpu):
    load_entries()
    spec = DATASETS["phantom2"]
    model = NoisyInput(nn.Sequential(nn.Flatten(), nn.Linear(784, 2))).eval()
    subject = Subject(model=model, task=Classification(2), spec=spec, randomness=Randomness.SAMPLE)
    batch = batch_for(model, torch.rand(5, 1, 28, 28))
    access, _ = access_to(subject, batch, PROTOCOLS["standard"], slots=16, seed=0)
    assert access.search.tf32
    assert access.surrogates[str(Need.FROZEN_DRAW)].tf32
    assert not access.victim.tf32
    assert not access.exact.tf32
    assert described(access).endswith("searched itself in TF32")
