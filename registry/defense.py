"""What a defended model is: who published it, what it needs, how it is built, trained and claimed to perform."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from registry.errors import InvalidEntryError
from registry.lazy import Reference, reference_name
from registry.threat_model import Budget
from registry.truth import KnownBy, Truth

TWIN = "Undefended"
"""Defense whose model of the same data set and seed is the twin that transfer attacks start from."""


class Family(StrEnum):
    """How a defense works."""

    UNDEFENDED = "undefended"
    ADVERSARIAL_TRAINING = "adversarial training"
    INPUT_TRANSFORMATION = "input transformation"
    PURIFICATION = "purification"
    NOISE_INJECTION = "noise injection"
    REGULARISATION = "regularisation"
    CERTIFIED = "certified"
    DETECTION = "detection"
    ENSEMBLE = "ensemble"
    CONTROL_BROKEN = "control-broken"
    CONTROL_HONEST = "control-honest"


class Randomness(StrEnum):
    """Where a defense draws random numbers at inference."""

    NONE = "none"
    """Same input, same output."""
    SAMPLE = "sample"
    """Noise with a batch axis: every sample has draws of its own."""
    MODEL = "model"
    """Random weights, shared by the whole batch."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Paper:
    """Where a method was published."""

    title: str
    """Title of the paper."""
    authors: str
    """First author et al."""
    year: int
    """Year of publication."""
    url: str
    """https address: arXiv, doi or proceedings."""
    venue: str = ""
    """Conference or journal."""

    def __post_init__(self) -> None:
        if not self.url.startswith("https://"):
            raise InvalidEntryError(f"a paper's url starts with https://, got {self.url!r}")

    def card(self) -> dict[str, object]:
        """Returns the JSON form that records carry."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """A number that the authors of a defense publish."""

    value: float
    """The published number, a fraction."""
    metric: str
    """What it measures, e.g. "robust_accuracy"."""
    dataset: str
    """Data set as the paper names it, or an entry's name."""
    protocol: str
    """Attack, norm, eps and steps as published."""
    source: str
    """Table, section or page."""
    budget: Budget | None = None
    """Budget, where the claim has one that this suite can replay."""

    def card(self) -> dict[str, object]:
        """Returns the JSON form that records carry."""
        card = {name: getattr(self, name) for name in ("value", "metric", "dataset", "protocol", "source")}
        return card | {"budget": self.budget.card() if self.budget else None}


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """How a defense is trained."""

    train: Reference
    """Training function `train(model, dataset, options, progress) -> Training`, see `defenses.recipes`."""
    options: Mapping[str, object] = field(default_factory=dict)
    """Hyper-parameters; what they mean is said where the training function is."""
    per_dataset: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    """Hyper-parameters that differ on the data sets matching a shell pattern, e.g. {"phantom*": {"epochs": 8}}."""

    def card(self) -> dict[str, object]:
        """Returns the JSON form that records carry."""
        return {
            "train": reference_name(self.train),
            "options": dict(self.options),
            "per_dataset": {name: dict(options) for name, options in self.per_dataset.items()},
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """A released weight file (safetensors)."""

    dataset: str
    """Name of the data set it was trained on."""
    seed: int
    """Training seed."""
    url: str
    """https address."""
    sha256: str
    """Checksum of the file."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DefenseEntry:
    """A defended model as the registry knows it."""

    name: str
    """Unique name, <FirstAuthor><Year><Word>, or the field's word for a classic transformation."""
    summary: str
    """One sentence: what it does."""
    family: Family
    """How it works."""
    tasks: tuple[str, ...]
    """Tasks it is made for."""
    build: Reference
    """Factory `build(dataset: DatasetSpec, **build_options) -> nn.Module`; with `base` it also gets `base=module`."""
    build_options: Mapping[str, object] = field(default_factory=dict)
    """Keyword arguments of `build`, e.g. the width."""
    base: str | None = None
    """Defense whose trained model this one wraps, e.g. "Undefended" for an input transformation."""
    recipe: Recipe | None = None
    """How it is trained; None when it has no weights of its own."""
    datasets: tuple[str, ...] = ("*",)
    """Patterns of the data sets it is declared for."""
    one_label: bool = False
    """Whether it, its training or its certificate needs one class for each image, so that several labels do not do."""
    paper: Paper | None = None
    """Publication."""
    trained_for: Budget | None = None
    """Budget that training aimed at."""
    randomness: Randomness = Randomness.NONE
    """Where it draws random numbers at inference."""
    differentiable: bool = True
    """Whether the gradient of its outputs with respect to its inputs is the true one."""
    extra_data: str | None = None
    """Data beyond the training split, or None."""
    checkpoints: tuple[Checkpoint, ...] = ()
    """Released weights; everything else is trained by the recipe."""
    claims: tuple[Claim, ...] = ()
    """What its authors publish."""
    departures: str = ""
    """Where this implementation differs from the paper."""
    certificate: Reference | None = None
    """`certify(model, batch, budgets) -> (budgets, N)`: lower bounds of the scores that no attack can go under."""
    truth: Truth | None = None
    """What is known of its robust score; only controls have it, honest defenses that serve as one included."""
    ranks: bool = True
    """Whether it may have a rank; demonstrations and oracles may not."""
    oracle: bool = False
    """Whether it is told the true label, as one-hot `context`, to show what such a leak does; it never ranks."""
    revision: int = 1
    """Raised when the model or its training changes."""

    def __post_init__(self) -> None:
        for name in ("tasks", "datasets"):
            if isinstance(given := getattr(self, name), str):
                raise InvalidEntryError(f"defense {self.name}: {name} is a tuple, got a text; write ({given!r},)")
        if self.oracle and self.ranks:
            raise InvalidEntryError(
                f"defense {self.name} is told the true labels (oracle=True) and would rank; a model that ranks sees "
                "images alone: write ranks=False, or take oracle=True away"
            )
        if self.oracle and set(self.tasks) != {"classification"}:
            raise InvalidEntryError(f"defense {self.name}: an oracle is told the class of an image, got {self.tasks}")
        if not self.tasks:
            raise InvalidEntryError(f"defense {self.name}: name at least one task")
        if self.recipe is None and self.base is None and not self.checkpoints:
            raise InvalidEntryError(
                f"defense {self.name}: give a recipe, a base or checkpoints; otherwise it has no weights"
            )
        if self.is_control and self.truth is None:
            raise InvalidEntryError(f"defense {self.name} is of the family {self.family}: state its truth")
        if self.detects and (self.randomness is not Randomness.NONE or self.ranks):
            raise InvalidEntryError(
                f"defense {self.name} is a detector: rejecting counts as right, so write ranks=False; and no randomness"
            )
        needed = {KnownBy.BASE: self.base, KnownBy.CERTIFICATE: self.certificate}
        if self.truth is not None and needed.get(self.truth.known_by, "") is None:
            raise InvalidEntryError(f"defense {self.name}: its truth is known by its {self.truth.known_by}; give one")

    @property
    def detects(self) -> bool:
        """Whether it may reject an image: its outputs are logits (N, classes + 1), the last one wins on rejection."""
        return self.family is Family.DETECTION

    @property
    def is_control(self) -> bool:
        """Whether it exists to test the benchmark only; such defenses stay off the boards."""
        return self.family in (Family.CONTROL_BROKEN, Family.CONTROL_HONEST)

    def card(self) -> dict[str, object]:
        """Returns the JSON form that records carry."""
        return {
            "name": self.name,
            "summary": self.summary,
            "family": str(self.family),
            "tasks": list(self.tasks),
            "build": reference_name(self.build),
            "build_options": dict(self.build_options),
            "base": self.base,
            "recipe": self.recipe.card() if self.recipe else None,
            "paper": self.paper.card() if self.paper else None,
            "trained_for": self.trained_for.card() if self.trained_for else None,
            "randomness": str(self.randomness),
            "differentiable": self.differentiable,
            "extra_data": self.extra_data,
            "claims": [claim.card() for claim in self.claims],
            "departures": self.departures,
            "certificate": reference_name(self.certificate) if self.certificate else None,
            "truth": self.truth.card() if self.truth else None,
            "ranks": self.ranks,
            "oracle": self.oracle,
            "revision": self.revision,
        }
