"""`validate`: every clause of a contract can fail, and says what to mend."""

from __future__ import annotations

import textwrap
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import registry.discovery
from benchmark.cli import main
from benchmark.validation.card import card_checks, dataset_card_checks, defense_card_checks
from benchmark.validation.check import Check
from benchmark.validation.dataset import dataset_checks
from benchmark.validation.model import model_checks
from benchmark.validation.protocol import protocol_checks
from datasets.batch import Batch, Dataset, Split
from datasets.tasks.classification import Classification
from registry import (
    DATASETS,
    DEFENSES,
    AttackProtocol,
    Claim,
    DatasetSpec,
    DefenseEntry,
    Family,
    HarmfulConfusion,
    KnownBy,
    Member,
    Randomness,
    Recipe,
    Registry,
    Source,
    ThreatModel,
    Truth,
    linf,
    load_entries,
)

ENTRY = DefenseEntry(
    name="Toy2026",
    summary="A toy.",
    family=Family.UNDEFENDED,
    tasks=("classification",),
    build="torch.nn:Module",
    recipe=Recipe(train="math:sqrt"),
)


@pytest.fixture(autouse=True)
def loaded_files(monkeypatch):
    """Forgets the entry files that a test loads beside those of the repository."""
    load_entries()
    monkeypatch.setattr(registry.discovery, "_loaded", dict(registry.discovery._loaded))


def failed(checks: list[Check]) -> dict[str, str]:
    assert checks and all(verdict.ok or verdict.message for verdict in checks), "each failure says what to mend"
    return {verdict.clause: verdict.message for verdict in checks if not verdict.ok}


class Linear(nn.Module):
    """An honest model; the broken ones below change one thing each."""

    randomness = Randomness.NONE
    differentiable = True

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.layer = nn.Linear(16, 3)

    def forward(self, inputs):
        return self.layer(inputs.flatten(1))


class Tuple(Linear):
    def forward(self, inputs):
        return super().forward(inputs), inputs


class NotFinite(Linear):
    def forward(self, inputs):
        return super().forward(inputs) / 0


class WrongNumber(Linear):
    def forward(self, inputs):
        return super().forward(inputs)[:, :2]


class BreaksOnBlack(Linear):
    def forward(self, inputs):
        return super().forward(inputs / inputs.amax((1, 2, 3), keepdim=True))


class Training(Linear):
    def train(self, mode=True):
        super().train(mode)
        self.layer.training = True
        return self


class Stateful(Linear):
    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, inputs):
        self.calls += 1
        return super().forward(inputs)


class InPlace(Linear):
    def forward(self, inputs):
        return super().forward(inputs.mul_(0.5) if not inputs.requires_grad else inputs)


class Noisy(Linear):
    def forward(self, inputs):
        return super().forward(inputs + 0.1 * torch.randn_like(inputs))


class DeclaredNoisy(Noisy):
    randomness = Randomness.SAMPLE


class NoisyOnceTrained(Linear):
    """Its gate is shut before it is trained."""

    randomness = Randomness.SAMPLE

    def forward(self, inputs):
        return super().forward(inputs + 0.0 * torch.randn_like(inputs))


class FalselyNoisy(Linear):
    randomness = Randomness.SAMPLE


class SharedNoise(Linear):
    randomness = Randomness.SAMPLE

    def forward(self, inputs):
        return super().forward(inputs + 0.1 * torch.randn(1, *inputs.shape[1:]))


class DeclaredSharedNoise(SharedNoise):
    randomness = Randomness.MODEL


class BatchStatistics(Linear):
    def forward(self, inputs):
        return super().forward(inputs - inputs.mean(0))


class Quantised(Linear):
    def forward(self, inputs):
        return super().forward((inputs * 4).round() / 4)


class DeclaredQuantised(Quantised):
    differentiable = False


class Rounding(nn.Module):
    def forward(self, inputs):
        return (inputs * 4).round() / 4

    def bpda_twin(self, inputs):
        return inputs


class Staged(Linear):
    differentiable = False

    def __init__(self):
        super().__init__()
        self.stage = Rounding()

    def forward(self, inputs):
        return super().forward(self.stage(inputs))


class FlatTwin(Staged):
    def __init__(self):
        super().__init__()
        self.stage.bpda_twin = lambda inputs: inputs.flatten(1)


class DeadTwin(Staged):
    def __init__(self):
        super().__init__()
        self.stage.bpda_twin = lambda inputs: inputs.round()


OUTPUTS = "outputs are raw, finite and of the task's shape"
EXTREMES = "extreme inputs (all 0, all 1) give finite outputs"
EVAL = "eval() leaves no submodule in training mode"
STATE = "a forward pass changes no buffer, parameter or input"
BATCH = "a row's output does not depend on its batch"
GRADIENT = "the gradient of the loss reaches the inputs"
STAGES = "declared stages have a stand-in of the right shape"


