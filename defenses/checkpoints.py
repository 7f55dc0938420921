"""Weights on disk: safetensors with a card beside them, verified by checksum, never a pickle."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as parse
from safetensors.torch import save as serialise
from torch import Tensor, nn

from registry import ROOT
from registry.errors import CheckpointError

COMMITTED = ROOT / "defenses" / "weights"
"""Weights that are part of the repository."""
SUFFIX = ".safetensors"
CARD_SCHEMA = 1
_PICKLE_STARTS = (b"\x80", b"PK\x03\x04")  # pickle protocols 2 and later; a zip archive, as torch.save writes


def checkpoint_path(folder: Path, defense: str, dataset: str, seed: int) -> Path:
    """Returns where the weights of a defense lie below a folder: <dataset>/<Defense>-s<seed>.safetensors."""
    return Path(folder) / dataset / f"{defense}-s{seed}{SUFFIX}"


def card_path(path: Path) -> Path:
    """Returns where the card of a weight file lies."""
    return path.with_name(path.name + ".json")


def find(
    defense: str,
    dataset: str,
    seed: int,
    folder: Path | None,
    *,
    is_current: Callable[[Path], bool] | None = None,
) -> Path | None:
    """Returns the weight file, from the repository or else from a local folder of the same layout, or None.

    Args:
        defense, dataset, seed: Of what.
        folder: The local folder, or None.
        is_current: `is_current(path)`: a file that is not gives way to one that is, so that a training replaces
            outdated or damaged weights of the repository. One with an unreadable card is taken for current: `load`
            refuses it.
    """
    paths = [checkpoint_path(root, defense, dataset, seed) for root in (COMMITTED, folder) if root is not None]
    present = [path for path in paths if path.is_file()]
    current = [path for path in present if is_current is None or _holds(path, is_current)]
    return next(iter(current or present), None)


def _holds(path: Path, is_current: Callable[[Path], bool]) -> bool:
    try:
        return is_current(path)
    except CheckpointError:
        return True


def save(path: Path, model: nn.Module, card: Mapping[str, object], *, without: Collection[str] = ()) -> str:
    """Writes the weights of a model and their card; the same weights give the same bytes.

    Parameters are stored in half precision (in single precision where a value does not fit), buffers such as the
    statistics of batch normalisation as they are. Both files are written under a temporary name and renamed, the
    weights first: a card that names other weights than those beside it is refused by `load`.

    Args:
        path: Ends in .safetensors; its folder is made.
        model: Its whole state is stored, that of a wrapped base included.
        card: What to know about the weights, as JSON.
        without: Names of tensors to leave out: those that the file of a wrapped base holds, see `kept_tensors`.

    Returns:
        sha256 of the weight file.

    Raises:
        CheckpointError: A weight is NaN or infinite, or the name has another suffix.
    """
    if path.suffix != SUFFIX:
        raise CheckpointError(f"weights are written to {SUFFIX} files, got {path.name}")
    parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    state = {name: tensor for name, tensor in model.state_dict().items() if name not in without}
    tensors = {name: _stored(name, tensor, name in parameters) for name, tensor in state.items()}
    content = serialise(tensors)
    digest = hashlib.sha256(content).hexdigest()
    full = {"schema": CARD_SCHEMA, **card, "torch": torch.__version__, "sha256": digest}
    path.parent.mkdir(parents=True, exist_ok=True)
    _replace(path, content)
    _replace(card_path(path), (json.dumps(full, indent=1, sort_keys=True) + "\n").encode())
    return digest


def base_tensors(model: nn.Module, base: nn.Module | None) -> dict[str, str]:
    """Returns the tensors of a model that belong to the base inside of it: their names in the model and in the base."""
    if base is None:
        return {}
    own = {id(tensor): name for name, tensor in base.state_dict(keep_vars=True).items()}
    return {name: own[id(tensor)] for name, tensor in model.state_dict(keep_vars=True).items() if id(tensor) in own}


def kept_tensors(model: nn.Module, base: nn.Module, before: Mapping[str, Tensor]) -> set[str]:
    """Returns the names of the base's tensors that training left as they were, bit by bit.

    Args:
        model: The trained model; a base that it moved or copied is not found inside of it.
        base: The model that it wraps.
        before: State of the base before the training, in memory of its own.
    """
    named = base_tensors(model, base)
    state = {name: tensor.cpu() for name, tensor in model.state_dict().items() if name in named}
    return {name for name, tensor in state.items() if torch.equal(tensor, before[named[name]].cpu())}


def load(path: Path, model: nn.Module, sha256: str | None = None, *, base: nn.Module | None = None) -> str:
    """Loads weights into a model, in the precision of the model.

    Args:
        path: A safetensors file.
        model: Must have exactly the stored tensors.
        sha256: Expected checksum; None for the one of the card beside the file, where there is one.
        base: The model that this one wraps, with its weights: its tensors may be absent from the file.

    Returns:
        sha256 of the file.

    Raises:
        CheckpointError: The file is absent, a pickle, truncated, altered, not finite, or of another architecture.
    """
    if not path.is_file():
        raise CheckpointError(f"expected weights at {path}, found no file")
    content = path.read_bytes()
    # safetensors begins with the length of its header, whose lowest byte may well be that of a pickle; "{" follows
    if path.suffix != SUFFIX or (content.startswith(_PICKLE_STARTS) and content[8:9] != b"{"):
        raise CheckpointError(
            f"{path} is not a safetensors file; pickles (.pt, .pth, .bin) can run code when they are read and are "
            "refused: convert the weights with safetensors.torch.save_file(model.state_dict(), NAME.safetensors)"
        )
    digest = hashlib.sha256(content).hexdigest()
    expected = sha256 or read_card(path).get("sha256")
    if expected and digest != expected:
        raise CheckpointError(
            f"{path} is damaged or altered: expected sha256 {expected}, got {digest}; download or train it again"
        )
    try:
        tensors = parse(content)
    except SafetensorError as error:
        raise CheckpointError(f"{path} is not a whole safetensors file ({error}); download or train it again") from None
    _fill(model, tensors, path, base_tensors(model, base))
    return digest


def read_card(path: Path) -> dict[str, object]:
    """Returns the card beside a weight file, or an empty one where there is none.

    Raises:
        CheckpointError: The card is no JSON object.
    """
    beside = card_path(path)
    if not beside.is_file():
        return {}
    try:
        card = json.loads(beside.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{beside} is not JSON ({error}); train the weights again") from None
    if not isinstance(card, dict):
        raise CheckpointError(f"expected a JSON object in {beside}, got {type(card).__name__}")
    return card


def file_sha256(path: Path) -> str:
    """Returns the checksum of a file; one that was not written anew since the last time is not read again."""
    found = path.stat()
    return _file_sha256(path, found.st_mtime_ns, found.st_size, found.st_ino)


@cache
def _file_sha256(path: Path, changed: int, size: int, inode: int) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _stored(name: str, tensor: Tensor, is_parameter: bool) -> Tensor:
    """Returns the tensor as it goes to disk, in memory of its own."""
    tensor = tensor.detach().cpu().contiguous().clone()
    if not tensor.is_floating_point():
        return tensor
    if not torch.isfinite(tensor).all():
        raise CheckpointError(f"{name} holds NaN or infinity: the training diverged; lower its learning rate")
    half = tensor.to(torch.float16)
    return half if is_parameter and torch.isfinite(half).all() else tensor


def _fill(model: nn.Module, tensors: dict[str, Tensor], path: Path, present: Collection[str]) -> None:
    wanted = model.state_dict()
    wanted = {name: tensor for name, tensor in wanted.items() if name in tensors or name not in present}
    missing, strangers = sorted(wanted.keys() - tensors.keys()), sorted(tensors.keys() - wanted.keys())
    shapes = [name for name in wanted.keys() & tensors.keys() if wanted[name].shape != tensors[name].shape]
    if missing or strangers or shapes:
        raise CheckpointError(
            f"{path} holds weights of another architecture: {len(missing)} tensors are missing {missing[:3]}, "
            f"{len(strangers)} are unknown {strangers[:3]}, {len(shapes)} differ in shape {sorted(shapes)[:3]}; "
            "train it again or take the entry it belongs to"
        )
    bad = [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]
    if bad:
        raise CheckpointError(f"{path} holds NaN or infinity in {bad[:3]}; train it again")
    stored = {name: tensor.to(wanted[name].dtype) for name, tensor in tensors.items()}
    model.load_state_dict(stored, strict=False)  # what is not stored was checked above: the base holds it


def _replace(path: Path, content: bytes) -> None:
    """Writes a file so that nobody ever sees half of it, and nothing is left where it cannot be written."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    except BaseException:  # Ctrl-C, too
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
