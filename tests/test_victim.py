"""Victims: fixed slots, averages over draws, counts, and what happens where there is no usable gradient."""

import pytest
import torch
from torch import nn

from attacks.bpda import stand_ins
from attacks.keyed_noise import KeyedNoise
from attacks.objectives import objective_for
from attacks.prepare import prepare
from attacks.victim import Access, Draws, ModelVictim, Spent
from datasets.tasks.classification import Classification, MultiLabelClassification
from defenses.noise.attention_noise import NUMAN
from registry import AttackProtocol, Randomness, ThreatKind, ThreatModel
from tests.toy_tasks import Detection, Detector, detection_batch
from tests.toys import (
    Detached,
    NoisyInput,
    NotANumber,
    Quantise,
    RandomWeights,
    attack,
    batch_for,
    cnn,
    images,
    linear,
    protocol_of,
)

MARGIN = objective_for(Classification(3), "margin")


def victim(model, randomness=Randomness.NONE, slots=8, seed=0):
    return ModelVictim(model, Classification(3), slots=slots, randomness=randomness, seed=seed)


def ask(target, batch, *, gradient=True, draws=None, backward="true", objective=MARGIN):
    progress = torch.zeros(len(batch))
    return target.answer(batch, objective, progress, gradient=gradient, draws=draws, backward=backward)


def draws(batch, first=0, count=1):
    return Draws(torch.full_like(batch.sample_ids, first), count)


MODELS = {
    "cnn": (cnn(3), Randomness.NONE),
    "linear": (linear(3, shape=(1, 8, 8)), Randomness.NONE),
    "noisy": (NoisyInput(cnn(3)), Randomness.SAMPLE),
}


@pytest.mark.parametrize(("model", "randomness"), MODELS.values(), ids=MODELS)
def test_a_row_is_the_same_bits_whatever_its_place_and_neighbours(model, randomness):
    batch = batch_for(cnn(3), images(21, shape=(1, 8, 8)))
    target = victim(model, randomness)
    whole, outputs = ask(target, batch), target.outputs(batch)
    for rows in (torch.arange(20, -1, -1), torch.tensor([4]), torch.tensor([4, 4, 20]), torch.arange(3, 14)):
        part = ask(target, batch.take(rows))
        assert torch.equal(part.objective, whole.objective[rows])
        assert torch.equal(part.score, whole.score[rows])
        assert torch.equal(part.gradient, whole.gradient[rows])
        assert torch.equal(target.outputs(batch.take(rows)), outputs[rows])


def test_answers_agree_with_plain_torch():
    model, batch = cnn(3), batch_for(cnn(3), images(5, shape=(1, 8, 8)), wrong=2)
    inputs = batch.inputs.clone().requires_grad_()
    logits = model(inputs)
    values = MARGIN(logits, batch, None)
    gradient = torch.autograd.grad(values.sum(), inputs)[0]
    answer = ask(victim(model), batch)
    assert torch.allclose(answer.objective, values.detach(), atol=1e-6)
    assert torch.allclose(answer.gradient, gradient, atol=1e-6)
    assert answer.score.tolist() == [0, 0, 1, 1, 1]


@pytest.mark.parametrize("randomness", [Randomness.SAMPLE, Randomness.MODEL])
def test_an_answer_is_the_average_of_its_draws(randomness):
    base = linear(3)
    model = NoisyInput(base) if randomness is Randomness.SAMPLE else RandomWeights(base, 0.5)
    batch, target = batch_for(base, images(11)), victim(model, randomness)
    singles = [ask(target, batch, draws=draws(batch, 5 + k)) for k in range(4)]
    assert not torch.equal(singles[0].objective, singles[1].objective)
    mean = ask(target, batch, draws=draws(batch, 5, 4))
    for part in ("objective", "score", "gradient"):
        expected = torch.stack([getattr(single, part) for single in singles]).mean(0)
        assert torch.allclose(getattr(mean, part), expected, atol=1e-5)
    assert set((mean.score * 4).tolist()) <= {0.0, 1.0, 2.0, 3.0, 4.0}


@pytest.mark.parametrize("randomness", [Randomness.SAMPLE, Randomness.MODEL])
def test_draws_are_keyed_and_leave_the_global_generator_alone(randomness):
    base = linear(3)
    model = NoisyInput(base) if randomness is Randomness.SAMPLE else RandomWeights(base)
    batch = batch_for(base, images(5))
    state = torch.random.get_rng_state()
    first = victim(model, randomness).outputs(batch, draws(batch, 3))
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(99)
    assert torch.equal(victim(model, randomness).outputs(batch, draws(batch, 3)), first)
    assert not torch.equal(victim(model, randomness, seed=1).outputs(batch, draws(batch, 3)), first)
    assert not torch.equal(victim(model, randomness).outputs(batch, draws(batch, 4)), first)
    torch.random.set_rng_state(state)


