"""Random searches on noisy values: a lucky one is measured again, and does not bar the way."""

import torch

from attacks.incumbent import EVERY, Incumbent
from attacks.queries import Answer
from attacks.stepped import Query
from registry import Member, Randomness
from tests.test_square import rows_for
from tests.toys import NoisyInput, attack, batch_for, images, linear, protocol_of


def told(noisy: bool, *values: float) -> dict[str, float]:
    """Lets one row try as many candidates, whose point is their number; returns what is kept."""
    incumbent, rows = Incumbent(noisy=noisy), rows_for(torch.zeros(1, 1, 1, 1))
    rows.memory = incumbent.start(rows.begin)
    for number, value in enumerate(values):
        query = incumbent.query(rows, torch.full((1, 1, 1, 1), float(number)))
        rows.step = rows.step + 1
        incumbent.learn(rows, query, Answer(torch.tensor([value]), torch.ones(1), None))
    return {name: float(values) for name, values in rows.memory.items()}


def test_without_noise_every_query_is_a_candidate():
    assert told(False, 0.0, 9.0, 1.0, 2.0, 3.0) | {"measured": 0} == {"best_point": 1, "best": 9, "measured": 0}


def test_a_lucky_value_is_measured_again_and_forgotten():
    assert EVERY == 4
    lucky = told(True, 0.0, 9.0, 1.0, 1.0)  # the fourth query goes to candidate 1 again: 9 and 1 are 5 in the mean
    assert lucky == {"best_point": 1, "best": 5, "measured": 2}
    assert told(True, 0.0, 9.0, 1.0, 1.0, 6.0) == {"best_point": 4, "best": 6, "measured": 1}


def test_the_turn_asks_for_the_best_point_itself():
    incumbent, rows = Incumbent(noisy=True), rows_for(torch.zeros(2, 1, 1, 1))
    rows.memory, rows.step = incumbent.start(rows.begin), torch.tensor([2, 3])
    query = incumbent.query(rows, torch.ones(2, 1, 1, 1))
    assert isinstance(query, Query) and query.points.flatten().tolist() == [1, 0]


def test_square_is_stronger_on_a_noisy_model(monkeypatch):
    model = linear(2, shape=(1, 8, 8))
    batch, noisy = batch_for(model, images(40, shape=(1, 8, 8))), NoisyInput(model, 0.15, 0.0)
    options = {"queries": 300, "eot_samples": 4}
    member = Member(name="square", attack="attacks.square:Square", options=options, objective="margin")

    def left() -> float:
        outcome = attack(noisy, batch, protocol_of(member, eps=(0.06,)), randomness=Randomness.SAMPLE, slots=40)
        return float(outcome.budgets[0].scores.mean())

    found = left()
    monkeypatch.setattr(Incumbent, "_again", lambda self, asked: torch.zeros_like(asked, dtype=torch.bool))
    before = left()
    assert found < before - 0.01, (found, before)