def random(declared: Randomness) -> str:
    return f"randomness is {declared}, as declared"


@pytest.mark.parametrize(
    ("kind", "clauses"),
    [
        (Linear, set()),
        (Staged, set()),
        (DeclaredNoisy, set()),
        (DeclaredSharedNoise, set()),
        (NoisyOnceTrained, set()),
        (NotFinite, {OUTPUTS}),
        (WrongNumber, {OUTPUTS}),
        (BreaksOnBlack, {EXTREMES}),
        (Training, {EVAL}),
        (Stateful, {STATE}),
        (InPlace, {STATE}),
        (Noisy, {random(Randomness.NONE), BATCH}),
        (FalselyNoisy, {random(Randomness.SAMPLE)}),
        (SharedNoise, {random(Randomness.SAMPLE), BATCH}),
        (BatchStatistics, {BATCH}),
        (Quantised, {GRADIENT}),
        (DeclaredQuantised, {GRADIENT}),
        (FlatTwin, {STAGES}),
        (DeadTwin, {STAGES}),
    ],
)
def test_every_clause_on_models_can_fail(kind, clauses):
    generator = torch.Generator().manual_seed(1)
    batch = Batch(
        sample_ids=torch.arange(6),
        inputs=torch.rand(6, 1, 4, 4, generator=generator),
        targets={"label": torch.arange(6) % 3},
    )
    entry = replace(ENTRY, randomness=kind.randomness, differentiable=kind.differentiable)
    found = failed(model_checks(kind().eval(), entry, Classification(3), batch))
    assert set(found) == clauses, found


def test_a_model_that_returns_a_tuple_is_told_so():
    batch = Batch(sample_ids=torch.arange(2), inputs=torch.rand(2, 1, 4, 4), targets={"label": torch.arange(2)})
    assert "got a tuple" in failed(model_checks(Tuple().eval(), ENTRY, Classification(3), batch))[OUTPUTS]


def test_probabilities_are_to_be_mended_where_they_are_not_the_point():
    model = nn.Sequential(Linear(), nn.Softmax(1)).eval()
    batch = Batch(sample_ids=torch.arange(2), inputs=torch.rand(2, 1, 4, 4), targets={"label": torch.arange(2)})
    assert "return their logarithm" in failed(model_checks(model, ENTRY, Classification(3), batch))[OUTPUTS]
    control = replace(ENTRY, family=Family.CONTROL_BROKEN, truth=Truth(known_by=KnownBy.ATTACK, statement="s"))
    verdict = next(v for v in model_checks(model, control, Classification(3), batch) if v.clause == OUTPUTS)
    assert verdict.ok
    assert "probabilities" in verdict.message


@pytest.mark.parametrize(
    ("changes", "clause"),
    [
        ({"tasks": ("clasification",)}, "its tasks exist"),
        ({"base": "Undefnded"}, "its base exists"),
        ({"build": "torch.nn:Modul"}, "its factory can be imported"),
        ({"recipe": Recipe(train="no_such_module:train")}, "its recipe can be imported"),
        (
            {"claims": (Claim(value=45.3, metric="m", dataset="d", protocol="p", source="s"),)},
            "its claims are fractions",
        ),
    ],
)
def test_every_clause_on_a_defenses_card_can_fail(changes, clause):
    load_entries()
    assert failed(defense_card_checks(ENTRY)) == {}
    assert set(failed(defense_card_checks(replace(ENTRY, **changes)))) == {clause}


def test_the_name_and_the_card_are_checked():
    registry, options = Registry("defense", DefenseEntry), {}
    registry.add(replace(ENTRY, name="not-a-name", build_options=options))
    options["width"] = object()  # the registry would have refused it
    found = failed(card_checks(registry, registry["not-a-name"]))
    assert set(found) == {
        "the name follows the rule of its kind",
        "the file carries the entry's name",
        "the file imports nothing heavy at its top level",
        "its card can be written as JSON",
    }
    assert "rename the file to not_a_name.py" in found["the file carries the entry's name"]


def arrays(n: int, seed: int) -> Split:
    generator = np.random.default_rng(seed)
    return Split(images=generator.integers(0, 255, (n, 1, 4, 4), np.uint8), targets={"label": np.arange(n) % 2})


def toy_dataset(change=None) -> DatasetSpec:
    """Returns a data set in memory; `change(splits)` breaks it."""
    splits = {"train": arrays(8, 0), "val": arrays(4, 1), "test": arrays(6, 2)}
    splits = splits if change is None else change(splits)
    spec = DatasetSpec(
        name="toy",
        title="Toy",
        task="classification",
        input_shape=(1, 4, 4),
        class_names=("a", "b"),
        splits={"train": 8, "val": 4, "test": 6},
        license="none",
        citation="none",
        reader=lambda spec, root: Dataset(spec=spec, splits=splits, sha256="0" * 64),
    )
    return spec


def changed(name: str, **values):
    return lambda splits: {**splits, name: replace(splits[name], **values)}


