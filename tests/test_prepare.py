"""The faster copy for the search: the same outputs, the original untouched, and none where it would differ."""

import copy

import pytest
import torch
from torch import nn

from attacks import prepare as prepare_module
from attacks.bpda import stand_ins
from attacks.prepare import prepare
from attacks.queries import Draws
from attacks.victim import ModelVictim
from benchmark import access
from benchmark.access import Subject, access_to, described
from benchmark.evaluation_cell import examples_of, load_dataset
from datasets.tasks.classification import Classification
from registry import DATASETS, PROTOCOLS, Need, Randomness, load_entries
from tests.toy_tasks import Detector, detection_batch
from tests.toys import BatchDependent, NotANumber, Quantise, StuckInTraining, batch_for, cnn, images, linear

EXAMPLE = images(8, shape=(1, 8, 8))


class Residual(nn.Module):
    """Two convolutions with batch normalisation around a skip connection."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(1, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.conv, self.bn = nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 3)

    def forward(self, inputs):
        first = self.norm(self.stem(inputs)).relu()
        return self.head((first + self.bn(self.conv(first))).relu().mean((2, 3)))


def residual():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Residual()
        for norm in (model.norm, model.bn):
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)
            nn.init.normal_(norm.weight)
            nn.init.normal_(norm.bias)
    return model.eval()


@pytest.mark.parametrize("model", [cnn(3), residual(), linear(3, shape=(1, 8, 8))], ids=["cnn", "residual", "linear"])
def test_outputs_and_gradients_agree(model):
    fast = prepare(model, EXAMPLE, low_precision=False)
    inputs = images(5, shape=(1, 8, 8), seed=9)
    one, two = inputs.clone().requires_grad_(), inputs.clone().requires_grad_()
    first, second = model(one), fast(two)
    assert torch.allclose(first, second, atol=1e-5)
    gradients = [torch.autograd.grad(logits[:, 0].sum(), x)[0] for logits, x in ((first, one), (second, two))]
    assert torch.allclose(*gradients, atol=1e-5)
    assert not fast.training


def test_batch_normalisation_is_folded():
    fast = prepare(residual(), EXAMPLE, low_precision=False)
    used = {node.target for node in fast.graph.nodes if node.op == "call_module"}
    assert not any(isinstance(fast.get_submodule(name), nn.BatchNorm2d) for name in used)


def test_the_original_stays_as_it_was():
    model = residual()
    before, parameters = copy.deepcopy(model.state_dict()), [id(p) for p in model.parameters()]
    fast = prepare(model, EXAMPLE)
    with torch.no_grad():
        for parameter in fast.parameters():
            parameter.add_(1.0)
    assert all(torch.equal(now, before[name]) for name, now in model.state_dict().items())
    assert [id(p) for p in model.parameters()] == parameters
    assert model.conv.weight.is_contiguous()  # channels-last is the copy's alone


class SharedConvolution(nn.Module):
    """One convolution before two different normalisations: folding either would spoil the other."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 3, padding=1)
        self.one, self.two = nn.BatchNorm2d(1), nn.BatchNorm2d(1)
        self.two.weight.data.fill_(5.0)

    def forward(self, inputs):
        return self.two(self.conv(self.one(self.conv(inputs)))).flatten(1)


class ControlFlow(nn.Module):
    def forward(self, inputs):
        return inputs.flatten(1) if inputs.sum() > 0 else -inputs.flatten(1)


REFUSED = {
    "control flow": ControlFlow(),
    "dict outputs": Detector(),
    "shared convolution": SharedConvolution(),
    "NaN": NotANumber(linear(3, shape=(1, 8, 8)), EXAMPLE[:1] + 1),
}


@pytest.mark.parametrize("model", REFUSED.values(), ids=REFUSED)
def test_models_without_a_faithful_copy_serve_themselves(model):
    example = detection_batch(4).inputs if isinstance(model, Detector) else EXAMPLE
    assert prepare(model.eval(), example) is None


def test_a_copy_that_differs_is_refused():
    """Outside of eval mode the copy, which is in eval mode, computes something else."""
    model = nn.Sequential(nn.Conv2d(1, 4, 3), StuckInTraining(nn.BatchNorm2d(4)), nn.Flatten()).eval()
    assert prepare(model, EXAMPLE) is None


