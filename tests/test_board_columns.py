"""What stands beside a robust score: balanced accuracy, the budget of training, costs, and how far to trust a board."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace

import pytest

from registry import Budget, Norm
from reports.csv_export import render_csv
from reports.exports import render_json
from reports.html import breakable
from reports.markdown import render_board_markdown, render_overview
from reports.site import render_site
from reports.standings import build_standings
from tests.synthetic_records import RED, make_dataset, make_defense, make_protocol, make_record, write_store

AT_8 = make_dataset(ranked_budget=Budget(norm=Norm.LINF, eps=8 / 255))
PGD_AT = make_defense("Madry2018PGDAT")
BOARD_8 = "boards/breastmnist-linf-8-255.html"


def with_card(made, **card):
    """Returns a record whose weights have a card with these fields."""
    checkpoint = replace(made.record.checkpoint, card=made.record.checkpoint.card | card)
    return replace(made, record=replace(made.record, checkpoint=checkpoint))


def on_device(made, device: str):
    """Returns a record that was evaluated on a device."""
    return replace(made, record=replace(made.record, provenance=replace(made.record.provenance, device=device)))


def with_probes(made, place: int, robust_after: float):
    """Returns a record in which the soundness probes are the last attack of one budget."""
    result = made.record.budgets[place]
    probes = replace(result.members[-1], name="probes", broken=6, robust_after=robust_after)
    budgets = list(made.record.budgets)
    budgets[place] = replace(result, members=(*result.members, probes))
    return replace(made, record=replace(made.record, budgets=tuple(budgets)))


def standings_of(folder, *made):
    return build_standings(write_store(folder, made))


def pages_of(folder, *made) -> dict[str, str]:
    return {name: content.decode() for name, content in render_site(standings_of(folder, *made)).items()}


def words(page: str) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", page).split())


def row_at(standings, label: str, name: str = "Madry2018PGDAT"):
    board = next(board for board in standings.boards if board.budget.label == label)
    return next(row for row in board.rows if row.defense.name == name)


def table_of(page: str) -> str:
    return page.split('class="sortable board"')[1].split("</table>")[0]


def test_balanced_accuracy_stands_in_the_main_table_and_in_every_export(tmp_path):
    standings = standings_of(tmp_path, make_record(clean=0.8, robust=(0.7, 0.6, 0.5, 0.4, 0.3)))
    found = row_at(standings, "Linf 4/255", "Undefended").balanced
    assert found.clean.value == pytest.approx(125 / 156) and found.attacked.value == pytest.approx(0.5)
    pages = {name: content.decode() for name, content in render_site(standings).items()}
    table = words(table_of(pages["boards/breastmnist-linf-4-255.html"]))
    assert "Balanced accuracy" in table and "80.1 → under attack 50.0" in table and "◇" in table
    assert "◇" not in table_of(pages["boards/breastmnist-linf-1-255.html"])  # 70 %, of 62 % and more
    assert "80.1 → 50.0 [" in render_board_markdown(next(b for b in standings.boards if b.ranks))
    assert "80.1 → under attack 50.0" in words(pages["index.html"])
    marked = re.compile(r"50\.0</span><span class=\"mark\"[^>]*>◇")  # beside the robust score, which is seen first
    assert marked.search(table_of(pages["boards/breastmnist-linf-4-255.html"])) and marked.search(pages["index.html"])
    assert "] ▽ ◇ |" in render_board_markdown(next(b for b in standings.boards if b.ranks))
    exported = next(row for row in json.loads(render_json(standings))["rows"] if row["ranked_budget"])
    assert exported["balanced_accuracy"]["clean"] == pytest.approx(0.801282)
    assert exported["balanced_accuracy"]["attacked"] == pytest.approx(0.5)
    flat = list(csv.DictReader(io.StringIO(render_csv(standings))))[2]
    assert (float(flat["balanced_accuracy_clean"]), float(flat["balanced_accuracy"])) == (0.801282, 0.5)
    assert [row["ranked_budget"] for row in csv.DictReader(io.StringIO(render_csv(standings)))].count("true") == 1
    assert float(flat["best_known_low"]) < float(flat["best_known"]) < float(flat["best_known_high"])
    assert float(flat["balanced_accuracy_low"]) < 0.5 < float(flat["balanced_accuracy_high"])


def test_a_board_of_dice_has_no_column_of_balanced_accuracy(tmp_path):
    hippocampus = make_dataset("msd_hippocampus", task="segmentation", n_test=312)
    standings = standings_of(tmp_path, make_record(dataset=hippocampus))
    page = render_site(standings)["boards/msd_hippocampus-linf-4-255.html"].decode()
    assert "Balanced" not in table_of(page)
    assert {row["balanced_accuracy"] for row in json.loads(render_json(standings))["rows"]} == {None}


def test_a_board_says_what_a_row_was_trained_for_where_that_is_another_budget(tmp_path):
    made = [make_record(dataset=AT_8), make_record(dataset=AT_8, defense=PGD_AT)]
    pages = pages_of(tmp_path, *made)
    assert table_of(pages[BOARD_8]).count("trained for 4/255") == 1
    assert "trained for" not in table_of(pages["boards/breastmnist-linf-4-255.html"])
    assert "| Linf 4/255 |" in pages["boards/breastmnist-linf-8-255.md"]


def test_the_budget_of_training_is_that_of_the_weights_and_not_of_the_entry(tmp_path):
    own = with_card(make_record(defense=PGD_AT), options={"eps": 2 / 255})
    other = with_card(make_record(defense=PGD_AT, seed=1), options={"eps": 4 / 255})
    penalty = with_card(make_record(defense=make_defense("Penalty")), options={"eps": 2 / 255})
    standings = standings_of(tmp_path, own, other, penalty)
    assert [budget.label for budget in row_at(standings, "Linf 4/255").trained_for] == ["Linf 2/255", "Linf 4/255"]
    assert row_at(standings, "Linf 4/255", "Penalty").trained_for == ()
    table = table_of(render_site(standings)["boards/breastmnist-linf-4-255.html"].decode())
    assert "trained for 2/255" in table and "trained for 4/255" not in table
    exported = {row["defense"]: row["trained_for"] for row in json.loads(render_json(standings))["rows"]}
    assert [found["label"] for found in exported["Madry2018PGDAT"]] == ["Linf 2/255", "Linf 4/255"]
    assert exported["Penalty"] == []


@pytest.mark.parametrize("options", [{"eps": -1}, {"eps": 8}, {"eps": "big"}, ["eps"], None])
def test_a_strange_card_of_weights_leaves_the_entrys_budget(tmp_path, options):
    standings = standings_of(tmp_path, with_card(make_record(defense=PGD_AT), options=options))
    assert [budget.label for budget in row_at(standings, "Linf 4/255").trained_for] == ["Linf 4/255"]


def test_latencies_of_different_devices_are_never_averaged(tmp_path):
    first = on_device(make_record(defense=PGD_AT), "cpu (1 threads); 2 to 128 rows")
    third = on_device(make_record(defense=PGD_AT, seed=2), "cpu (1 threads); 128 rows at most")
    fast = replace(make_record(defense=PGD_AT).record.cost, latency_ms_1=0.5, latency_ms_64=1.5)
    second = on_device(make_record(defense=PGD_AT, seed=1, cost=fast), "NVIDIA H200; 256 rows")
    standings = standings_of(tmp_path, first, second, third)
    cost = row_at(standings, "Linf 4/255").cost
    assert [(found.device, found.batch_1_ms, found.seeds) for found in cost.latencies] == [
        ("NVIDIA H200", 0.5, (1,)),
        ("cpu (1 threads)", pytest.approx(1.9), (0, 2)),
    ]
    assert cost.attack_seconds is None
    exported = json.loads(render_json(standings))["rows"][0]["cost"]
    assert exported["latency_ms_1"] is None and [found["batch_64_ms"] for found in exported["latencies"]] == [1.5, 24.5]
    alone = standings_of(tmp_path / "alone", first, third)
    assert json.loads(render_json(alone))["rows"][0]["cost"]["latency_ms_1"] == 1.9


def test_training_times_stand_beside_their_device_and_are_not_averaged_or_divided_over_devices(tmp_path):
    elsewhere = with_card(make_record(defense=PGD_AT), device="NVIDIA H200")
    apart = row_at(standings_of(tmp_path / "apart", make_record(), elsewhere), "Linf 4/255").cost
    assert (apart.training_seconds, apart.training_devices) == (410, ("NVIDIA H200",))
    mixed = standings_of(tmp_path / "mixed", elsewhere, make_record(defense=PGD_AT, seed=1))
    assert row_at(mixed, "Linf 4/255").cost.training_seconds is None
    page = render_site(mixed)["boards/breastmnist-linf-4-255.html"].decode()
    assert "on NVIDIA H200, cpu" in page and "× undefended" not in page


def test_the_main_table_shows_costs_that_no_machine_changes(tmp_path):
    page = pages_of(tmp_path, make_record())["boards/breastmnist-linf-4-255.html"]
    main, costs = words(table_of(page)), words(page.split("<h2>Cost</h2>")[1])
    assert "35.7\u202fM FLOPs" in table_of(page) and "params" in main
    assert " ms" not in main.replace("\xa0", " ") and "training ×" not in main
    assert "1.9 24.5 cpu (2 threads)" in costs
    assert "Latency and times were measured on the named device" not in page


def test_boards_without_probes_say_so(tmp_path):
    pages = pages_of(tmp_path, with_probes(make_record(dataset=AT_8), 3, 0.05))
    missing = "No soundness probe ran at this budget"
    assert {name: missing in page for name, page in pages.items() if name.startswith("boards/")} == {
        name: "-8-255" not in name for name in pages if name.startswith("boards/")
    }


def test_a_board_of_another_norm_whose_budget_was_probed_does_not_say_so(tmp_path):
    grid = make_protocol("standard-l2", budgets=[Budget(norm=Norm.L2, eps=eps) for eps in (0.25, 0.5)])
    pages = pages_of(tmp_path, with_probes(make_record(protocol=grid, robust=(0.5, 0.3)), 1, 0.2))
    assert "No soundness probe" in pages["boards/breastmnist-l2-0.25.html"]
    assert "No soundness probe" not in pages["boards/breastmnist-l2-0.5.html"]


def test_the_matrix_marks_what_lies_below_the_constant_predictor(tmp_path):
    other = make_dataset("pneumoniamnist", n_test=624)
    made = [make_record(), make_record(dataset=other, robust=(0.9,) * 5, clean=0.95), make_record(defense=PGD_AT)]
    index = pages_of(tmp_path, *made)["index.html"]
    matrix = index.split("All defenses across data sets")[1].split("</table>")[0]
    assert "Constant predictor – 73.1 73.1" in words(matrix)
    (line,) = [line for line in matrix.split("<tr>") if "defenses/Undefended.html" in line]
    assert [("▽" in cell) for cell in line.split("<td")[2:]] == [True, False]
    assert [("◇" in cell) for cell in line.split("<td")[2:]] == [True, False]


def test_markdown_prints_the_best_known_score_of_a_contested_row_as_an_upper_bound(tmp_path):
    standings = standings_of(tmp_path, make_record(flags=(RED,), robust=(0.7, 0.5, 0.3, 0.1, 0.05)))
    fronts = [board for board in standings.boards if board.ranks]
    (line,) = [line for line in render_overview(standings, fronts).splitlines() if "[Undefended]" in line]
    assert line.count("≤ 30.1") == 3  # robust, best known, balanced
    assert "| ≥ 64.7 [56.2, 72.3] |" in line  # attack success rate
    assert "| ≥ 55.1 |" in line  # drop
    assert "none entered" in line


def test_the_score_of_each_stage_of_an_escalation_is_told(tmp_path):
    made = with_probes(make_record(flags=(RED,)), 0, 0.4)
    tried = replace(made.record.escalation, robust_before=0.65, robust_after=0.45)
    page = words(
        pages_of(tmp_path, replace(made, record=replace(made.record, escalation=tried)))["defenses/Undefended.html"]
    )
    left = made.record.budgets[0].members[-2].robust_after
    assert f"left a robust score of {100 * left:.1f} %, the first round of probes 65.0 %" in page
    assert "took it from 65.0 % to 45.0 %, and the probes that ran again after it to 40.0 %" in page


def test_names_break_between_words_and_stay_escaped():
    assert breakable("Tsai2025DenoisingAEFeatures") == "Tsai2025<wbr>Denoising<wbr>AE<wbr>Features"
    assert breakable("a<b>C") == "a&lt;b&gt;C"
    assert breakable("xY<i>Z") == "x<wbr>Y&lt;i&gt;Z"
