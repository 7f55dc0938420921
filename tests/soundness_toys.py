"""What the tests of soundness share: broken and honest toys, and one examination of each."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from attacks.engine import Outcome, run_protocol
from attacks.soundness.escalation import Escalation
from attacks.soundness.examination import examine
from attacks.soundness.finding import Finding
from attacks.victim import Access, ModelVictim
from datasets.batch import Batch
from datasets.tasks.classification import Classification
from registry import AttackProtocol, CellFacts, Member, Randomness, linf
from tests.toys import Linear, batch_for, images, linear, protocol_of

SHAPE = (1, 8, 8)
APGD, SQUARE = "attacks.apgd:APGD", "attacks.square:Square"
MARGIN = Member(name="apgd-margin", attack=APGD, options={"steps": 20}, objective="margin")
QUERIES = Member(name="square", attack=SQUARE, options={"queries": 100}, objective="margin")
CROSS_ENTROPY = Member(name="apgd-ce", attack=APGD, options={"steps": 20})


class Rounded(nn.Module):
    """Rounds to some levels and does not say so."""

    def __init__(self, levels: int = 16) -> None:
        super().__init__()
        self.levels = levels

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.round(inputs * self.levels) / self.levels


class Scaled(nn.Module):
    """Logits times a factor."""

    def __init__(self, base: nn.Module, factor: float) -> None:
        super().__init__()
        self.base, self.factor = base, factor

    def forward(self, inputs: Tensor) -> Tensor:
        return self.base(inputs) * self.factor


class Decoy(nn.Module):
    """Says what one model decides, in logits whose gradient is another's."""

    def __init__(self, base: nn.Module, decoy: nn.Module) -> None:
        super().__init__()
        self.base, self.decoy = base, decoy

    def forward(self, inputs: Tensor) -> Tensor:
        decided = self.base(inputs).argmax(1)
        return 20 * nn.functional.one_hot(decided, 2).to(inputs.dtype) + 0.02 * self.decoy(inputs)


class Ramp(nn.Module):
    """A decoy without any jump: logits rise steeply, yet evenly, where the decision turns."""

    def __init__(self, base: nn.Module, decoy: nn.Module) -> None:
        super().__init__()
        self.base, self.decoy = base, decoy

    def forward(self, inputs: Tensor) -> Tensor:
        margin = self.base(inputs) @ torch.tensor([-1.0, 1.0], dtype=inputs.dtype)
        steep = 20 * torch.tanh(1e4 * margin)
        return torch.stack([-steep, steep], 1) / 2 + 0.02 * self.decoy(inputs)


class Unlikely(nn.Module):
    """A model with one more class, which nobody is."""

    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        self.base = base

    def forward(self, inputs: Tensor) -> Tensor:
        logits = self.base(inputs)
        return torch.cat([logits, torch.full_like(logits[:, :1], -1e3)], 1)


class WhereDark(nn.Module):
    """One model on the darker images, another one, with far larger logits, on the others."""

    def __init__(self, dark: nn.Module, bright: nn.Module, level: float) -> None:
        super().__init__()
        self.dark, self.bright, self.level = dark, bright, level

    def forward(self, inputs: Tensor) -> Tensor:
        dark = inputs.flatten(1).mean(1, keepdim=True) < self.level
        return torch.where(dark, self.dark(inputs), 1e4 * self.bright(inputs))


class Saturating(nn.Module):
    """Logits behind a hyperbolic tangent that is flat nearly everywhere."""

    def __init__(self, base: nn.Module, factor: float = 1e3) -> None:
        super().__init__()
        self.base, self.factor = base, factor

    def forward(self, inputs: Tensor) -> Tensor:
        logits = self.base(inputs)
        return torch.tanh((logits - logits.mean(1, keepdim=True)) * self.factor)


class RippledInOne(nn.Module):
    """A sine and a linear model in one `forward`: there is no stage to find."""

    def __init__(self, base: Linear, height: float = 0.01, frequency: float = 3000.0) -> None:
        super().__init__()
        self.base, self.height, self.frequency = base, height, frequency
        self.weight = nn.Parameter(base.weight.detach().clone())

    def forward(self, inputs: Tensor) -> Tensor:
        rippled = inputs + self.height * torch.sin(self.frequency * inputs)
        return (rippled.flatten(1) - 0.5) @ self.weight.T


