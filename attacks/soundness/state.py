"""Does a model answer by its input alone, or also by its neighbours, by the mode, or by what it was asked before?"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from functools import partial

import torch
from torch import Tensor, nn

from attacks.draws import KeyedRandom
from attacks.keyed_noise import KeyedNoise
from attacks.soundness.answers import Apart, apart, flattened
from attacks.soundness.finding import Finding
from attacks.soundness.gradient_probe import answers_in_float64, copy_of, in_float64
from attacks.soundness.untouched import untouched_copy
from attacks.victim import ModelVictim
from datasets.batch import Batch
from datasets.tasks.base import Outputs, model_outputs
from registry import Randomness

NEARLY = 0.99
"""Times an image that stands beside it in a batch, as the runs of an attack on one sample do."""


def state_finding(
    victim: ModelVictim, where: tuple[Batch, ...], untouched: nn.Module | None, original: nn.Module | None = None
) -> Finding:
    """Returns whether a model keeps state, red where one of four comparisons finds more than rounding.

    A row alone, in smaller batches, in a shuffled one, beside an image much like it, and while a gradient is wanted,
    with the row in its place. The model that attacks met with a copy of it, which a model can tell from itself. The
    model with a copy from before its first answer: what it has learnt from images since may lie anywhere, and need not
    change any more.
    The model's tensors before and after a forward pass. Noise of a sample's own is the same in all places, and of noise
    for the whole model all places see one draw.

    Args:
        victim: The model, used.
        where: The same samples at several places, such as themselves and random points of their balls.
        untouched: A copy of the model from before its first answer, or None where there is none.
        original: The model that attacks met and that judged them, of which the victim's is a copy; or None.
    """
    few = [batch.take(slice(0, victim.slots)) for batch in where]
    finer = all(answers_in_float64(victim, batch) for batch in few)
    beside, depends = _worst(_settled(partial(_among_others, victim, batch), finer) for batch in few)
    values = {"difference": beside.difference, "limit": beside.limit}
    texts = [f"a row's outputs differ by {_told(beside, depends)} with its batch, or while a gradient is wanted"]
    if untouched is None:
        texts.append("there was no copy of the model from before its first answer to compare with")
    else:
        since, primed = _worst(_settled(partial(_since_before, victim, untouched, batch), finer) for batch in where)
        depends = depends or primed
        values |= {"untouched": since.difference, "untouched_limit": since.limit}
        texts.append(f"they differ by {_told(since, primed)} from those of a copy from before its first answer")
    if original is not None:
        apart_from_copy = [_from_its_copy(victim, original, batch) for batch in few]
        itself, red = _worst((one, one.difference > max(one.limit, one.resolution)) for one in apart_from_copy)
        depends = depends or red
        values |= {"copied": itself.difference, "copied_limit": itself.limit}
        texts.append(f"the model's own differ by {_told(itself, red)} from those of a copy")
    changed = _changed_tensors(copy.deepcopy(victim.model), few)
    texts.append(f"buffers or parameters changed by a forward pass: {', '.join(changed[:3]) or 'none'}")
    return Finding(
        name="stateful",
        red=depends or bool(changed),
        evidence="; ".join(texts),
        values=values | {"buffers": float(len(changed))},
    )


def _told(found: Apart, red: bool) -> str:
    settled = "" if red or found.difference <= found.limit else ", rounding"
    return f"{found.difference:.3g} (limit {found.limit:.3g}{settled})"


def _worst(found: Iterable[tuple[Apart, bool]]) -> tuple[Apart, bool]:
    """Returns the one that tells most: a red one first, then the largest difference in units of its limit."""
    return max(found, key=lambda one: (one[1], one[0].difference / max(one[0].limit, 1e-300)))


def _settled(measure: Callable[[bool], Apart], in_float64: bool) -> tuple[Apart, bool]:
    """Returns how far answers are apart, and whether that is more than rounding, which float64 takes away.

    Where a model computes in float32 whatever it is asked for, some units in the last place are rounding.

    Args:
        measure: Told whether to compute in float64.
        in_float64: Whether the model in float64 stands for the model.
    """
    found = measure(False)
    if found.difference <= found.limit:
        return found, False
    if not in_float64:
        return found, found.difference > found.resolution
    try:
        finer = measure(True)
    except torch.OutOfMemoryError:  # says nothing of the model
        raise
    except RuntimeError:  # in float64 it answers some batches only
        return found, found.difference > found.resolution
    stays = finer.difference > min(found.difference / 100, max(finer.limit, finer.resolution))
    return found, stays and (finer.fine or found.difference > found.resolution)


def _among_others(victim: ModelVictim, some: Batch, double: bool) -> Apart:
    """Returns how far a row alone, shuffled, or while a gradient is wanted is from the row in its place."""
    model = copy.deepcopy(victim.model)
    model, some = (model.double(), in_float64(some)) if double else (model, some)

    def outputs(batch: Batch) -> Outputs:
        keyed = victim.randomness is Randomness.SAMPLE
        if victim.randomness is Randomness.MODEL:
            torch.manual_seed(0)  # within the fork of `audit`
        with KeyedNoise(KeyedRandom(seed=0).keys(batch.sample_ids)) if keyed else nullcontext():
            return model_outputs(model, batch)

    def alone() -> Tensor:
        return torch.cat([flattened(outputs(some.take(slice(row, row + 1)))) for row in range(min(4, len(some)))])

    def twins() -> Tensor:
        half = torch.arange(max(1, len(some) // 2), device=some.inputs.device)
        both = some.take(torch.cat([half, half]))
        nearly = torch.cat([some.inputs[half], some.inputs[half] * NEARLY])
        return flattened(outputs(both.with_inputs(nearly)))[: len(half)]

    def among(size: int) -> Tensor:
        return flattened(outputs(some.take(slice(0, size))))

    order = torch.arange(len(some) - 1, -1, -1, device=some.inputs.device)
    with torch.no_grad():
        together = outputs(some)
        wanted = partial(_while_wanted, outputs, some, together)
        smaller = [partial(among, size) for size in _sizes(some)]
        return apart(together, lambda: flattened(outputs(some.take(order)))[order], alone, twins, *smaller, wanted)


def _sizes(some: Batch) -> tuple[int, ...]:
    """Returns sizes of smaller batches: few rows, half, one less, and two that nobody knows before the images."""
    n = len(some)
    drawn = int(some.inputs.double().sum().frac() * 2**40)
    sizes = {2, 3, 5, n // 2, n - 1, drawn % max(n, 1), drawn // 1024 % max(n, 1)}
    return tuple(sorted(size for size in sizes if 1 < size < n))


def _while_wanted(outputs: Callable[[Batch], Outputs], some: Batch, otherwise: Outputs) -> Tensor:
    """Returns the outputs while a gradient is wanted; where the model then raises, its attacks will say so."""
    with torch.enable_grad():
        try:
            return flattened(outputs(some.with_inputs(some.inputs.detach().requires_grad_().clone()))).detach()
        except torch.OutOfMemoryError:  # says nothing of the model
            raise
        except RuntimeError:
            return flattened(otherwise)


def _since_before(victim: ModelVictim, untouched: nn.Module, batch: Batch, double: bool) -> Apart:
    """Returns how far the model's answers are from those of the untouched copy, under the same noise."""
    batch = in_float64(batch) if double else batch

    def outputs(model: nn.Module) -> Outputs:
        return copy_of(victim, model.double() if double else model).outputs(batch)

    first = outputs(untouched_copy(untouched))  # by no way of the model's own, so that it stays untouched
    return apart(first, lambda: flattened(outputs(copy.deepcopy(victim.model))))


def _from_its_copy(victim: ModelVictim, original: nn.Module, batch: Batch) -> Apart:
    """Returns how far the answers of a model are from those of a copy of it, under the same noise.

    The model's tensors are afterwards as they were.
    """
    copied = copy_of(victim, copy.deepcopy(original)).outputs(batch)
    tensors = [*original.buffers(), *original.parameters()]
    before = [tensor.detach().clone() for tensor in tensors]
    found = apart(copied, lambda: flattened(copy_of(victim, original).outputs(batch)))
    with torch.no_grad():
        for tensor, values in zip(tensors, before, strict=True):
            if not torch.equal(tensor, values):
                tensor.copy_(values)
    return found


def _changed_tensors(model: nn.Module, batches: Iterable[Batch]) -> tuple[str, ...]:
    """Returns the names of buffers and parameters that forward passes change."""

    def tensors() -> dict[str, Tensor]:
        return {**dict(model.named_buffers()), **dict(model.named_parameters())}

    before = {name: tensor.detach().clone() for name, tensor in tensors().items()}
    with torch.no_grad():
        for batch in batches:
            model_outputs(model, batch)
    return tuple(name for name, tensor in tensors().items() if not torch.equal(tensor, before[name]))
