"""Catastrophic overfitting as published, in a real training: single steps without noise, at a large radius."""

from __future__ import annotations

import pytest

from datasets.locate import data_root
from defenses.build import build_untrained
from defenses.recipes.fgsm_at import train
from defenses.seeding import seeded
from registry import DATASETS, DEFENSES, load_entries
from registry.errors import DataError

pytestmark = pytest.mark.slow
EPS = 16 / 255


def test_single_steps_without_noise_collapse_and_the_epoch_before_is_kept():
    """Source: Wong et al. 2020, arXiv:2001.03994, section 5.3; de Jorge et al. 2022, arXiv:2202.01181, figure 1."""
    load_entries()
    try:
        data = DATASETS["breastmnist"].load(data_root(None))
    except DataError as error:
        pytest.skip(str(error))
    with seeded(0):
        model = build_untrained(DEFENSES["Wong2020FastAT"], data.spec)
    options = {"epochs": 100, "eps": EPS, "step_size": EPS, "noise": 0.0, "validate_every": 3}
    found = train(model, data, options, seed=0, device="cpu")
    rows = [row for row in found.curve if "val_robust" in row]
    collapsed = next(row for row in rows if row["epoch"] > 10 and row["val_robust"] < 0.1)
    before = [row for row in rows if row["epoch"] < collapsed["epoch"]]
    assert max(row["val_robust"] for row in before) > 0.5
    assert found.curve[-1]["train_loss"] < 0.1 * before[-1]["train_loss"]  # it resists its own step better than ever
    assert found.selected_epoch < collapsed["epoch"]