LEAK = np.concatenate([arrays(8, 0).images[:1], arrays(6, 2).images[1:]])


@pytest.mark.parametrize(
    ("change", "clause"),
    [
        (None, None),
        (lambda splits: {**splits, "test": arrays(5, 2)}, "every split has the stated number of samples"),
        (
            changed("test", images=arrays(6, 2).images.astype(np.float32)),
            "images have the stated shape, and uint8 or float32 in [0, 1]",
        ),
        (
            changed("val", images=np.zeros((4, 3, 4, 4), np.uint8)),
            "images have the stated shape, and uint8 or float32 in [0, 1]",
        ),
        (changed("train", targets={"label": np.arange(8) % 3}), "targets are what the task scores"),
        (changed("test", targets={"label": np.zeros(6, np.int64)}), "every class occurs in train and test"),
        (changed("test", images=LEAK), "no image is in two splits, apart from stated ones"),
        (
            lambda splits: {name: replace(split, groups=np.arange(len(split))) for name, split in splits.items()},
            "no patient, volume or lesion is in two splits",
        ),
    ],
)
def test_every_clause_on_data_can_fail(tmp_path, change, clause):
    found = failed(dataset_checks(toy_dataset(change), tmp_path))
    found.pop("no image is in two splits, apart from stated ones", None) if clause and "shape" in clause else None
    assert set(found) == ({clause} if clause else set()), found


def test_absent_data_say_how_they_are_got(tmp_path):
    def read(spec, root):
        from registry.errors import DataMissingError

        raise DataMissingError(f"{spec.source.filename} is not there; {spec.source.how}")

    spec = replace(toy_dataset(), reader=read, source=Source(filename="toy.npz", sha256="0", how="ask the owner"))
    assert "ask the owner" in failed(dataset_checks(spec, tmp_path))["its file is there and can be read"]


@pytest.mark.parametrize(
    ("changes", "clause"),
    [
        ({"license": " "}, "licence and citation are stated"),
        ({"task": "clasification"}, "its task exists"),
        ({"source": Source(filename="x.npz")}, "its file has a checksum"),
        (
            {"harmful_confusions": (HarmfulConfusion(true=2, predicted=0, title="t"),)},
            "harmful confusions name two different classes",
        ),
        ({"reader": "no_such_module:read"}, "its reader can be imported"),
    ],
)
def test_every_clause_on_a_data_sets_card_can_fail(changes, clause):
    assert set(failed(dataset_card_checks(replace(toy_dataset(), **changes)))) == {clause}


def toy_protocol(**options) -> AttackProtocol:
    member = Member(**({"name": "apgd", "attack": "attacks.apgd:APGD", "options": {"steps": 3}} | options))
    return AttackProtocol(
        name="toy",
        title="Toy",
        threat_model=ThreatModel(),
        budgets=(linf(4 / 255),),
        tasks=("classification",),
        members=lambda facts, budget: (member,),
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"attack": "attacks.apgd:APDG"}, "no 'APDG'"),
        ({"options": {"stpes": 3}}, "stpes"),
        ({"objective": "marginn"}, "margin"),
        ({"source": "twin"}, "add it to `needs`"),
        ({"attack": "builtins:dict"}, "an attack has run"),
    ],
)
def test_members_of_a_protocol_must_build(options, message):
    load_entries()
    assert failed(protocol_checks(toy_protocol())) == {}
    found = failed(protocol_checks(toy_protocol(**options)))
    assert message in found["classification: members build for every kind of cell"]


def test_a_private_entry_is_validated_from_its_file(tmp_path, capsys):
    path = tmp_path / "mine2026.py"
    path.write_text(PRIVATE)
    try:
        code = main(["validate", str(path)])
        text = capsys.readouterr().out
        assert code == 0, text
        assert "every clause holds" in text
        assert "classification: a quick evaluation works from end to end: accuracy" in text
    finally:
        DEFENSES.remove("Mine2026")


def test_a_file_with_a_syntax_error_is_told_in_one_line(tmp_path, capsys):
    path = tmp_path / "bad.py"
    path.write_text("def (:\n")
    assert main(["validate", str(path)]) == 2
    assert capsys.readouterr().err == (
        f"error: {Path(path).resolve()} cannot be loaded: SyntaxError: invalid syntax (line 1)\n"
    )


def test_a_generated_data_set_holds_its_contract(tmp_path):
    load_entries()
    assert failed(dataset_checks(DATASETS["phantom2"], tmp_path)) == {}


PRIVATE = textwrap.dedent(
    """
    from registry import DEFENSES, DefenseEntry, Family, Recipe

    DEFENSES.add(
        DefenseEntry(
            name="Mine2026",
            summary="Something private.",
            family=Family.NOISE_INJECTION,
            tasks=("classification",),
            build="defenses.architectures.default:build",
            recipe=Recipe(train="defenses.recipes.standard:train"),
        )
    )
    """
)