def test_random_weights_are_shared_by_the_batch():
    base = linear(3)
    batch = batch_for(base, images(1)).take(torch.zeros(6, dtype=torch.int64))
    outputs = victim(RandomWeights(base), Randomness.MODEL).outputs(batch)
    assert torch.equal(outputs, outputs[:1].expand_as(outputs))


def test_every_query_is_counted_without_padding():
    model, batch = cnn(3), batch_for(cnn(3), images(11, shape=(1, 8, 8)))
    spent = Spent()
    target = ModelVictim(model, Classification(3), slots=8, spent=spent)
    ask(target, batch)
    assert (spent.forwards, spent.backwards, spent.no_gradient) == (11, 11, 0)
    ask(target, batch, gradient=False)
    assert (spent.forwards, spent.backwards) == (22, 11)
    target.outputs(batch)
    assert (spent.forwards, spent.backwards) == (33, 11)
    noisy = ModelVictim(NoisyInput(model), Classification(3), slots=8, randomness=Randomness.SAMPLE, spent=spent)
    ask(noisy, batch, draws=draws(batch, 0, 3))
    assert (spent.forwards, spent.backwards) == (66, 44)


@pytest.mark.parametrize("model", [Detached(linear(3)), nn.Sequential(Quantise(), linear(3))], ids=["path", "rounded"])
def test_no_gradient_is_counted_and_is_no_error(model):
    batch, target = batch_for(linear(3), images(11)), victim(model)
    answer = ask(target, batch)
    assert torch.equal(answer.gradient, torch.zeros_like(batch.inputs))
    assert target.spent.no_gradient == 11
    assert torch.isfinite(answer.objective).all()


def test_a_constant_objective_has_a_zero_gradient():
    batch, target = batch_for(linear(3), images(3)), victim(linear(3))
    answer = ask(target, batch, objective=lambda outputs, rows, progress: torch.ones(len(rows)))
    assert torch.equal(answer.gradient, torch.zeros_like(batch.inputs))


class RootAtHalf(nn.Module):
    """The slope of its square root is infinite where a value is 0.5."""

    def forward(self, inputs):
        return torch.stack([(inputs - 0.5).abs().sqrt().flatten(1).sum(1), inputs.flatten(1).sum(1) * 0], 1)


def test_gradients_that_are_not_finite_are_zeroed_and_counted():
    inputs = images(4)
    inputs[1, 0, 0, 0] = 0.5
    batch = batch_for(linear(2), inputs)
    target = ModelVictim(RootAtHalf(), Classification(2), slots=4)
    answer = ask(target, batch)
    assert target.spent.no_gradient == 1
    assert torch.isfinite(answer.gradient).all()
    assert answer.gradient[1, 0, 0, 0] == 0
    assert (answer.gradient[1] != 0).sum() == 15  # the finite parts still serve


def test_outputs_that_are_not_finite_have_no_score():
    """arg max of NaN is a class, and an objective may not look at the logit that is NaN."""
    batch = batch_for(linear(3), images(6))
    model = NotANumber(linear(3), batch.inputs[:4])
    answer = ask(victim(model), batch, objective=lambda outputs, rows, progress: outputs[:, 0].nan_to_num())
    assert torch.isfinite(answer.objective).all()
    assert answer.score.isnan().tolist() == [False] * 4 + [True] * 2


class InPlace(nn.Module):
    """Normalises in place, as careless models do."""

    def __init__(self, base):
        super().__init__()
        self.base = base

    def forward(self, inputs):
        return self.base(inputs.mul_(0.5).add_(0.25))


def test_a_model_that_works_in_place_cannot_change_the_data():
    batch = batch_for(linear(3), images(16))
    before, target = batch.inputs.clone(), victim(InPlace(linear(3)))
    first = ask(target, batch, gradient=False)
    assert torch.equal(target.outputs(batch), target.outputs(batch))
    second = ask(target, batch)
    assert torch.equal(batch.inputs, before)
    assert torch.equal(first.objective, second.objective)
    assert second.gradient.abs().sum() > 0


