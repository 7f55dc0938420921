"""A cell that is interrupted goes on where it stopped, and ends as it would have undisturbed."""

from dataclasses import replace

import pytest
import torch
from torch import nn

import benchmark.journal_folder
from attacks.engine import run_protocol
from attacks.soundness.examination import examine
from benchmark.cli import main
from benchmark.commands.run import INTERRUPTED
from benchmark.journal_folder import JournalFolder
from registry import Member, Randomness
from registry.sources import EVALUATION, TRAINING, sources_sha256
from results.store import RecordStore, unfinished_folder
from tests.soundness_toys import SHAPE, Rounded, cell, flat_linear
from tests.test_interruption import contents
from tests.toys import NoisyInput, attack, batch_for, cnn, images, linear, protocol_of

APGD = Member(name="apgd", attack="attacks.apgd:APGD", options={"steps": 4, "restarts": 2}, objective="margin")
SQUARE = Member(name="square", attack="attacks.square:Square", options={"queries": 20}, objective="margin")
CASTING = Member(name="noise", attack="attacks.random_search:RandomSearch", options={"queries": 5}, objective="margin")
SMALL = linear(3, shape=(1, 8, 8))
VICTIMS = {
    "deterministic": (cnn(3), Randomness.NONE),
    "stochastic": (NoisyInput(SMALL, 0.05, 0.05), Randomness.SAMPLE),
}
ENTRY = {"rows": torch.arange(2), "points": torch.rand(2, 1, 4, 4), "seconds": 30.0, "errors": 0, "error": None}


class Interrupted(JournalFolder):
    """A journal whose cell is interrupted when a step begins; it counts what is recalled."""

    def __init__(self, folder, moment: int = 0) -> None:
        super().__init__(folder, {})
        self.moment, self.recalled = moment, []
        self.begin(8)

    def next_step(self) -> int:
        step = super().next_step()
        if step == self.moment:
            raise KeyboardInterrupt
        return step

    def recall(self, step, began_with):
        entry = super().recall(step, began_with)
        self.recalled += [] if entry is None else [step]
        return entry


@pytest.fixture
def keeps_all(monkeypatch):
    monkeypatch.setattr(benchmark.journal_folder, "LEAST_SECONDS", 0.0)


@pytest.mark.parametrize(("model", "randomness"), VICTIMS.values(), ids=VICTIMS)
@pytest.mark.parametrize("moment", [1, 2, 4, 6])
def test_an_interrupted_protocol_ends_as_an_undisturbed_one(model, randomness, moment, tmp_path, keeps_all):
    stochastic = randomness is not Randomness.NONE
    batch = batch_for(SMALL if stochastic else model, images(14, shape=(1, 8, 8)), wrong=1)
    protocol = protocol_of(CASTING, APGD, SQUARE, eps=(0.006, 0.02))

    def outcome(journal=None):
        return attack(model, batch, protocol, randomness=randomness, journal=journal)

    with pytest.raises(KeyboardInterrupt):
        outcome(Interrupted(tmp_path, moment))
    again = Interrupted(tmp_path)
    resumed, undisturbed = outcome(again), outcome()
    assert again.recalled == list(range(1, moment))
    for one, other in zip(resumed.budgets, undisturbed.budgets, strict=True):
        assert torch.equal(one.scores, other.scores)
        assert torch.equal(one.points, other.points)
        assert torch.equal(one.step, other.step)
        assert one.found_by == other.found_by
        assert [replace(m, seconds=0) for m in one.members] == [replace(m, seconds=0) for m in other.members]
    members = [member for budget in resumed.budgets for member in budget.members]
    assert again.recovered_seconds == pytest.approx(sum(member.seconds for member in members[: moment - 1]))


def test_steps_without_an_entry_run_again_between_those_that_have_one(tmp_path, keeps_all):
    model, _ = VICTIMS["deterministic"]
    batch = batch_for(model, images(14, shape=(1, 8, 8)), wrong=1)
    protocol = protocol_of(CASTING, APGD, SQUARE, eps=(0.006, 0.02))
    undisturbed = attack(model, batch, protocol, journal=Interrupted(tmp_path))
    files = sorted(tmp_path.rglob("*.safetensors"))
    assert len(files) == 6
    files[0].unlink()
    files[2].write_bytes(files[2].read_bytes()[:-7])
    again = Interrupted(tmp_path)
    resumed = attack(model, batch, protocol, journal=again)
    assert again.recalled == [2, 4, 5, 6]
    assert torch.equal(resumed.budgets[1].points, undisturbed.budgets[1].points)


def test_a_step_that_began_with_another_worst_case_runs_again(tmp_path, keeps_all, caplog):
    model, _ = VICTIMS["deterministic"]
    batch, protocol = batch_for(model, images(14, shape=(1, 8, 8)), wrong=1), protocol_of(APGD, SQUARE, eps=(0.006,))
    attack(model, batch, protocol, journal=Interrupted(tmp_path), seed=1)
    next(tmp_path.rglob("0001.safetensors")).unlink()
    again = Interrupted(tmp_path)
    attack(model, batch, protocol, journal=again, seed=2)  # stands for a step that ends otherwise
    assert again.recalled == []
    assert "another worst case" in caplog.text


