"""Boards are a pure function of records: pooling, best known, ranks, statuses, selection, exports."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace

import numpy as np
import pytest

from registry import Budget, Family, HarmfulConfusion, Norm, Randomness, linf
from reports.cards import read_cell
from reports.csv_export import render_csv
from reports.explanation import explain
from reports.exports import render_json
from reports.leaderboard import UNVERIFIED, Standings
from reports.markdown import render_board_markdown
from reports.pooling import mean_estimates
from reports.rows import FEW_DRAWS
from reports.selection import select
from reports.site import render_site
from reports.standings import build_standings
from results.record import Estimate
from results.sample_design import SampleDesign
from results.statistics import mean_estimate, united
from tests.restated import restated
from tests.synthetic_records import (
    RED,
    make_claim,
    make_dataset,
    make_defense,
    make_failure,
    make_protocol,
    make_record,
    write_store,
)

PGD_AT = make_defense("Madry2018PGDAT", claims=(make_claim(),))
STRONG = (0.78, 0.75, 0.7, 0.5, 0.2)
ISSUE_KEYS = [
    "task",
    "dataset",
    "threat_model",
    "defense",
    "family",
    "paper",
    "seeds",
    "n",
    "clean",
    "clean_interval",
    "robust",
    "robust_interval",
    "attack_success_rate",
    "best_known",
    "status",
    "flags",
    "rank",
    "tie_group",
    "cost",
    "records",
]


def standings_of(folder, *made) -> Standings:
    return build_standings(write_store(folder, made))


def board_at(standings: Standings, label: str = "Linf 4/255", dataset: str = "breastmnist"):
    return next(b for b in standings.boards if b.budget.label == label and b.dataset.name == dataset)


def row_of(board, name: str):
    return next(row for row in board.rows if row.defense.name == name)


def test_one_board_for_each_budget_and_the_entry_says_which_one_ranks(tmp_path):
    boards = standings_of(tmp_path, make_record()).boards
    assert [board.budget.label for board in boards] == [f"Linf {k}/255" for k in (1, 2, 4, 8, 16)]
    assert [board.budget.label for board in boards if board.ranks] == ["Linf 4/255"]


def test_a_single_seed_shows_the_records_own_numbers(tmp_path):
    made = make_record()
    row = row_of(board_at(standings_of(tmp_path, made)), "Undefended")
    assert row.robust.value == pytest.approx(made.record.budgets[2].metrics["robust"].value)
    assert row.clean.value == pytest.approx(made.record.clean["clean"].value)
    assert row.drop == pytest.approx(row.clean.value - row.robust.value)
    assert (row.n, row.seeds, row.records) == (156, (0,), (made.record.key,))


def test_training_seeds_are_pooled_over_images_with_their_spread(tmp_path):
    made = [make_record(seed=seed, robust=(0.7, 0.5, share, 0.1, 0.0)) for seed, share in enumerate((0.3, 0.4, 0.35))]
    row = row_of(board_at(standings_of(tmp_path, *made)), "Undefended")
    scores = np.mean([synthetic.samples["score_2"] for synthetic in made], axis=0)
    assert row.robust.value == pytest.approx(scores.mean())
    assert row.robust.spread == pytest.approx((min(row.robust.seeds), max(row.robust.seeds)))
    assert row.robust.spread[1] - row.robust.spread[0] == pytest.approx(0.1, abs=0.01)
    wilson = [mean_estimate(synthetic.samples["score_2"], True) for synthetic in made]
    expected = (np.mean([own.low for own in wilson]), np.mean([own.high for own in wilson]))
    assert (row.robust.estimate.low, row.robust.estimate.high) == pytest.approx(expected)
    bootstrap = mean_estimate(scores, False)
    assert expected[1] - expected[0] > bootstrap.high - bootstrap.low


def test_the_interval_of_pooled_seeds_does_not_collapse_where_one_image_survives(tmp_path):
    """One survivor of 156 in one of three seeds: the bootstrap ends at 3 / 468, Wilson's intervals near 2 %."""
    made = [make_record(seed=seed, robust=(0.7, 0.5, share, 0.0, 0.0)) for seed, share in enumerate((1 / 156, 0, 0))]
    row = row_of(board_at(standings_of(tmp_path, *made)), "Undefended")
    assert row.robust.value == pytest.approx(1 / 468)
    assert row.robust.estimate.low < row.robust.value
    assert 0.02 < row.robust.estimate.high < 0.04


