"""Writes the pages: the same records give the same bytes, and files of other people are left alone."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from contextlib import suppress
from pathlib import Path

from registry.errors import ResultsError
from reports.addresses import INDEX, METHODOLOGY, board_page, corruption_page
from reports.corruption import corruption_boards
from reports.corruption_pages import render_corruption, render_corruption_markdown
from reports.csv_export import render_csv
from reports.defense_pages import DefensePages
from reports.exports import boards_by_dataset, render_json
from reports.html import ASSETS, TEMPLATES, environment
from reports.leaderboard import Standings
from reports.markdown import render_board_markdown, render_overview
from reports.pages import front_board, render_board, render_index, render_methodology
from reports.standings import Records, build_standings
from results.measurements import read_measurements

MANIFEST = "manifest.json"
"""Lists the files that a build wrote, with their checksums, so that a later build removes those and no others."""


def build_site(store: Records, out: Path) -> list[Path]:
    """Builds all pages of a store and returns their paths, sorted.

    Every file appears whole or not at all; files with the right content are not touched; pages of an earlier build
    that are no longer produced are removed, unless somebody changed them since.

    Args:
        store: The records, e.g. a `results.store.RecordStore`.
        out: Folder of the site; it need not exist yet.

    Raises:
        ResultsError: The folder cannot be written.
    """
    pages = render_site(build_standings(store))
    earlier = _read_manifest(out)
    try:
        for name, content in pages.items():
            _write(out / name, content)
        for name in sorted(set(earlier) - set(pages)):
            if _checksum_of(out / name) == earlier[name]:
                _remove(out, out / name)
    except OSError as error:
        raise ResultsError(
            f"cannot write pages in {out}: {error.strerror or error}; "
            "free some space, make it writable, or choose another --out"
        ) from error
    return sorted(out / name for name in pages)


def check_site(store: Records, out: Path) -> list[str]:
    """Returns what is wrong with the pages in a folder, one line for each file; an empty list means up to date.

    Args:
        store: The records.
        out: Folder of the site.
    """
    pages = render_site(build_standings(store))
    found = []
    for name, content in pages.items():
        path = out / name
        if not path.is_file():
            found.append(f"missing: {name}")
        elif path.read_bytes() != content:
            found.append(f"stale: {name}")
    folders = sorted({name.split("/")[0] for name in pages if "/" in name})
    present = {path.relative_to(out).as_posix() for folder in folders for path in (out / folder).rglob("*")}
    present |= set(_read_manifest(out))
    found += [f"extra: {name}" for name in sorted(present - set(pages)) if (out / name).is_file()]
    return found


def render_site(standings: Standings) -> dict[str, bytes]:
    """Returns the content of every file of the site by its name, sorted; the manifest is one of them."""
    env = environment()
    defenses = DefensePages(env, standings)
    pages = dict(defenses.render())
    pages[INDEX] = render_index(env, standings, defenses.facts)
    pages[METHODOLOGY] = render_methodology(env, standings, read_measurements())
    corruptions = corruption_boards(standings)
    corrupted = frozenset(board.dataset.name for board in corruptions)
    fronts = []
    for siblings in boards_by_dataset(standings.boards).values():
        fronts.append(front_board(siblings))
        for board in siblings:
            pages[board_page(board)] = render_board(env, standings, board, siblings, corrupted)
            pages[board_page(board, "md")] = render_board_markdown(board)
    for board in corruptions:
        name = board.dataset.name
        front = next((found for found in fronts if found.dataset.name == name), None)
        pages[corruption_page(name)] = render_corruption(env, standings, board, front)
        pages[corruption_page(name, "md")] = render_corruption_markdown(board)
    pages["leaderboard.json"] = render_json(standings)
    pages["leaderboard.csv"] = render_csv(standings)
    pages["leaderboard.md"] = render_overview(standings, fronts)
    pages |= {f"assets/{name}": (TEMPLATES / name).read_text(encoding="utf-8") for name in ASSETS}
    files = {name: pages[name].encode() for name in sorted(pages)}
    files[MANIFEST] = _manifest(files)
    return files


def _manifest(files: dict[str, bytes]) -> bytes:
    checksums = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    return (json.dumps({"files": checksums}, indent=1, sort_keys=True) + "\n").encode()


def _read_manifest(out: Path) -> dict[str, str]:
    """Returns the files an earlier build wrote, with their checksums; names that lead out of the folder are ignored."""
    try:
        files = json.loads((out / MANIFEST).read_text(encoding="utf-8"))["files"]
        root = out.resolve()
        return {str(name): str(files[name]) for name in files if (out / name).resolve().is_relative_to(root)}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _checksum_of(path: Path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


def _write(path: Path, content: bytes) -> None:
    """Writes a file under a temporary name and renames it, unless it holds this content already."""
    if path.is_file() and path.read_bytes() == content:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:  # Ctrl-C, too, leaves no half file
        with suppress(OSError):
            Path(temporary).unlink()
        raise


def _remove(out: Path, path: Path) -> None:
    """Removes a page, and its folder where nothing else is left in it."""
    path.unlink()
    if path.parent != out:
        with suppress(OSError):
            path.parent.rmdir()