class Deep(nn.Module):
    """Enough layers that some lie between the first and the last."""

    def __init__(self, scale: float = 1.0):
        super().__init__()
        self.layers = nn.Sequential(
            *(layer for k in range(3) for layer in (nn.Conv2d(4 if k else 1, 4, 3, padding=1), nn.ReLU())),
            nn.Flatten(),
            nn.Linear(256, 3),
        )
        self.scale = scale

    def forward(self, inputs):
        return self.layers(inputs) * self.scale


def deep():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return Deep().eval()


@pytest.fixture
def bfloat16(monkeypatch):
    """Takes the copy in bfloat16 on any processor, however slow it is there."""
    monkeypatch.setattr(prepare_module, "knows_bfloat16", lambda device: True)


def test_the_copy_in_bfloat16_agrees_well_and_computes_in_bfloat16(bfloat16):
    model, seen = deep(), []
    fast = prepare(model, EXAMPLE)
    for layer in (m for m in fast.modules() if isinstance(m, (nn.Conv2d, nn.Linear))):
        layer.register_forward_hook(lambda module, args, output: seen.append(output.dtype))
    logits = fast(EXAMPLE).detach()
    assert logits.dtype == torch.float32
    assert seen == [torch.float32, torch.bfloat16, torch.bfloat16, torch.float32]
    expected = model(EXAMPLE).detach()
    assert not torch.equal(logits, expected)
    assert float((logits - expected).abs().max() / (expected.max() - expected.min())) < prepare_module.LOW_TOLERANCE


def test_bfloat16_is_refused_where_it_differs(bfloat16, monkeypatch):
    monkeypatch.setattr(prepare_module, "LOW_TOLERANCE", 1e-9)
    assert torch.allclose(prepare(deep(), EXAMPLE)(EXAMPLE), deep()(EXAMPLE), atol=1e-6)
    monkeypatch.setattr(prepare_module, "LOW_TOLERANCE", 1.0)
    monkeypatch.setattr(prepare_module, "LOW_COSINE", 1.1)
    assert torch.allclose(prepare(deep(), EXAMPLE)(EXAMPLE), deep()(EXAMPLE), atol=1e-6)


def test_a_small_change_of_the_input_is_not_rounded_away(bfloat16):
    """A quarter of a grey level is far below what bfloat16 holds of a value near 1."""
    fast, change = prepare(deep(), EXAMPLE), torch.full_like(EXAMPLE, 0.25 / 255)
    assert not torch.equal(fast(EXAMPLE + change), fast(EXAMPLE))


def test_declared_stages_are_found_in_the_copy():
    model = nn.Sequential(Quantise(), cnn(3)).eval()
    fast = prepare(model, EXAMPLE)
    inputs = EXAMPLE.clone().requires_grad_()
    with stand_ins(fast):
        assert torch.autograd.grad(fast(inputs)[:, 0].sum(), inputs)[0].any()
    assert not torch.autograd.grad(fast(inputs)[:, 0].sum(), inputs)[0].any()


def test_dependence_on_the_batch_survives():
    """The copy must not hide a fault of the model that the audit looks for."""
    model = BatchDependent(cnn(3)).eval()
    fast = prepare(model, EXAMPLE)
    assert fast is None or not torch.allclose(fast(EXAMPLE[:1]), fast(EXAMPLE)[:1])


class Noisy(nn.Module):
    """Noise behind a convolution that takes part in the folding, and a draw of weights for all rows before the head."""

    def __init__(self, rows):
        super().__init__()
        self.body, self.rows = residual(), rows

    def forward(self, inputs):
        noise = torch.randn_like(inputs)
        if not self.rows:
            noise = noise[:1]
        return self.body(inputs + 0.1 * noise)


def stochastic(model, randomness):
    return ModelVictim(model.eval(), Classification(3), slots=8, randomness=randomness)