def test_an_interval_that_holds_two():
    one, other = (Estimate(value=0.5, low=low, high=high, n=9) for low, high in ((0.3, 0.7), (0.35, 0.72)))
    assert united(one, other) == Estimate(value=0.5, low=0.3, high=0.72, n=9)
    assert united(one, one) == one


def test_the_counts_behind_the_attack_success_rate_of_every_seed_are_told(tmp_path):
    made = [make_record(seed=seed, clean=share) for seed, share in enumerate((0.85, 0.8))]
    standings = standings_of(tmp_path, *made)
    exported = next(row for row in json.loads(render_json(standings))["rows"] if row["ranked_budget"])
    tables = [synthetic.samples for synthetic in made]
    right = [(table["clean_score"] == 1) for table in tables]
    assert exported["eligible"] == [int(found.sum()) for found in right] == [133, 125]
    lost = [int((found & (table["score_2"] == 0)).sum()) for found, table in zip(right, tables, strict=True)]
    assert exported["broken"] == lost
    assert exported["attack_success_rate"] == pytest.approx(np.mean([lost[0] / 133, lost[1] / 125]), abs=1e-6)
    flat = list(csv.DictReader(io.StringIO(render_csv(standings))))[2]
    assert (flat["eligible"], flat["broken"]) == ("133; 125", f"{lost[0]}; {lost[1]}")
    page = render_site(standings)["boards/breastmnist-linf-4-255.html"].decode()
    assert "of 125–133<" in page


def test_a_seed_of_fewer_samples_is_set_aside_and_the_row_says_so(tmp_path):
    """A pilot run of seed 1 on 60 images must neither cost the row its status nor enter its mean."""
    full, pilot = make_record(seed=0), make_record(seed=1, n=60, clean=0.5, robust=(0.1,) * 5)
    rival = make_record(seed=1, n=60, attack_seed=1)
    standings = standings_of(tmp_path, full, pilot, rival)
    row = row_of(board_at(standings), "Undefended")
    assert (row.status, row.seeds, row.n, row.rank) == ("verified", (0,), 156, 1)
    assert row.robust.value == pytest.approx(full.samples["score_2"].mean())
    assert row.clean.estimate.n == row.best_known.estimate.n == 156
    assert row.reasons == ("seed 1 is left out: it was evaluated on 60 samples only",)
    assert [(item.key, item.reason) for item in standings.set_aside] == [
        (pilot.record.key, "it holds 60 samples, and another training seed of Undefended holds 156")
    ]


def test_a_failed_cell_is_not_replaced_by_a_seed_that_is_set_aside(tmp_path):
    made = [make_record(), make_record(seed=1, n=60), make_failure(seed=1, attack_seed=1)]
    assert [failed.seed for failed in board_at(standings_of(tmp_path, *made)).failures] == [1]


