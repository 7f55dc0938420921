"""Published attack libraries behind our shell: independent references, never members of a ranking protocol."""

from __future__ import annotations

import contextlib
import io

import torch
from torch import Tensor, nn

from attacks.ball import Ball
from attacks.draws import KeyedRandom
from attacks.victim import Access, ModelVictim
from datasets.batch import Batch
from registry import Knowledge, Norm, Randomness
from registry.errors import InvalidEntryError

RAND_DRAWS = 20
"""Draws of each gradient of Auto-PGD in AutoAttack's published setting `rand`, for stochastic defenses."""


class CountedModel(nn.Module):
    """A victim's model as a module of logits whose forward and backward passes are counted.

    These libraries switch the mode of the model they are given; the victim's modules keep theirs.

    Args:
        victim: Where the counts go.
    """

    def __init__(self, victim: ModelVictim) -> None:
        super().__init__()
        self.model = victim.model
        self._spent = victim.spent
        self.training = False

    def train(self, mode: bool = True) -> CountedModel:
        return self

    def forward(self, inputs: Tensor) -> Tensor:
        self._spent.forwards += len(inputs)
        inputs = inputs.clone()  # a model may work in place, and passes on the same inputs are counted apart
        if inputs.requires_grad and torch.is_grad_enabled():
            inputs.register_hook(self._count_backward)
        return self.model(inputs)

    def _count_backward(self, gradient: Tensor) -> None:
        self._spent.backwards += len(gradient)


class PublishedAutoAttack:
    """AutoAttack as published (package `pyautoattack`), restricted to the members that exist for the number of classes.

    Its `standard` version raises IndexError on 2 classes: DLR needs 3 logits, targeted DLR needs 4. A stochastic victim
    gets its `rand` version, Auto-PGD whose gradients are averaged over 20 draws; with 2 classes without DLR.

    Args:
        attacks: Names of its members; by default those that fit.
        batch_size: Its batch size, on which its verdicts depend.
    Source: Croce & Hein 2020, arXiv:2003.01690.
    """

    knowledge = Knowledge.WHITE_BOX

    def __init__(self, *, attacks: tuple[str, ...] | None = None, batch_size: int = 250) -> None:
        self._attacks = attacks
        self._batch_size = batch_size

    def run(self, access: Access, batch: Batch, ball: Ball, rng: KeyedRandom) -> Tensor:
        """Returns its adversarials; samples that it does not break come back unchanged."""
        from pyautoattack import AutoAttack

        model = CountedModel(access.victim)
        with _own_randomness(batch.inputs), torch.no_grad():
            classes, stochastic = access.victim.task.n_classes, access.victim.randomness is not Randomness.NONE
            attack = AutoAttack(
                model,
                norm=str(ball.norm),
                eps=_one_eps(ball),
                version="custom",
                attacks=list(self._attacks or fitting_members(classes, stochastic=stochastic)),
                seed=rng.seed,
                device=batch.inputs.device,
            )
            attack.verbose = False
            attack.apgd.n_restarts = attack.fab.n_restarts = attack.apgd_targeted.n_restarts = 1  # as in `standard`
            attack.apgd_targeted.n_target_classes = attack.fab.n_target_classes = min(9, classes - 1)
            if stochastic:
                attack.version = "rand"  # not tested for randomness, which is known
                attack.apgd.eot_iter = attack.apgd_targeted.eot_iter = RAND_DRAWS
            with torch.enable_grad():
                return attack.run_standard_evaluation(
                    batch.inputs, batch.targets["label"], batch_size=self._batch_size
                )[0].detach()


class Torchattacks:
    """One attack of the package `torchattacks`.

    Args:
        name: Class name, e.g. "PGD".
        options: Further keyword arguments.
    Source: Kim 2020, arXiv:2010.01950.
    """

    knowledge = Knowledge.WHITE_BOX

    def __init__(self, *, name: str, **options: object) -> None:
        self._name = name
        self._options = options

    def run(self, access: Access, batch: Batch, ball: Ball, rng: KeyedRandom) -> Tensor:
        """Returns its adversarials."""
        import torchattacks

        with _own_randomness(batch.inputs), contextlib.redirect_stdout(io.StringIO()):
            torch.manual_seed(rng.seed)
            attack = getattr(torchattacks, self._name)(CountedModel(access.victim), eps=_one_eps(ball), **self._options)
            attack.set_device(batch.inputs.device)
            return attack(batch.inputs, batch.targets["label"])


def fitting_members(n_classes: int, *, stochastic: bool = False) -> tuple[str, ...]:
    """Returns the members of the published AutoAttack that exist for a number of classes.

    Args:
        n_classes: Number of logits.
        stochastic: Whether the victim is, so that the members are those of the setting `rand`.
    """
    if stochastic:
        return ("apgd-ce", "apgd-dlr") if n_classes >= 3 else ("apgd-ce",)
    if n_classes >= 4:
        return ("apgd-ce", "apgd-t", "fab-t", "square")
    return ("apgd-ce", "apgd-dlr", "fab", "square") if n_classes == 3 else ("apgd-ce", "fab", "square")


def _one_eps(ball: Ball) -> float:
    if ball.eps.numel() > 1 or ball.support is not None or ball.norm not in (Norm.LINF, Norm.L2):
        raise InvalidEntryError("published attacks know one radius, Linf or L2, and no restricted support")
    return float(ball.eps)


@contextlib.contextmanager
def _own_randomness(inputs: Tensor):
    """Keeps torch's global generators as they were; these libraries seed them."""
    with torch.random.fork_rng(devices=[inputs.device] if inputs.is_cuda else []):
        yield
