"""What must not end a run, lose hours of work, or pass for finished: odd records, names, files and interruptions."""

from __future__ import annotations

import errno
import functools
import os
import textwrap
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

import benchmark.suites
import benchmark.training_cell
import defenses.train
import registry.discovery
import registry.sources
import reports.site
from attacks.ball import ball_for
from attacks.draws import KeyedRandom
from attacks.member_run import MemberRun
from attacks.soundness.gradient_probe import LARGEST_RATIO, _GradientProbe
from attacks.victim import ModelVictim
from benchmark.cli import main
from benchmark.obstacles import Machine
from benchmark.plan import plan, trainings_of
from benchmark.selection import Choice, Registries, foreign_sources, select
from benchmark.weights import current_weights, is_trained, weights_sha256
from datasets.tasks.classification import Classification
from defenses import checkpoints
from defenses.build import defended_model
from defenses.recipes.resumption import StateFile
from defenses.train import train_defense
from registry import DATASETS, DEFENSES, SUITES, Checkpoint, Member, ThreatModel, linf, load_entries
from registry.errors import CheckpointError, InvalidEntryError, ResultsError
from registry.sources import EVALUATION, TRAINING, entry_sha256, sources_sha256
from results.atomic_file import write_atomically
from results.record import RecordStatus
from results.store import RecordStore
from tests.test_recipes import toy_dataset
from tests.test_registry import ENTRY, PROTOCOL, SPEC
from tests.test_resumption import entry as toy_entry
from tests.test_resumption import interrupt, states, train
from tests.test_runner import PLAN, FakeWork, run
from tests.test_weights import cell, chain, save  # noqa: F401 - chain is a fixture
from tests.toys import batch_for, images, linear

ODD = PLAN.evaluations[1].key
"""The cell whose outcome is odd."""


