"""Probes: honest models raise no red flag, each kind of fault raises its own, and no probe leaves a trace."""

import copy

import pytest
import torch
from torch import nn

from attacks.ball import ball_for
from attacks.judging import FINAL, judge_scores
from attacks.log_probabilities import LogProbabilities
from attacks.objectives import OBJECTIVES
from attacks.soundness.audit import audit
from attacks.soundness.gradient_probe import gradient_findings
from attacks.victim import ModelVictim
from datasets.batch import Batch
from datasets.tasks.classification import Classification
from datasets.tasks.segmentation import Segmentation
from registry import Norm, Randomness, ThreatModel, linf
from tests.soundness_toys import Saturating
from tests.toy_tasks import Multimodal, multimodal_batch
from tests.toys import (
    BatchDependent,
    Counting,
    Detached,
    Linear,
    NoisyInput,
    Quantise,
    RandomWeights,
    Sine,
    StuckInTraining,
    batch_for,
    cnn,
    images,
    linear,
)

SHAPE = (1, 8, 8)
LINEAR = linear(3, shape=SHAPE)


class Scaled(nn.Module):
    def __init__(self, base, factor):
        super().__init__()
        self.base, self.factor = base, factor

    def forward(self, inputs):
        return self.base(inputs) * self.factor


class NotInFloat64(nn.Module):
    """A model that insists on float32."""

    def __init__(self, base):
        super().__init__()
        self.base = base

    def forward(self, inputs):
        return self.base(inputs.to(torch.float32) + torch.zeros(1, dtype=torch.float32))


def probe(model, *, batch=None, task=None, randomness=Randomness.NONE, objective="margin"):
    batch = batch or batch_for(cnn(3), images(40, shape=SHAPE))
    task = task or Classification(3)
    victim = ModelVictim(model.eval(), task, slots=16, randomness=randomness)
    clean = judge_scores(victim, batch, FINAL)
    ball = ball_for(ThreatModel(norm=Norm.LINF), linf(8 / 255), batch.inputs)
    return {finding.name: finding for finding in audit(victim, batch, clean, ball, objective)}


def red(findings):
    return {name for name, finding in findings.items() if finding.red}


def on_linear(n=40, wrong=2):
    return batch_for(LINEAR, images(n, shape=SHAPE), wrong=wrong)


HONEST = {
    "linear": (LINEAR, on_linear()),
    "cnn": (cnn(3), None),
    "logits x 0.001": (Scaled(LINEAR, 1e-3), on_linear()),
    "logits x 10000": (Scaled(LINEAR, 1e4), on_linear()),
    "float32 only": (NotInFloat64(LINEAR), on_linear()),
    "2 classes": (linear(2, shape=SHAPE), batch_for(linear(2, shape=SHAPE), images(40, shape=SHAPE))),
    "probabilities": (LogProbabilities(nn.Sequential(cnn(3), nn.Softmax(1))), None),
}


@pytest.mark.parametrize(("model", "batch"), HONEST.values(), ids=HONEST)
def test_honest_models_raise_no_red_flag(model, batch):
    task = Classification(model(images(1, shape=SHAPE)).shape[1])
    findings = probe(model, batch=batch, task=task)
    assert red(findings) == set(), {name: findings[name].evidence for name in red(findings)}
    assert {"train-mode", "stochastic-undeclared", "stateful", "zero-gradient", "dishonest-gradient"} <= set(findings)


def test_a_linear_model_gains_exactly_what_its_gradient_promises():
    """With 2 classes the margin is linear: real over predicted gain is 1 at every step, at samples and in the ball."""
    model = linear(2, shape=SHAPE)
    values = probe(model, batch=batch_for(model, images(30, shape=SHAPE)), task=Classification(2))
    assert list(values["dishonest-gradient"].values.values()) == pytest.approx([1.0] * 6, abs=1e-6)


def test_segmentation_is_probed_on_soft_dice():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 1)).eval()
    inputs = images(10, shape=SHAPE)
    with torch.no_grad():
        mask = model(inputs).argmax(1)
    batch = Batch(sample_ids=torch.arange(10), inputs=inputs, targets={"mask": mask})
    findings = probe(model, batch=batch, task=Segmentation(3), objective="soft-dice")
    assert red(findings) == set()
    assert "dishonest-gradient" in findings


