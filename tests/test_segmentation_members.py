"""The ensemble on label maps: its effort, and that it beats the objectives it replaced on committed weights."""

import pytest
import torch

from attacks.objectives import OBJECTIVES
from attacks.segmentation_members import segmentation_members
from attacks.standard_ensemble import EFFORTS
from datasets.tasks.base import task_for
from defenses.build import defended_model
from registry import DATASETS, DEFENSES, ROOT, Member, load_entries
from tests.toys import attack, protocol_of

load_entries()


@pytest.mark.parametrize(("full", "steps"), [(True, 200), (False, 60)])
def test_the_effort_is_what_the_docstring_says(full, steps):
    members = segmentation_members(full)
    assert sum(member.options["steps"] for member in members) == steps
    assert len({member.name for member in members}) == len(members)
    assert {member.objective for member in members} <= OBJECTIVES["segmentation"].keys()


def test_the_methodology_page_states_the_effort_that_is_spent():
    page = (ROOT / "reports/templates/methodology.html").read_text(encoding="utf-8")
    full, fewer = ([member.options["steps"] for member in segmentation_members(full)] for full in (True, False))
    assert f"{full[0]}, {full[1]} and {full[2]} of them at the ranked budget" in page
    assert f"elsewhere {fewer[0]} and {fewer[1]}, without Jensen-Shannon" in page
    assert f"Square follows on soft Dice with {EFFORTS['full']['segmentation_queries']} queries" in page


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
