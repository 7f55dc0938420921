"""Training of models that draw numbers: the mode of the inner attack, and validations of which several are averaged."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from datasets.tasks import task_for
from defenses.recipes.inner_pgd import inner_pgd
from defenses.recipes.options import InnerOptions, TrainingOptions
from defenses.recipes.training import _validate
from registry.errors import InvalidEntryError
from tests.test_recipes import toy_dataset


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_the_inner_attack_takes_the_mode_that_is_asked_for_and_leaves_statistics_alone(mode):
    model, seen = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(16), nn.Linear(16, 2)).train(), []
    model[1].register_forward_hook(lambda module, args, output: seen.append(module.training))
    before, inputs = {name: value.clone() for name, value in model.named_buffers()}, torch.rand(6, 1, 4, 4)

    def loss(outputs: Tensor) -> Tensor:
        return F.cross_entropy(outputs, torch.zeros(6, dtype=torch.int64), reduction="none")

    found = inner_pgd(model, inputs, inputs, loss, InnerOptions(inner_mode=mode), 2)
    assert not torch.equal(found, inputs)
    assert seen == [mode == "train"] * 2
    assert all(torch.equal(value, before[name]) for name, value in model.named_buffers())
    assert all(module.training for module in model.modules())


def test_an_unknown_mode_is_refused():
    with pytest.raises(InvalidEntryError, match="inner_mode is eval or train, got 'half'"):
        InnerOptions(inner_mode="half")


@pytest.mark.parametrize("draws", [1, 2, 4])
def test_validations_are_averaged(draws):
    """A model that is right in every other pass."""
    data = toy_dataset()
    val, answers = data.splits["val"], []

    class Alternating(nn.Module):
        def forward(self, inputs: Tensor) -> Tensor:
            label = val.all().targets["label"]
            answers.append(len(answers) % 2)
            return F.one_hot(label if answers[-1] else 1 - label, 2).float()

    options = TrainingOptions(batch_size=len(val), validation_draws=draws)
    row, _ = _validate(Alternating(), task_for(data.spec), val, options, "cpu", None)
    assert len(answers) == draws
    assert row["val_clean"] == (0 if draws == 1 else 0.5)
