"""Replays: the last point of one attack at one eps, with the steps, the loss and the faults of the paper."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from attacks.engine import run_protocol
from attacks.objectives import objective_for
from attacks.replay import ReplayedSteps
from attacks.shell import LastPoint
from attacks.victim import Access, ModelVictim
from datasets.batch import Batch
from datasets.tasks.classification import Classification
from registry import AttackProtocol, CellFacts, Member, ThreatModel, linf
from registry.errors import InvalidEntryError

TASK = Classification(2)
FACTS = CellFacts(task="classification", n_classes=2)


class Bump(nn.Module):
    """One pixel: class 1 between 0.55 and 0.65 only, so that a step too far finds the right class again."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        pixel = inputs.flatten(1)[:, 0]
        return torch.stack([torch.zeros_like(pixel), 20 * (0.05 - (pixel - 0.6).abs())], 1)


def batch_of(*pixels: float, label: int = 0) -> Batch:
    inputs = torch.tensor(pixels).reshape(-1, 1, 1, 1)
    labels = torch.full((len(inputs),), label, dtype=torch.int64)
    return Batch(sample_ids=torch.arange(len(inputs)), inputs=inputs, targets={"label": labels})


def run(batch: Batch, eps: tuple[float, ...], options: dict, *, cascades: bool = False, model: nn.Module | None = None):
    member = Member(
        name="replay",
        attack="attacks.replay:ReplayedSteps",
        options=options,
        objective="probability-cross-entropy",
        source="exact",
    )
    protocol = AttackProtocol(
        name="toy",
        title="One attack",
        threat_model=ThreatModel(),
        budgets=tuple(linf(value) for value in eps),
        tasks=("classification",),
        members=lambda facts, budget: (member,),
        cascades=cascades,
    )
    victim = ModelVictim(model or Bump(), TASK, slots=4)
    return run_protocol(Access(victim=victim, search=victim), batch, protocol, FACTS)


def test_every_eps_begins_at_the_original_and_a_larger_one_may_do_worse():
    fgsm = {"steps": 1, "step_size": 1.0}
    outcome = run(batch_of(0.5), (0.02, 0.1, 0.3), fgsm)
    points = [budget.points.item() for budget in outcome.budgets]
    assert points == pytest.approx([0.52, 0.6, 0.8])
    assert [budget.scores.item() for budget in outcome.budgets] == [1, 0, 1]
    worst = run(batch_of(0.5), (0.02, 0.1, 0.3), fgsm, cascades=True)
    assert [budget.scores.item() for budget in worst.budgets] == [1, 0, 0]


def test_only_the_last_of_many_points_counts():
    steps = {"steps": 3, "step_size": 0.25}
    (found,) = run(batch_of(0.5), (0.32,), steps).budgets  # 0.58, 0.66, then back to 0.58
    assert found.points.item() == pytest.approx(0.58) and found.scores.item() == 0 and found.step.item() == 4
    (found,) = run(batch_of(0.5), (0.32,), steps | {"steps": 2}).budgets  # 0.58 is wrong, but not the last one
    assert found.points.item() == pytest.approx(0.66) and found.scores.item() == 1


def test_wrong_samples_are_attacked_as_well_and_may_become_right():
    (found,) = run(batch_of(0.58, 0.5), (0.1,), {"steps": 1, "step_size": 1.0}).budgets
    assert found.points.flatten().tolist() == pytest.approx([0.68, 0.6])
    assert found.scores.tolist() == [1, 0]  # wrong before and right after, as one step too far has it


class Slope(nn.Module):
    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        pixel = inputs.flatten(1)[:, 0]
        return torch.stack([torch.zeros_like(pixel), pixel - 0.9], 1)


def test_clipping_around_the_iterate_walks_out_of_the_ball_and_is_projected_at_the_end():
    class Seen(Slope):
        farthest = 0.0

        def forward(self, inputs):
            Seen.farthest = max(Seen.farthest, float(inputs.detach().max()))
            return super().forward(inputs)

    options = {"steps": 20, "step_size": 0.25, "clip_to": "iterate"}
    (found,) = run(batch_of(0.2), (0.1,), options, model=Seen()).budgets
    assert Seen.farthest == pytest.approx(0.2 + 19 * 0.025)  # 20 steps of eps / 4, the last point inside the ball
    assert found.points.item() == pytest.approx(0.3) and found.members[0].violations == 0
    (found,) = run(batch_of(0.8), (0.1,), options, model=Slope()).budgets
    assert found.points.item() == pytest.approx(0.9)


