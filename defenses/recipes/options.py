"""Reads the hyper-parameters of a recipe into a typed value, and refuses the ones that nobody would look at."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from registry import Norm
from registry.errors import InvalidEntryError


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """Hyper-parameters that every recipe of the one loop has."""

    epochs: int = 20
    """Passes over the training split."""
    batch_size: int = 64
    """Samples of one step."""
    lr: float = 2e-3
    """Peak learning rate of AdamW; warmed up over the first fifth, then lowered to zero along a cosine."""
    weight_decay: float = 0.05
    """Decoupled weight decay of AdamW, on every parameter of two or more axes."""
    flip: bool = True
    """Mirror half of the training images left to right, masks with them."""
    shift: int = 2
    """Move training images by up to this many pixels along each axis; the border is repeated."""
    validate_every: int = 1
    """Epochs between two validations; the last epoch is always validated."""
    validation_draws: int = 1
    """Passes over the validation split whose scores are averaged: a model that draws numbers answers each otherwise."""
    mixed_precision: bool = False
    """Compute forward passes of training in bfloat16 where the hardware has instructions for it."""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "validate_every", "validation_draws"):
            if getattr(self, name) < 1:
                raise InvalidEntryError(f"option {name} must be 1 or more, got {getattr(self, name)}")
        if self.lr <= 0 or self.weight_decay < 0 or self.shift < 0:
            raise InvalidEntryError(
                "options must hold lr > 0, weight_decay >= 0 and shift >= 0, got "
                f"{self.lr}, {self.weight_decay}, {self.shift}"
            )


@dataclass(frozen=True, kw_only=True)
class InnerOptions:
    """Hyper-parameters of the inner attack of adversarial training."""

    norm: str = "Linf"
    """Linf or L2."""
    eps: float = 4 / 255
    """Radius in input units [0, 1]."""
    steps: int = 5
    """Gradient steps of the inner attack."""
    step_size: float | None = None
    """Length of a step in input units; None for 2.5 eps / steps, the rule of Madry et al."""
    validation_steps: int = 10
    """Gradient steps of the attack on the validation split that selects the epoch."""
    bfloat16: bool = False
    """Compute the inner gradients in bfloat16 where the hardware has instructions for it, about twice as fast."""
    inner_mode: str = "eval"
    """Mode of the model in the inner attack, eval or train; epochs are selected in eval mode in any case."""

    def __post_init__(self) -> None:
        if self.norm not in (Norm.LINF, Norm.L2):
            raise InvalidEntryError(f"option norm is Linf or L2, got {self.norm!r}")
        if self.eps < 0 or (self.norm == Norm.LINF and self.eps > 1):
            raise InvalidEntryError(f"option eps is in input units [0, 1], got {self.eps:g}; write {self.eps:g} / 255")
        if self.inner_mode not in ("eval", "train"):
            raise InvalidEntryError(f"option inner_mode is eval or train, got {self.inner_mode!r}")
        if self.steps < 1 or self.validation_steps < 1:
            raise InvalidEntryError(f"steps must be 1 or more, got {self.steps} and {self.validation_steps}")

    def step_length(self, steps: int) -> float:
        """Returns the length of one of `steps` steps, in input units."""
        return self.step_size if self.step_size is not None else 2.5 * self.eps / steps


@dataclass(frozen=True, kw_only=True)
class WeightOptions:
    """Hyper-parameters of what adversarial training does to the weights."""

    awp_gamma: float = 0.0
    """Size of the adversarial weight perturbation relative to the weights; 0 for none."""
    ema_decay: float = 0.0
    """Decay per step of the moving average of the weights that is validated and kept; 0 for the weights themselves."""

    def __post_init__(self) -> None:
        if self.awp_gamma < 0 or not 0 <= self.ema_decay < 1:
            raise InvalidEntryError(
                "options must hold awp_gamma >= 0 and 0 <= ema_decay < 1, got "
                f"{self.awp_gamma:g} and {self.ema_decay:g}"
            )


T = TypeVar("T")


def read_options(kind: type[T], options: Mapping[str, object]) -> T:
    """Returns the options as an instance of `kind`.

    Raises:
        InvalidEntryError: A name that the recipe does not have (near matches are given), or an impossible value.
    """
    known = [field.name for field in dataclasses.fields(kind)]
    for name in options:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
            raise InvalidEntryError(f"unknown training option {name!r}; {hint}")
    return kind(**options)
