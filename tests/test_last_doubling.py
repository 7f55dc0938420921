"""The last doubling: after an escalation it takes twice the steps of whatever ran longest."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from torch import nn

from attacks.soundness.convergence import largest_option
from registry import Member, Need
from tests.soundness_toys import MARGIN, Rounded, examined, flat_linear


def run_of(*members: Member) -> SimpleNamespace:
    return SimpleNamespace(members=[SimpleNamespace(member=member) for member in members])


@pytest.mark.parametrize("source", ["victim", "exact", Need.TWIN, Need.BARE, Need.FROZEN_DRAW])
def test_gradient_attacks_count_whosever_gradient_they_follow(source):
    longest = Member(name="long run", attack="attacks.apgd:APGD", options={"steps": 500}, source=source)
    assert largest_option(run_of(MARGIN, longest), "steps", 40) == 500


def test_searches_and_attacks_on_features_are_no_doubling():
    features = Member(name="features", attack="attacks.apgd:APGD", options={"steps": 500}, source=Need.MECHANISM)
    square = Member(name="square", attack="attacks.square:Square", options={"queries": 5000})
    assert largest_option(run_of(MARGIN, features, square), "steps", 10) == MARGIN.options["steps"]
    assert largest_option(run_of(square), "steps", 40) == 40


def test_the_last_doubling_doubles_the_longest_escalated_run(monkeypatch):
    for name, value in (("QUERIES", 20), ("DECISIONS", 20), ("ESTIMATES", 1), ("LONGER", 6)):
        monkeypatch.setattr(f"attacks.soundness.escalation.{name}", value)
    base = flat_linear()
    found = examined(nn.Sequential(Rounded(), base), base, n=16, members=(MARGIN,), larger=False)
    steps = {
        m.member.source: m.member.options["steps"] for m in found.escalation.members if "long run" in m.member.name
    }
    assert steps == {"exact": 6 * MARGIN.options["steps"]}
    assert found.findings["not-converged"].values["steps"] == 2 * max(
        m.member.options["steps"] for m in found.escalation.members if "steps" in m.member.options
    )
