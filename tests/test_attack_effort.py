"""Where attacks start, what seeds and restarts change, and that a budget of steps is spent and never exceeded."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from datasets.batch import Batch
from registry import Member, Norm, Randomness, resolve
from tests.toys import NoisyInput, attack, batch_for, cnn, images, linear, protocol_of

EPS = 0.03
MODEL = linear(2, shape=(1, 8, 8))
BATCH = batch_for(MODEL, images(11, shape=(1, 8, 8)))
OWN = {
    "pgd": Member(name="pgd", attack="attacks.gradient:PGD", options={"steps": 3, "restarts": 2}),
    "fgsm": Member(name="fgsm", attack="attacks.gradient:fgsm"),
    "apgd": Member(name="apgd", attack="attacks.apgd:APGD", options={"steps": 3, "restarts": 2}),
    "square": Member(name="square", attack="attacks.square:Square", options={"queries": 12, "restarts": 2}),
}


def first_queries(member: Member, seed: int) -> dict[tuple[int, int], torch.Tensor]:
    """Returns the first point that an attack asks for, by sample and restart."""
    asked = {}

    def factory(**options):
        inner = resolve(member.attack)(**options)
        ask = inner.ask

        def watch(rows, rng):
            query = ask(rows, rng)
            for row in (rows.step == 0).nonzero()[:, 0].tolist():
                asked[int(rows.sample[row]), int(rows.restart[row])] = query.points[row].clone()
            return query

        inner.ask = watch
        return inner

    protocol = protocol_of(replace(member, attack=factory), eps=(1e-4,))  # too little to break any sample
    attack(MODEL, BATCH, protocol, seed=seed)
    return asked


@pytest.mark.parametrize("name", ["pgd", "apgd", "square"])
def test_seeds_samples_and_restarts_start_elsewhere(name):
    one, two = first_queries(OWN[name], 0), first_queries(OWN[name], 1)
    assert set(one) == set(two) == {(sample, restart) for sample in range(11) for restart in range(2)}
    assert sum(torch.equal(one[key], two[key]) for key in one) <= 1  # stripes of 8 columns have 256 patterns
    inputs = BATCH.inputs
    changes = torch.stack([(one[key] - inputs[key[0]]).flatten() for key in sorted(one)])
    patterns = (changes * 1e6).round().unique(dim=0)
    assert len(patterns) >= 0.8 * len(changes)


def test_fgsm_starts_at_the_original_whatever_the_seed():
    inputs = BATCH.inputs
    for seed in (0, 1):
        for (sample, _), point in first_queries(OWN["fgsm"], seed).items():
            assert torch.equal(point, inputs[sample])


def robust_linear() -> tuple[nn.Module, Batch]:
    """A model that no attack in the ball can break: every sample spends its whole budget."""
    model = linear(2, shape=(1, 8, 8))
    batch = batch_for(model, images(40, shape=(1, 8, 8)))
    with torch.no_grad():
        margin = (model(batch.inputs)[:, 0] - model(batch.inputs)[:, 1]).abs()
    return model, batch.take(margin.argsort(descending=True)[:11])


@pytest.mark.parametrize("restarts", [1, 3])
@pytest.mark.parametrize(
    ("attack_name", "options", "per_run", "with_gradient"),
    [
        ("attacks.gradient:PGD", {"steps": 4}, 5, True),
        ("attacks.apgd:APGD", {"steps": 7}, 8, True),
        ("attacks.square:Square", {"queries": 9}, 9, False),
    ],
)
def test_a_survivor_costs_its_whole_budget_and_no_more(attack_name, options, per_run, with_gradient, restarts):
    model, batch = robust_linear()
    member = Member(name="x", attack=attack_name, options={**options, "restarts": restarts}, objective="margin")
    outcome = attack(model, batch, protocol_of(member, eps=(1e-4,)), slots=4).budgets[0]
    assert (outcome.scores == 1).all()
    spent = outcome.members[0]
    assert spent.backwards == (11 * restarts * per_run if with_gradient else 0)
    assert spent.forwards == 11 * restarts * per_run + 11  # and the clean outputs, once


def test_a_broken_sample_costs_no_more_once_it_is_confirmed():
    model, batch = robust_linear()
    member = Member(name="x", attack="attacks.apgd:APGD", options={"steps": 50}, objective="margin")
    outcome = attack(model, batch, protocol_of(member, eps=(0.5,))).budgets[0]
    assert (outcome.scores == 0).all()
    assert outcome.members[0].backwards <= 3 * 11
    assert outcome.step.min() >= 1


@pytest.mark.parametrize("name", ["pgd", "apgd"])
def test_l2_adversarials_lie_inside_their_ball(name):
    model, batch = cnn(3), batch_for(cnn(3), images(11, shape=(1, 8, 8)))
    outcome = attack(model, batch, protocol_of(OWN[name], eps=(0.4,), norm=Norm.L2)).budgets[0]
    length = (outcome.points - batch.inputs).flatten(1).norm(dim=1)
    assert outcome.members[0].errors == outcome.members[0].violations == 0
    assert (length <= 0.4 + 1e-5).all()
    assert (length > 0.2).any()


def test_more_draws_cost_more():
    model, batch = NoisyInput(MODEL), BATCH.take(slice(0, 3))
    spent = []
    for count in (1, 4):
        options = {"steps": 2, "eot_samples": count}
        member = Member(name="x", attack="attacks.gradient:PGD", options=options)
        outcome = attack(model, batch, protocol_of(member, eps=(0.001,)), randomness=Randomness.SAMPLE)
        spent.append(outcome.budgets[0].members[0].backwards)
    assert spent == [9, 36]
