"""True labels reach the models of oracle entries only, and an oracle never ranks."""

import dataclasses

import pytest
import torch
from torch import nn

from benchmark.oracles import seen_by, twin_of
from benchmark.restoration import Restorer
from datasets.batch import Batch
from datasets.tasks.base import model_outputs
from defenses.purifiers import dgmp
from defenses.recipes.dgmp import train_told_classifier
from defenses.seeding import seeded
from registry import DEFENSES, DefenseEntry, Family, Randomness, load_entries
from registry.errors import InputContractError, InvalidEntryError, ModelContractError
from tests.test_recipes import toy_dataset

SPEC = toy_dataset().spec


def entry(**changes):
    values = {"name": "Told", "summary": "", "family": Family.PURIFICATION, "tasks": ("classification",)}
    return DefenseEntry(**{**values, "build": "m:b", "base": "Undefended", **changes})


def batch(n=6):
    labels = torch.tensor([0, 1] * (n // 2))
    inputs = torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    return Batch(sample_ids=torch.arange(n), inputs=inputs, targets={"label": labels})


class PrintsLabel(nn.Module):
    """A generator that writes the class weights into the image."""

    latent, n_labels = 64, 2

    def forward(self, codes, labels=None):
        if labels is None:
            labels = torch.full((len(codes), 2), 0.5)
        return labels.to(codes.dtype)[:, :1, None, None].expand(-1, 1, 8, 8) + 0 * codes.mean()


class ReadsImage(nn.Module):
    """Says class 0 where the image is bright."""

    def forward(self, inputs):
        bright = inputs.flatten(1).mean(1)
        return torch.stack([bright - 0.5, 0.5 - bright], 1)


def told(build=dgmp.build_told):
    with seeded(0):
        model = dgmp.build_told(SPEC, base=ReadsImage())
        model.transform.generator = PrintsLabel()
        return (model if build is dgmp.build_told else build(SPEC, base=model)).eval()


def test_the_registry_refuses_an_oracle_that_ranks():
    with pytest.raises(InvalidEntryError, match="ranks=False"):
        entry(oracle=True)
    assert entry(oracle=True, ranks=False).card()["oracle"]
    with pytest.raises(InvalidEntryError, match="ranks=False"):
        dataclasses.replace(entry(oracle=True, ranks=False), ranks=True)
    with pytest.raises(InvalidEntryError, match="class"):
        entry(oracle=True, ranks=False, tasks=("segmentation",))


def test_no_entry_that_ranks_is_told_labels():
    load_entries()
    assert [found.name for found in DEFENSES if found.oracle] == ["Dhar2026DGMPOracle", "Dhar2026DGMPOracleTuned"]
    for found in DEFENSES:
        assert (seen_by(found, batch(), SPEC).context is None) == (not found.oracle)
        assert not (found.oracle and found.ranks)


def test_an_oracle_is_told_the_true_labels_and_its_control_random_ones():
    samples = seen_by(entry(oracle=True, ranks=False), batch(40), SPEC)
    assert torch.equal(samples.context.argmax(1), samples.targets["label"])
    right = model_outputs(told(), samples).argmax(1) == samples.targets["label"]
    assert right.all()
    with seeded(1):
        shuffled = told(dgmp.build_shuffled)
        rates = [
            float((shuffled(batch(40).inputs).argmax(1) == samples.targets["label"]).float().mean()) for _ in "abcde"
        ]
    assert 0.35 < sum(rates) / 5 < 0.65


def test_what_stands_beside_an_oracle_does_not_look_at_labels():
    samples, oracle = seen_by(entry(oracle=True, ranks=False), batch(), SPEC), entry(oracle=True, ranks=False)
    plain = ReadsImage()(samples.inputs)
    assert torch.equal(model_outputs(twin_of(oracle, ReadsImage()), samples), plain)
    assert torch.equal(model_outputs(told().bare(), samples), plain)
    features = model_outputs(told().mechanism(), samples)
    assert features.shape == (6, 64)
    assert torch.equal(features, told().mechanism()(samples.inputs))
    twin = ReadsImage()
    assert twin_of(entry(), twin) is twin


def test_the_restored_images_are_those_that_the_classifier_sees():
    samples = seen_by(entry(oracle=True, ranks=False), batch(40), SPEC)
    shown = model_outputs(Restorer(told()), samples)
    assert torch.equal(shown.flatten(1).mean(1), samples.context[:, 0])
    with seeded(1):
        drawn = model_outputs(Restorer(told(dgmp.build_shuffled)), batch(40)).flatten(1).mean(1)
    assert set(drawn.tolist()) == {0.0, 1.0}


def test_an_oracle_refuses_what_is_no_label():
    oracle = entry(oracle=True, ranks=False)
    with pytest.raises(InputContractError, match="tabular"):
        seen_by(oracle, dataclasses.replace(batch(), context=torch.zeros(6, 3)), SPEC)
    with pytest.raises(ModelContractError, match="one-hot"):
        told()(batch().inputs, torch.zeros(6, 3))
    assert told()(batch().inputs).shape == (6, 2)


def test_a_told_classifier_learns_from_the_label_and_the_purifier_stays():
    data, model = toy_dataset(), told()
    model.net = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    model.transform.encoder.requires_grad_(False)
    before = [tensor.clone() for tensor in model.transform.state_dict().values()]
    options = {"epochs": 8, "batch_size": 16, "lr": 2e-2, "shift": 0, "flip": False}
    training = train_told_classifier(model, data, options, seed=0, device="cpu")
    assert len(training.curve) == 8
    assert [row["epoch"] for row in training.curve if "val_clean" in row] == [8]
    assert all(torch.equal(a, b) for a, b in zip(before, model.transform.state_dict().values(), strict=True))
    samples = seen_by(entry(oracle=True, ranks=False), data.splits["val"].all(), SPEC)
    assert torch.equal(model_outputs(model, samples).argmax(1), samples.targets["label"])


@pytest.mark.parametrize(
    ("control", "oracle"),
    [("Dhar2026DGMPShuffled", "Dhar2026DGMPOracleTuned"), ("Dhar2026DGMPOracleShuffled", "Dhar2026DGMPOracle")],
)
def test_the_control_shares_the_weights_of_the_oracle(control, oracle):
    load_entries()
    assert DEFENSES[control].base == oracle
    assert not DEFENSES[control].ranks
    assert DEFENSES[control].randomness is Randomness.SAMPLE
