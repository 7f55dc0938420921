"""The probe of state: what a model has learnt from earlier images, however it keeps it, and whatever it adds."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from attacks.ball import ball_for
from attacks.soundness.audit import audit
from attacks.soundness.untouched import untouched_copy
from attacks.victim import ModelVictim
from benchmark import evaluate
from datasets.tasks.classification import Classification
from datasets.tasks.segmentation import Segmentation
from registry import Randomness, ThreatModel, linf
from tests.soundness_toys import MARGIN, SHAPE, Lifted, Remembering, Sharing
from tests.toys import BatchDependent, NoisyInput, RandomWeights, batch_for, cnn, images, linear, protocol_of

LINEAR = linear(3, shape=SHAPE)
WEIGHT = LINEAR.weight.detach()
BATCH = batch_for(LINEAR, images(24, shape=SHAPE))


class Grid(nn.Module):
    """Makes a constant at its first call and keeps it, as networks with position codes do."""

    def __init__(self) -> None:
        super().__init__()
        self.ramp: Tensor | None = None

    def forward(self, inputs: Tensor) -> Tensor:
        if self.ramp is None:
            self.ramp = torch.linspace(0, 0.1, inputs.shape[-1], device=inputs.device)
        return inputs + self.ramp.to(inputs.dtype)


class Locked(nn.Module):
    """Holds what no copy can have."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()


class RoundsByBatch(nn.Module):
    """The same sum in another order where an image is alone: nothing but rounding differs."""

    def forward(self, inputs: Tensor) -> Tensor:
        logits = (inputs.flatten(1) - 0.5) @ WEIGHT.to(inputs.dtype).T
        return logits + 1e6 if len(inputs) > 1 else (logits / 3 + 1e6 / 3) * 3


class BySize(nn.Module):
    """One model for an image alone and for a full batch, another one for what an attack has left of a batch."""

    def __init__(self, base: nn.Module, other: nn.Module, sizes: tuple[int, ...]) -> None:
        super().__init__()
        self.base, self.other, self.sizes = base, other, sizes

    def forward(self, inputs: Tensor) -> Tensor:
        return self.base(inputs) if len(inputs) in self.sizes else self.other(inputs)


class InFloat32(nn.Module):
    """Computes in float32 whatever it is given."""

    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        self.base = base

    def forward(self, inputs: Tensor) -> Tensor:
        return self.base(inputs.float())


def state(model, untouched=None, *, randomness=Randomness.NONE, task=None, batch=BATCH):
    """Returns the finding of the probe of state after the model has answered all samples, as it does in a cell."""
    with torch.no_grad():
        model.eval()(batch.inputs)
    victim = ModelVictim(model, task or Classification(3), slots=16, randomness=randomness)
    ball = ball_for(ThreatModel(), linf(8 / 255), batch.inputs)
    clean = torch.zeros(len(batch))  # no gradient is probed
    return {finding.name: finding for finding in audit(victim, batch, clean, ball, "margin", untouched=untouched)}[
        "stateful"
    ]


@pytest.mark.parametrize("kind", [Remembering, Sharing])
def test_what_the_clean_pass_left_behind_is_red(kind):
    model = kind(LINEAR).eval()
    untouched = untouched_copy(model)
    found = state(model, untouched)
    assert len(model.seen) == 1 and untouched.seen == []
    assert found.red and found.values["untouched"] > 100 * found.values["untouched_limit"]
    assert found.values["difference"] <= found.values["limit"] and found.values["buffers"] == 0


@pytest.mark.parametrize("sizes", [(1, 16), (1, 2, 3, 4, 16), (1, 8, 15, 16)])
def test_answers_that_hang_on_the_size_of_the_batch_are_red(sizes):
    model = BySize(LINEAR, linear(3, shape=SHAPE, seed=5), sizes)
    found = state(model, untouched_copy(model))
    assert found.red and found.values["difference"] > 100 * found.values["limit"], found.evidence
    assert not state(BySize(LINEAR, LINEAR, sizes), untouched_copy(LINEAR)).red


def test_without_a_copy_from_before_the_evidence_says_so():
    found = state(Remembering(LINEAR))
    assert not found.red
    assert "there was no copy of the model from before its first answer" in found.evidence
    assert untouched_copy(nn.Sequential(Locked(), LINEAR)) is None


@pytest.mark.parametrize(
    ("model", "randomness"),
    [
        (LINEAR, Randomness.NONE),
        (cnn(3), Randomness.NONE),
        (nn.Sequential(Grid(), LINEAR), Randomness.NONE),
        (NoisyInput(LINEAR, 0.02, 0.02), Randomness.SAMPLE),
        (RandomWeights(LINEAR, 0.02), Randomness.MODEL),
    ],
    ids=["linear", "cnn", "grid", "sample", "model"],
)
def test_honest_models_answer_like_their_untouched_copies(model, randomness):
    found = state(model, untouched_copy(model), randomness=randomness)
    assert not found.red, found.evidence
    assert found.values["untouched"] <= found.values["untouched_limit"]


@pytest.mark.parametrize(
    ("model", "red"),
    [
        (Remembering(LINEAR), True),
        (nn.Sequential(Remembering(LINEAR), nn.Softmax(1)), True),
        (nn.Sequential(LINEAR, nn.Softmax(1)), False),
    ],
    ids=["remembering", "remembering probabilities", "probabilities"],
)
def test_a_cell_keeps_a_copy_from_before_its_first_answer(monkeypatch, model, red):
    ranked = linf(0.02)
    tiny = replace(protocol_of(replace(MARGIN, options={"steps": 3}), eps=(0.02,)), ranks=True, ranked_budget=ranked)
    monkeypatch.setattr("benchmark.api.PROTOCOLS", {"tiny": tiny})
    record = evaluate(model.eval(), (BATCH.inputs, BATCH.targets["label"]), protocol="tiny", n=12, device="cpu")
    flag = next(flag for flag in record.flags if flag.name == "stateful")
    assert flag.red == red, flag.evidence
    assert "from those of a copy from before its first answer" in flag.evidence


def test_what_is_added_to_all_logits_hides_no_state():
    found = state(Lifted(BatchDependent(LINEAR)))
    assert found.red and 0.1 < found.values["difference"] < 1e-5 * 1e6
    assert found.values["limit"] < 1e-2


def test_what_is_added_to_all_classes_of_a_pixel_hides_no_state():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Conv2d(1, 3, 3, padding=1).eval()
    task = Segmentation(3)
    with torch.no_grad():
        batch = replace(BATCH, targets={"mask": net(BATCH.inputs).argmax(1)})
    assert state(Lifted(BatchDependent(net)), task=task, batch=batch).red
    assert not state(Lifted(net), task=task, batch=batch).red


@pytest.mark.parametrize(
    "model", [RoundsByBatch(), InFloat32(RoundsByBatch()), Lifted(cnn(3))], ids=["float64", "float32", "cnn"]
)
def test_rounding_of_large_logits_is_no_state(model):
    found = state(model, untouched_copy(model))
    assert not found.red, found.evidence
    if not isinstance(model, Lifted):
        assert found.values["difference"] > found.values["limit"] and "rounding" in found.evidence