def test_several_modalities_with_context_are_probed(monkeypatch):
    monkeypatch.setitem(OBJECTIVES, "multimodal", OBJECTIVES["classification"])
    model, batch = multimodal_batch(20)
    assert red(probe(model, batch=batch, task=Multimodal(3))) == set()


FAULTS = {
    "sine": (nn.Sequential(Sine(), LINEAR), {"dishonest-gradient"}),
    "quantised": (nn.Sequential(Quantise(), LINEAR), {"zero-gradient", "dishonest-gradient"}),
    "detached": (Detached(LINEAR), {"zero-gradient", "dishonest-gradient"}),
    "train-mode": (nn.Sequential(StuckInTraining(nn.Identity()), LINEAR), {"train-mode"}),
    "batch-dependent": (BatchDependent(LINEAR), {"stateful"}),
    "counter": (Counting(LINEAR), {"stateful"}),
}


@pytest.mark.parametrize(("model", "expected"), FAULTS.values(), ids=FAULTS)
def test_each_fault_raises_its_flag(model, expected):
    findings = probe(model, batch=on_linear())
    assert expected == red(findings), {name: findings[name].evidence for name in red(findings)}
    assert all(findings[name].evidence for name in expected)


@pytest.mark.parametrize("model", [NoisyInput(LINEAR), RandomWeights(LINEAR)], ids=["sample", "model"])
def test_undeclared_randomness_is_red(model):
    assert "stochastic-undeclared" in red(probe(model, batch=on_linear()))


@pytest.mark.parametrize(
    ("model", "randomness"),
    [(NoisyInput(LINEAR, 0.02, 0.02), Randomness.SAMPLE), (RandomWeights(LINEAR, 0.02), Randomness.MODEL)],
    ids=["sample", "model"],
)
def test_declared_randomness_is_not(model, randomness):
    findings = probe(model, batch=on_linear(), randomness=randomness)
    assert red(findings) == set()
    assert findings["stochastic-undeclared"].values["difference"] > 0


def test_a_pattern_that_repeats_itself_is_no_noise():
    """The draws of the evaluation replace those of its own generator, which begins anew in every call."""

    class Patterned(nn.Module):
        def forward(self, inputs):
            pattern = torch.randn(inputs.shape, generator=torch.Generator().manual_seed(0))
            return LINEAR(inputs + 0.02 * pattern)

    findings = probe(Patterned(), batch=on_linear(), randomness=Randomness.SAMPLE)
    assert red(findings) == {"stochastic-undeclared"}
    assert "repeats itself" in findings["stochastic-undeclared"].evidence
    assert "stochastic-undeclared" not in red(probe(Patterned(), batch=on_linear()))


@pytest.mark.parametrize(
    ("model", "randomness"),
    [
        (nn.Sequential(NoisyInput(nn.Identity(), 0.02, 0.02), BatchDependent(LINEAR)), Randomness.SAMPLE),
        (nn.Sequential(NoisyInput(nn.Identity(), 0.02, 0.02), Counting(LINEAR)), Randomness.SAMPLE),
        (nn.Sequential(Counting(nn.Identity()), RandomWeights(LINEAR, 0.02)), Randomness.MODEL),
    ],
    ids=["batch", "counter", "counter of random weights"],
)
def test_noise_does_not_hide_state(model, randomness):
    assert "stateful" in red(probe(model, batch=on_linear(), randomness=randomness))


def test_dropout_left_in_training_mode_is_seen_twice():
    model = nn.Sequential(StuckInTraining(nn.Dropout(0.2)), LINEAR)
    assert {"train-mode", "stochastic-undeclared"} <= red(probe(model, batch=on_linear()))


def test_a_wrong_sign_of_the_gradient_is_dishonest():
    class Reversed(torch.autograd.Function):
        @staticmethod
        def forward(ctx, inputs):
            return inputs.clone()

        @staticmethod
        def backward(ctx, gradient):
            return -gradient

    class Backwards(nn.Module):
        def forward(self, inputs):
            return LINEAR(Reversed.apply(inputs))

    findings = probe(Backwards(), batch=on_linear())
    assert red(findings) == {"dishonest-gradient"}
    assert max(findings["dishonest-gradient"].values.values()) < 0