class OddWork(FakeWork):
    """Work of which one cell ends with something that no record can hold."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def evaluate(self, cell, inside):
        made, table, adversarials = super().evaluate(cell, inside)
        if cell.key != ODD:
            return made, table, adversarials
        if self.kind == "text":
            raise ValueError(f"no file {os.fsdecode(bytes([0xFF]))}")
        if self.kind == "table":
            return made, pd.DataFrame({"sample_id": [0, 0]}), adversarials
        odd = {"NaN": float("nan"), "array": np.zeros(2), "field": None}[self.kind]
        odd = {"dataset": odd} if self.kind == "field" else {"protocol": {"name": "standard", "odd": odd}}
        return replace(made, **odd), table, adversarials


@pytest.mark.parametrize("kind", ["NaN", "array", "field", "table", "text"])
def test_what_no_record_can_hold_fails_its_cell_alone(kind, tmp_path):
    outcome = run(tmp_path, OddWork(kind))
    assert list(outcome.failed) == [ODD] and outcome.exit_code == 1
    assert len(outcome.done) == len(PLAN.evaluations) - 1
    found = RecordStore(tmp_path).read(ODD)
    assert found.status is RecordStatus.FAILED and found.failure.message
    work = OddWork(kind)
    assert run(tmp_path, work).failed_before == [ODD] and work.calls == []


def test_a_full_disk_still_ends_the_run(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    work = FakeWork()
    with pytest.raises(ResultsError, match="No space left"):
        run(tmp_path, work)
    assert len(work.calls) == len(PLAN.trainings) + 1 and RecordStore(tmp_path).keys() == ()


@pytest.mark.parametrize(
    ("entry", "where"),
    [
        (replace(ENTRY, build_options={"width": float("inf")}), r"build_options\.width .*got inf"),
        (replace(ENTRY, recipe=replace(ENTRY.recipe, options={"lr": [1, {2}]})), r"recipe\.options\.lr\.1 "),
        (replace(ENTRY, recipe=replace(ENTRY.recipe, options={("a", 1): 2})), r"recipe\.options "),
        (replace(ENTRY, departures="half a \ud800"), "departures "),
        (replace(ENTRY, build=functools.partial(len)), "no card"),
        (replace(ENTRY, build_options=3), "no card"),
        (replace(SPEC, pixel_spacing_mm=float("nan")), "pixel_spacing_mm "),
        (replace(PROTOCOL, tasks=(object(),)), r"tasks\.0 "),
    ],
)
def test_an_entry_whose_card_is_no_json_is_refused_and_its_field_named(entry, where):
    things = registry.Registry("thing", type(entry))
    with pytest.raises(InvalidEntryError, match=where):
        things.add(entry)
    things.add({type(one): one for one in (ENTRY, SPEC, PROTOCOL)}[type(entry)])
    assert len(things) == 1


@pytest.mark.parametrize("name", ["My/Net", ".x", "", "a\nb", "x\0", "half \ud800", "n" * 65, "名" * 8, 3])
def test_a_name_that_no_record_can_be_filed_under_is_refused(name):
    with pytest.raises(InvalidEntryError, match="the name of a thing is text of 1 to 64 characters"):
        registry.Registry("thing", SimpleNamespace).add(SimpleNamespace(name=name))


def test_a_name_may_hold_what_file_names_percent_encode():
    things = registry.Registry("thing", SimpleNamespace)
    for name in ("reference:autoattack", "a+b, c=d", "Müller2026"):
        things.add(SimpleNamespace(name=name))
    assert len(things) == 3


@pytest.fixture
def entry_file(tmp_path, monkeypatch):
    """Writes an entry file outside the repository; what it registers is taken back."""
    load_entries()
    monkeypatch.setattr(registry.discovery, "_loaded", dict(registry.discovery._loaded))
    before = set(DEFENSES.names())

    def write(name: str, more: str = "") -> Path:
        path = tmp_path / "entries" / "mine.py"
        path.parent.mkdir(exist_ok=True)
        text = f"""
            from registry import DEFENSES, DefenseEntry, Family, Recipe

            DEFENSES.add(
                DefenseEntry(
                    name={name!r}, summary="s", family=Family.UNDEFENDED, tasks=("classification",),
                    build="tests.test_resumption:network", recipe=Recipe(train="m:t"), {more}
                )
            )
            """
        path.write_text(textwrap.dedent(text))
        return path

    yield write
    for name in set(DEFENSES.names()) - before:
        DEFENSES.remove(name)


@pytest.mark.parametrize(
    ("name", "more", "said"),
    [
        ("My/Net", "", "the name of a defense"),
        ("Odd2026", "build_options={'a': float('nan')}", "field build_options.a"),
    ],
)
def test_a_file_of_such_an_entry_is_listed_as_broken(name, more, said, entry_file):
    path = entry_file(name, more)
    (broken,) = [item for item in load_entries([path]) if item.file == str(path)]
    assert broken.error.startswith("registry.errors.InvalidEntryError") and said in broken.error
    assert name not in DEFENSES


@pytest.mark.parametrize(
    ("gain", "ratio"), [(float("nan"), 0.0), (float("inf"), LARGEST_RATIO), (-float("inf"), -LARGEST_RATIO)]
)
def test_ratios_of_gains_are_finite(gain, ratio):
    model = linear(3, shape=(1, 8, 8))
    batch = batch_for(model, images(8, shape=(1, 8, 8)))
    ball = ball_for(ThreatModel(), linf(8 / 255), batch.inputs)
    probe = _GradientProbe(ModelVictim(model, Classification(3), slots=8), batch, ball, "margin", "true", None)
    assert not probe.dishonest_gradient().red
    probe._before = probe._before - gain
    finding = probe.dishonest_gradient()
    assert set(finding.values.values()) == {ratio}
    assert finding.red  # nothing gained, or more than any gradient promises


def test_weights_without_the_card_of_their_training_are_trained_again(chain, tmp_path):  # noqa: F811
    base, _ = chain
    training = trainings_of(base, DATASETS["phantom2"], 0, Registries())[0]
    save(base, tmp_path)
    path = checkpoints.checkpoint_path(tmp_path, base.name, "phantom2", 0)
    checkpoints.card_path(path).unlink()
    assert current_weights(base, "phantom2", 0, tmp_path) is None
    assert not is_trained(training, tmp_path) and weights_sha256(cell(base), tmp_path) is None
    with pytest.raises(CheckpointError, match=r"has no card, expected .*json beside it; train it again: python"):
        defended_model(base, DATASETS["phantom2"], 0, tmp_path)
    elsewhere = replace(base, recipe=None, base=None, checkpoints=(released("0", seed=1),))
    assert current_weights(elsewhere, "phantom2", 0, tmp_path) == path, "nothing trained it here"


def test_a_training_that_was_killed_between_weights_and_card_ends_from_its_state(tmp_path, monkeypatch):
    expected = train("standard", tmp_path / "whole", epochs=1)
    real = checkpoints._replace

    def killed(path, content):
        if path.suffix == ".json":
            raise KeyboardInterrupt
        real(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "_replace", killed)
        with pytest.raises(KeyboardInterrupt):
            train("standard", tmp_path / "parts", epochs=1)
    assert states(tmp_path / "parts")
    told = []
    entry = toy_entry("standard", epochs=1)
    path = train_defense(entry, toy_dataset(), 0, folder=tmp_path / "parts", progress=lambda *steps: told.append(steps))
    assert told == [] and path.read_bytes() == expected.read_bytes()
    assert checkpoints.read_card(path)["sha256"] == checkpoints.read_card(expected)["sha256"]


def released(sha256: str, seed: int = 0) -> Checkpoint:
    return Checkpoint(dataset="phantom2", seed=seed, url="https://example.org/w", sha256=sha256)


@pytest.mark.parametrize("with_recipe", [True, False])
def test_a_released_file_is_compared_and_fetched_again_where_it_differs(chain, tmp_path, monkeypatch, with_recipe):  # noqa: F811
    base, _ = chain
    save(base, tmp_path / "release")
    release = checkpoints.checkpoint_path(tmp_path / "release", base.name, "phantom2", 0)
    entry = replace(
        base,
        recipe=base.recipe if with_recipe else None,
        checkpoints=(released(checkpoints.file_sha256(release)),),
    )
    asked = []

    def copy(source, root, progress):
        asked.append(source)
        target = root / source.filename
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(release.read_bytes())
        return target

    monkeypatch.setattr("datasets.download.download", copy)
    local = tmp_path / "local"
    path = checkpoints.checkpoint_path(local, base.name, "phantom2", 0)
    torch.manual_seed(1)
    save(base, local)  # other weights of the same shapes
    checkpoints.card_path(path).unlink()
    assert current_weights(entry, "phantom2", 0, local) is None
    with pytest.raises(CheckpointError, match="no weights of"):
        defended_model(entry, DATASETS["phantom2"], 0, None)
    _, info = defended_model(entry, DATASETS["phantom2"], 0, local)
    assert info.sha256 == entry.checkpoints[0].sha256 and len(asked) == 1
    assert current_weights(entry, "phantom2", 0, local) == path
    defended_model(entry, DATASETS["phantom2"], 0, local)
    assert len(asked) == 1, "the right file is there"


def test_code_below_an_entry_counts_and_installations_do_not(tmp_path):
    mine = tmp_path / "mine"
    entry, module = mine / "entry.py", mine / "package" / "inner" / "module.py"
    module.parent.mkdir(parents=True)
    entry.write_text("A = 1\n")
    first = sources_sha256(EVALUATION, [entry])
    module.write_text("B = 1\n")
    second = sources_sha256(EVALUATION, [entry])
    assert second != first and sources_sha256(EVALUATION, [mine, entry]) == second
    environment = mine / "environment"
    for folder in ("lib/site-packages/torch", ".hidden", "environment/lib", "node_modules", "__pycache__"):
        (mine / folder).mkdir(parents=True)
        (mine / folder / "other.py").write_text("C = 1\n")
    (environment / "pyvenv.cfg").write_text("")
    (mine / "gone.py").symlink_to(tmp_path / "nowhere")
    with_link = sources_sha256(EVALUATION, [entry])
    (mine / "gone.py").unlink()
    assert sources_sha256(EVALUATION, [entry]) == second != with_link


def test_beside_an_entry_in_the_root_only_what_it_imports_counts(tmp_path, monkeypatch):
    """A file of notes, or a second entry, must not end the resumption of an interrupted cell."""
    monkeypatch.setattr(registry.sources, "ROOT", tmp_path)
    entry, helper, other = tmp_path / "mine.py", tmp_path / "parts" / "filter.py", tmp_path / "notes.py"
    helper.parent.mkdir()
    entry.write_text("def build():\n    from parts import filter\n    import attacks.apgd\n")
    helper.write_text("A = 1\n")
    (tmp_path / "attacks").mkdir()
    (tmp_path / "attacks" / "apgd.py").write_text("B = 1\n")
    first, own = sources_sha256((), [entry]), entry_sha256(entry)
    other.write_text("C = 1\n")
    (tmp_path / "attacks" / "more.py").write_text("D = 1\n")
    assert (sources_sha256((), [entry]), entry_sha256(entry)) == (first, own)
    helper.write_text("A = 2\n")
    registry.sources._content_sha256.cache_clear()
    assert sources_sha256((), [entry]) != first
    assert entry_sha256(entry) != own


def test_an_edited_entry_from_outside_is_evaluated_again(entry_file):
    """Nobody raises the revision of a file at hand: its number must not outlive its code."""
    path = entry_file("Mine2026")
    load_entries([path])
    chosen = Choice(datasets=("phantom2",), defenses=("Mine2026", "Undefended"))
    machine = Machine(datasets=frozenset({"phantom2"}), large_inputs=False)

    def keys(name: str) -> set[str]:
        registry.sources._content_sha256.cache_clear()
        registries = Registries(sources=foreign_sources())
        cells = plan(select(SUITES["smoke"], chosen, registries), machine, registries).evaluations
        return {cell.key for cell in cells if cell.defense == name}

    before, undefended = keys("Mine2026"), keys("Undefended")
    assert before
    assert keys("Mine2026") == before
    path.write_text(path.read_text() + "\nTHRESHOLD = 3\n")
    assert before.isdisjoint(keys("Mine2026"))
    assert keys("Undefended") == undefended


def test_a_process_reads_its_code_once(tmp_path):
    entry = tmp_path / "entry.py"
    entry.write_text("A = 1\n")
    first = sources_sha256(TRAINING, [entry])
    entry.write_text("A = 2\n")
    assert sources_sha256(TRAINING, [entry]) == first
    registry.sources._content_sha256.cache_clear()  # as in the next process
    assert sources_sha256(TRAINING, [entry]) != first


def test_a_training_belongs_to_the_code_beside_its_entry(entry_file, tmp_path, monkeypatch):
    path, identities = entry_file("Mine2026"), []

    @contextmanager
    def noted(weights, identity):
        identities.append(identity["sources"])
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr(defenses.train, "resumable", noted)

    def begin(entry):
        with pytest.raises(KeyboardInterrupt):
            train_defense(entry, toy_dataset(), 0, folder=tmp_path)

    assert [item for item in load_entries([path]) if item.file == str(path)] == []
    begin(DEFENSES["Mine2026"])
    path.with_name("layers.py").write_text("A = 1\n")
    begin(DEFENSES["Mine2026"])
    path.write_text(path.read_text() + "# edited while the process runs\n")
    begin(DEFENSES["Mine2026"])
    assert identities[0] != identities[1] == identities[2] == sources_sha256(TRAINING, [path])
    begin(toy_entry("standard"))
    assert identities[3] == sources_sha256(TRAINING)


def test_a_state_that_cannot_be_written_is_told_once_and_the_training_ends(tmp_path, monkeypatch, caplog):
    def full(self, parts, done):
        raise OSError(errno.ENOSPC, "No space left on device")

    expected = train("standard", tmp_path / "a")
    monkeypatch.setattr(StateFile, "save", full)
    assert train("standard", tmp_path / "b").read_bytes() == expected.read_bytes()
    assert caplog.text.count("would lose what it does from here on") == 1


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_no_half_file_stays(error, tmp_path, monkeypatch):
    def stop(*arguments):
        raise error

    monkeypatch.setattr(Path, "replace", stop)
    for write in (checkpoints._replace, reports.site._write):
        with pytest.raises(type(error)):
            write(tmp_path / "file", b"content")
    wanted = ResultsError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(wanted):
        write_atomically(tmp_path / "file", b"content")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("ended", "said"),
    [
        (0, "interrupted; no weights were written; the same command goes on from here"),
        (1, "interrupted; the weights of WeightsBase were written; the same command goes on from here"),
    ],
)
def test_an_interrupted_training_says_what_was_written(ended, said, chain, tmp_path, monkeypatch, capsys):  # noqa: F811
    done = []

    def train_cell(cell, **options):
        if len(done) == ended:
            interrupt()
        done.append(cell.defense)
        return tmp_path / "weights"

    monkeypatch.setattr(benchmark.training_cell, "train_cell", train_cell)
    words = ["train", "WeightsTop", "--dataset", "phantom2", "--device", "cpu", "--results", str(tmp_path), "--quiet"]
    assert main(words) == 130
    assert capsys.readouterr().err.strip() == said


def test_a_step_of_the_journal_is_told_by_all_that_it_follows_from():
    inputs = torch.rand(2, 1, 4, 4)
    member = Member(name="apgd", attack="attacks.apgd:APGD", options={"steps": 4})
    worst = SimpleNamespace(scores=torch.ones(2), points=inputs)
    batch = SimpleNamespace(sample_ids=torch.arange(2))

    def fingerprint(member=member, eps=4 / 255, **draws):
        step = MemberRun.__new__(MemberRun)
        step.ball, step.member, step.worst, step.index = ball_for(ThreatModel(), linf(eps), inputs), member, worst, 3
        step.batch, step.rng = batch, KeyedRandom(**{"seed": 0, "stream": 2, **draws})
        return step._fingerprint()

    changes = {"source": "twin", "backward": "bpda", "objective": "margin", "pooled": True, "options": {"steps": 5}}
    others = [fingerprint(replace(member, **{name: value})) for name, value in changes.items()]
    others += [fingerprint(replace(member, attack="m:a")), fingerprint(eps=8 / 255), fingerprint(seed=1)]
    others += [fingerprint(stream=3)]
    assert len({fingerprint(), *others}) == len(others) + 1
    assert fingerprint() == fingerprint()
