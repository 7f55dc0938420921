"""The journal of a cell as a folder of files, one for each costly step; it goes when the cell has its record."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from attacks.journal import Entry
from registry.errors import ResultsError
from results.atomic_file import write_atomically

_log = logging.getLogger(__name__)

LEAST_SECONDS = 20.0
"""Shortest step that is worth a file; a shorter one is run again."""


CIRCUMSTANCES = "circumstances.json"
"""File beside the steps that says what they depend on."""
WORDS = {
    "sources": "the code of the benchmark or of the entries (what lies beside and below a given entry file counts)",
    "weights": "the weights",
    "twin": "the weights of the undefended twin",
    "data": "the data",
    "device": "the device, or how many threads --jobs leaves a cell",
    "packages": "the versions of packages",
}
"""Circumstances of a cell as people call them."""


class JournalFolder:
    """Keeps the costly steps of one cell. Not being able to write them is no error: the cell only cannot be resumed.

    Args:
        folder: Folder of the cell; the caller holds the claim on it.
        circumstances: What a step depends on beside the cell: code, weights, device, versions. Steps made under other
            circumstances are not recalled; they stay until the cell has its record, for whoever goes on under those.
    """

    def __init__(self, folder: Path, circumstances: Mapping[str, object]) -> None:
        self._circumstances = json.dumps(dict(circumstances), sort_keys=True)
        self._attempt = folder / hashlib.sha256(self._circumstances.encode()).hexdigest()[:16]
        self._folder, self._step, self._told = self._attempt, 0, False
        self.recovered_seconds = 0.0
        if not self._attempt.exists() and any(folder.glob("*")):
            _log.warning(
                "an interrupted cell begins anew, since %s changed; what was done stays in %s until it has its record",
                _changed(folder, circumstances),
                folder,
            )

    def begin(self, slots: int) -> None:
        """Begins the cell, or begins it again, with physical batches of so many rows."""
        self._folder, self._step, self.recovered_seconds = self._attempt / f"slots-{slots}", 0, 0.0

    def next_step(self) -> int:
        """Returns the number of the step that begins."""
        self._step += 1
        return self._step

    def recall(self, step: int, began_with: str) -> Entry | None:
        """Returns what a step found before the cell was interrupted, or None where it must run."""
        path = self._path(step)
        if not path.exists():
            return None
        try:
            with safe_open(path, "pt") as file:
                facts = json.loads(file.metadata()["facts"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no mapping
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            _log.warning("step %d of an interrupted cell is damaged and runs again: %s", step, error)
            return None
        if facts.pop("began_with") != began_with:
            _log.warning("step %d of an interrupted cell began with another worst case; it runs again", step)
            return None
        self.recovered_seconds += facts["seconds"]
        return {**facts, **tensors}

    def keep(self, step: int, began_with: str, entry: Entry) -> None:
        """Keeps what a step found; where that cannot be written, the step has still ended."""
        if entry["seconds"] < LEAST_SECONDS:
            return
        tensors = {name: value.contiguous() for name, value in entry.items() if isinstance(value, Tensor)}
        facts = {name: value for name, value in entry.items() if name not in tensors}
        facts["began_with"] = began_with
        try:
            write_atomically(self._attempt / CIRCUMSTANCES, self._circumstances.encode())
            write_atomically(self._path(step), save(tensors, metadata={"facts": json.dumps(facts)}))
        except ResultsError as error:
            if not self._told:
                _log.warning("an interruption of this cell would lose what it does from here on: %s", error)
            self._told = True

    def _path(self, step: int) -> Path:
        return self._folder / f"{step:04d}.safetensors"


def _changed(folder: Path, circumstances: Mapping[str, object]) -> str:
    """Returns in words what differs from the attempt that is nearest to these circumstances."""
    now = json.loads(json.dumps(dict(circumstances)))
    differing = []
    for path in folder.glob(f"*/{CIRCUMSTANCES}"):
        try:
            then = json.loads(path.read_text())
            differing.append([name for name in now if then.get(name) != now[name]])
        except (OSError, ValueError, AttributeError):
            continue
    nearest = min(differing, key=len, default=[])
    return ", and ".join(WORDS.get(name, name) for name in nearest) or "its circumstances"
