"""Weights on disk: safetensors with a card beside them, verified by checksum, never a pickle."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
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
    defense: str, dataset: str, seed: int, folder: Path | None, *, revisions: tuple[int, int] | None = None
) -> Path | None:
    """Returns the weight file, from the repository or else from a local folder of the same layout, or None.

    Args:
        defense, dataset, seed: Of what.
        folder: The local folder, or None.
        revisions: Of the defense and of the data set: a file whose card names others gives way to one that does not,
            so that a training replaces outdated weights of the repository.
    """
    paths = [checkpoint_path(root, defense, dataset, seed) for root in (COMMITTED, folder) if root is not None]
    present = [path for path in paths if path.is_file()]
    current = [path for path in present if revisions is None or _revisions(path) in (None, revisions)]
    return next(iter(current or present), None)


def _revisions(path: Path) -> tuple[int, int] | None:
    """Returns the revisions that the card beside a weight file names, or None where there is no readable card."""
    try:
        card = read_card(path)
    except CheckpointError:
        return None
    return (card.get("defense_revision"), card.get("dataset_revision")) if card else None


def save(path: Path, model: nn.Module, card: Mapping[str, object]) -> str:
    """Writes the weights of a model and their card; the same weights give the same bytes.

    Parameters are stored in half precision (in single precision where a value does not fit), buffers such as the
    statistics of batch normalisation as they are. Both files are written under a temporary name and renamed, the
    weights first: a card that names other weights than those beside it is refused by `load`.

    Args:
        path: Ends in .safetensors; its folder is made.
        model: Its whole state is stored, that of a wrapped base included, unless its attribute `stored_elsewhere`
            names submodules that stay as their own files have them: a frozen base need not be stored again.
        card: What to know about the weights, as JSON.

    Returns:
        sha256 of the weight file.

    Raises:
        CheckpointError: A weight is NaN or infinite, or the name has another suffix.
    """
    if path.suffix != SUFFIX:
        raise CheckpointError(f"weights are written to {SUFFIX} files, got {path.name}")
    parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    tensors = {name: _stored(name, tensor, name in parameters) for name, tensor in _own_state(model).items()}
    content = serialise(tensors)
    digest = hashlib.sha256(content).hexdigest()
    full = {"schema": CARD_SCHEMA, **card, "torch": torch.__version__, "sha256": digest}
    path.parent.mkdir(parents=True, exist_ok=True)
    _replace(path, content)
    _replace(card_path(path), (json.dumps(full, indent=1, sort_keys=True) + "\n").encode())
    return digest


def load(path: Path, model: nn.Module, sha256: str | None = None) -> str:
    """Loads weights into a model, in the precision of the model.

    Args:
        path: A safetensors file.
        model: Must have exactly the stored tensors.
        sha256: Expected checksum; None for the one of the card beside the file, where there is one.

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
    _fill(model, tensors, path)
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


def _stored(name: str, tensor: Tensor, is_parameter: bool) -> Tensor:
    """Returns the tensor as it goes to disk, in memory of its own."""
    tensor = tensor.detach().cpu().contiguous().clone()
    if not tensor.is_floating_point():
        return tensor
    if not torch.isfinite(tensor).all():
        raise CheckpointError(f"{name} holds NaN or infinity: the training diverged; lower its learning rate")
    half = tensor.to(torch.float16)
    return half if is_parameter and torch.isfinite(half).all() else tensor


def _own_state(model: nn.Module) -> dict[str, Tensor]:
    """Returns the state of a model without the submodules that its attribute `stored_elsewhere` names."""
    elsewhere = tuple(f"{name}." for name in getattr(model, "stored_elsewhere", ()))
    return {name: tensor for name, tensor in model.state_dict().items() if not name.startswith(elsewhere)}


def _fill(model: nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
    wanted = _own_state(model)
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
    own = {name: tensor.to(wanted[name].dtype) for name, tensor in tensors.items()}
    model.load_state_dict(model.state_dict() | own)


def _replace(path: Path, content: bytes) -> None:
    """Writes a file so that nobody ever sees half of it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(content)
    temporary.replace(path)
