"""The sweep over draws: what it spends, whom it is for, and that its curve never rises."""

from __future__ import annotations

from dataclasses import replace

from registry import DEFENSES, PROTOCOLS, CellFacts, Randomness, linf, load_entries, resolve
from tests.toys import NoisyInput, attack, batch_for, images, linear, protocol_of

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


def test_it_follows_stand_ins_where_a_stage_hides_its_gradient():
    hidden = replace(FACTS, stages=("stage",), hidden_stages=("stage",))
    assert {member.backward for member in SWEEP.ensemble(FACTS, linf(8 / 255))} == {"true"}
    assert {member.backward for member in SWEEP.ensemble(hidden, linf(8 / 255))} == {"bpda"}


def test_label_maps_are_swept_on_dice():
    members = SWEEP.ensemble(replace(FACTS, task="segmentation"), linf(8 / 255))
    assert [member.name for member in members[:2]] == ["apgd-320", "mim-320"]
    assert {(member.objective, member.pooled) for member in members} == {("soft-dice", False)}
    noisy = replace(FACTS, task="segmentation", stages=("0",), has_bare=True, has_mechanism=True, has_twin=True)
    found = PROTOCOLS["adaptive:purifier"].ensemble(noisy, linf(8 / 255))
    assert {member.objective for member in found} == {"soft-dice"}


def test_it_is_made_for_stochastic_defenses_of_both_kinds():
    entry = DEFENSES["Undefended"]
    assert not SWEEP.ranks
    assert not SWEEP.suits(entry)
    for kind in (Randomness.SAMPLE, Randomness.MODEL):
        assert SWEEP.suits(replace(entry, randomness=kind))


def test_it_can_attack_every_defense_that_draws_and_no_other():
    for entry in DEFENSES:
        assert SWEEP.suits(entry) == (entry.randomness is not Randomness.NONE), entry.name
        if SWEEP.suits(entry):
            assert set(entry.tasks) <= set(SWEEP.tasks), entry.name


def test_scores_after_members_never_rise_and_draws_are_counted():
    base = linear(2, shape=(1, 4, 4))
    batch = batch_for(base, images(6))
    members = [
        replace(member, options=member.options | {"steps": 2, "eot_samples": draws})
        for member, draws in zip(SWEEP.ensemble(FACTS, linf(8 / 255)), (1, 1, 2, 2, 4, 4), strict=True)
    ]
    outcome = attack(NoisyInput(base), batch, protocol_of(*members, eps=(0.1,)), randomness=Randomness.SAMPLE)
    found = outcome.budgets[0].members
    after = [member.robust_after for member in found]
    assert after == sorted(after, reverse=True)
    assert after[-1] < 1
    assert [member.backwards for member in found] == [6 * 3 * draws for draws in (1, 1, 2, 2, 4, 4)]