def test_momentum_of_signs_forgets_how_large_a_gradient_was_and_that_of_gradients_does_not():
    class Steep(nn.Module):
        """The loss rises with the first pixel up to 0.65 and falls after it; the second counts 3 times, rising."""

        def forward(self, inputs):
            first, second = inputs.flatten(1).unbind(1)
            gain = 3 * torch.where(first < 0.65, first, -0.1 * first) + second
            return torch.stack([torch.zeros_like(first), gain], 1)

    moved = {}
    for momentum in ("gradients", "signs"):  # the first pixel: +3/4, then -0.3/1.3 twice; as signs +1, -1, -1
        batch = Batch(
            sample_ids=torch.arange(1), inputs=torch.full((1, 1, 1, 2), 0.6), targets={"label": torch.zeros(1).long()}
        )
        options = {"steps": 3, "step_size": 0.1, "momentum": momentum}
        moved[momentum] = run(batch, (1.0,), options, model=Steep()).budgets[0].points.flatten().tolist()
    assert moved["gradients"] == pytest.approx([0.9, 0.9], abs=1e-6)
    assert moved["signs"] == pytest.approx([0.6, 0.9], abs=1e-6)


@pytest.mark.parametrize(("momentum", "third"), [("nothing", 0.7), ("gradients", 0.9), ("signs", 0.9)])
def test_momentum_goes_on_where_the_gradient_turns(momentum, third):
    class Turn(nn.Module):
        """The loss falls beyond 0.75."""

        def forward(self, inputs):
            pixel = inputs.flatten(1)[:, 0]
            return torch.stack([torch.zeros_like(pixel), -(pixel - 0.75).abs()], 1)

    options = {"steps": 3, "step_size": 0.1, "momentum": momentum}  # 0.6, 0.7, 0.8, and then?
    (found,) = run(batch_of(0.6), (1.0,), options, model=Turn()).budgets
    assert found.points.item() == pytest.approx(third, abs=1e-6)


def test_the_loss_takes_probabilities_for_logits_and_its_gradient_dies_with_confidence():
    batch = batch_of(0.5, 0.5, label=0)
    logits = torch.tensor([[1.0, 0.0], [200.0, 0.0]], requires_grad=True)
    objective = objective_for(TASK, "probability-cross-entropy")
    values = objective(logits, batch, torch.zeros(2))
    p = logits.detach().softmax(1)
    assert torch.allclose(values, (p.exp().sum(1)).log() - p[:, 0])
    (gradient,) = torch.autograd.grad(values.sum(), logits)
    assert gradient[0].abs().max() > 0.1 and gradient[1].abs().max() == 0
    clamped = objective_for(TASK, "clamped-binary-cross-entropy")(logits, batch, torch.zeros(2))
    assert torch.allclose(clamped[0], -F.logsigmoid(torch.tensor(1.0)))
    (gradient,) = torch.autograd.grad(clamped.sum(), logits)
    assert gradient[1].abs().max() == 0


def test_a_failed_attack_leaves_the_clean_score_and_counts_as_an_error():
    known = LastPoint(torch.zeros(2, 1), torch.tensor([1.0, 0.0]))
    assert not known.finished.any()
    rows = torch.tensor([0, 1])
    known.offer(rows, torch.ones(2, 1), torch.tensor([float("nan"), 1.0]), 3, torch.tensor([5, 6]))
    assert known.scores.tolist() == [1, 1] and known.points.flatten().tolist() == [0, 1]
    assert known.member.tolist() == [-1, 3] and known.step.tolist() == [-1, 6]


def test_options_and_protocols_that_make_no_sense_are_refused():
    with pytest.raises(InvalidEntryError, match="momentum"):
        ReplayedSteps(steps=1, step_size=1.0, momentum="some")
    with pytest.raises(InvalidEntryError, match="clip_to"):
        ReplayedSteps(steps=1, step_size=1.0, clip_to="nothing")
    common = {"title": "t", "threat_model": ThreatModel(), "budgets": (linf(0.1),), "tasks": ("classification",)}
    with pytest.raises(InvalidEntryError, match="worst case"):
        AttackProtocol(name="x", members="a:b", ranks=True, cascades=False, **common)
    two = tuple(Member(name=name, attack="a:b") for name in ("a", "b"))
    protocol = AttackProtocol(name="x", members=lambda facts, budget: two, cascades=False, **common)
    with pytest.raises(InvalidEntryError, match="one member"):
        protocol.ensemble(FACTS, linf(0.1))
