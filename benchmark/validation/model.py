"""Clauses on how a defended model behaves, on a few generated images."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from attacks.draws import KeyedRandom
from attacks.keyed_noise import KeyedNoise
from attacks.victim import Draws, ModelVictim
from benchmark.validation.check import Check, Unmet, check
from datasets.batch import Batch
from datasets.tasks.base import Outputs, Task
from registry import DefenseEntry, Randomness


def model_checks(model: nn.Module, entry: DefenseEntry, task: Task, batch: Batch) -> list[Check]:
    """Returns the verdicts on a model in eval mode.

    Args:
        model: The built model.
        entry: What it declares.
        task: What its outputs must be.
        batch: About 8 samples, inputs in [0, 1].
    """
    subject = _Subject(model, entry, task, batch)
    first = check("outputs are raw, finite and of the task's shape", subject.outputs)
    if not first.ok:
        return [first]
    return [
        first,
        check("extreme inputs (all 0, all 1) give finite outputs", subject.extremes),
        check("eval() leaves no submodule in training mode", subject.eval_mode),
        check("a forward pass changes no buffer, parameter or input", subject.state),
        check(f"randomness is {entry.randomness}, as declared", subject.randomness),
        check("a row's output does not depend on its batch", subject.batching),
        check("the gradient of the loss reaches the inputs", subject.gradient),
        check("declared stages have a stand-in of the right shape", subject.stages),
    ]


class _Subject:
    """A model under inspection."""

    def __init__(self, model: nn.Module, entry: DefenseEntry, task: Task, batch: Batch) -> None:
        self.model, self.entry, self.task, self._batch = model, entry, task, batch

    @property
    def batch(self) -> Batch:
        """The samples, in memory of their own: a model may spoil what it is given."""
        return self._batch.with_inputs(self._batch.inputs.clone())

    def outputs(self) -> str:
        with torch.no_grad():
            outputs = self.task.check_outputs(self.model(self.batch.inputs), self.batch)
        flat = _flat(outputs)
        if isinstance(outputs, Tensor) and (outputs >= 0).all() and torch.allclose(outputs.sum(1), torch.tensor(1.0)):
            said = "no value is negative and every row sums to 1, as probabilities are"
            if not self.entry.is_control:
                raise Unmet(
                    f"expected raw logits, got outputs of which {said}; leave out the softmax, "
                    "or return their logarithm"
                )
            return said
        return f"{tuple(flat.shape)}, {float(flat.min()):.3g} to {float(flat.max()):.3g}"

    def extremes(self) -> None:
        for value in (0.0, 1.0):
            with torch.no_grad():
                outputs = self.model(torch.full_like(self.batch.inputs, value))
            self.task.check_outputs(outputs, self.batch)

    def eval_mode(self) -> None:
        training = [name or "the model itself" for name, module in self.model.eval().named_modules() if module.training]
        if training:
            raise Unmet(f"{training[0]} stays in training mode after eval(); draw its noise without training mode")

    def state(self) -> None:
        before = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
        inputs = self.batch.inputs.clone()
        with torch.no_grad():
            self.model(inputs)
        changed = [name for name, tensor in self.model.state_dict().items() if not torch.equal(tensor, before[name])]
        if changed:
            raise Unmet(f"{changed[0]} changes on forward; a defense keeps no state between calls")
        if not torch.equal(inputs, self.batch.inputs):
            raise Unmet("the inputs are changed in place; work on a copy")

    def randomness(self) -> str | None:
        with torch.no_grad():
            same = torch.equal(_flat(self.model(self.batch.inputs)), _flat(self.model(self.batch.inputs)))
        declared = self.entry.randomness
        if declared is Randomness.NONE and not same:
            raise Unmet("two calls on the same inputs differ; declare Randomness.SAMPLE (noise) or MODEL (weights)")
        if declared is Randomness.SAMPLE:
            with torch.no_grad(), KeyedNoise(KeyedRandom(seed=0).keys(self.batch.sample_ids)) as noise:
                self.model(self.batch.inputs)
            if same and noise.draws:
                return "it draws numbers, which change nothing before it is trained"
        if declared is not Randomness.NONE and same:
            raise Unmet("two calls on the same inputs agree; declare Randomness.NONE")
        return None

    def batching(self) -> str:
        def rows(batch: Batch, slots: int) -> Tensor:
            victim = ModelVictim(self.model, self.task, slots=slots, randomness=self.entry.randomness)
            return _flat(victim.outputs(batch, Draws(first=torch.zeros_like(batch.sample_ids))))

        n = len(self.batch)
        together = rows(self.batch, n)
        order = torch.arange(n).flip(0)
        shuffled = rows(self.batch.take(order), n)[order]
        alone = rows(self.batch, 1)
        drift = max(float((together - other).abs().max()) for other in (shuffled, alone))
        spread = float((together.amax(1) - together.amin(1)).median())
        allowed = max(1e-4 * spread, 1e-5 * float(together.abs().max()))
        if drift > allowed:
            raise Unmet(
                f"alone, shuffled and batched outputs differ by {drift:.3g}, more than {allowed:.3g}; use no "
                "statistics of the batch, and draw noise with the batch as its leading axis"
            )
        return f"differences up to {drift:.2g}"

    def gradient(self) -> str:
        inputs = self.batch.inputs.clone().requires_grad_(True)
        loss = self.task.training_loss(self.model(inputs), self.batch.with_inputs(inputs)).sum()
        slope = torch.autograd.grad(loss, inputs, allow_unused=True)[0] if loss.requires_grad else None
        usable = (
            slope is not None
            and bool(torch.isfinite(slope).all())
            and bool(slope.flatten(1).any(1).float().mean() > 0.5)
        )
        if usable and not self.entry.differentiable:
            return "a gradient exists though the entry says differentiable=False; attacks use BPDA too"
        if usable:
            return "finite and not zero"
        if self.entry.differentiable:
            raise Unmet(
                "the gradient is absent, zero or not finite; declare differentiable=False and give the stage "
                "a bpda_twin(inputs)"
            )
        if not _stages(self.model):
            raise Unmet("no gradient and no stage with bpda_twin(inputs): declare one, the identity if need be")
        return "none, as declared; attacks go through the declared stages"

    def stages(self) -> str:
        shapes: list[tuple[str, Tensor, Tensor]] = []
        hooks = [module.register_forward_hook(_keeper(name, shapes)) for name, module in _stages(self.model).items()]
        try:
            with torch.no_grad():
                self.model(self.batch.inputs)
        finally:
            for hook in hooks:
                hook.remove()
        for name, inputs, output in shapes:
            inputs = inputs.clone().requires_grad_(True)
            twin = _stages(self.model)[name].bpda_twin(inputs)
            if twin.shape != output.shape:
                raise Unmet(f"{name}: bpda_twin returns {tuple(twin.shape)}, the stage {tuple(output.shape)}")
            slope = torch.autograd.grad(twin.sum(), inputs, allow_unused=True)[0] if twin.requires_grad else None
            if slope is None or not slope.any():
                raise Unmet(f"{name}: bpda_twin has no gradient; it must be differentiable, e.g. return its inputs")
        return ", ".join(_stages(self.model)) or "none declared"


def _stages(model: nn.Module) -> dict[str, nn.Module]:
    return {name: module for name, module in model.named_modules() if callable(getattr(module, "bpda_twin", None))}


def _keeper(name: str, kept: list[tuple[str, Tensor, Tensor]]) -> Callable:
    def keep(module: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> None:
        kept.append((name, arguments[0].detach(), output.detach()))

    return keep


def _flat(outputs: Outputs) -> Tensor:
    """Returns all outputs of each sample in one row."""
    parts = outputs.values() if isinstance(outputs, dict) else (outputs,)
    return torch.cat([part.flatten(1) for part in parts], 1)
