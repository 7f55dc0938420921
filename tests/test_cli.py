"""The command line: what a user types, what comes back, and with which exit code."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import textwrap
from functools import partial
from pathlib import Path

import pytest

import benchmark
import registry.discovery
from benchmark.cli import COMMANDS, main
from registry import DEFENSES, PROTOCOLS, ROOT, load_entries
from results.store import RecordStore

PRIVATE = textwrap.dedent(
    """
    from registry import (
        DEFENSES, PROTOCOLS, AttackProtocol, DefenseEntry, Family, Member, Recipe, ThreatModel, linf,
    )


    def build(dataset):
        from torch import nn

        channels, height, width = dataset.input_shape
        return nn.Sequential(nn.Flatten(), nn.Linear(channels * height * width, dataset.n_classes))


    def failing(dataset):
        raise RuntimeError("no such layer")


    def members(facts, budget):
        return (Member(name="apgd", attack="attacks.apgd:APGD", options={"steps": 5}, objective="margin"),)


    for name, factory, epochs in (("Linear2026", build, 2), ("Failing2026", failing, 2), ("Slow2026", build, 10_000)):
        DEFENSES.add(
            DefenseEntry(
                name=name,
                summary="A linear model.",
                family=Family.UNDEFENDED,
                tasks=("classification",),
                build=factory,
                recipe=Recipe(train="defenses.recipes.standard:train", options={"epochs": epochs}),
            )
        )
    PROTOCOLS.add(
        AttackProtocol(
            name="quick",
            title="A few steps",
            threat_model=ThreatModel(),
            budgets=(linf(4 / 255),),
            tasks=("classification",),
            members=members,
        )
    )
    """
)


@pytest.fixture(autouse=True)
def loaded_files(monkeypatch):
    """Forgets the entry files that a test loads beside those of the repository."""
    load_entries()
    monkeypatch.setattr(registry.discovery, "_loaded", dict(registry.discovery._loaded))


@pytest.fixture(scope="module")
def private(tmp_path_factory):
    """An entry file outside the repository, with a defense, one that fails, and a protocol."""
    path = tmp_path_factory.mktemp("private") / "mine.py"
    path.write_text(PRIVATE)
    yield path
    DEFENSES.remove("Linear2026")
    DEFENSES.remove("Failing2026")
    DEFENSES.remove("Slow2026")
    PROTOCOLS.remove("quick")


def run_options(private: Path, results: Path, *more: str) -> list[str]:
    return [
        *("run", "--suite", "smoke", "--entries", str(private), "--dataset", "phantom2", "--defense", "Linear2026"),
        *("--protocol", "clean", "--protocol", "quick", "--n", "8", "--device", "cpu", "--results", str(results)),
        *more,
    ]


def module(*arguments: str, **options) -> subprocess.CompletedProcess:
    """Runs `python -m benchmark` as a user does."""
    command = [sys.executable, "-m", "benchmark", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, **options)


def test_help_and_list_load_neither_torch_nor_pandas():
    commands = [["--help"], *([command.__name__.rpartition(".")[2], "--help"] for command in COMMANDS)]
    commands = [[name.replace("list_entries", "list") for name in words] for words in commands]
    commands += [["list", kind] for kind in ("datasets", "defenses", "protocols", "suites", "tasks")]
    script = (
        "import sys; from benchmark.cli import main\n"
        f"for words in {commands}:\n"
        "    try: code = main(words)\n"
        "    except SystemExit as end: code = end.code\n"
        "    assert code == 0, words\n"
        "    assert not {'torch', 'pandas', 'numpy', 'scipy'} & set(sys.modules), words\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("examples:") == len(COMMANDS) + 1


def test_the_package_offers_evaluate_and_nothing_else():
    assert benchmark.evaluate is importlib.import_module("benchmark.api").evaluate
    with pytest.raises(AttributeError, match="no attribute 'evalute'"):
        benchmark.evalute  # noqa: B018


def test_a_typed_command_ends_with_its_exit_code():
    ended = module("list", "defnses")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == (
        "python -m benchmark list: error: unknown choice 'defnses'; did you mean defenses or datasets?; "
        "see python -m benchmark list --help\n"
    )


def test_a_reader_that_has_seen_enough_is_no_error():
    reading, writing = os.pipe()
    os.close(reading)
    ended = subprocess.run(
        [sys.executable, "-m", "benchmark", "list", "tasks"],
        cwd=ROOT,
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(writing)
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["rnu"], "unknown command 'rnu'; did you mean run"),
        (["run"], "the following arguments are required: --suite"),
        (["run", "--suite", "smoke", "--seeds", "0,x"], "expected whole numbers with commas, e.g. 0,1,2, got '0,x'"),
        (
            ["run", "--suite", "smoke", "--dry-run", "--seeds", f"0,{2**62}"],
            f"a whole number from 0 to {2**62 - 1}, got '{2**62}'",
        ),
        (
            ["train", "JPEG", "--dataset", "phantom2", "--seed", "9" * 5000],
            f"a whole number from 0 to {2**62 - 1}, got",
        ),
        (["run", "--suite", "smoke", "--n", "0"], "expected a whole number of 1 or more, got '0'"),
        (["run", "--suite", "smoke", "--retry"], "unrecognized arguments: --retry"),
        (["train", "JPEG"], "the following arguments are required: --dataset"),
        (["data", "downlod"], "unknown choice 'downlod'; did you mean download?"),
    ],
)
def test_what_argparse_refuses_is_told_in_one_line(words, expected, capsys):
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2
    text = capsys.readouterr().err
    assert expected in text and text.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["run", "--suite", "smok"], "unknown suite 'smok'; did you mean smoke?"),
        (["run", "--suite", "smoke", "--task", "clasification"], "unknown task 'clasification'; did you mean"),
        (["run", "--suite", "smoke", "--dataset", "phantom22"], "unknown dataset 'phantom22'; did you mean phantom2"),
        (["run", "--suite", "smoke", "--defense", "JPG"], "unknown defense 'JPG'; did you mean JPEG?"),
        (
            ["run", "--suite", "smoke", "--protocol", "standrad"],
            "unknown protocol 'standrad'; did you mean standard",
        ),
        (["run", "--suite", "smoke", "--device", "gpu"], "--device is auto, cpu or cuda:K, got 'gpu'"),
        (["run", "--suite", "smoke", "--device", "cuda:99"], "asked for cuda:99, this machine has "),
        (["run", "--suite", "smoke", "--entries", "nowhere.py"], "--entries nowhere.py: expected a .py file"),
        (["train", "Undefnded", "--dataset", "phantom2"], "unknown defense 'Undefnded'; did you mean Undefended?"),
        (["train", "Undefended", "--dataset", "phantm2"], "unknown dataset 'phantm2'; did you mean phantom2"),
        (["train", "JPEG", "--dataset", "phantom2"], "it has no recipe of its own; train the one it wraps: Undefended"),
        (["validate", "JPG"], "unknown entry 'JPG'; did you mean JPEG?"),
        (["data", "verify", "phantm2"], "unknown dataset 'phantm2'; did you mean phantom2"),
        (["report", "--results", "nowhere"], "no results folder at nowhere"),
        (["show", "phantom2/JPEG", "--results", "nowhere"], "nowhere holds none"),
    ],
)
def test_a_users_mistake_is_told_in_one_line(words, expected, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    text = capsys.readouterr().err
    assert text.startswith("error: ") and expected in text and text.count("\n") == 1


def test_list_as_json_names_the_file_and_the_broken_ones(tmp_path, capsys):
    (tmp_path / "broken.py").write_text("import torch_of_another_name\n")
    assert main(["list", "defenses", "--json", "--entries", str(tmp_path)]) == 0
    listed = json.loads(capsys.readouterr().out)
    origins = {card["name"]: card["origin"] for card in listed["defenses"]}
    assert origins["Undefended"].startswith("defenses/entries/undefended.py:")
    broken = {Path(item["file"]).name: item["error"] for item in listed["broken"]}
    assert broken["broken.py"] == "ModuleNotFoundError: No module named 'torch_of_another_name'"
    assert main(["list", "tasks", "--entries", str(tmp_path)]) == 0
    assert "broken.py  ModuleNotFoundError" in capsys.readouterr().out


def test_from_an_entry_file_to_a_page(private, tmp_path, capsys):
    results, site = tmp_path / "records", tmp_path / "site"
    assert main(run_options(private, results, "--dry-run")) == 0
    text = capsys.readouterr().out
    assert "Trainings: 1 of 1 to do" in text and "Evaluations: 2 of 2 to do" in text and "Time: unknown" in text
    assert not results.exists(), "a dry run leaves nothing behind"

    assert main(run_options(private, results)) == 0
    said = capsys.readouterr()
    assert "2 evaluations done now, 0 before, 0 failed" in said.out
    assert "[3/3]" in said.err
    keys = RecordStore(results).keys()
    assert [key.rpartition("-")[0] for key in keys] == ["phantom2/Linear2026/clean-s0", "phantom2/Linear2026/quick-s0"]

    assert main(run_options(private, results, "--quiet")) == 0
    said = capsys.readouterr()
    assert "0 evaluations done now, 2 before" in said.out and said.err == ""
    assert main(run_options(private, results, "--dry-run", "--n", "4")) == 0
    assert "Time: about " in capsys.readouterr().out, "costs of finished records give an estimate"

    assert main(["show", "phantom2/Linear2026/quick", "--results", str(results)]) == 0
    text = capsys.readouterr().out
    assert "Worst case at Linf 4/255 (accuracy)" in text and "n = 8" in text and "apgd" in text
    assert main(["show", "phantom2/Liner2026/quick-s0", "--results", str(results)]) == 2
    assert f"did you mean {keys[1]}" in capsys.readouterr().err

    assert main(["report", "--results", str(results), "--out", str(site)]) == 0
    assert (site / "index.html").is_file()
    assert main(["report", "--results", str(results), "--out", str(site), "--check"]) == 0
    (site / "index.html").write_text("changed")
    assert main(["report", "--results", str(results), "--out", str(site), "--check"]) == 1
    assert "index.html" in capsys.readouterr().out


def test_a_cell_that_fails_is_exit_code_1_and_the_others_run(private, tmp_path, capsys):
    options = run_options(private, tmp_path, "--defense", "Failing2026", "--protocol", "clean", "--quiet")
    assert main(options) == 1
    said = capsys.readouterr()
    assert "2 evaluations done now, 0 before, 3 failed" in said.out  # its training and two evaluations
    assert "RuntimeError: no such layer" in said.out
    failed = [record for record in RecordStore(tmp_path).records() if record.failure]
    assert {record.defense["name"] for record in failed} == {"Failing2026"} and len(failed) == 2
    assert main(options) == 1
    assert "failed in an earlier run: phantom2/Failing2026/clean-s0" in capsys.readouterr().out
    assert main(["show", "phantom2/Failing2026/clean", "--results", str(tmp_path)]) == 0
    assert "FAILED: RuntimeError: no such layer" in capsys.readouterr().out


def test_ctrl_c_says_how_to_go_on(private, tmp_path):
    command = [sys.executable, "-m", "benchmark", *run_options(private, tmp_path / "records", "--defense", "Slow2026")]
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # a background shell hands down an ignored SIGINT
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, cwd=ROOT, preexec_fn=heed, **pipes)
    try:
        for line in process.stderr:
            if "train Slow2026" in line and "..." in line:  # its training has begun, and takes hours
                break
        process.send_signal(signal.SIGINT)
        _, text = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, text
    assert "nothing is half-written: the same command goes on from here" in text and "Traceback" not in text


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_results_folder_is_the_users_mistake(private, tmp_path, capsys):
    tmp_path.chmod(0o500)
    assert main(run_options(private, tmp_path / "records")) == 2
    assert "cannot write results" in capsys.readouterr().err


def test_a_results_folder_that_is_a_file_is_the_users_mistake(private, tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    assert main(run_options(private, tmp_path / "file", "--quiet")) == 2
    assert "cannot write results" in capsys.readouterr().err


def test_train_leaves_weights_that_a_run_takes(private, tmp_path, capsys):
    options = ["--entries", str(private), "--results", str(tmp_path), "--quiet"]
    assert main(["train", "Linear2026", "--dataset", "phantom2", "--seed", "3", *options]) == 0
    path = Path(capsys.readouterr().out.removeprefix("weights: ").strip())
    assert path.name == "Linear2026-s3.safetensors" and path.is_file()
    assert main(run_options(private, tmp_path, "--seeds", "3", "--dry-run")) == 0
    assert "Trainings: 0 of 1 to do" in capsys.readouterr().out


def test_doctor_tells_what_is_here(tmp_path, capsys):
    assert main(["doctor", "--data", str(tmp_path / "data"), "--results", str(tmp_path / "records")]) == 0
    text = capsys.readouterr().out
    assert "phantom2" in text and "generated" in text
    assert "0 records, writable" in text and "no package and no folder is missing" in text
    assert not (tmp_path / "records").exists()


def test_doctor_tells_what_interrupted_cells_keep(tmp_path, capsys):
    folder = tmp_path / ".unfinished" / "toy%2FD%2Fstandard"
    folder.mkdir(parents=True)
    (folder / "0001.safetensors").write_bytes(bytes(2_000_000))
    assert main(["doctor", "--data", str(tmp_path / "data"), "--results", str(tmp_path)]) == 0
    assert "1 interrupted cell(s) keep 2 MB" in capsys.readouterr().out


@pytest.mark.parametrize("words", ["train Mine --dataset phantom2", "verify none", "validate Mine", "data list"])
def test_every_command_names_the_broken_entry_file_that_it_was_given(words, tmp_path, capsys):
    (tmp_path / "mine.py").write_text("1 / 0\n")
    main([*words.split(), "--entries", str(tmp_path / "mine.py")])
    assert "mine.py is left out: ZeroDivisionError" in capsys.readouterr().err


def test_doctor_counts_a_broken_entry_file_as_missing(tmp_path, capsys):
    (tmp_path / "broken.py").write_text("1 / 0\n")
    assert main(["doctor", "--entries", str(tmp_path)]) == 1
    assert "broken.py is left out: ZeroDivisionError" in capsys.readouterr().out
