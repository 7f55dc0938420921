"""Progress and estimates: what a person sees, and that nothing is made up."""

from __future__ import annotations

import io
from dataclasses import replace
from types import SimpleNamespace

import pytest

import benchmark.progress
from attacks.engine import run_protocol
from attacks.soundness.examination import examine
from benchmark.cells import EvaluationCell, TrainingCell
from benchmark.estimate import Costs, TimeLeft, format_duration
from benchmark.progress import Progress
from registry import Randomness
from tests.example_records import example_record
from tests.soundness_toys import MARGIN, SHAPE, cell, flat_linear
from tests.toys import batch_for, images


def evaluation(defense: str, protocol: str = "standard", n: int = 10) -> EvaluationCell:
    return EvaluationCell(
        key=f"toy/{defense}/{protocol}-{n}",
        defense=defense,
        dataset="toy",
        protocol=protocol,
        training=None,
        training_seed=0,
        n_samples=n,
    )


TRAINING = TrainingCell(key="toy/D-s0", defense="D", dataset="toy", seed=0)


@pytest.fixture
def clock(monkeypatch):
    """A clock that tests turn."""
    now = [0.0]
    monkeypatch.setattr(benchmark.progress.time, "monotonic", lambda: now[0])
    return now


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (89, "89 s"), (90, "2 min"), (5399, "90 min"), (5400, "1.5 h")]
)
def test_durations_are_written_for_people(seconds, text):
    assert format_duration(seconds) == text


def test_what_was_never_measured_stays_unknown():
    costs = Costs()
    assert costs.seconds(evaluation("D")) is None and costs.seconds(TRAINING) is None
    assert str(costs.left([evaluation("D"), TRAINING])) == "unknown (2 cells of unknown length)"
    assert str(costs.left([])) == "about 0 s"


def test_a_cell_costs_what_its_like_did_by_the_sample():
    costs = Costs()
    costs.learn(evaluation("D", n=10), 20.0)
    assert costs.seconds(evaluation("D", n=50)) == pytest.approx(100.0)
    assert costs.seconds(evaluation("E", n=5)) == pytest.approx(10.0), "another defense, same data and protocol"
    assert costs.seconds(evaluation("D", "clean")) is None
    costs.learn(evaluation("E", n=10), 80.0)
    assert costs.seconds(evaluation("D", n=10)) == pytest.approx(20.0), "its own like counts first"
    costs.learn(TRAINING, 7.0)
    assert str(costs.left([TRAINING, evaluation("D"), evaluation("D", "clean")])) == "27 s and 1 cell of unknown length"


def test_noise_is_compared_with_noise_and_else_by_its_passes(monkeypatch):
    noise = SimpleNamespace(randomness=Randomness.SAMPLE)
    monkeypatch.setattr("benchmark.estimate.DEFENSES", {"Noise": noise, "Hiss": noise})
    costs, data = Costs(), {"name": "toy"}

    def record(defense, protocol, device, **cost):
        there = replace(example_record().provenance, device=device)
        named = {"defense": {"name": defense}, "protocol": {"name": protocol}, "dataset": data, "n_planned": 10}
        return example_record(**named, provenance=there, cost=replace(example_record().cost, **cost))

    costs.learn(evaluation("D", n=10), 20.0)
    assert costs.seconds(evaluation("Noise", n=10)) is None, "a defense without noise says nothing"
    costs.learn_from(
        [record("Hiss", "standard", "NVIDIA H200", seconds=1.0, forwards=900, backwards=100)], on_gpu=False
    )
    assert costs.seconds(evaluation("Noise", n=10)) is None, "how long a pass takes is unknown"
    costs.learn_from([record("Noise", "clean", "cpu (1 threads)", seconds=4.0, forwards=40, backwards=0)], on_gpu=False)
    assert costs.seconds(evaluation("Noise", n=5)) == pytest.approx(5 * 100 * 0.1)
    costs.learn(evaluation("Hiss", n=10), 30.0)
    assert costs.seconds(evaluation("Noise", n=10)) == pytest.approx(30.0)


