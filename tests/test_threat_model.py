"""Threat models and budgets: what is possible in each norm, and how it is written."""

from __future__ import annotations

import math

import pytest

from registry import Budget, Goal, Knowledge, Norm, Scope, ThreatKind, ThreatModel, format_eps, linf
from registry.errors import InvalidEntryError


def test_linf_eps_of_8_is_refused_with_what_to_write():
    with pytest.raises(InvalidEntryError) as caught:
        linf(8)
    assert str(caught.value) == "Linf eps is in input units [0, 1], got 8; write 8 / 255, not 8"


@pytest.mark.parametrize(
    ("norm", "eps"),
    [
        (Norm.LINF, -0.1),
        (Norm.LINF, math.nan),
        (Norm.L2, math.inf),
        (Norm.LINF, True),
        (Norm.LINF, "4/255"),
        (Norm.L0, 1.5),
        (Norm.SEVERITY, 6),
        (Norm.LINF, ()),
        (Norm.LINF, (4 / 255, 8)),
    ],
)
def test_impossible_eps_is_refused(norm, eps):
    with pytest.raises(InvalidEntryError):
        Budget(norm=norm, eps=eps)


@pytest.mark.parametrize(
    ("budget", "label", "size"),
    [
        (linf(4 / 255), "Linf 4/255", 4 / 255),
        (linf(0.5 / 255), "Linf 0.5/255", 0.5 / 255),
        (linf(0), "Linf 0", 0),
        (linf(0.31), "Linf 0.31", 0.31),
        (Budget(norm=Norm.L2, eps=0.5), "L2 0.5", 0.5),
        (Budget(norm=Norm.L0, eps=3), "L0 3 px", 3),
        (Budget(norm=Norm.SEVERITY, eps=2), "severity 2", 2),
        (linf((4 / 255, 0)), "Linf (4/255, 0)", 4 / 255),
    ],
)
def test_budgets_are_written_as_people_write_them(budget, label, size):
    assert budget.label == label
    assert budget.size == size


def test_l2_and_l1_may_exceed_1():
    assert Budget(norm=Norm.L2, eps=3.0).values == (3.0,)
    assert Budget(norm=Norm.L1, eps=12).size == 12


def test_every_grey_level_is_written_as_a_fraction():
    assert [format_eps("Linf", level / 255) for level in (1, 2, 8, 16, 32)] == [
        "1/255",
        "2/255",
        "8/255",
        "16/255",
        "32/255",
    ]


def test_cards_hold_plain_values():
    assert linf((0.5, 0.25)).card() == {"norm": "Linf", "eps": [0.5, 0.25]}
    assert ThreatModel().card() == {
        "kind": "ball",
        "norm": "Linf",
        "scope": "each",
        "support": "everything",
        "knowledge": "white-box",
        "goal": "untargeted",
    }


def test_labels_say_what_is_not_the_usual():
    assert ThreatModel(kind=ThreatKind.CLEAN).label == "clean"
    assert ThreatModel().label == "Linf, white-box"
    unusual = ThreatModel(
        norm=Norm.L0, support="modality:1", knowledge=Knowledge.SCORE_BASED, goal=Goal.TARGETED, scope=Scope.JOINT
    )
    assert unusual.label == "L0, modality:1, score-based, targeted"


@pytest.mark.parametrize("support", ["everywhere", "modality:", "modality:x", "modality:-1", ""])
def test_unknown_support_is_refused(support):
    with pytest.raises(InvalidEntryError, match="support must be"):
        ThreatModel(support=support)


def test_severity_and_corruption_belong_together():
    with pytest.raises(InvalidEntryError, match="severity belongs to kind corruption"):
        ThreatModel(norm=Norm.SEVERITY)
    with pytest.raises(InvalidEntryError, match="severity belongs to kind corruption"):
        ThreatModel(kind=ThreatKind.CORRUPTION)
    assert ThreatModel(kind=ThreatKind.CORRUPTION, norm=Norm.SEVERITY).label == "severity, white-box"