@pytest.mark.parametrize("randomness", [Randomness.SAMPLE, Randomness.MODEL])
def test_a_stochastic_model_and_its_copy_draw_the_same(randomness):
    batch = batch_for(linear(3, shape=(1, 8, 8)), EXAMPLE)
    own = stochastic(Noisy(randomness is Randomness.SAMPLE), randomness)
    fast = prepare(own.model, EXAMPLE, low_precision=False, drawing=lambda: own.drawing(batch.sample_ids))
    copied = stochastic(fast, randomness)
    draws = Draws(torch.full((8,), 5), 3)
    one, two = (
        v.answer(batch, lambda outputs, *_: outputs[:, 0], torch.zeros(8), gradient=True, draws=draws)
        for v in (own, copied)
    )
    assert torch.allclose(one.objective, two.objective, atol=1e-5)
    assert torch.allclose(one.gradient, two.gradient, atol=1e-5)


class FrozenByTracing(nn.Module):
    """Draws in a shape that hangs on no input, so that tracing would keep one draw for good."""

    def forward(self, inputs):
        return (inputs + torch.randn(1, 1, 8, 8)).flatten(1)


def test_a_copy_that_kept_one_draw_is_refused():
    batch = batch_for(linear(3, shape=(1, 8, 8)), EXAMPLE)
    own = stochastic(FrozenByTracing(), Randomness.MODEL)
    assert prepare(own.model, EXAMPLE, drawing=lambda: own.drawing(batch.sample_ids)) is None


def test_without_the_same_draws_a_stochastic_copy_is_refused():
    assert prepare(Noisy(rows=True).eval(), EXAMPLE) is None


def test_a_stochastic_defense_is_searched_through_its_copy_and_judged_itself():
    load_entries()
    batch = batch_for(linear(3, shape=(1, 8, 8)), EXAMPLE)
    model, task = Noisy(rows=True).eval(), Classification(3)
    subject = Subject(model=model, task=task, spec=DATASETS["phantom4"], randomness=Randomness.SAMPLE)
    found, _ = access_to(subject, batch, PROTOCOLS["standard"], slots=8, seed=0)
    assert found.victim.model is model
    assert found.search.model is not model
    assert found.surrogates[str(Need.FROZEN_DRAW)].model is found.search.model
    assert {v.randomness for v in (found.victim, found.search, found.exact)} == {Randomness.SAMPLE}
    assert "searched as a copy" in described(found)


def test_the_choice_of_a_copy_hangs_on_the_examples_alone(monkeypatch):
    """Whether bfloat16 serves is a matter of limits: samples on both sides would make verdicts hang on their order."""
    load_entries()
    seen = []
    monkeypatch.setattr(access, "prepare", lambda model, example, **_: seen.append(example))
    model, shape = residual(), (1, 8, 8)
    batch = batch_for(model, images(12, shape=shape))
    examples = batch_for(model, images(6, shape=shape, seed=5))
    subject = Subject(model=model, task=Classification(3), spec=DATASETS["phantom4"], examples=examples)
    for rows in (slice(0, 12), torch.arange(11, -1, -1), slice(0, 5), slice(5, 12)):
        access_to(subject, batch.take(rows), PROTOCOLS["standard"], slots=4, seed=0)
    assert len(seen) == 4
    assert all(torch.equal(example, examples.inputs[:4]) for example in seen)


def test_a_cell_takes_its_examples_from_val(tmp_path):
    load_entries()
    dataset = load_dataset("phantom2", tmp_path)
    examples = examples_of(dataset)
    assert len(examples) == min(512, len(dataset.splits["val"]))
    assert torch.equal(examples.inputs[0], dataset.splits["val"].take([0]).inputs[0])


class StraightThrough(torch.autograd.Function):
    """Rounds, and hands the gradient through."""

    @staticmethod
    def forward(ctx, inputs):
        return (inputs * 8).round() / 8

    @staticmethod
    def backward(ctx, gradient):
        return gradient


class Rounded(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = cnn(3)

    def forward(self, inputs):
        return self.net(StraightThrough.apply(inputs))


@pytest.mark.parametrize("low_precision", [False, True])
def test_a_copy_that_loses_a_backward_of_the_models_own_is_refused(low_precision):
    model, points = Rounded().eval(), EXAMPLE.clone().requires_grad_()
    assert torch.autograd.grad(model(points).square().sum(), points)[0].abs().sum() > 0
    assert prepare(model, EXAMPLE, low_precision=low_precision) is None
