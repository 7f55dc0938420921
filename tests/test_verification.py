"""`verify`: a sound board holds, flipped bytes, swapped files and forgeries are found, what is absent is skipped."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from benchmark import verification
from benchmark.cli import main
from benchmark.recompute import Recomputed
from benchmark.recorded import Place
from benchmark.verification import Ending, Verified, Verifier
from benchmark.weights import checkpoints_folder
from registry import load_entries
from results.adversarials import Adversarials
from results.consistency import table_problems
from results.record import SCHEMA, EvaluationRecord, RecordStatus
from results.serialize import to_json
from results.statistics import mean_estimate
from results.store import RecordStore
from tests import tiny_board
from tests.restated import restated


@pytest.fixture(scope="module", autouse=True)
def entries():
    load_entries()
    tiny_board.register()
    yield
    tiny_board.unregister()


@pytest.fixture
def store(tmp_path_factory, tmp_path) -> RecordStore:
    return tiny_board.copied(tmp_path_factory, tmp_path / "records")


def the_record(store: RecordStore) -> EvaluationRecord:
    (record,) = store.records()
    return record


def check(store: RecordStore) -> Verified:
    (key,) = store.keys()
    place = Place(data_root=store.folder, checkpoints=checkpoints_folder(store.folder), device="cpu")
    return Verifier(store, place).check(key)


Parts = tuple[EvaluationRecord, pd.DataFrame, Adversarials]


def forge(store: RecordStore, change: Callable[[EvaluationRecord, pd.DataFrame, Adversarials], Parts]) -> Verified:
    """Rewrites a record with side files whose checksums are right, as a careful forger would, and checks it."""
    record = the_record(store)
    store.write(*change(record, store.samples(record), store.adversarials(record)))
    return check(store)


def test_a_sound_board_holds(store, capsys):
    found = check(store)
    assert found.ending is Ending.VERIFIED, found.text
    record = the_record(store)
    assert record.adversarials.count > 1 and 0 < record.budgets[1].metrics["robust"].value < 1, "the board is no test"
    assert f"{record.adversarials.count} adversarials on 12 samples give Linf 4/255" in found.text
    assert to_json(restated(record, store.samples(record))) == to_json(record), "forgers restate every number"
    assert main(["verify", "--results", str(store.folder), "--device", "cpu"]) == 0
    assert "1 records: 1 verified, 0 failed, 0 skipped" in capsys.readouterr().out


def in_doubt(monkeypatch, share: float) -> None:
    """Lets the first rows of each recomputed column be in doubt."""
    real = verification.recompute

    def recomputed(*args):
        found = real(*args)
        for part in found.values():
            part.doubt[: round(share * len(part.doubt))] = 1
        return found

    monkeypatch.setattr(verification, "recompute", recomputed)


def test_what_rounding_decides_is_excused_and_counted(store, monkeypatch):
    in_doubt(monkeypatch, 0.5)
    found = check(store)
    assert found.ending is Ending.VERIFIED and "rounding" not in found.text
    record, table = the_record(store), store.samples(the_record(store))
    row = int(np.flatnonzero((table["score_0"] == 1) & (table["score_1"] == 1))[0])
    found, scores = {}, table["score_1"].to_numpy(np.float32)
    for doubt in (0.0, 1.0):
        here = scores.copy()
        here[row] = 0
        doubts = np.where(np.arange(len(here)) == row, doubt, 0)
        found[doubt] = verification._differences(record, table, {"score_1": Recomputed(here, doubts)})
    assert "1 of 12 scores" in found[0.0][0][0] and found[0.0][1] == 0
    assert found[1.0] == ([], 1)


def test_doubt_does_not_excuse_a_forged_column(store):
    record, table = the_record(store), store.samples(the_record(store))
    other = {"score_1": Recomputed(1 - table["score_1"].to_numpy(np.float32), np.ones(len(table), np.float32))}
    problems, _ = verification._differences(record, table, other)
    assert "12 of 12 scores" in problems[0]


def test_one_flipped_byte_is_found_in_every_file(store, capsys):
    for path in (store.adversarials_path(the_record(store)), store.samples_path(the_record(store))):
        good = path.read_bytes()
        path.write_bytes(good[:40] + bytes([good[40] ^ 1]) + good[41:])
        found = check(store)
        assert found.ending is Ending.FAILED and "expected sha256" in found.text
        path.write_bytes(good)
    (weights,) = store.folder.rglob("*.safetensors")
    good = weights.read_bytes()
    weights.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    assert main(["verify", "--results", str(store.folder), "--device", "cpu"]) == 1
    said = capsys.readouterr().out
    assert "FAIL" in said and "1 failed" in said


def test_a_torn_record_is_found(store):
    path = store.path_of(the_record(store).key)
    path.write_bytes(path.read_bytes()[:-40])
    assert "torn" in check(store).text and check(store).ending is Ending.FAILED


def test_a_swapped_file_is_found(store):
    """A file of the same kind in the place of the right one, with and without its checksum in the record."""
    path = store.adversarials_path(the_record(store))

    def other(record, table, adversarials):
        order = np.roll(np.arange(len(adversarials)), 1)
        return record, table, replace(adversarials, steps=adversarials.steps[order])

    good = path.read_bytes()
    found = forge(store, other)
    assert found.ending is Ending.FAILED and "scores at Linf" in found.text
    forged = store.adversarials_path(the_record(store))
    path.write_bytes(good)
    forged.write_bytes(good)
    found = check(store)
    assert found.ending is Ending.FAILED and "expected sha256" in found.text


def test_an_adversarial_outside_the_ball_is_found(store):
    def exact(record, table, adversarials):
        far = np.clip(np.full(adversarials.shape, 0.5, dtype=np.float32), 0, 1)
        levels = adversarials.levels.copy()
        levels[0] = 0
        steps = adversarials.steps.copy()
        steps[0] = 0
        return record, table, replace(adversarials, levels=levels, steps=steps, exact={**adversarials.exact, 0: far})

    found = forge(store, exact)
    assert found.ending is Ending.FAILED and "1 adversarials lie outside Linf" in found.text


def test_steps_beyond_eps_are_found(store):
    def longer(record, table, adversarials):
        levels = adversarials.levels.copy()
        levels[:] = 3
        return record, table, replace(adversarials, levels=levels, steps=np.full_like(adversarials.steps, 4))

    found = forge(store, longer)
    assert found.ending is Ending.FAILED and "outside its ball" in found.text


def raise_robust(record, table, adversarials) -> Parts:
    result = record.budgets[1]
    metrics = result.metrics | {"robust": mean_estimate(np.ones(12), True)}
    return replace(record, budgets=(record.budgets[0], replace(result, metrics=metrics))), table, adversarials


def raise_table(record, table, adversarials) -> Parts:
    """A sample whose adversarial works is said to be robust, in the table and in every number."""
    row = int(np.flatnonzero(table["score_1"] < table["clean_score"])[0])
    table = table.copy()
    for index in (0, 1):
        table.loc[row, [f"score_{index}", f"member_{index}", f"step_{index}"]] = [1.0, "", -1]
    return restated(record, table), table, adversarials


def break_more(record, table, adversarials) -> Parts:
    """A robust sample is said to be broken, without an adversarial."""
    row = int(np.flatnonzero(table["score_1"] == 1)[0])
    table = table.copy()
    table.loc[row, ["score_1", "member_1", "step_1"]] = [0.0, "apgd", 3]
    return restated(record, table), table, adversarials


def break_with_nothing(record, table, adversarials) -> Parts:
    """As before, with an adversarial that does nothing."""
    record, table, adversarials = break_more(record, table, adversarials)
    row = int(np.flatnonzero(table["score_1"] != 1)[-1])
    known = set(adversarials.sample_ids.tolist())
    sample = next(int(s) for s in table["sample_id"][table["score_1"] == 0] if int(s) not in known)
    assert row >= 0
    extra = {
        "sample_ids": [sample],
        "budgets": [1],
        "levels": [1],
        "scales": np.ones(1, dtype=np.float32),
        "steps": np.zeros((1, *adversarials.shape), dtype=np.int8),
    }
    joined = {name: np.concatenate([getattr(adversarials, name), values]) for name, values in extra.items()}
    return record, table, replace(adversarials, **joined)


def drop_adversarial(record, table, adversarials) -> Parts:
    names = ("sample_ids", "budgets", "levels", "scales", "steps")
    kept = {name: getattr(adversarials, name)[1:] for name in names}
    return record, table, replace(adversarials, **kept, exact={})


def stranger_finds(record, table, adversarials) -> Parts:
    return record, table.replace({"member_1": {"apgd": "magic", "square": "magic"}}), adversarials


def nobody_finds(record, table, adversarials) -> Parts:
    return record, table.replace({"member_1": {"apgd": "", "square": ""}}), adversarials


def fewer_budgets(record, table, adversarials) -> Parts:
    return record, table, replace(adversarials, certified=(0,))


def narrower_interval(record, table, adversarials) -> Parts:
    clean = replace(record.clean["clean"], low=record.clean["clean"].value)
    return replace(record, clean=record.clean | {"clean": clean}), table, adversarials


def rising(record, table, adversarials) -> Parts:
    table = table.copy()
    table["score_1"], table["score_0"] = table["score_0"], table["score_1"]
    return restated(record, table), table, adversarials


def other_data(record, table, adversarials) -> Parts:
    return replace(record, data_sha256="0" * 64), table, adversarials


def other_weights(record, table, adversarials) -> Parts:
    return replace(record, checkpoint=replace(record.checkpoint, sha256="0" * 64)), table, adversarials


def without_adversarials(record, table, adversarials) -> Parts:
    return replace(record, adversarials=None), table, None


def other_clean_scores(record, table, adversarials) -> Parts:
    table = table.copy()
    row = int(np.flatnonzero(table["score_1"] == 1)[0])
    table.loc[row, ["clean_score", "score_0", "score_1"]] = 0.0
    return restated(record, table), table, adversarials


FORGERIES = {
    raise_robust: "robust score at budget 1: the record says 100.00%",
    raise_table: "scores at Linf 8/255 are others",
    break_more: "lowered at budget 1 without an adversarial",
    break_with_nothing: "scores 1, the record says 0",
    drop_adversarial: "without an adversarial",
    stranger_finds: "by magic, which did not run",
    nobody_finds: "by nobody",
    fewer_budgets: "needs adversarials at the budgets [0, 1]",
    narrower_interval: "clean score: the record says",
    rising: "scores rise at budget 1",
    other_data: "the data here have sha256",
    other_weights: "the weights here have sha256",
    without_adversarials: "keeps no adversarials",
    other_clean_scores: "scores at clean are others",
}


@pytest.mark.parametrize("change", FORGERIES, ids=lambda change: change.__name__)
def test_a_forgery_is_found(store, change):
    found = forge(store, change)
    assert found.ending is Ending.FAILED
    assert FORGERIES[change] in found.text


def test_what_is_absent_is_skipped_with_its_reason(store, capsys):
    shutil.rmtree(checkpoints_folder(store.folder))
    found = check(store)
    assert (
        found.ending is Ending.SKIPPED and "no current weights of TinyLinear on phantom2 for seed 0 here" in found.text
    )
    assert main(["verify", "phantom2/*", "--results", str(store.folder), "--device", "cpu"]) == 1
    said = capsys.readouterr()
    assert "0 failed, 1 skipped" in said.out
    assert "nothing could be verified" in said.err


def test_an_older_record_is_checked_against_its_table_and_skipped(store):
    record = the_record(store)
    store.write(replace(record, adversarials=None))
    path = store.path_of(record.key)
    path.write_text(
        path.read_text().replace(f'"schema": {SCHEMA}', '"schema": 1').replace('"adversarials": null,\n', "")
    )
    found = check(store)
    assert found.ending is Ending.SKIPPED and "before adversarials were kept" in found.text


def test_other_revisions_unknown_names_and_failures_are_skipped(store):
    record = the_record(store)
    for changed, why in (
        (replace(record, revisions=record.revisions | {"defense": 9}), "revision 9 of its defense"),
        (replace(record, defense=record.defense | {"name": "Nobody2026"}), "add its entry file with --entries"),
    ):
        store.write(changed)
        found = check(store)
        assert found.ending is Ending.SKIPPED and why in found.text
    store.path_of(record.key).unlink()
    store.write(replace(record, status=RecordStatus.FAILED))
    assert check(store).ending is Ending.SKIPPED


def test_a_pattern_without_a_record_is_the_users_mistake(store, capsys):
    assert main(["verify", "breastmnist/*", "--results", str(store.folder)]) == 2
    assert "no record matches 'breastmnist/*' among 1" in capsys.readouterr().err
    assert main(["verify", "--results", str(store.folder / "nowhere")]) == 2
    assert "holds no records" in capsys.readouterr().err


def test_a_table_without_its_columns_is_no_table(store):
    record = the_record(store)
    assert "lacks the columns member_1" in table_problems(record, store.samples(record).drop(columns="member_1"))[0]
    assert "outside [0, 1]" in table_problems(record, store.samples(record).assign(score_0=np.nan))[0]


@pytest.mark.slow
def test_a_stochastic_board_is_recomputed_on_the_same_draws(tmp_path):
    record = tiny_board.run(tmp_path, tiny_board.NOISY)
    found = check(RecordStore(tmp_path))
    assert found.ending is Ending.VERIFIED, found.text
    assert record.adversarials.certified == (0,) and record.adversarials.count > 0