def test_notes():
    constant = probe(Linear(torch.zeros(3, 64)), batch=on_linear())
    assert constant["constant"].values["constant"] == 1
    assert probe(LINEAR, batch=on_linear())["constant"].values["constant"] == 0
    softmax = probe(nn.Sequential(LINEAR, nn.Softmax(1)), batch=on_linear())
    assert softmax["probabilities"].values["probabilities"] == 1
    assert not softmax["probabilities"].red
    assert probe(LINEAR, batch=on_linear())["probabilities"].values["probabilities"] == 0


def test_no_correct_sample_means_no_gradient_probe():
    findings = probe(LINEAR, batch=on_linear(12, wrong=12))
    assert "dishonest-gradient" not in findings
    assert "train-mode" in findings


@pytest.mark.parametrize(
    "model", [Counting(cnn(3)), NoisyInput(cnn(3)), Quantise(), LINEAR], ids=["counter", "noisy", "quantised", "linear"]
)
def test_a_probe_leaves_no_trace(model):
    model = nn.Sequential(model, LINEAR) if isinstance(model, Quantise) else model
    batch = on_linear()
    victim = ModelVictim(model.eval(), Classification(3), slots=16)
    clean = torch.ones(len(batch))
    before, inputs = copy.deepcopy(model.state_dict()), batch.inputs.clone()
    state = torch.random.get_rng_state()
    audit(victim, batch, clean, ball_for(ThreatModel(), linf(8 / 255), batch.inputs), "margin")
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(batch.inputs, inputs)
    assert not model.training
    assert all(p.grad is None for p in model.parameters())
    for name, values in model.state_dict().items():
        assert torch.equal(values, before[name]), name


def test_a_faulty_model_never_flags_the_next():
    for model, _ in FAULTS.values():
        probe(model, batch=on_linear())
        assert red(probe(LINEAR, batch=on_linear())) == set()


class Curved(nn.Module):
    """Logits that saturate within a part of eps, as those of models without a defense do."""

    def __init__(self):
        super().__init__()
        self.base = linear(3, shape=SHAPE)

    def forward(self, inputs):
        return torch.tanh(6 * self.base(inputs))


def test_a_curved_model_is_honest_where_steps_are_short():
    """At eps a step gains far less than predicted, at eps/4 it does not."""
    inputs = images(40, shape=SHAPE)
    with torch.no_grad():  # near the boundary, where the tangent is steep
        top = LINEAR(inputs).topk(2, dim=1).values
    inputs = inputs[(top[:, 0] - top[:, 1]) < 0.6]
    finding = probe(Curved(), batch=batch_for(LINEAR, inputs))["dishonest-gradient"]
    assert min(finding.values.values()) < 0.3 < max(finding.values.values())
    assert not finding.red


class OnTop(nn.Module):
    """The logits of one model, and a little of another's."""

    def __init__(self, base, other, share):
        super().__init__()
        self.base, self.other, self.share = base, other, share

    def forward(self, inputs):
        return self.base(inputs) + self.share * self.other(inputs)


@pytest.mark.parametrize("share", [0, 1e-6])
def test_a_gradient_that_understates_what_a_step_gains_is_dishonest(share):
    """Off the boundary the tangent is flat, and a step leads to where it is not: there is more than it promises."""
    base, other = linear(2, shape=SHAPE), linear(2, shape=SHAPE, seed=9)
    inputs = images(400, shape=SHAPE)
    with torch.no_grad():
        margins = base(inputs).diff(dim=1)[:, 0].abs()
    batch = batch_for(base, inputs[(margins > 0.6) & (margins < 1.0)])
    model = OnTop(Saturating(base, 12.0), other, share).eval()
    finding = probe(model, batch=batch, task=Classification(2))["dishonest-gradient"]
    assert finding.values["eps/4"] > 2.5, finding.evidence
    assert finding.red


class HonestInFloat64(nn.Module):
    """One model where it is asked in float64, another one otherwise."""

    def __init__(self, honest, broken):
        super().__init__()
        self.honest, self.broken = honest, broken

    def forward(self, inputs):
        return self.honest(inputs) if inputs.dtype == torch.float64 else self.broken(inputs)


