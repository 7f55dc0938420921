"""The loss over steps: what is averaged, what a record keeps, what a page shows."""

from __future__ import annotations

from types import SimpleNamespace

import torch

from attacks.loss_curve import LossCurve
from reports.losses import SHOWN, loss_lines
from reports.pooling import pool_members
from results.serialize import from_json, to_json
from tests.example_records import example_budget, example_record


def run(curve: LossCurve, objectives: torch.Tensor, unbroken: list[bool]) -> tuple[float, ...]:
    """Feeds objectives (N, steps), one step after the other, and lets all rows leave."""
    ball = SimpleNamespace(originals=torch.zeros(len(objectives), 2))

    class Rows(SimpleNamespace):
        def __len__(self) -> int:
            return len(objectives)

    rows = Rows(ball=ball, candidate={}, step=torch.zeros(len(objectives), dtype=torch.int64))
    curve.begin(rows)
    for answer in objectives.T:
        rows.step = rows.step + 1
        curve.add(rows, answer)
    curve.leave(rows, torch.tensor(unbroken))
    return curve.means()


def test_the_best_so_far_at_every_tenth_by_hand():
    rising = torch.arange(1.0, 21)[None]
    assert run(LossCurve(20), rising, [True]) == (1, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20)
    up_and_down = torch.tensor([[3.0, 5, 1, 1, 1, 1, 1, 7, 1, 1]])
    assert run(LossCurve(10), up_and_down, [True]) == (3, 3, 5, 5, 5, 5, 5, 5, 7, 7, 7)


def test_few_steps_leave_no_gap():
    assert run(LossCurve(1), torch.tensor([[2.0]]), [True]) == (2,) * 11
    assert run(LossCurve(3), torch.tensor([[1.0, 2, 3]]), [True]) == (1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 3)


def test_rows_of_broken_samples_do_not_count():
    curve = LossCurve(10)
    both = torch.stack([torch.full((10,), 1.0), torch.full((10,), 100.0)])
    assert run(curve, both, [True, False]) == (1,) * 11
    assert curve.rows == 1
    assert LossCurve(5).means() == ()


def test_what_is_not_a_number_is_never_the_best():
    assert run(LossCurve(10), torch.tensor([[1.0, torch.nan, *[0.5] * 8]]), [True]) == (1,) * 11


def test_records_and_seeds_keep_it():
    def result(losses, rows):
        budget = example_budget(eps=0.03137254902)
        member = budget.members[0]
        kept = {**vars(member), "losses": losses, "loss_rows": rows}
        return type(budget)(**{**vars(budget), "members": (type(member)(**kept), *budget.members[1:])})

    one, two = result(tuple(map(float, range(11))), 30), result((10.0,) * 11, 10)
    record = example_record(budgets=(one,))
    assert from_json(to_json(record), "memory") == record
    pooled = pool_members([one, two])[0]
    assert pooled.loss_rows == 40
    assert pooled.losses[4] == (30 * 4 + 10 * 10) / 40
    (line,) = loss_lines(pool_members([one]))
    assert line.values == SHOWN
    assert line.line.startswith("3.0,25.0 ")
    assert line.line.endswith(" 117.0,3.0")
    assert loss_lines(pool_members([result((), 0)])) == ()
