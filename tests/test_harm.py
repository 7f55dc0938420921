"""Recalls, balanced accuracy and harmful confusions are those of the score that ranks, and bounds where it is one."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from registry import Randomness
from reports.exports import render_json
from reports.readme import BEGIN, END, with_tables
from reports.site import render_site
from reports.standings import build_standings
from results.recalls import balanced_mean, mean_of_shares
from results.statistics import proportion
from tests.restated import restated
from tests.synthetic_records import RED, make_dataset, make_defense, make_protocol, make_record, write_store

BOARD = "boards/breastmnist-linf-4-255.html"
CONFUSION = "malignant called benign"
STRONG = (0.78, 0.75, 0.7, 0.5, 0.2)


def standings_of(folder, *made):
    return build_standings(write_store(folder, made))


def row_of(standings, name: str = "Undefended"):
    board = next(board for board in standings.boards if board.ranks)
    return next(row for row in board.rows if row.defense.name == name)


def table_of(page: str, title: str) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", page.split(f"<h2>{title}</h2>")[1].split("</table>")[0]).split())


def lowered(made):
    """Returns a replay of a paper that breaks 20 malignant images more, and the lowest scores of both."""
    replay = make_record(protocol=make_protocol("paper:pgd-20"), robust=STRONG)
    table = replay.samples.copy()
    survivors = np.flatnonzero((table["score_2"] == 1) & (table["clean_label"] == 0))
    table.loc[survivors[:20], "score_2"] = 0.0
    replay = replace(replay, record=restated(replay.record, table), samples=table)
    return replay, np.minimum(made.samples["score_2"], table["score_2"])


def test_recalls_confusions_and_balanced_accuracy_are_of_the_same_inputs_as_the_success_rate(tmp_path):
    made = make_record(robust=STRONG)
    replay, scores = lowered(made)
    row = row_of(standings_of(tmp_path, made, replay))
    label = made.samples["clean_label"]
    recalls = [scores[label == k].mean() for k in (0, 1)]
    assert row.best_known.value == pytest.approx(row.robust.value - 20 / 156)
    assert [change.attacked.value for change in row.class_recall.values()] == pytest.approx(recalls)
    assert row.balanced.attacked.value == pytest.approx(np.mean(recalls))
    assert row.confusions[CONFUSION].attacked.value == pytest.approx(1 - recalls[0])
    shares = [proportion(int(scores[label == k].sum()), int((label == k).sum())) for k in (0, 1)]
    expected = mean_of_shares(shares)
    found = row.balanced.attacked.estimate
    assert (found.low, found.high, found.n) == (pytest.approx(expected.low), pytest.approx(expected.high), 156)
    wrong = row.confusions[CONFUSION].attacked.estimate
    assert (wrong.low, wrong.high) == pytest.approx((1 - shares[0].high, 1 - shares[0].low))


def test_seeds_are_averaged_with_the_value_of_each(tmp_path):
    made = [make_record(seed=seed, robust=(0.7, 0.5, share, 0.1, 0.0)) for seed, share in enumerate((0.3, 0.4))]
    found = row_of(standings_of(tmp_path, *made)).balanced.attacked
    each = [np.mean([m.samples["score_2"][m.samples["clean_label"] == k].mean() for k in (0, 1)]) for m in made]
    assert found.seeds == pytest.approx(each) and found.value == pytest.approx(np.mean(each))
    assert found.estimate.low < found.value < found.estimate.high


def test_of_a_randomised_defense_they_are_of_single_draws_like_its_score(tmp_path):
    made = make_record(defense=make_defense("Noisy", randomness=Randomness.SAMPLE), robust=STRONG)
    table = made.samples.copy()
    table["score_2"] *= np.linspace(0.5, 1, len(table))
    made = replace(made, record=restated(made.record, table), samples=table)
    found = row_of(standings_of(tmp_path, made), "Noisy").balanced.attacked.estimate
    labels = table["clean_label"].to_numpy()
    expected = balanced_mean(table["score_2"].to_numpy(), np.stack([labels == 0, labels == 1]))
    assert (found.value, found.low, found.high) == pytest.approx((expected.value, expected.low, expected.high))


@pytest.mark.parametrize("strange", [None, 7])
def test_a_table_without_known_classes_leaves_what_the_record_states(tmp_path, strange):
    made = make_record()
    table = made.samples.drop(columns="clean_label") if strange is None else made.samples.assign(clean_label=strange)
    row = row_of(standings_of(tmp_path, replace(made, samples=table)))
    assert row.balanced.attacked.value == pytest.approx(made.record.budgets[2].metrics["balanced_accuracy"].value)
    stated = made.record.budgets[2]
    recalls = {name: change.attacked.value for name, change in row.class_recall.items()}
    assert recalls == pytest.approx({name: estimate.value for name, estimate in stated.class_recall.items()})
    assert row.confusions[CONFUSION].attacked.value == pytest.approx(stated.confusions[CONFUSION].value)


def test_with_more_than_two_classes_a_confusion_under_attack_is_a_lower_bound(tmp_path):
    dataset = make_dataset(class_names=("malignant", "benign", "normal"))
    standings = standings_of(tmp_path, make_record(dataset=dataset))
    change = row_of(standings).confusions[CONFUSION]
    assert change.at_least
    exported = next(row for row in json.loads(render_json(standings))["rows"] if row["ranked_budget"])
    assert exported["confusions"][CONFUSION]["at_least"]
    assert exported["confusions"][CONFUSION]["attacked_interval"] is None
    table = table_of(render_site(standings)[BOARD].decode(), "Who is harmed")
    value = f"{100 * change.attacked.value:.1f}"
    assert f"under attack ≥ {value} n 156" in table  # no interval between them
    assert "nobody has looked for the most harmful answer" in table


def test_with_two_classes_a_confusion_is_a_measurement(tmp_path):
    standings = standings_of(tmp_path, make_record())
    assert not row_of(standings).confusions[CONFUSION].at_least
    table = table_of(render_site(standings)[BOARD].decode(), "Who is harmed")
    assert "≥" not in table and "≤" not in table and "nobody has looked" not in table


def test_where_the_score_is_an_upper_bound_so_is_what_follows_from_it(tmp_path):
    standings = standings_of(tmp_path, make_record(flags=(RED,)), make_record(defense=make_defense("Honest")))
    pages = {name: content.decode() for name, content in render_site(standings).items()}
    contested, honest = row_of(standings), row_of(standings, "Honest")
    assert contested.upper_bound and not honest.upper_bound
    lines = {}
    for line in pages[BOARD].split('class="sortable board"')[1].split("</table>")[0].split("<tr"):
        if name := re.search(r"defenses/(\w+)\.html", line):
            lines[name[1]] = " ".join(re.sub(r"<[^>]+>", " ", line).split())
    balanced = f"≤ {100 * contested.balanced.attacked.value:.1f}"
    success = f"≥ {100 * contested.attack_success_rate.value:.1f}"
    assert f"under attack {balanced}" in lines["Undefended"] and success in lines["Undefended"]
    assert "≤" not in lines["Honest"] and "≥" not in lines["Honest"]
    harm = table_of(pages[BOARD], "Who is harmed")
    assert harm.count("≤") == 3 and harm.count("≥") == 1  # worst class and both recalls; the confusion
    page = pages["defenses/Undefended.html"]
    assert f"≥\u2009{100 * contested.attack_success_rate.value:.1f}" in page
    readme = with_tables(f"{BEGIN}\n{END}", pages["leaderboard.json"])
    assert f"→ ≤ {100 * contested.balanced.attacked.value:.1f} | contested" in readme
    assert f"→ {100 * honest.balanced.attacked.value:.1f} | verified" in readme


def test_the_readme_says_which_rows_are_of_fewer_samples(tmp_path):
    made = [make_record(defense=make_defense("Undefended")), make_record(defense=make_defense("Late"), n=52)]
    exported = render_site(standings_of(tmp_path, *made))["leaderboard.json"].decode()
    readme = with_tables(f"{BEGIN}\n{END}", exported)
    assert "| Late (n 52) |" in readme and "| Undefended |" in readme
