"""What entries say of themselves is so: budgets of training, controls without noise, options that apply somewhere."""

from __future__ import annotations

import fnmatch

import pytest
import torch
from safetensors.numpy import load_file

from defenses.build import build_untrained
from defenses.cards import merged_options
from registry import DATASETS, DEFENSES, ROOT, DatasetSpec, DefenseEntry, Randomness, load_entries

load_entries()
WITHOUT_NOISE = {"Dhar2026NUMANNoiseOff": "Dhar2026NUMAN", "Dhar2026UMANTunedNoiseOff": "Dhar2026UMANTuned"}
TRAINED = [entry for entry in DEFENSES if entry.recipe is not None]


def declared_for(entry: DefenseEntry) -> list[DatasetSpec]:
    """Returns the data sets of the tasks and patterns of an entry."""
    return [
        spec
        for spec in DATASETS
        if spec.task in entry.tasks and any(fnmatch.fnmatchcase(spec.name, pattern) for pattern in entry.datasets)
    ]


@pytest.mark.parametrize("entry", [e for e in TRAINED if e.trained_for and not e.is_control], ids=lambda e: e.name)
def test_departures_say_where_training_aims_below_what_a_board_ranks(entry):
    below = [
        spec.name
        for spec in declared_for(entry)
        if merged_options(entry.recipe, spec.name)["eps"] < spec.ranked_budget.size - 1e-9
    ]
    said = any(words in entry.departures for words in ("where a board ranks 8/255", "8/255 that its board ranks"))
    assert said == bool(below)


@pytest.mark.parametrize("entry", TRAINED, ids=lambda e: e.name)
def test_options_for_some_data_sets_apply_to_one_that_the_entry_is_for(entry):
    names = [spec.name for spec in declared_for(entry)]
    assert [p for p in entry.recipe.per_dataset if not fnmatch.filter(names, p)] == []


@pytest.mark.parametrize(("name", "noisy"), WITHOUT_NOISE.items(), ids=WITHOUT_NOISE)
def test_without_noise_outputs_are_those_of_the_noisy_form_whose_noise_is_zero(name, noisy, monkeypatch):
    spec, entry = DATASETS["phantom2"], DEFENSES[name]
    assert entry.randomness is Randomness.NONE
    assert DEFENSES[noisy].randomness is Randomness.SAMPLE
    assert entry.recipe == DEFENSES[noisy].recipe
    torch.manual_seed(0)
    silent, loud = (build_untrained(DEFENSES[known], spec).double().eval() for known in (name, noisy))
    torch.nn.init.zeros_(silent.head.bias)  # which is all that is seen behind untrained gates, nearly shut
    loud.load_state_dict(silent.state_dict())
    inputs = torch.rand(3, *spec.input_shape, dtype=torch.float64)
    state = torch.random.get_rng_state()
    with torch.no_grad():
        outputs = silent(inputs)
        assert not torch.equal(outputs[0], outputs[1])
        assert torch.equal(silent(inputs), outputs)
        assert torch.equal(torch.random.get_rng_state(), state)
        assert not torch.equal(loud(inputs), outputs)
        monkeypatch.setattr(torch, "randn_like", torch.zeros_like)
        assert torch.equal(loud(inputs), outputs)


@pytest.mark.parametrize("name", ["Dhar2026UMAN", "Dhar2026LUMAN", "Dhar2026UMANTuned", "Dhar2026NUMAN"])
def test_departures_say_what_training_did_to_the_noise(name):
    weights = load_file(ROOT / "defenses" / "weights" / "breastmnist" / f"{name}-s0.safetensors")
    scales = [float(value.item()) for key, value in weights.items() if "omega" in key]
    words = DEFENSES[name].departures
    if not scales:
        assert "Its noise is fixed" in words and "omega from 1" not in words
        return
    said = f"{min(scales):.2f}-{max(scales):.2f} (mean {sum(scales) / len(scales):.2f}; BreastMNIST, seed 0)"
    assert f"the {len(scales)} noise scales omega from 1 to {said}" in words
    fresh = build_untrained(DEFENSES[name], DATASETS["breastmnist"]).state_dict()
    assert {float(value) for key, value in fresh.items() if "omega" in key} == {1.0}


def test_what_selects_the_epoch_of_a_noisy_model_is_said():
    noisy = [e for e in TRAINED if e.randomness is not Randomness.NONE and not e.is_control and e.base is None]
    assert len(noisy) >= 9
    assert [entry.name for entry in noisy if "The epoch is selected" not in entry.departures] == []
