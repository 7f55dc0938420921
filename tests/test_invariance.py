"""Order and sharding change no verdict, on deterministic, prepared and stochastic victims."""

from dataclasses import replace

import pytest
import torch

from attacks.prepare import prepare
from attacks.stepped import Query
from datasets.batch import Batch
from datasets.tasks.classification import MultiLabelClassification
from registry import Knowledge, Member, Randomness
from tests.toys import NoisyInput, RandomWeights, attack, batch_for, cnn, images, linear, protocol_of, shuffled

APGD = Member(name="apgd", attack="attacks.apgd:APGD", options={"steps": 5, "restarts": 2}, objective="margin")
SQUARE = Member(name="square", attack="attacks.square:Square", options={"queries": 30}, objective="margin")
SMALL = linear(3, shape=(1, 8, 8))
INVARIANT = {
    "deterministic": (cnn(3), Randomness.NONE, False),
    "prepared": (cnn(3), Randomness.NONE, True),
    "stochastic": (NoisyInput(SMALL, 0.05, 0.05), Randomness.SAMPLE, False),
    "random weights": (RandomWeights(SMALL, 0.2), Randomness.MODEL, False),
}


@pytest.mark.parametrize(("model", "randomness", "prepared"), INVARIANT.values(), ids=INVARIANT)
def test_order_and_sharding_change_no_verdict(model, randomness, prepared):
    stochastic = randomness is not Randomness.NONE
    batch = batch_for(SMALL if stochastic else model, images(14 if stochastic else 29, shape=(1, 8, 8)), wrong=1)
    search = prepare(model, batch.inputs[:8]) if prepared else None
    members = [APGD] if stochastic else [APGD, SQUARE]
    protocol = protocol_of(*members, eps=(0.005,) if stochastic else (0.006, 0.02))

    def scores(some: Batch):
        budgets = attack(model, some, protocol, randomness=randomness, search=search).budgets
        assert all(member.errors == 0 for budget in budgets for member in budget.members)
        return torch.stack([budget.scores for budget in budgets])

    plain = scores(batch)
    assert 0.05 < plain[-1].mean() < 0.95
    for seed in (1,) if stochastic else (1, 2, 3):
        other, back = shuffled(batch, seed)
        assert torch.equal(scores(other)[:, back], plain)
    shards = [scores(batch.take(rows)) for rows in (slice(0, 9), slice(9, None))]
    assert torch.equal(torch.cat(shards, 1), plain)


def test_of_equal_scores_the_same_is_kept_whatever_shares_the_batch():
    """Several labels score in steps, so that restarts end level; which of them ends first depends on the others."""
    model, member = cnn(3), replace(APGD, options={"steps": 6, "restarts": 5})
    inputs = images(12, shape=(1, 8, 8))
    labels = (model(inputs) > 0).float().detach()
    targets = {"labels": labels, "weights": torch.ones_like(labels)}
    batch = Batch(sample_ids=torch.arange(12), inputs=inputs, targets=targets)

    def worst(some: Batch):
        task = MultiLabelClassification(3)
        (budget,) = attack(model, some, protocol_of(member, eps=(0.03,)), task=task, slots=16).budgets
        return budget

    together = worst(batch)
    assert 0 < together.scores.mean() < 1
    shards = [worst(batch.take(slice(first, first + 3))) for first in range(0, 12, 3)]
    left = together.scores > 0  # a finished sample stops all its restarts, the later ones with it
    assert torch.equal(torch.cat([budget.scores for budget in shards]), together.scores)
    assert torch.equal(torch.cat([budget.points for budget in shards])[left], together.points[left])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["stochastic", "random weights"])
def test_three_orders_change_no_verdict_of_noise(kind):
    model, randomness, _ = INVARIANT[kind]
    batch, protocol = batch_for(SMALL, images(14, shape=(1, 8, 8)), wrong=1), protocol_of(APGD, eps=(0.005, 0.01))

    def scores(some: Batch, slots: int = 64):
        budgets = attack(model, some, protocol, randomness=randomness, slots=slots).budgets
        return torch.stack([budget.scores for budget in budgets])

    plain = scores(batch)
    for seed in (1, 2, 3):
        other, back = shuffled(batch, seed)
        assert torch.equal(scores(other)[:, back], plain)
    for slots in (1, 7, 200):  # a matrix product of another size rounds otherwise, so an attack may go another way
        assert (scores(batch, slots) - plain).abs().mean() < 0.02


def test_random_weights_go_in_lockstep():
    """One draw serves the whole batch: rows of another restart or step would be answered with a draw of others."""
    seen = []

    class Watching:
        knowledge, restarts, eot_samples, steps = Knowledge.SCORE_BASED, 3, 1, 2

        def start(self, rows, rng):
            pass

        def ask(self, rows, rng):
            seen.append((len(rows), set(rows.restart.tolist()), set(rows.step.tolist())))
            return Query(rows.begin, gradient=False)

        def tell(self, rows, query, answer):
            rows.done = rows.step >= 1 + rows.sample % 2

    batch = batch_for(SMALL, images(11, shape=(1, 8, 8)))
    member = Member(name="watching", attack=Watching, objective="margin")
    attack(RandomWeights(SMALL), batch, protocol_of(member), randomness=Randomness.MODEL, slots=4)
    assert all(len(restarts) == len(steps) == 1 for _, restarts, steps in seen)
    assert sum(rows for rows, _, _ in seen) == 3 * (11 + 5)