@pytest.mark.parametrize("groups", [None, np.zeros(50), np.arange(50) // 5])
def test_one_bootstrap_for_many_rows_equals_one_for_each(groups):
    rng, design = np.random.default_rng(0), SampleDesign(groups=groups)
    vectors = [rng.random(50), rng.random(50) ** 2]
    for found, vector in zip(mean_estimates(vectors, design), vectors, strict=True):
        expected = mean_estimate(vector, False, design)
        assert (found.value, found.low, found.high, found.n) == pytest.approx(
            (expected.value, expected.low, expected.high, expected.n)
        )


def test_best_known_is_the_minimum_per_sample_over_records_of_the_same_weights(tmp_path):
    own = make_record(defense=PGD_AT, clean=0.8, robust=STRONG)
    other = make_record(defense=PGD_AT, protocol=make_protocol("paper:pgd-20"), clean=0.8, robust=STRONG)
    lowered = other.samples.copy()
    survivors = np.flatnonzero(lowered["score_2"])
    lowered.loc[survivors[:10], "score_2"] = 0.0
    gained = np.flatnonzero(lowered["score_2"] == 0)[-5:]
    lowered.loc[gained, "score_2"] = 1.0
    other = replace(other, record=restated(other.record, lowered), samples=lowered)
    row = row_of(board_at(standings_of(tmp_path, own, other)), "Madry2018PGDAT")
    expected = np.minimum(own.samples["score_2"], lowered["score_2"]).mean()
    assert row.best_known.value == pytest.approx(expected)
    assert row.standing is row.best_known
    assert row.lowered_by == ("paper:pgd-20",)
    assert row.robust.value == pytest.approx(own.samples["score_2"].mean())
    right = own.samples["clean_score"] >= 0.5
    lost = (np.minimum(own.samples["score_2"], lowered["score_2"])[right] < 0.5).mean()
    assert row.attack_success_rate.value == pytest.approx(lost)  # of the score that ranks
    assert row.drop == pytest.approx(row.clean.value - row.best_known.value)


def test_a_number_that_its_own_sample_table_refutes_is_not_ranked(tmp_path):
    made = make_record(defense=PGD_AT, robust=STRONG)
    lie = {"robust": replace(made.record.budgets[0].metrics["robust"], value=0.95)}
    budgets = [replace(result, metrics=result.metrics | lie) for result in made.record.budgets]
    forged = replace(made, record=replace(made.record, budgets=tuple(budgets)))
    row = row_of(board_at(standings_of(tmp_path, forged)), "Madry2018PGDAT")
    assert row.status == UNVERIFIED
    assert row.rank is None


def test_a_purifier_is_verified_once_its_adaptive_protocol_attacked_all_samples_without_an_error(tmp_path):
    purifier = make_defense("Purifier", family=Family.PURIFICATION)
    own = make_record(defense=purifier, robust=STRONG)

    def adaptive(**changes):
        return make_record(defense=purifier, protocol=make_protocol("adaptive:purifier"), robust=STRONG, **changes)

    failed = adaptive()
    first = failed.record.budgets[0]
    member = replace(first.members[0], errors=3)
    budgets = (replace(first, members=(member, *first.members[1:])), *failed.record.budgets[1:])
    attempts = {
        "none": (),
        "few": (adaptive(n=20),),
        "failed": (replace(failed, record=replace(failed.record, budgets=budgets)),),
        "all": (adaptive(),),
    }
    found = {
        name: row_of(board_at(standings_of(tmp_path / name, own, *more)), "Purifier").status
        for name, more in attempts.items()
    }
    assert found == {"none": "contested", "few": "contested", "failed": "contested", "all": "verified"}


def test_a_record_of_other_weights_or_another_budget_lowers_nothing(tmp_path):
    weak = make_protocol("paper:pgd-20")
    shifted = make_protocol("paper:other", budgets=[Budget(norm=Norm.LINF, eps=5 / 255)])
    row = row_of(
        board_at(
            standings_of(
                tmp_path,
                make_record(robust=STRONG),
                make_record(robust=(0, 0, 0, 0, 0), protocol=weak, weights="retrained"),
                make_record(robust=(0.0,), protocol=shifted),
            )
        ),
        "Undefended",
    )
    assert row.best_known.value == row.robust.value
    assert row.lowered_by == ()


def test_best_known_ranks_when_it_is_lower(tmp_path):
    """B looks as good as A until a replay of its paper breaks half of it."""
    a, b = make_defense("DefenseA"), make_defense("DefenseB")
    made = [make_record(defense=a, robust=STRONG), make_record(defense=b, robust=STRONG)]
    before = board_at(standings_of(tmp_path / "before", *made))
    assert [row.rank for row in before.rows] == [1, 1]
    replay = make_record(defense=b, protocol=make_protocol("paper:pgd-20"), robust=(0.7, 0.5, 0.3, 0.1, 0.0))
    after = board_at(standings_of(tmp_path / "after", *made, replay))
    assert {row.defense.name: row.rank for row in after.rows} == {"DefenseA": 1, "DefenseB": 2}


def test_rank_counts_significantly_better_rows_and_ties_share_it(tmp_path):
    made = [
        make_record(defense=make_defense("DefenseA"), robust=(0.8, 0.8, 0.7, 0.5, 0.2)),
        make_record(defense=make_defense("DefenseB"), robust=(0.8, 0.8, 0.69, 0.5, 0.2)),
        make_record(),
    ]
    board = board_at(standings_of(tmp_path, *made))
    assert [(row.defense.name, row.rank, row.tie_group) for row in board.rows] == [
        ("DefenseA", 1, 1),
        ("DefenseB", 1, 1),
        ("Undefended", 3, 2),
    ]


def test_only_verified_rows_get_a_rank_and_the_others_say_why(tmp_path):
    made = [
        make_record(),
        make_record(defense=make_defense("Contested"), robust=STRONG, flags=(RED,)),
        make_record(defense=make_defense("Unprobed"), robust=STRONG, flags=()),
        make_record(defense=make_defense("Partial"), robust=STRONG, n=80),
        make_record(defense=make_defense("Oracle", ranks=False), robust=STRONG),
        make_failure(defense=make_defense("Failed")),
    ]
    board = board_at(standings_of(tmp_path, *made))
    assert [row.defense.name for row in board.ranked] == ["Undefended"]
    found = {row.defense.name: (row.status, " ".join(row.reasons)) for row in board.unranked}
    assert found["Contested"][0] == "contested"
    assert "dishonest-gradient" in found["Contested"][1]
    assert found["Unprobed"][0] == found["Partial"][0] == "unverified"
    assert "80 of 156" in found["Partial"][1]
    assert "never ranks" in found["Oracle"][1]
    assert [failed.defense.name for failed in board.failures] == ["Failed"]
    assert board.rows[0].defense.name == "Undefended"


def test_a_lost_sample_table_costs_the_rank_and_is_reported(tmp_path):
    store = write_store(tmp_path, [make_record(), make_record(defense=PGD_AT, robust=STRONG)])
    record = store.read("breastmnist/Madry2018PGDAT/standard-s0-00000000")
    store.samples_path(record).unlink()
    standings = build_standings(store)
    row = row_of(board_at(standings), "Madry2018PGDAT")
    assert (row.status, row.rank) == ("unverified", None)
    assert row.robust.value == pytest.approx(0.7, abs=0.01)
    assert any("Madry2018PGDAT" in name for name, _ in standings.unreadable)
    assert not any(str(tmp_path) in reason for _, reason in standings.unreadable)


def test_rows_below_the_constant_predictor_are_marked(tmp_path):
    board = board_at(standings_of(tmp_path, make_record(), make_record(defense=PGD_AT, robust=(0.8,) * 5)))
    assert board.constant_predictor == pytest.approx(114 / 156)
    assert row_of(board, "Undefended").below_constant
    assert not row_of(board, "Madry2018PGDAT").below_constant


def test_the_constant_predictor_is_that_of_the_samples_of_a_full_row(tmp_path):
    """A pilot run on 40 samples comes first by name; 90 % of its samples are of one class."""
    pilot = make_record(defense=make_defense("APilot"), n=40, robust=(0.6,) * 5, constant_predictor=0.9)
    board = board_at(standings_of(tmp_path, pilot, make_record(robust=(0.68,) * 5)))
    assert board.constant_predictor == pytest.approx(114 / 156)
    assert not row_of(board, "Undefended").below_constant  # its interval ends at 0.75, under the pilot's line only
    assert row_of(board, "APilot").below_constant


def test_small_test_sets_stay_out_of_aggregate_ranks(tmp_path):
    large = make_dataset("pneumoniamnist", n_test=624)
    standings = standings_of(tmp_path, make_record(), make_record(dataset=large))
    assert not board_at(standings).in_aggregate
    assert board_at(standings, dataset="pneumoniamnist").in_aggregate


def test_claims_stand_at_their_data_set_and_budget_only(tmp_path):
    standings = standings_of(tmp_path, make_record(defense=PGD_AT))
    assert [claim.value for claim in row_of(board_at(standings), "Madry2018PGDAT").claims] == [0.58]
    assert row_of(board_at(standings, "Linf 8/255"), "Madry2018PGDAT").claims == ()


def test_members_are_summed_over_seeds(tmp_path):
    made = [make_record(seed=0), make_record(seed=1), make_record(defense=PGD_AT)]
    board = board_at(standings_of(tmp_path, *made))
    row = row_of(board, "Undefended")
    single = [synthetic.record.budgets[2].members[0].broken for synthetic in made[:2]]
    assert row.members[0].broken == sum(single)


def test_harm_is_shown_clean_and_under_attack(tmp_path):
    board = board_at(standings_of(tmp_path, make_record()))
    change = row_of(board, "Undefended").confusions["malignant called benign"]
    assert change.clean.value < change.attacked.value
    name, worst = row_of(board, "Undefended").worst_class
    assert name in ("malignant", "benign")
    assert worst.attacked.value == min(c.attacked.value for c in row_of(board, "Undefended").class_recall.values())


def test_a_raised_revision_drops_older_records(tmp_path):
    revisions = {"dataset": 1, "task": 1, "defense": 1, "protocol": 1, "engine": 2}
    old, new = make_record(), make_record(defense=PGD_AT, revisions=revisions)
    standings = standings_of(tmp_path, old, new)
    assert [row.defense.name for row in board_at(standings).rows] == ["Madry2018PGDAT"]
    assert [(item.key, "engine" in item.reason) for item in standings.set_aside] == [(old.record.key, True)]


def test_a_defenses_revision_concerns_that_defense_alone(tmp_path):
    revisions = {"dataset": 1, "task": 1, "defense": 2, "protocol": 1, "engine": 1}
    standings = standings_of(tmp_path, make_record(), make_record(defense=PGD_AT, revisions=revisions))
    assert len(board_at(standings).rows) == 2


@pytest.mark.parametrize(
    ("part", "revision"), [("base:Undefended", 1), ("twin", 1), ("base:Undefended", 2), ("twin", 2)]
)
def test_a_raised_revision_of_a_base_or_of_the_twin_drops_what_was_made_with_the_older_one(tmp_path, part, revision):
    revisions = {"dataset": 1, "task": 1, "defense": 1, "protocol": 1, "engine": 1}
    raised = make_record(revisions=revisions | {"defense": 2})
    row = make_record(defense=make_defense("JPEG"), revisions=revisions | {part: revision})
    standings = standings_of(tmp_path, raised, row)
    expected = [] if revision == 2 else [(row.record.key, "revision 1 of defense Undefended is older than 2")]
    assert [(item.key, item.reason) for item in standings.set_aside] == expected


def test_other_data_and_other_splits_are_set_aside(tmp_path):
    made = [
        make_record(),
        make_record(defense=PGD_AT),
        make_record(defense=make_defense("OtherData"), data_sha256="0" * 64),
        make_record(defense=make_defense("OnVal"), split="val"),
    ]
    standings = standings_of(tmp_path, *made)
    assert {row.defense.name for row in board_at(standings).rows} == {"Undefended", "Madry2018PGDAT"}
    assert {item.reason for item in standings.set_aside} == {"it was evaluated on other data", "its split is not test"}


def test_selection_does_not_depend_on_the_order_of_records():
    made = [make_record(seed=seed, attack_seed=attack) for seed in (0, 1) for attack in (0, 1)]
    cells = [read_cell(synthetic.record) for synthetic in made]
    forward, backward = select(cells), select(cells[::-1])
    assert forward == backward
    assert [cell.record.attack_seed for cell in forward.contests[0].cells] == [0, 0]
    assert len(forward.contests[0].rivals) == 2


def test_segmentation_ranks_on_dice(tmp_path):
    hippocampus = make_dataset("msd_hippocampus", task="segmentation", n_test=312)
    made = [make_record(dataset=hippocampus), make_record(dataset=hippocampus, defense=PGD_AT, robust=STRONG)]
    board = board_at(standings_of(tmp_path, *made), dataset="msd_hippocampus")
    assert board.quality == "Dice"
    assert board.constant_predictor is None
    assert [row.rank for row in board.rows] == [1, 2]
    assert "iou" in board.rows[0].metrics


def test_a_card_that_lacks_what_pages_need_costs_one_record(tmp_path):
    strange = make_record(defense=make_defense("Strange"))
    card = {name: value for name, value in strange.record.defense.items() if name != "summary"}
    standings = standings_of(tmp_path, make_record(), replace(strange, record=replace(strange.record, defense=card)))
    assert [row.defense.name for row in board_at(standings).rows] == ["Undefended"]
    assert [name for name, _ in standings.unreadable] == [strange.record.key]


def test_leaderboard_json_has_the_promised_form(tmp_path):
    made = [make_record(seed=0), make_record(seed=1), make_record(defense=PGD_AT, robust=STRONG, flags=(RED,))]
    text = render_json(standings_of(tmp_path, *made))
    document = json.loads(text)
    assert document["schema"] == 1
    assert len(document["rows"]) == 10
    row = next(r for r in document["rows"] if r["defense"] == "Madry2018PGDAT" and r["ranked_budget"])
    assert set(ISSUE_KEYS) <= set(row)
    assert (
        row["threat_model"].items()
        >= {"norm": "Linf", "eps": row["threat_model"]["eps"], "support": "everything"}.items()
    )
    assert row["threat_model"]["eps"] == pytest.approx(4 / 255)
    assert (row["dataset"], row["n"], row["seeds"]) == ("breastmnist", 156, [0])
    assert 0 < row["robust"] < 1
    assert row["robust_interval"][0] < row["robust"] < row["robust_interval"][1]
    assert (row["status"], row["flags"], row["rank"]) == ("contested", ["dishonest-gradient"], None)
    pooled = next(r for r in document["rows"] if r["defense"] == "Undefended" and r["ranked_budget"])
    assert pooled["seeds"] == [0, 1]
    assert len(pooled["seed_spread"]["robust"]) == len(pooled["records"]) == 2


def test_randomised_defenses_have_upper_bounds_where_no_draws_are_swept(tmp_path):
    """The ranking protocol sweeps them at the ranked budget, another one where it attacks; others need no sweep."""
    noisy = make_defense("Noisy", randomness=Randomness.SAMPLE)
    at = {"budgets": (linf(4 / 255),)}
    sweep = make_record(defense=noisy, protocol=make_protocol("adaptive:eot-sweep", **at), robust=STRONG[2:3])
    standings = standings_of(tmp_path, make_record(defense=noisy, robust=STRONG), sweep, make_record(robust=STRONG))
    ranked, other = board_at(standings), board_at(standings, "Linf 8/255")
    assert {row.defense.name: row.upper_bound for row in ranked.rows} == {"Noisy": False, "Undefended": False}
    assert {row.defense.name: row.upper_bound for row in other.rows} == {"Noisy": True, "Undefended": False}
    assert [reason.split()[0] for reason in row_of(other, "Noisy").reasons] == ["adaptive:eot-sweep"]
    assert (row_of(other, "Noisy").status, row_of(other, "Noisy").rank) == ("contested", None)
    l2 = tuple(Budget(norm=Norm.L2, eps=eps) for eps in (0.25, 0.5, 1.0))
    in_l2 = make_record(defense=noisy, protocol=make_protocol("standard:l2", budgets=l2), robust=STRONG[:3])
    smallest = board_at(standings_of(tmp_path / "l2", in_l2), "L2 0.25")  # no protocol sweeps draws in L2
    assert row_of(smallest, "Noisy").reasons == (FEW_DRAWS,)
    everywhere = make_record(defense=noisy, protocol=make_protocol("adaptive:eot-sweep"), robust=STRONG)
    swept = standings_of(tmp_path / "swept", make_record(defense=noisy, robust=STRONG), everywhere)
    assert row_of(board_at(swept, "Linf 8/255"), "Noisy").status == "verified"
    falls = (0.75, 0.7, 0.6, 0.0, 0.0)
    sweep = make_record(defense=noisy, protocol=make_protocol("adaptive:eot-sweep", **at), robust=falls[2:3])
    broken = standings_of(tmp_path / "broken", make_record(defense=noisy, robust=falls), sweep)
    assert row_of(board_at(broken, "Linf 8/255"), "Noisy").status == "verified"  # an upper bound of 0 says it all
    assert "≤" not in render_board_markdown(ranked)
    assert next(line for line in render_board_markdown(other).splitlines() if "≤" in line).startswith("| – | [Noisy]")
    exported = {(r["defense"], r["threat_model"]["label"]): r for r in json.loads(render_json(standings))["rows"]}
    assert exported["Noisy", "Linf 8/255"]["upper_bound"] and not exported["Noisy", "Linf 4/255"]["upper_bound"]
    assert "other budgets" in explain(standings, "Noisy", "breastmnist")
    assert "Linf 8/255 at most 50.0%" in " ".join(explain(standings, "Noisy", "breastmnist").split())


def test_csv_holds_the_same_rows_and_no_formula(tmp_path):
    evil = make_defense("=HYPERLINK(evil)", summary="=1+1")
    standings = standings_of(tmp_path, make_record(), make_record(defense=evil))
    rows = list(csv.DictReader(io.StringIO(render_csv(standings))))
    assert len(rows) == 10
    assert {row["defense"] for row in rows} == {"Undefended", "'=HYPERLINK(evil)"}
    assert float(rows[0]["robust"]) == pytest.approx(0.7, abs=0.01)


def test_several_harmful_confusions_keep_their_names(tmp_path):
    confusions = tuple(HarmfulConfusion(true=k, predicted=1 - k, title=f"confusion {k}") for k in (0, 1))
    standings = standings_of(tmp_path, make_record(dataset=make_dataset(harmful_confusions=confusions)))
    assert list(board_at(standings).rows[0].confusions) == ["confusion 0", "confusion 1"]
