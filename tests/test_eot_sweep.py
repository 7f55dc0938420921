"""The sweep over draws: what it spends, whom it is for, and that its curve never rises."""

from __future__ import annotations

from dataclasses import replace

from registry import DEFENSES, PROTOCOLS, CellFacts, Randomness, linf, load_entries, resolve

load_entries()
SWEEP = PROTOCOLS["adaptive:eot-sweep"]
FACTS = CellFacts(task="classification", n_classes=2, randomness=Randomness.SAMPLE)


def test_members_spend_the_draws_that_their_names_say_in_ascending_order():
    totals = []
    for member in SWEEP.ensemble(FACTS, linf(8 / 255)):
        attack = resolve(member.attack)(**member.options)
        totals.append((attack.steps - 1) * attack.eot_samples)  # its last step only looks at the last point
        assert member.name.endswith(f"-{totals[-1]}")
    assert totals == [320, 320, 1600, 1600, 6400, 6400]


def test_each_number_of_draws_is_spent_on_both_losses():
    members = SWEEP.ensemble(FACTS, linf(8 / 255))
    assert [member.pooled for member in members] == [False, True] * 3
    assert {member.objective for member in members if member.pooled} == {"cross-entropy"}


def test_it_is_made_for_stochastic_defenses_of_both_kinds():
    entry = DEFENSES["Undefended"]
    assert not SWEEP.ranks
    assert not SWEEP.suits(entry)
    for kind in (Randomness.SAMPLE, Randomness.MODEL):
        assert SWEEP.suits(replace(entry, randomness=kind))