@pytest.mark.parametrize("levels", [3, 7, 16, 100])
def test_bpda_changes_the_backward_pass_only(levels):
    base = linear(3)
    model = nn.Sequential(Quantise(levels), base)
    batch = batch_for(base, images(40))
    plain, through = ask(victim(model), batch), ask(victim(model), batch, backward="bpda")
    assert torch.equal(through.objective, plain.objective)
    assert torch.equal(through.score, plain.score)
    assert not plain.gradient.any()
    quantised = batch.with_inputs(Quantise(levels)(batch.inputs))
    assert torch.equal(through.gradient, ask(victim(base), quantised).gradient)


class Darken(nn.Module):
    """A stage whose outputs are far from its stand-in."""

    def forward(self, inputs):
        return inputs.square() * 0.013

    def bpda_twin(self, inputs):
        return inputs


def test_bpda_keeps_the_outputs_bits_where_the_stand_in_is_far_off():
    batch, model = batch_for(linear(3), images(200)), nn.Sequential(Darken(), linear(3))
    assert torch.equal(ask(victim(model), batch, backward="bpda").objective, ask(victim(model), batch).objective)


def test_straight_through_reaches_the_gates_of_a_prepared_copy():
    base = linear(3, shape=(1, 8, 8))
    batch = batch_for(base, images(21, shape=(1, 8, 8)))
    torch.manual_seed(0)
    model = nn.Sequential(NUMAN(1), base).eval().requires_grad_(False)
    fast = prepare(model, batch.inputs, drawing=lambda: KeyedNoise(batch.sample_ids))
    assert fast is not None
    for searched in (model, fast):
        target, asked = victim(searched, Randomness.SAMPLE), {"draws": draws(batch, count=4)}
        plain, straight = (ask(target, batch, backward=name, **asked) for name in ("true", "straight"))
        assert torch.equal(plain.objective, straight.objective)
        assert straight.gradient.abs().mean() > 1.2 * plain.gradient.abs().mean()


def test_stand_ins_leave_no_trace():
    model = nn.Sequential(Quantise(), linear(3))
    with pytest.raises(ZeroDivisionError), stand_ins(model):
        assert len(model[0]._forward_hooks) == 1
        raise ZeroDivisionError
    assert len(model[0]._forward_hooks) == 0


def test_dict_outputs_are_cut_and_joined():
    batch = detection_batch(11)
    target = ModelVictim(Detector(), Detection(), slots=4)
    outputs, expected = target.outputs(batch), Detector()(batch.inputs)
    assert {name: tuple(values.shape) for name, values in outputs.items()} == {
        "boxes": (11, 1, 4),
        "logits": (11, 1, 2),
    }
    for name in expected:
        assert torch.allclose(outputs[name], expected[name], atol=1e-5)


def test_an_answer_keeps_no_graph():
    model, batch = cnn(3), batch_for(cnn(3), images(3, shape=(1, 8, 8)))
    answer = ask(victim(model), batch)
    assert not any(part.requires_grad for part in answer)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not batch.inputs.requires_grad


def test_the_source_of_a_member_is_the_search_model_or_a_surrogate():
    real, faster, twin = (victim(linear(3, seed=s)) for s in range(3))
    access = Access(victim=real, search=faster, surrogates={"twin": twin})
    assert access.source("victim") is faster
    assert access.source("twin") is twin


def test_the_clean_protocol_changes_nothing():
    model = linear(3)
    batch = batch_for(model, images(7), wrong=2)
    protocol = protocol_of()
    clean = AttackProtocol(
        name="clean",
        title="clean",
        threat_model=ThreatModel(kind=ThreatKind.CLEAN),
        budgets=(),
        tasks=protocol.tasks,
        members=protocol.members,
    )
    outcome = attack(model, batch, clean)
    assert outcome.budgets == ()
    assert outcome.clean_scores.tolist() == [0, 0, 1, 1, 1, 1, 1]


def test_pooled_draws_take_the_objective_of_the_mean_probability():
    base = linear(3)
    batch, target = batch_for(base, images(11)), victim(NoisyInput(base, 0.3), Randomness.SAMPLE)
    first = torch.full_like(batch.sample_ids, 5)
    found = ask(target, batch, draws=Draws(first, 6, pooled=True))
    keyed = [target.outputs(batch, Draws(first + k)) for k in range(6)]
    mean = torch.stack([logits.softmax(1) for logits in keyed]).mean(0)
    assert torch.allclose(found.objective, MARGIN(mean.log(), batch, None), atol=1e-5)
    averaged = ask(target, batch, draws=Draws(first, 6))
    assert torch.equal(found.score, averaged.score)
    assert not torch.allclose(found.objective, averaged.objective, atol=1e-4)
    assert torch.equal(
        ask(target, batch, draws=Draws(first, 6, pooled=True), gradient=False).objective, found.objective
    )


