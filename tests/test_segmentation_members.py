"""The ensemble on label maps: its effort, and that it beats the objectives it replaced on committed weights."""

import pytest
import torch

from attacks.objectives import OBJECTIVES
from attacks.segmentation_members import segmentation_members
from datasets.tasks.base import task_for
from defenses.build import defended_model
from registry import DATASETS, DEFENSES, Member, load_entries
from tests.toys import attack, protocol_of

load_entries()


@pytest.mark.parametrize(("full", "steps"), [(True, 200), (False, 60)])
def test_the_effort_is_what_the_docstring_says(full, steps):
    members = segmentation_members(full)
    assert sum(member.options["steps"] for member in members) == steps
    assert len({member.name for member in members}) == len(members)
    assert {member.objective for member in members} <= OBJECTIVES["segmentation"].keys()


def test_following_dice_at_a_falling_temperature_beats_the_other_objectives(tmp_path):
    """PGD-AT on phantom images at 8/255: with 60 steps in all, the mean Dice is lower than after 80 of the others."""
    dataset = DATASETS["phantomseg"].load(tmp_path)
    model, _ = defended_model(DEFENSES["Madry2018PGDAT"], dataset.spec, 0, None)
    batch = dataset.splits["test"].take(range(0, 48, 6))

    def dice(members):
        protocol = protocol_of(*members, eps=(8 / 255,))
        outcome = attack(model, batch, protocol, task=task_for(dataset.spec), slots=8)
        return outcome.clean_scores.mean(), outcome.budgets[0].scores

    former = [
        Member(name=name, attack="attacks.apgd:APGD", options={"steps": 40}, objective=name)
        for name in ("soft-dice", "cross-entropy")
    ]
    clean, ours = dice(segmentation_members(full=False))
    _, theirs = dice(former)
    assert ours.mean() < theirs.mean() < clean
    assert torch.isfinite(ours).all()