class Remembering(nn.Module):
    """Keeps the first images that it sees, in no buffer, and later pulls every input most of the way to the nearest."""

    def __init__(self, base: nn.Module, most: int = 8) -> None:
        super().__init__()
        self.base, self.most, self.seen = base, most, []

    def forward(self, inputs: Tensor) -> Tensor:
        if sum(len(images) for images in self.seen) < self.most:
            self.seen.append(inputs.detach().clone())
            return self.base(inputs)
        stored = torch.cat(self.seen).to(inputs.dtype)
        nearest = (inputs.detach()[:, None] - stored[None]).abs().flatten(2).amax(2).argmin(1)
        return self.base(inputs + 0.9 * (stored[nearest] - inputs))


class Sharing(Remembering):
    """Its copies remember what it remembers."""

    def __deepcopy__(self, memo: dict) -> Sharing:
        other = Sharing(copy.deepcopy(self.base, memo), self.most)
        other.seen = self.seen
        return other.eval()


class Lifted(nn.Module):
    """Adds one number to all logits."""

    def __init__(self, base: nn.Module, height: float = 1e6) -> None:
        super().__init__()
        self.base, self.height = base, height

    def forward(self, inputs: Tensor) -> Tensor:
        return self.base(inputs) + self.height


class OffGrid(nn.Module):
    """One model on images whose values are multiples of 1/255, as stored ones are, and another one everywhere else."""

    def __init__(self, stored: nn.Module, other: nn.Module) -> None:
        super().__init__()
        self.stored, self.other = stored, other

    def forward(self, inputs: Tensor) -> Tensor:
        levels = inputs.detach() * 255
        off = (levels - levels.round()).abs().flatten(1).amax(1) > 1e-3
        if not off.any():
            return self.stored(inputs)
        return torch.where(off[:, None], self.other(inputs), self.stored(inputs))


@dataclass(frozen=True, kw_only=True)
class Examined:
    """One examination."""

    before: Outcome
    after: Outcome
    findings: dict[str, Finding]
    escalation: Escalation | None

    @property
    def red(self) -> set[str]:
        """Names of the flags that hold."""
        return {name for name, finding in self.findings.items() if finding.red}

    @property
    def started_by(self) -> set[str]:
        """Names of the flags that started the escalation."""
        return {finding.name for finding in self.escalation.flags} if self.escalation else set()

    @property
    def robust(self) -> float:
        """Mean worst score at the ranked budget."""
        return float(self.after.budgets[0].scores.mean())


def flat_linear(seed: int = 0) -> Linear:
    """Returns a linear model of 2 classes whose margins are of the size that eps 0.02 moves."""
    return linear(2, shape=SHAPE, seed=seed)


def cell(
    model: nn.Module,
    batch: Batch,
    *,
    eps: float = 0.02,
    members: tuple[Member, ...] = (MARGIN, QUERIES),
    randomness: Randomness = Randomness.NONE,
    twin: nn.Module | None = None,
    stages: tuple[str, ...] = (),
    larger: bool = True,
) -> tuple[Access, AttackProtocol, CellFacts]:
    """Returns what the engine and the examination need of a toy."""
    with torch.no_grad():
        task = Classification(model(batch.inputs[:1]).shape[1])
    victim = ModelVictim(model.eval(), task, slots=32, randomness=randomness)
    surrogates = {} if twin is None else {"twin": ModelVictim(twin, task, slots=32)}
    protocol = replace(protocol_of(*members, eps=(eps, 2 * eps) if larger else (eps,)), ranks=True)
    facts = CellFacts(
        task="classification",
        n_classes=task.n_classes,
        randomness=randomness,
        stages=stages,
        has_twin=twin is not None,
        ranked_budget=linf(eps),
    )
    return Access(victim=victim, search=victim, surrogates=surrogates), protocol, facts


def examined(model: nn.Module, base: nn.Module | None = None, *, n: int = 32, seed: int = 0, **options) -> Examined:
    """Attacks and examines a toy on images labelled by `base`, the model behind its tricks."""
    batch = batch_for(base or model, images(n, shape=SHAPE))
    access, protocol, facts = cell(model, batch, **options)
    before = run_protocol(access, batch, protocol, facts, seed=seed)
    after, findings, escalation = examine(access, batch, protocol, facts, before, seed=seed)
    return Examined(
        before=before, after=after, findings={finding.name: finding for finding in findings}, escalation=escalation
    )
