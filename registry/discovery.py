"""Finds entry files by folder, imports them in the order of their names, and lists the broken ones."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import sys
import traceback
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from registry.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
ENTRY_FOLDERS = ("datasets/entries", "attacks/entries", "defenses/entries")


@dataclass(frozen=True, kw_only=True, slots=True)
class BrokenEntry:
    """An entry file that could not be imported; the others go on without it."""

    file: str
    """Path of the file."""
    error: str
    """Last line of the error, e.g. "SyntaxError: invalid syntax (line 3)"."""
    traceback: str
    """Whole traceback."""


_loaded: dict[Path, BrokenEntry | None] = {}


def load_entries(extra: Iterable[Path] = ()) -> tuple[BrokenEntry, ...]:
    """Imports every entry file of the repository and of the extra files and folders, each once.

    Args:
        extra: Entry files, or folders of entry files, outside the repository.

    Returns:
        The files that could not be imported, in the order of their paths.

    Raises:
        UserError: An extra path does not exist or holds no Python file.
    """
    for path in (*_repository_files(), *_extra_files(extra)):
        if path not in _loaded:
            _loaded[path] = _import_file(path)
    return tuple(broken for _, broken in sorted(_loaded.items()) if broken is not None)


def _repository_files() -> list[Path]:
    return [
        path for folder in ENTRY_FOLDERS for path in sorted((ROOT / folder).rglob("*.py")) if path.name != "__init__.py"
    ]


def _extra_files(extra: Iterable[Path]) -> list[Path]:
    files: list[Path] = []
    for given in extra:
        path = Path(given).expanduser().resolve()
        if path.is_dir():
            found = sorted(p for p in path.glob("*.py") if p.name != "__init__.py")
            if not found:
                raise UserError(f"--entries {given}: the folder holds no .py file; name a file, or a folder with some")
            files.extend(found)
        elif path.is_file() and path.suffix == ".py":
            files.append(path)
        else:
            raise UserError(f"--entries {given}: expected a .py file or a folder of them, found nothing of the kind")
    return files


def _import_file(path: Path) -> BrokenEntry | None:
    """Imports one file; takes back what it registered when it breaks half-way."""
    from registry import ALL_REGISTRIES

    before = {registry.kind: set(registry.names()) for registry in ALL_REGISTRIES}
    name = _module_name(path)
    try:
        spec = importlib.util.spec_from_file_location(name, path)
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # a contributor's file may raise anything, or be a script that ends
        sys.modules.pop(name, None)
        for registry in ALL_REGISTRIES:
            for added in set(registry.names()) - before[registry.kind]:
                registry.remove(added)
        last = traceback.format_exception_only(error)[-1].strip()
        said = last + (f" (line {error.lineno})" if isinstance(error, SyntaxError) else _fields_of(last, error, path))
        return BrokenEntry(file=str(path), error=said, traceback=traceback.format_exc())
    return None


def _fields_of(text: str, error: BaseException, path: Path) -> str:
    """Returns the line, and the fields of the class of entries whose constructor was called with others, or nothing."""
    from registry import ALL_REGISTRIES

    for registry in ALL_REGISTRIES:
        if text.startswith(f"TypeError: {registry.entry_type.__name__}.__init__()"):
            known = dataclasses.fields(registry.entry_type)
            required = [f.name for f in known if f.default is f.default_factory is dataclasses.MISSING]
            other = [f.name for f in known if f.name not in required]
            lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
            return f" (line {lines[-1]}); it needs {', '.join(required)} and may have {', '.join(other)}"
    return ""


def _module_name(path: Path) -> str:
    """Returns the dotted name of a repository file, or a private unique one for a file outside."""
    if path.is_relative_to(ROOT):
        return ".".join(path.relative_to(ROOT).with_suffix("").parts)
    digest = hashlib.sha256(str(path).encode()).hexdigest()[:8]
    return f"medrobust_entries_{digest}_{path.stem}"
