"""Evaluation from Python, for people with a model and data of their own."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmark.assessment import Identity, Subject, assess
from benchmark.cells import key_digest
from benchmark.environment import resolve_device
from benchmark.evaluation_cell import examples_of, load_dataset
from benchmark.obstacles import protocol_obstacle
from datasets.batch import Batch
from datasets.locate import data_root
from datasets.tasks.base import task_for
from defenses.build import defended_model
from registry import DATASETS, DEFENSES, PROTOCOLS, TWIN, DatasetSpec, Randomness, load_entries
from registry.errors import CheckpointError, InputContractError, UserError
from registry.revisions import ENGINE_REVISION
from results.record import Checkpoint, EvaluationRecord

Arrays = tuple[Tensor, Tensor]


def evaluate(
    model: nn.Module,
    dataset: str | Arrays,
    *,
    protocol: str = "standard",
    task: str = "classification",
    n: int | None = None,
    name: str = "my-model",
    class_names: tuple[str, ...] | None = None,
    randomness: str = "none",
    seed: int = 0,
    device: str = "auto",
    data: str | Path | None = None,
    progress: Callable[[float, str], None] | None = None,
) -> EvaluationRecord:
    """Attacks a model under a protocol and returns its record.

    Args:
        model: Maps float32 images (N, C, H, W) in [0, 1] to raw logits; put it in eval mode, and keep normalisation
            inside.
        dataset: Name of a data set, of which the test split is used; or (inputs, targets): float32 (N, C, H, W)
            in [0, 1] with int64 labels (N,), or label maps (N, H, W) for segmentation.
        protocol: Name of a protocol.
        task: Task of `(inputs, targets)`; a named data set knows its own.
        n: Number of samples, the first ones; all by default.
        name: Name in the record.
        class_names: Classes of `(inputs, targets)`; by default as many as the labels need.
        randomness: Where the model draws random numbers: none, sample or model.
        seed: Seed of all draws.
        device: auto, cpu or cuda:K.
        data: Data folder; by default MEDROBUST_DATA or the user's data folder.
        progress: Told the share that is done, and what is running.

    Returns:
        The record; `record.budgets[k].metrics["robust"]` is the worst case at the k-th budget.

    Raises:
        UserError: A name, an input, a target or the model's outputs are not what was expected; the text says what to
            do.
    """
    load_entries()
    kinds = [str(kind) for kind in Randomness]
    if randomness not in kinds:
        raise UserError(f"randomness is one of {', '.join(kinds)}, got {randomness!r}")
    where = resolve_device(device)
    spec, batch, sha256, examples = _data(dataset, task, class_names, n, data)
    chosen = PROTOCOLS[protocol]
    if obstacle := protocol_obstacle(chosen, spec):
        raise UserError(f"protocol {protocol}: {obstacle.reason}; choose another one")
    weights = _weights_digest(model)
    subject = Subject(
        model=model.to(where),
        task=task_for(spec),
        spec=spec,
        randomness=Randomness(randomness),
        twin=_twin(spec, where),
        examples=examples,
    )
    revisions = {"protocol": chosen.revision, "engine": ENGINE_REVISION, "dataset": spec.revision}
    digest = key_digest({"weights": weights, "data": sha256, "n": len(batch), "seed": seed} | revisions)
    identity = Identity(
        key=f"{spec.name}/{name}/{protocol}-s{seed}-{digest}",
        data_sha256=sha256,
        split="test",
        defense={"name": name, "summary": "A model given from Python.", "family": "own", "randomness": randomness},
        checkpoint=Checkpoint(sha256=weights, seed=0),
        attack_seed=seed,
        revisions=revisions,
    )
    return assess(subject, batch, chosen, identity, device=where, progress=progress or (lambda share, text: None))[0]


def _data(
    dataset: str | Arrays, task: str, class_names, n: int | None, data
) -> tuple[DatasetSpec, Batch, str, Batch | None]:
    """Returns spec, test batch, checksum and examples of a named data set, or of given arrays, which have no others."""
    if n is not None and n < 1:
        raise UserError(f"n must be 1 or more, got {n}")
    if isinstance(dataset, str):
        loaded = load_dataset(DATASETS[dataset].name, data_root(data))
        split = loaded.splits["test"]
        taken = split.take(range(min(n or len(split), len(split))))
        return loaded.spec, taken, loaded.sha256, examples_of(loaded)
    inputs, targets = (torch.as_tensor(part).detach().cpu() for part in dataset)
    inputs, targets = inputs[:n], targets[:n]
    if inputs.ndim not in (4, 5) or len(inputs) != len(targets) or not len(inputs):
        raise InputContractError(
            f"expected inputs (N, C, H, W) and as many targets, got {tuple(inputs.shape)} and {tuple(targets.shape)}"
        )
    if targets.is_floating_point():
        raise InputContractError(f"expected int64 targets, got {targets.dtype}")
    if task == "classification" and targets.ndim != 1:
        raise InputContractError(
            f"expected one label for each image, int64 (N,), got targets {tuple(targets.shape)}; several labels are "
            "evaluated as a data set with multi_label=True, which the registry takes"
        )
    batch = Batch(
        sample_ids=torch.arange(len(inputs)),
        inputs=inputs,
        targets={"mask" if task == "segmentation" else "label": targets.to(torch.int64)},
    )
    digest = hashlib.sha256(inputs.numpy().tobytes() + targets.numpy().tobytes()).hexdigest()
    return _spec(inputs, targets, task, class_names), batch, digest, None


def _spec(inputs: Tensor, targets: Tensor, task: str, class_names: tuple[str, ...] | None) -> DatasetSpec:
    """Returns the spec of arrays that have no entry."""
    names = class_names or tuple(f"class {k}" for k in range(max(2, int(targets.max()) + 1)))
    return DatasetSpec(
        name="own-data",
        title="Data given from Python",
        task=task,
        input_shape=tuple(inputs.shape[1:]),
        class_names=names,
        modalities=("image",) if inputs.ndim == 4 else tuple(f"modality {k}" for k in range(inputs.shape[1])),
        splits={"train": 0, "val": 0, "test": len(inputs)},
        license="not stated",
        citation="not stated",
        reader="benchmark.api:_no_reader",
    )


def _no_reader(spec: DatasetSpec, root: Path) -> None:
    """Raises: arrays given from Python cannot be read again."""
    raise UserError("this data set was given from Python as arrays; it has no file")


def _twin(spec: DatasetSpec, device: str) -> nn.Module | None:
    """Returns the undefended model of the data set where its weights are in the repository, or None."""
    try:
        return defended_model(DEFENSES[TWIN], spec, 0, None)[0].to(device)
    except CheckpointError:
        return None


def _weights_digest(model: nn.Module) -> str:
    """Returns a checksum of all parameters and buffers."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode() + tensor.detach().cpu().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
