"""The standard ensembles for L2 and L0: which members a cell's facts call for, and what they reach together."""

import pytest

import benchmark.suites  # noqa: F401  registers them
from registry import PROTOCOLS, SUITES, Budget, CellFacts, Need, Norm, Randomness, load_entries
from tests.toys import attack, batch_for, cnn, images, protocol_of

load_entries()


def ensemble(name: str, eps: float, **facts):
    protocol = PROTOCOLS[name]
    usual = {"task": "classification", "n_classes": 4, "ranked_budget": protocol.ranked_budget}
    cell = CellFacts(**usual | facts)
    return {member.name: member for member in protocol.ensemble(cell, Budget(norm=protocol.threat_model.norm, eps=eps))}


def test_the_l2_ensemble_grows_with_the_facts():
    assert set(ensemble("standard:l2", 0.5, n_classes=2, has_twin=False)) == {"apgd-margin", "fab", "square"}
    usual = {"apgd-margin", "apgd-targeted-margin", "fab", "transfer", "square"}
    assert set(ensemble("standard:l2", 0.5)) == usual
    assert next(iter(ensemble("standard:l2", 0.5, stages=("jpeg",)))) == "pgd-bpda"
    assert set(ensemble("standard:l2", 0.5, multi_label=True)) == usual - {"apgd-targeted-margin", "fab"} | {"apgd-ce"}
    assert ensemble("standard:l2", 0.5, n_classes=20)["apgd-targeted-margin"].options["restarts"] == 9
    assert ensemble("standard:l2", 0.5)["square"].options["queries"] == 5000
    assert ensemble("standard:l2", 1.0)["square"].options["queries"] < 5000


def test_the_l0_ensemble_grows_with_the_facts():
    limited = {"pgd0-inner", "pgd0-near", "sparse-rs-inner", "sparse-rs-near"}
    always = {"pgd0", "sparse-rs"} | limited
    assert set(ensemble("standard:l0", 1, n_classes=2, has_twin=False)) == always | {"one-pixel"}
    assert set(ensemble("standard:l0", 3)) == always | {"pgd0-targeted", "transfer"}
    assert next(iter(ensemble("standard:l0", 3, stages=("jpeg",)))) == "pgd0-bpda"
    assert {ensemble("standard:l0", 3, stages=("jpeg",))[name].backward for name in limited if "pgd0" in name} == {
        "bpda"
    }
    assert set(ensemble("standard:l0", 25, multi_label=True)) == always | {"transfer"}
    assert ensemble("standard:l0", 10)["sparse-rs"].options["queries"] == 5000


@pytest.mark.parametrize("name", ["standard:l2", "standard:l0"])
def test_stochastic_defenses_meet_averaged_gradients_and_a_frozen_draw(name):
    found = ensemble(name, PROTOCOLS[name].ranked_budget.size, randomness=Randomness.SAMPLE, stages=("noise",))
    assert "fab" not in found and found["frozen-draw"].source == Need.FROZEN_DRAW
    single = {"frozen-draw", "transfer"}
    assert all(member.options["eot_samples"] > 1 for key, member in found.items() if key not in single)
    shown = ensemble(name, 1, has_bare=True, has_mechanism=True)
    assert {str(member.source) for member in shown.values()} >= {"bare", "mechanism"}


@pytest.mark.parametrize("name", ["standard:l2", "standard:l0"])
def test_small_suites_leave_them_out(name):
    assert PROTOCOLS[name].ranks
    assert "*" in SUITES["full"].protocols
    assert name not in (*SUITES["smoke"].protocols, *SUITES["lite"].protocols)


@pytest.mark.parametrize(("name", "budgets"), [("standard:l2", (0.25, 1.0)), ("standard:l0", (1, 3))])
def test_members_lower_the_score_from_budget_to_budget(name, budgets):
    model = cnn(3, channels=1)
    brightness = images(24, shape=(1, 1, 1), seed=3, low=0.0, high=0.8)
    batch = batch_for(model, brightness + 0.2 * images(24, shape=(1, 8, 8)))
    members = tuple(ensemble(name, budgets[0], n_classes=3, has_twin=False).values())
    protocol = protocol_of(*members, eps=budgets, norm=Norm.L2 if name.endswith("l2") else Norm.L0)
    outcome = attack(model, batch, protocol, slots=24)
    assert all(member.error is None for result in outcome.budgets for member in result.members)
    first, second = (float(result.scores.mean()) for result in outcome.budgets)
    assert 1.0 > first > second
