"""`explain` says why a row has its status; survivors over steps are those of the sample tables."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from benchmark.cli import main
from registry import Family, KnownBy, Truth
from registry.errors import UnknownEntryError
from reports.control_explanation import OUTCOMES
from reports.exam import Outcome
from reports.explanation import SETTLES, explain
from reports.standings import build_standings
from reports.survivors import survivor_figure
from results.record import MemberResult
from results.verdict import PROBES
from tests.synthetic_records import (
    MEMBERS,
    RED,
    Synthetic,
    make_dataset,
    make_defense,
    make_failure,
    make_protocol,
    make_record,
    write_store,
)

JPEG = make_defense("JPEG")


def explained(folder: Path, *made: Synthetic, defense: str = "JPEG", dataset: str = "breastmnist") -> str:
    return explain(build_standings(write_store(folder, made)), defense, dataset)


def test_a_contested_row(tmp_path):
    text = explained(tmp_path, make_record(defense=JPEG, flags=(RED,)), make_record())
    assert text.startswith("JPEG on BreastMNIST, Linf 4/255: contested, without a rank\n")
    assert "printed as an upper bound" in text and "robust accuracy    at most " in text
    assert "Flags: 1 red of 1" in text and f"RED dishonest-gradient: {RED.evidence}" in " ".join(text.split())
    assert SETTLES["dishonest-gradient"][:40] in " ".join(text.split())
    for name in MEMBERS:
        assert f"  {name}" in text
    assert "forwards" in text and "other budgets: Linf 1/255 at most" in text


def test_a_verified_row(tmp_path):
    text = explained(tmp_path, make_record(defense=JPEG))
    assert "verified, rank 1" in text and "every member ran on every sample" in text
    assert "nothing is open" in text and "RED" not in text


def test_incomplete_and_erroneous_rows(tmp_path):
    made = make_record(defense=JPEG)
    short = replace(made.record, n_planned=500)
    assert "156 samples of 500 planned" in (
        text := explained(tmp_path / "a", Synthetic(record=short, samples=made.samples))
    )
    assert "run it in full: python -m benchmark run --suite full --dataset breastmnist --defense JPEG" in text
    budgets = tuple(
        replace(result, members=(replace(result.members[0], errors=3), *result.members[1:]))
        for result in made.record.budgets
    )
    failing = Synthetic(record=replace(made.record, budgets=budgets), samples=made.samples)
    text = explained(tmp_path / "b", failing)
    assert "ERRORS on 3" in text and f"python -m benchmark show {made.record.key}" in " ".join(text.split())


def test_a_failed_cell(tmp_path):
    text = explained(tmp_path, make_failure(defense=JPEG))
    assert "failed: ModelContractError: the model returns NaN" in text and "--retry-failed" in text


def test_best_known_names_who_lowered_it(tmp_path):
    lower = make_record(defense=JPEG, protocol=make_protocol("challenge:Doe"), robust=(0, 0, 0, 0, 0))
    text = explained(tmp_path, make_record(defense=JPEG), lower)
    assert "best known         0.0%" in text and "by challenge:Doe" in text


def test_reasons_at_other_budgets_are_told(tmp_path):
    text = " ".join(explained(tmp_path, make_record(defense=JPEG, flags=(RED,))).split())
    assert "Why at other budgets - Linf 1/255" in text
    assert f": contested because dishonest-gradient: {RED.evidence}" in text
    assert "Why at other" not in explained(tmp_path / "b", make_record(defense=JPEG))


def control(name: str = "ControlSine"):
    known = Truth(known_by=KnownBy.ATTACK, statement="Its gradient swings.")
    return make_defense(name, family=Family.CONTROL_BROKEN, truth=known)


def test_a_control_is_explained_by_the_exam(tmp_path):
    made = make_record(defense=control(), flags=(RED,))
    text = explained(tmp_path, made, make_record(), defense="ControlSine")
    words = " ".join(text.split())
    assert text.startswith("ControlSine on BreastMNIST, Linf 4/255: a control (broken), caught\n")
    assert "stands on no board" in words and "by attack: Its gradient swings." in words
    assert "status: contested" in words and f"dishonest-gradient: {RED.evidence}" in words
    assert "red flags: dishonest-gradient" in words and "truth at most" in words


def test_a_control_that_failed_or_has_no_exam_says_so(tmp_path):
    text = explained(tmp_path / "a", make_failure(defense=control()), defense="ControlSine")
    assert "a control (broken), incomplete" in text and "--retry-failed" in text
    clean = make_record(defense=control(), protocol=make_protocol("clean"))
    text = " ".join(explained(tmp_path / "b", clean, make_record(), defense="ControlSine").split())
    assert "no exam holds it at the data set's ranked budget; its records are of clean" in text
    assert "--suite controls --dataset breastmnist --defense ControlSine" in text


def test_unknown_pairs_of_controls_are_told(tmp_path):
    store = write_store(tmp_path, [make_record(defense=control()), make_record(dataset=make_dataset("other"))])
    with pytest.raises(UnknownEntryError, match="'ControlSin'; did you mean ControlSine"):
        explain(build_standings(store), "ControlSin", "breastmnist")
    with pytest.raises(UnknownEntryError, match="a control, was not evaluated on other; exams are held on breastmnist"):
        explain(build_standings(store), "ControlSine", "other")


def test_every_outcome_of_an_exam_has_a_meaning():
    assert set(OUTCOMES) == set(Outcome)


def test_an_escalation_is_told(tmp_path):
    """Records that say what was tried after a flag are explained with it."""

    @dataclass(frozen=True)
    class Climb:
        flags: tuple
        members: tuple
        strongest: str = "BPDA"
        why: str = "of 50 audited samples break by: true 3, BPDA 40"
        robust_before: float = 0.5
        robust_after: float = 0.25
        failure: str = "RuntimeError: no memory"

    member = MemberResult(name="long run", card={}, attempted=9, lowered=4, broken=4, robust_after=0.25)
    standings = build_standings(write_store(tmp_path, [make_record(defense=JPEG)]))
    for cell in (cell for board in standings.boards for row in board.rows for cell in row.cells):
        object.__setattr__(cell.record, "escalation", Climb((RED,), (member,)))
    text = " ".join(explain(standings, "JPEG", "breastmnist").split())
    assert "from 50.0% to 25.0%; strongest gradient: BPDA (of 50 audited" in text
    assert "long run broke 4 of 9" in text and "it did not finish: RuntimeError: no memory" in text


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("JPG", "breastmnist"), "no record of defense 'JPG'; did you mean JPEG?"),
        (("JPEG", "brestmnist"), "did you mean breastmnist?"),
        (("Undefended", "other"), "has attacked JPEG on other yet; run it"),
    ],
)
def test_unknown_pairs_are_told_with_what_to_do(tmp_path, names, expected):
    store = write_store(tmp_path, [make_record(defense=JPEG), make_record()])
    if names[1] == "other":
        store = write_store(tmp_path, [make_record(dataset=make_dataset("other"))])
        names = ("JPEG", "other")
    with pytest.raises(UnknownEntryError, match=expected):
        explain(build_standings(store), *names)


def test_the_command(tmp_path, capsys):
    write_store(tmp_path, [make_record(defense=JPEG, flags=(RED,))])
    assert main(["explain", "JPEG", "breastmnist", "--results", str(tmp_path)]) == 0
    assert "contested" in capsys.readouterr().out
    assert main(["explain", "JPEG", "breastmnist", "--results", str(tmp_path / "nowhere")]) == 2
    assert "no results folder at" in capsys.readouterr().err


def test_every_flag_has_something_that_would_settle_it():
    assert set(SETTLES) >= set(PROBES)


def stepped(flat: bool = False) -> Synthetic:
    """Returns a record whose attacks broke their samples at steps 1, 2, 3, ..."""
    made = make_record(defense=JPEG)
    table = made.samples.copy()
    for index in range(5):
        found = table[f"member_{index}"] != ""
        table[f"step_{index}"] = np.where(found, 1 + np.arange(len(table)) % 7, -1)
        if flat:
            table[f"score_{index}"] = table[f"score_{index}"] * 0.75
    return Synthetic(record=made.record, samples=table)


def row_at(folder: Path, made: Synthetic, label: str):
    (board,) = [b for b in build_standings(write_store(folder, [made])).boards if b.budget.label == label]
    return board.rows[0]


def test_survivors_are_those_of_the_table(tmp_path):
    made = stepped()
    table = made.samples
    survivors = row_at(tmp_path, made, "Linf 4/255").survivors
    broken = (table["score_1"] == 1) & (table["score_2"] == 0)
    assert (survivors.n, survivors.clean, survivors.start) == (156, table["clean_score"].sum(), table["score_1"].sum())
    assert sum(count for attack in survivors.attacks for _, count in attack.at) == int(broken.sum()) > 0
    first = survivors.attacks[0]
    assert [attack.member for attack in survivors.attacks] == list(MEMBERS)
    assert dict(first.at) == table["step_2"][broken].value_counts().to_dict()
    assert survivors.attacks[2].steps == 5000, "a segment reaches to the effort of its attack"


def test_the_drawing_ends_at_the_robust_score(tmp_path):
    made = stepped()
    row = row_at(tmp_path, made, "Linf 4/255")
    figure = survivor_figure(row.survivors)
    heights = [float(point.split(",")[1]) for point in figure.line.split()]
    places = [float(point.split(",")[0]) for point in figure.line.split()]
    assert heights == sorted(heights) and places == sorted(places), "survivors never come back"
    share = (figure.bottom - heights[-1]) / (figure.bottom - figure.top)
    assert share == pytest.approx(row.robust.value, abs=0.001)
    assert len(figure.segments) == len(MEMBERS) and figure.segments[-1].right == figure.right
    assert figure.segments[0].label.startswith("broke ") and figure.segments[-1].label == "broke none"


def test_graded_scores_and_tables_without_steps_have_no_drawing(tmp_path):
    assert row_at(tmp_path / "a", make_record(defense=JPEG), "Linf 4/255").survivors is None
    assert row_at(tmp_path / "b", stepped(flat=True), "Linf 4/255").survivors is None


def test_the_drawing_is_on_the_page(tmp_path):
    from reports.site import build_site

    build_site(write_store(tmp_path / "records", [stepped()]), tmp_path / "site")
    page = (tmp_path / "site/defenses/JPEG.html").read_text()
    assert "Samples that survive at Linf 4/255 over the steps of each attack" in page
    assert "1 apgd-ce (broke " in page and 'aria-label="samples that survive' in page