def test_the_gradient_of_pooled_draws_is_that_of_the_mean_probability():
    """Checked by finite differences of the pooled objective itself, with the noise held fixed by its keys."""
    base = linear(3)
    batch, target = batch_for(base, images(3)), victim(NoisyInput(base, 0.3), Randomness.SAMPLE)
    pooled = Draws(torch.full_like(batch.sample_ids, 5), 6, pooled=True)
    gradient = ask(target, batch, draws=pooled).gradient
    for pixel in [(0, 0, 0), (0, 2, 3)]:
        change = torch.zeros_like(batch.inputs)
        change[(slice(None), *pixel)] = 1e-2
        up, down = (
            ask(target, batch.with_inputs(batch.inputs + s * change), draws=pooled, gradient=False) for s in (1, -1)
        )
        slope = (up.objective - down.objective) / 2e-2
        assert torch.allclose(slope, gradient[(slice(None), *pixel)], rtol=0.05, atol=2e-3)


def test_pooling_of_one_row_of_several_labels_pools_each_label():
    base = linear(3)
    task = MultiLabelClassification(3)
    labels = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0], [1.0, 1.0, 0.0]])
    batch = batch_for(base, images(3)).with_target("labels", labels).with_target("weights", torch.ones_like(labels))
    target = ModelVictim(NoisyInput(base, 0.3), task, slots=8, randomness=Randomness.SAMPLE)
    found = ask(
        target, batch, draws=Draws(batch.sample_ids * 0, 4, pooled=True), objective=objective_for(task, "margin")
    )
    keyed = [target.outputs(batch, Draws(batch.sample_ids * 0 + k)) for k in range(4)]
    pooled = torch.stack([logits.sigmoid() for logits in keyed]).mean(0).logit()
    unit = 0.3 * pooled.abs().mean(1, keepdim=True)
    expected = (pooled / unit * (1 - 2 * labels)).sigmoid().mean(1)
    assert torch.allclose(found.objective, expected, atol=1e-4)


def test_a_frozen_draw_sees_one_draw_only():
    base = linear(3)
    batch = batch_for(base, images(5))
    frozen = ModelVictim(NoisyInput(base), Classification(3), slots=8, randomness=Randomness.SAMPLE, frozen_draw=0)
    free = victim(NoisyInput(base), Randomness.SAMPLE)
    assert torch.equal(frozen.outputs(batch, draws(batch, 3)), frozen.outputs(batch, draws(batch, 9)))
    assert torch.equal(frozen.outputs(batch, draws(batch, 3)), free.outputs(batch, draws(batch, 0)))
    assert not torch.equal(free.outputs(batch, draws(batch, 3)), free.outputs(batch, draws(batch, 9)))


@pytest.mark.parametrize("pooled", [False, True])
def test_draws_of_a_few_rows_share_a_physical_batch(pooled):
    """With slots for all draws the model runs once where it ran draw by draw, and the answer is the same."""
    base, sizes = linear(3), []

    class Watched(NoisyInput):
        def forward(self, inputs):
            sizes.append(len(inputs))
            return super().forward(inputs)

    batch = batch_for(base, images(3))
    wanted = Draws(torch.full_like(batch.sample_ids, 7), 5, pooled=pooled)
    answers = {
        slots: ask(victim(Watched(base), Randomness.SAMPLE, slots=slots), batch, draws=wanted) for slots in (3, 7, 64)
    }
    passes = {3: [3] * 5, 7: [7] * 3, 64: [64]}
    assert sizes == [size for slots in (3, 7, 64) for size in passes[slots] * (2 if pooled else 1)]
    for slots in (7, 64):
        for one, other in zip(answers[slots], answers[3], strict=True):
            assert torch.allclose(one, other, atol=1e-6)


def test_random_weights_never_share_a_batch():
    base = linear(3)
    batch, target = batch_for(base, images(3)), victim(RandomWeights(base, 0.5), Randomness.MODEL, slots=64)
    mean = ask(target, batch, draws=draws(batch, 2, 3)).objective
    singles = torch.stack([ask(target, batch, draws=draws(batch, 2 + k)).objective for k in range(3)])
    assert torch.allclose(mean, singles.mean(0), atol=1e-5)
    assert not torch.allclose(singles[0], singles[1])
