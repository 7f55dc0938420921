"""State of an unfinished training on disk, so that the same command goes on where an interrupted one stopped."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import pickle
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch

_log = logging.getLogger(__name__)

SUFFIX = ".unfinished"
"""Ending of state files: they are no weights, and nothing that looks for weights finds them."""


class Stateful(Protocol):
    """A part of a training that can be stored: model, optimiser, schedule, callback, generators."""

    def state_dict(self) -> Mapping[str, object]:
        """Returns tensors, numbers, text, and lists and dicts of these."""

    def load_state_dict(self, state: Mapping[str, object]) -> object:
        """Takes over what an earlier `state_dict` returned."""


class RandomState:
    """The generators a training draws from: its own, and torch's global ones.

    Args:
        generator: The training's own, on the CPU.
        device: Device whose global generator belongs to it, beside the CPU's.
    """

    def __init__(self, generator: torch.Generator, device: str) -> None:
        self._generator = generator
        self._device = torch.device(device)

    def state_dict(self) -> dict[str, object]:
        state = {"own": self._generator.get_state(), "cpu": torch.get_rng_state()}
        return state | ({"cuda": torch.cuda.get_rng_state(self._device)} if self._device.type == "cuda" else {})

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        self._generator.set_state(state["own"])
        torch.set_rng_state(state["cpu"])
        if self._device.type == "cuda":
            torch.cuda.set_rng_state(state["cuda"], self._device)


@dataclass(frozen=True, kw_only=True)
class StateFile:
    """Where the state of one run of the training loop lies, and what training it belongs to.

    The file is a line with the sha256 of what follows, which is written by `torch.save`.
    """

    path: Path
    """The file; it need not exist."""
    identity: str
    """A file that carries another identity belongs to another training and is overwritten."""

    def save(self, parts: Mapping[str, Stateful], done: Mapping[str, float]) -> None:
        """Writes the state of all parts, and how far the training is, so that nobody ever sees half of it."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        content = {
            "identity": self.identity,
            "done": dict(done),
            "parts": {name: dict(part.state_dict()) for name, part in parts.items()},
        }
        temporary = self.path.with_name(f".{self.path.name}.tmp")
        stored = io.BytesIO()
        torch.save(content, stored)
        try:
            with temporary.open("wb") as target:
                target.write(_digest(stored.getbuffer()) + b"\n")
                target.write(stored.getbuffer())
            temporary.replace(self.path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise

    def restore(self, parts: Mapping[str, Stateful]) -> dict[str, float]:
        """Gives every part its stored state and returns how far the training was.

        The file is read without running code. Where it is absent, damaged, or of another training, nothing changes
        and the result is empty: the training begins anew.
        """
        digest, _, stored = self.path.read_bytes().partition(b"\n") if self.path.is_file() else (b"", b"", b"")
        if digest != _digest(stored):
            return {}
        try:
            content = torch.load(io.BytesIO(stored), map_location="cpu", weights_only=True)
        except pickle.UnpicklingError:
            return {}
        if not isinstance(content, dict) or content.get("identity") != self.identity:
            return {}
        if content["parts"].keys() != parts.keys():
            return {}
        for name, part in parts.items():
            part.load_state_dict(content["parts"][name])
        return content["done"]


class KeptState:
    """The state on disk, where there is a file; one that cannot be written only keeps the training from resuming."""

    def __init__(self, file: StateFile | None) -> None:
        self._file, self._told = file, False

    def restore(self, parts: Mapping[str, Stateful]) -> dict[str, float]:
        return self._file.restore(parts) if self._file is not None else {}

    def save(self, parts: Mapping[str, Stateful], done: Mapping[str, float]) -> None:
        try:
            if self._file is not None:
                self._file.save(parts, done)
        except OSError as error:
            if not self._told:
                _log.warning("an interruption of this training would lose what it does from here on: %s", error)
            self._told = True


def _digest(content: bytes | memoryview) -> bytes:
    return hashlib.sha256(content).hexdigest().encode()


@dataclass(kw_only=True)
class _Unfinished:
    """The state files of one training: one for each run of the loop that its recipe starts."""

    weights: Path
    identity: str
    runs: int = 0


_current: ContextVar[_Unfinished | None] = ContextVar("unfinished training", default=None)


@contextmanager
def resumable(weights: Path, identity: Mapping[str, object]) -> Iterator[None]:
    """Lets the training loop store its state within the block; the files are removed when the block ends well.

    A recipe may run the loop several times, one after the other; each run has a file of its own. What happens between
    runs is done again.

    Args:
        weights: Where the weights will lie; state files lie beside it, under other endings.
        identity: Everything the weights follow from, as JSON. State of another identity is not taken up.
    """
    training = _Unfinished(weights=weights, identity=json.dumps(identity, sort_keys=True))
    token = _current.set(training)
    try:
        yield
    finally:
        _current.reset(token)
    for path in weights.parent.glob(f"{weights.stem}.*{SUFFIX}"):
        path.unlink()


def next_state_file() -> StateFile | None:
    """Returns where the run of the loop that begins now stores its state, or None outside of `resumable`."""
    training = _current.get()
    if training is None:
        return None
    training.runs += 1
    path = training.weights.with_name(f"{training.weights.stem}.{training.runs}{SUFFIX}")
    return StateFile(path=path, identity=training.identity)
