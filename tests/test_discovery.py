"""Entry files: found by folder, loaded once, a broken one listed and taken back, private ones from elsewhere."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

import registry.discovery
from registry import DATASETS, DEFENSES, PROTOCOLS, ROOT, load_entries
from registry.errors import UserError

DEFENSE = """
    from registry import DEFENSES, DefenseEntry, Family, Recipe

    DEFENSES.add(
        DefenseEntry(
            name="{name}", summary="s", family=Family.UNDEFENDED, tasks=("classification",), build="m:b",
            recipe=Recipe(train="m:t"),
        )
    )
"""


@pytest.fixture(autouse=True)
def loaded_files(monkeypatch):
    """Forgets the entry files that a test loads beside those of the repository."""
    load_entries()
    monkeypatch.setattr(registry.discovery, "_loaded", dict(registry.discovery._loaded))


@pytest.fixture
def folder(tmp_path):
    """A folder for entry files; what they register is taken back."""
    before = set(DEFENSES.names())
    yield tmp_path
    for name in set(DEFENSES.names()) - before:
        DEFENSES.remove(name)


def entry_file(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(textwrap.dedent(text))
    return path


def broken_in(folder: Path, broken) -> dict[str, str]:
    return {Path(item.file).name: item.error for item in broken if Path(item.file).parent == folder}


def test_the_entries_of_the_repository_load_without_a_broken_file():
    assert [item for item in load_entries() if Path(item.file).is_relative_to(ROOT)] == []
    assert {"phantom2", "phantomseg"} <= set(DATASETS.names())
    assert "Undefended" in DEFENSES and {"clean", "standard"} <= set(PROTOCOLS.names())


def test_loading_twice_adds_nothing():
    load_entries()
    before = DEFENSES.names()
    load_entries()
    assert DEFENSES.names() == before


def test_a_file_and_a_folder_outside_the_repository(folder):
    load_entries()
    path = entry_file(folder, "mine.py", DEFENSE.format(name="MineOne"))
    load_entries([path])
    assert DEFENSES.origin("MineOne") == f"{path}:4"
    entry_file(folder, "other.py", DEFENSE.format(name="MineTwo"))
    load_entries([folder])
    assert {"MineOne", "MineTwo"} <= set(DEFENSES.names())


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("def (:\n", "SyntaxError: invalid syntax (line 1)"),
        ("raise RuntimeError('on purpose')\n", "RuntimeError: on purpose"),
        ("import sys\nsys.exit(0)\n", "SystemExit: 0"),
        ("raise SystemExit('usage: mine.py')\n", "SystemExit: usage: mine.py"),
        ("import nothing_of_this_name\n", "ModuleNotFoundError: No module named 'nothing_of_this_name'"),
    ],
)
def test_a_broken_file_is_listed_and_the_others_go_on(folder, text, error):
    entry_file(folder, "bad.py", text)
    entry_file(folder, "good.py", DEFENSE.format(name="GoodOne"))
    assert broken_in(folder, load_entries([folder])) == {"bad.py": error}
    assert "GoodOne" in DEFENSES


def test_what_a_file_added_before_it_broke_is_taken_back(folder):
    entry_file(folder, "half.py", DEFENSE.format(name="HalfOne") + "    1 / 0\n")
    assert broken_in(folder, load_entries([folder])) == {"half.py": "ZeroDivisionError: division by zero"}
    assert "HalfOne" not in DEFENSES


def test_a_file_that_takes_a_name_of_the_repository_is_broken_and_the_first_stays(folder):
    load_entries()
    before = DEFENSES["Undefended"]
    entry_file(folder, "again.py", DEFENSE.format(name="UNDEFENDED"))
    assert "is already defined as 'Undefended'" in broken_in(folder, load_entries([folder]))["again.py"]
    assert DEFENSES["Undefended"] is before


def test_paths_that_hold_no_entries_are_the_users_mistake(tmp_path):
    with pytest.raises(UserError, match="found nothing of the kind"):
        load_entries([tmp_path / "absent.py"])
    with pytest.raises(UserError, match=r"holds no \.py file"):
        load_entries([tmp_path])


def test_a_wrong_field_is_told_with_its_line_and_the_fields_there_are(tmp_path):
    path = entry_file(
        tmp_path,
        "mine.py",
        """
        from registry import DEFENSES, DefenseEntry, Family

        DEFENSES.add(DefenseEntry(name="Mine2026", summary="s", tasks=("classification",), option=1))
        """,
    )
    error = broken_in(tmp_path, load_entries([path]))["mine.py"]
    assert "unexpected keyword argument 'option' (line 4)" in error
    assert "it needs name, summary, family, tasks" in error
    assert "build_options" in error