def test_lines_say_cells_samples_and_time_left(clock):
    stream = io.StringIO()
    cells = [evaluation("A"), evaluation("B", n=20)]
    progress = Progress(cells, Costs(), quiet=False, stream=stream)
    progress.begin(cells[0])
    progress.inside(0.0, "apgd")
    clock[0] = 10.0
    progress.inside(0.5, "apgd")  # too early for another line
    clock[0] = 40.0
    progress.inside(0.8, "square")
    clock[0] = 50.0
    progress.end(cells[0], "done")
    progress.begin(cells[1])
    assert stream.getvalue().splitlines() == [
        "[0/2] A on toy under standard, seed 0 ... (left: unknown (2 cells of unknown length))",
        "[0/2]  80% square (left: 10 s and 1 cell of unknown length)",
        "[1/2] A on toy under standard, seed 0: done in 50 s",
        "[1/2] B on toy under standard, seed 0 ... (left: about 2 min)",
    ]


def test_what_was_done_before_an_interruption_says_nothing_about_speed(clock):
    stream, costs, cell = io.StringIO(), Costs(), evaluation("A")
    progress = Progress([cell], costs, quiet=False, stream=stream)
    progress.begin(cell)
    clock[0] = 2.0
    progress.inside(0.6, "apgd")
    clock[0] = 42.0
    progress.inside(0.8, "square")
    assert "80% square (left: about 40 s)" in stream.getvalue()
    progress.end(cell, "done", seconds=200.0)
    assert costs.seconds(cell) == pytest.approx(200.0)


def test_once_all_attacks_have_run_their_speed_says_nothing_about_what_soundness_takes(clock):
    stream, cell = io.StringIO(), evaluation("A")
    progress = Progress([cell], Costs(), quiet=False, stream=stream)
    progress.begin(cell)
    for clock[0], share in ((1.0, 0.0), (100.0, 1.0)):
        progress.inside(share, "soundness, probes")
    assert "100% soundness, probes (left: unknown (1 cell of unknown length))" in stream.getvalue()


def test_an_examination_says_which_attack_of_which_stage_is_how_far():
    model, told = flat_linear(), []
    batch = batch_for(model, images(8, shape=SHAPE))
    access, protocol, facts = cell(model, batch, members=(MARGIN,))
    outcome = run_protocol(access, batch, protocol, facts)
    examine(access, batch, protocol, facts, outcome, watch=lambda share, text: told.append((share, text)))
    assert {share for share, _ in told} == {1.0}
    texts = [text for _, text in told]
    assert texts[0] == "soundness, probes"
    inside = [text for text in texts if text.startswith("soundness, convergence: Linf ")]
    assert inside and all(text.endswith("%") for text in inside) and len(set(inside)) > 1


def test_a_failed_cell_teaches_nothing(clock):
    costs = Costs()
    progress = Progress([TRAINING], costs, quiet=True, stream=io.StringIO())
    progress.begin(TRAINING)
    clock[0] = 1.0
    progress.end(TRAINING, "failed")
    assert costs.seconds(TRAINING) is None and progress.ended == 1


def test_a_terminal_gets_a_bar(clock):
    stream = Terminal()
    cells = [evaluation("A"), evaluation("B")]
    progress = Progress(cells, Costs(), quiet=False, stream=stream)
    progress.begin(cells[0])
    progress.inside(0.0, "apgd")
    clock[0] = 10.0
    progress.inside(0.5, "apgd, 64 of 128")
    progress.say("failed: something")
    progress.end(cells[0], "done")
    progress.close()
    text = stream.getvalue()
    assert "[0/2] A on toy under standard, seed 0:   0%" in text
    assert "25%" in text and "apgd, 64 of 128, left: 10 s and 1 cell of unknown length" in text
    assert "failed: something\n" in text and "[1/2]:  50%" in text


def test_quiet_shows_messages_only(clock):
    stream = Terminal()
    progress = Progress([TRAINING], Costs(), quiet=True, stream=stream)
    progress.begin(TRAINING)
    progress.inside(0.5, "epoch 1")
    progress.say("waiting")
    progress.end(TRAINING, "done")
    progress.close()
    assert stream.getvalue() == "waiting\n"


def test_time_left_adds_up():
    assert str(TimeLeft(seconds=30, unknown=0)) == "about 30 s"
    assert str(TimeLeft(seconds=30, unknown=2)) == "30 s and 2 cells of unknown length"