def test_only_the_same_step_under_the_same_circumstances_is_recalled(tmp_path, caplog):
    def journal(slots=8, **circumstances):
        made = JournalFolder(tmp_path, {"sources": "a", **circumstances})
        made.begin(slots)
        return made

    journal().keep(3, "ab", ENTRY)
    found = journal().recall(3, "ab")
    assert torch.equal(found["points"], ENTRY["points"])
    assert found["error"] is None
    assert journal().recall(2, "ab") is None
    assert journal().recall(3, "cd") is None
    assert "another worst case" in caplog.text
    assert journal(slots=4).recall(3, "ab") is None
    assert journal().recall(3, "ab") is not None
    assert journal(sources="b").recall(3, "ab") is None
    assert "begins anew, since the code of the benchmark or of the entries" in caplog.text
    caplog.clear()
    assert journal().recall(3, "ab") is not None, "what other circumstances cannot use stays for these"
    assert "begins anew" not in caplog.text


def test_short_steps_are_not_kept(tmp_path):
    journal = JournalFolder(tmp_path, {})
    journal.begin(8)
    journal.keep(1, "ab", ENTRY | {"seconds": 19.0})
    assert not list(tmp_path.rglob("*.safetensors"))


def test_a_folder_that_cannot_be_written_is_told_once_and_harms_nothing(tmp_path, caplog):
    blocked = tmp_path / "file"
    blocked.write_text("")
    journal = JournalFolder(blocked, {})
    journal.begin(8)
    journal.keep(1, "ab", ENTRY)
    journal.keep(2, "ab", ENTRY)
    assert caplog.text.count("would lose") == 1


def test_other_code_has_another_checksum(tmp_path):
    entry = tmp_path / "entry.py"
    entry.write_text("A = 1\n")
    (tmp_path / ".#entry.py").symlink_to(tmp_path / "nowhere")
    first = sources_sha256(EVALUATION, [entry])
    assert sources_sha256(EVALUATION, [tmp_path]) == first
    assert sources_sha256(EVALUATION) != first
    (tmp_path / "helper.py").write_text("B = 1\n")
    assert sources_sha256(EVALUATION, [entry]) != first
    assert sources_sha256(TRAINING) != sources_sha256(EVALUATION)


def test_probes_and_escalation_are_resumed(tmp_path, keeps_all, monkeypatch):
    for name, value in (("QUERIES", 200), ("DECISIONS", 200), ("ESTIMATES", 1), ("LONGER", 2)):
        monkeypatch.setattr(f"attacks.soundness.escalation.{name}", value)
    base = flat_linear()
    batch = batch_for(base, images(32, shape=SHAPE))
    access, protocol, facts = cell(nn.Sequential(Rounded(), base), batch)

    def end(journal):
        outcome = run_protocol(access, batch, protocol, facts, journal=journal)
        return examine(access, batch, protocol, facts, outcome, journal=journal)

    undisturbed, findings, escalation = end(Interrupted(tmp_path / "whole"))
    steps = len(list((tmp_path / "whole").rglob("*.safetensors")))
    assert escalation is not None
    assert steps > len(escalation.members) + 4
    for moment in (6, steps):
        with pytest.raises(KeyboardInterrupt):
            end(Interrupted(tmp_path / "parts", moment))
    again = Interrupted(tmp_path / "parts")
    resumed, same_findings, same_escalation = end(again)
    assert again.recalled == list(range(1, steps))
    assert torch.equal(resumed.budgets[0].points, undisturbed.budgets[0].points)
    assert resumed.budgets[1].found_by == undisturbed.budgets[1].found_by
    assert same_findings == findings
    assert same_escalation.why == escalation.why
    assert same_escalation.robust_after == escalation.robust_after


def test_a_command_goes_on_inside_a_cell(tmp_path, keeps_all, monkeypatch):
    words = ["run", "--suite", "smoke", "--dataset", "phantom2", "--defense", "MedianFilter", "--protocol", "standard"]
    words += ["--n", "4", "--device", "cpu", "--quiet", "--results"]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert main([*words, str(whole)]) == 0
    (key,) = RecordStore(whole).keys()
    assert not unfinished_folder(whole, key).exists()
    following = JournalFolder.next_step

    def interrupting(self):
        step = following(self)
        if step == self.moment:
            raise KeyboardInterrupt
        return step

    monkeypatch.setattr(JournalFolder, "next_step", interrupting)
    for moment in (8, 30):
        monkeypatch.setattr(JournalFolder, "moment", moment, raising=False)
        assert main([*words, str(parts)]) == INTERRUPTED
        assert len(list(unfinished_folder(parts, key).rglob("*.safetensors"))) == moment - 1
    monkeypatch.setattr(JournalFolder, "next_step", following)
    assert main([*words, str(parts)]) == 0
    assert contents(parts) == contents(whole)
