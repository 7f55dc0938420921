"""Of noisy scores the luckiest of many is measured again: at every budget, and beside what another run has found."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from attacks.judging import AGAIN, FINAL, SELECTION, at_turn, judge_scores
from attacks.soundness.fresh import worse
from attacks.stepped import Query
from attacks.victim import ModelVictim
from datasets.batch import Batch
from datasets.tasks.classification import Classification
from registry import Knowledge, Member, Randomness
from tests.test_engine import Chaotic
from tests.toys import NoisyInput, RandomWeights, attack, batch_for, images, linear, protocol_of, shuffled


class Staying:
    """Asks for the point where it begins, and for nothing else."""

    knowledge, restarts, eot_samples, steps = Knowledge.SCORE_BASED, 1, 1, 1

    def start(self, rows, rng):
        pass

    def ask(self, rows, rng):
        return Query(rows.begin, gradient=False)

    def tell(self, rows, query, answer):
        rows.done = torch.ones_like(rows.done)


def victim_of(model, randomness: Randomness = Randomness.SAMPLE, slots: int = 8) -> ModelVictim:
    return ModelVictim(model, Classification(2), slots=slots, randomness=randomness)


def around(batch: Batch, seed: int, size: float = 0.02) -> Tensor:
    """Returns a random point near every original."""
    return batch.inputs + size * torch.rand(batch.inputs.shape, generator=torch.Generator().manual_seed(seed))


def test_a_lucky_candidate_is_measured_again_at_the_next_budget():
    """Every point of this model scores 0.5: what lies far under it at one budget must not at the next."""
    batch = batch_for(linear(2), images(40))
    casts = [
        Member(name=f"cast {n}", attack="attacks.random_search:RandomSearch", options={"queries": 3}) for n in "abcd"
    ]
    protocol = protocol_of(Member(name="staying", attack=Staying), *casts, eps=(0.02, 0.04))
    first, second = attack(Chaotic(), batch, protocol, randomness=Randomness.SAMPLE).budgets
    assert first.members[-1].robust_after < 0.43
    assert second.members[0].robust_after == pytest.approx(0.5, abs=0.05)
    assert second.members[-1].robust_after < 0.43


def test_each_turn_has_draws_of_its_own():
    batch = batch_for(linear(2), images(6))
    victim = victim_of(Chaotic())
    scores = [judge_scores(at_turn(victim, turn), batch, SELECTION) for turn in (0, 0, 1, 2)]
    assert torch.equal(scores[0], scores[1]) and torch.equal(scores[0], judge_scores(victim, batch, SELECTION))
    assert not torch.equal(scores[0], scores[2]) and not torch.equal(scores[2], scores[3])
    turns = torch.tensor([0, 1, 2, 2, 1, 0])
    mixed = judge_scores(victim, batch, SELECTION, turns)
    assert torch.equal(mixed, torch.stack([scores[1], scores[2], scores[3]])[turns, torch.arange(6)])
    assert SELECTION.first + 1000 * SELECTION.count < AGAIN.first
    assert AGAIN.first + 2**24 * AGAIN.count < FINAL.first
    exact = victim_of(linear(2), Randomness.NONE)
    assert at_turn(exact, 3) is exact


def test_the_luckiest_of_many_is_compared_on_other_draws():
    """All points score 0.5, so that half of the new ones are worse, however many the known one has won against."""
    batch, victim = batch_for(linear(2), images(40)), victim_of(Chaotic())
    known = batch.inputs.clone()
    lowest = judge_scores(victim, batch, SELECTION)
    for seed in range(20):
        points = around(batch, seed)
        scores = judge_scores(victim, batch.with_inputs(points), SELECTION)
        known[scores < lowest] = points[scores < lowest]
        lowest = torch.minimum(lowest, scores)
    share = []
    for seed in range(100, 116):
        points = around(batch, seed)
        chosen = worse(victim, batch, (known, lowest), (points, lowest))
        known[chosen] = points[chosen]
        share.append(float(chosen.float().mean()))
    assert share[0] > 0.3 and sum(share[-4:]) / 4 > 0.35, share
    assert max(share) < 0.7


@pytest.mark.parametrize("randomness", [Randomness.SAMPLE, Randomness.MODEL])
def test_comparisons_do_not_depend_on_what_else_is_compared(randomness):
    base = linear(2)
    batch = batch_for(base, images(15))
    model = NoisyInput(base, 0.3, 0.1) if randomness is Randomness.SAMPLE else RandomWeights(base, 0.5)
    victim = victim_of(model, randomness)
    known, new = around(batch, 0, 0.3), around(batch, 1, 0.3)

    def chosen(rows: Tensor) -> Tensor:
        scores = torch.zeros(len(rows))
        return worse(victim, batch.take(rows), (known[rows], scores), (new[rows], scores))

    whole = chosen(torch.arange(15))
    assert 0 < whole.sum() < 15
    assert torch.equal(torch.cat([chosen(torch.arange(4)), chosen(torch.arange(4, 15))]), whole)
    order = torch.arange(14, -1, -1)
    assert torch.equal(chosen(order)[order], whole)


def test_scores_without_noise_are_compared_as_they_are():
    batch, victim = batch_for(linear(2), images(4)), victim_of(linear(2), Randomness.NONE)
    scores = torch.tensor([1.0, 1.0, 0.0, 0.0]), torch.tensor([0.0, 1.0, 0.0, 1.0])
    found = worse(victim, batch, (batch.inputs, scores[0]), (batch.inputs, scores[1]))
    assert found.tolist() == [True, False, False, False]
    assert victim.spent.forwards == 0


@pytest.mark.parametrize("randomness", [Randomness.SAMPLE, Randomness.MODEL])
def test_order_and_sharding_change_no_carried_score(randomness):
    base = linear(2)
    batch = batch_for(base, images(13), wrong=1)
    model = NoisyInput(base, 0.1, 0.1) if randomness is Randomness.SAMPLE else RandomWeights(base, 0.2)
    member = Member(name="apgd", attack="attacks.apgd:APGD", options={"steps": 3}, objective="margin")

    def scores(some: Batch) -> Tensor:
        protocol = protocol_of(member, eps=(0.01, 0.02))
        return torch.stack([budget.scores for budget in attack(model, some, protocol, randomness=randomness).budgets])

    plain = scores(batch)
    other, back = shuffled(batch, 1)
    assert torch.equal(scores(other)[:, back], plain)
    assert torch.equal(torch.cat([scores(batch.take(slice(0, 6))), scores(batch.take(slice(6, None)))], 1), plain)


def test_a_victim_without_noise_is_judged_no_more_often_than_before():
    """The clean images once, then one query of each member and sample that is still right."""
    model = linear(2)
    batch = batch_for(model, images(12))
    seen = []
    watched = model.forward
    model.forward = lambda inputs: seen.append(len(inputs)) or watched(inputs)
    attack(model, batch, protocol_of(Member(name="staying", attack=Staying), eps=(0.01, 0.02)), slots=12)
    assert sum(seen) == 1 + 12 * (1 + 2 * 2)  # number of classes; clean; at each budget clean outputs and the query