class Float32Gradient(torch.autograd.Function):
    """The identity, with a gradient in float32 alone."""

    @staticmethod
    def forward(ctx, inputs):
        return inputs.clone()

    @staticmethod
    def backward(ctx, above):
        if above.dtype != torch.float32:
            raise RuntimeError("expected float32")
        return above


class Float32Backward(nn.Module):
    """Answers in any precision, and gives gradients in float32 alone."""

    def forward(self, inputs):
        return Float32Gradient.apply(LINEAR(inputs))


def test_a_gradient_in_float32_alone_is_probed_in_float32():
    finding = probe(Float32Backward(), batch=on_linear())["dishonest-gradient"]
    assert "float32" in finding.evidence and not finding.red, finding.evidence


def test_a_model_that_is_honest_in_float64_alone_is_probed_in_float32():
    findings = probe(HonestInFloat64(linear(3, shape=SHAPE, seed=3), nn.Sequential(Sine(), LINEAR)), batch=on_linear())
    assert "float32" in findings["dishonest-gradient"].evidence
    assert findings["dishonest-gradient"].red
    neighbours = BatchDependent(LINEAR)
    findings = probe(HonestInFloat64(linear(3, shape=SHAPE, seed=3), neighbours), batch=on_linear())
    assert findings["stateful"].red, findings["stateful"].evidence


def test_a_ripple_of_the_size_of_eps_is_dishonest():
    """Its slope is honest over eps/4, and a step of eps walks over its crest and down again."""
    finding = probe(nn.Sequential(Sine(0.03, 140.0), LINEAR), batch=on_linear())["dishonest-gradient"]
    assert finding.values["eps/4"] > 0.3
    assert finding.red


@pytest.mark.parametrize("backward", ["true", "bpda"])
def test_a_gradient_is_judged_as_it_is_followed(backward):
    batch = on_linear()
    model = nn.Sequential(Quantise(64), LINEAR).eval()
    victim = ModelVictim(model, Classification(3), slots=16)
    ball = ball_for(ThreatModel(), linf(8 / 255), batch.inputs)
    found = gradient_findings(victim, batch, ball, "margin", backward=backward)
    assert [finding.red for finding in found] == [backward == "true"] * 2


def test_another_models_gradient_is_read_in_units_of_its_spread():
    """The victim's logits are 1000 times smaller; what the twin promises is promised in proportion."""
    batch = on_linear()
    twin, victim = (ModelVictim(m.eval(), Classification(3), slots=16) for m in (LINEAR, Scaled(LINEAR, 1e-3)))
    ball = ball_for(ThreatModel(), linf(8 / 255), batch.inputs)
    honest = gradient_findings(twin, batch, ball, "margin", judge=victim)[1]
    assert not honest.red and max(honest.values.values()) < 1.1
    other = ModelVictim(linear(3, shape=SHAPE, seed=5), Classification(3), slots=16)
    assert gradient_findings(other, batch, ball, "margin", judge=victim)[1].red


class Saturated(nn.Module):
    """Answers that are 0 or 1 to the last bit, as an overflowing softmax gives them."""

    def __init__(self, bias):
        super().__init__()
        self.base, self.bias = linear(3, shape=SHAPE), torch.tensor(bias)

    def forward(self, inputs):
        return (1e6 * (self.base(inputs) + self.bias)).softmax(1)


def test_a_constant_model_hides_no_gradient():
    batch = batch_for(Linear(torch.zeros(3, 64)), images(40, shape=SHAPE))
    assert red(probe(Linear(torch.zeros(3, 64)), batch=batch)) == set()


@pytest.mark.parametrize("bias", [[0.0, 0.0, 0.0], [0.8, 0.0, 0.0]])
def test_saturated_answers_are_no_constant_however_alike_the_samples(bias):
    model = Saturated(bias).eval()
    inputs = images(200, shape=SHAPE)
    inputs = inputs[model(inputs).argmax(1) == 0][:40]
    assert (model(inputs) == model(inputs)[0]).all()
    assert "zero-gradient" in red(probe(model, batch=batch_for(model, inputs)))
