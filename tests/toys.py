"""Toy victims and data that several tests share: small, deterministic, and with known truths."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attacks.engine import Outcome, run_protocol
from attacks.journal import Journal
from attacks.victim import Access, ModelVictim
from datasets.batch import Batch
from datasets.tasks.base import Task
from datasets.tasks.classification import Classification
from registry import AttackProtocol, Budget, CellFacts, Member, Norm, Randomness, ThreatModel


class Linear(nn.Module):
    """Logits W (x - 0.5): centred, so that inputs around 0.5 have margins of both signs."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, inputs: Tensor) -> Tensor:
        return (inputs.flatten(1) - 0.5) @ self.weight.T


class NoisyInput(nn.Module):
    """Adds Gaussian noise and drops values: randomness with a batch axis."""

    def __init__(self, base: nn.Module, sigma: float = 0.1, drop: float = 0.1) -> None:
        super().__init__()
        self.base, self.sigma, self.drop = base, sigma, drop

    def forward(self, inputs: Tensor) -> Tensor:
        noisy = inputs + self.sigma * torch.randn_like(inputs)
        return self.base(F.dropout(noisy - 0.5, self.drop, training=True) + 0.5)


class RandomWeights(nn.Module):
    """Adds one draw of noise, shared by the whole batch, to a linear model's weights."""

    def __init__(self, base: Linear, sigma: float = 0.1) -> None:
        super().__init__()
        self.base, self.sigma = base, sigma

    def forward(self, inputs: Tensor) -> Tensor:
        weight = self.base.weight + self.sigma * torch.randn(self.base.weight.shape)
        return (inputs.flatten(1) - 0.5) @ weight.T


class Detached(nn.Module):
    """No path leads from the outputs back to the inputs."""

    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        self.base = base

    def forward(self, inputs: Tensor) -> Tensor:
        return self.base(inputs.detach())


class Quantise(nn.Module):
    """A declared stage: rounds to some levels; its gradient is zero nearly everywhere."""

    def __init__(self, levels: int = 16) -> None:
        super().__init__()
        self.levels = levels

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.round(inputs * self.levels) / self.levels

    def bpda_twin(self, inputs: Tensor) -> Tensor:
        return inputs


class Sine(nn.Module):
    """Shatters the gradient: adds a tiny ripple with a steep slope."""

    def __init__(self, height: float = 0.01, frequency: float = 3000.0) -> None:
        super().__init__()
        self.height, self.frequency = height, frequency

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs + self.height * torch.sin(self.frequency * inputs)


class BatchDependent(nn.Module):
    """Shifts inputs by the mean of their batch, as batch normalisation in training mode does."""

    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        self.base = base

    def forward(self, inputs: Tensor) -> Tensor:
        return self.base(inputs - inputs.mean(0, keepdim=True) + 0.5)


class Counting(nn.Module):
    """Counts its forward passes in a buffer."""

    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        self.base = base
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, inputs: Tensor) -> Tensor:
        self.calls += 1
        return self.base(inputs)


class StuckInTraining(nn.Sequential):
    """Ignores `eval()`."""

    def train(self, mode: bool = True) -> StuckInTraining:
        return super().train(True)


class NotANumber(nn.Module):
    """Returns NaN for every input with a value away from the given originals, as an overflowing model does."""

    def __init__(self, base: nn.Module, originals: Tensor) -> None:
        super().__init__()
        self.base, self.originals = base, originals

    def forward(self, inputs: Tensor) -> Tensor:
        distance = (inputs[:, None] - self.originals[None]).abs().flatten(2).amax(2).amin(1)
        return torch.where((distance > 0)[:, None], torch.nan, self.base(inputs))


def linear(n_classes: int, *, shape: Sequence[int] = (1, 4, 4), seed: int = 0) -> Linear:
    """Returns a linear model with standard normal weights, in eval mode."""
    size = int(torch.tensor(shape).prod())
    return Linear(torch.randn(n_classes, size, generator=torch.Generator().manual_seed(seed))).eval()


def cnn(n_classes: int = 3, *, channels: int = 1, seed: int = 0) -> nn.Module:
    """Returns a small convolutional network with batch normalisation, in eval mode with random statistics."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        norm = nn.BatchNorm2d(6)
        norm.running_mean.normal_(std=0.1)
        norm.running_var.uniform_(0.5, 1.5)
        layers = [nn.Conv2d(channels, 6, 3, padding=1), norm, nn.ReLU(), nn.Conv2d(6, 8, 3, stride=2), nn.ReLU()]
        model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, n_classes)).eval()
    with torch.no_grad():  # centred, so that every class occurs
        model[-1].bias -= model(images(200, shape=(channels, 8, 8))).mean(0)
    return model


def images(n: int, *, shape: Sequence[int] = (1, 4, 4), seed: int = 1, low: float = 0.2, high: float = 0.8) -> Tensor:
    """Returns uniform images that keep away from 0 and 1."""
    return low + (high - low) * torch.rand(n, *shape, generator=torch.Generator().manual_seed(seed))


def batch_for(model: nn.Module, inputs: Tensor, *, wrong: int = 0) -> Batch:
    """Returns a classification batch labelled by the model itself; the first `wrong` labels are false."""
    with torch.no_grad():
        logits = model(inputs)
    label = logits.argmax(1)
    label[:wrong] = (label[:wrong] + 1) % logits.shape[1]
    return Batch(sample_ids=torch.arange(len(inputs)) + 100, inputs=inputs, targets={"label": label})


def trained(seed: int = 0) -> tuple[nn.Module, Batch]:
    """Returns a small network that tells which third of an image is bright, and its 200 test images."""
    generator = torch.Generator().manual_seed(seed)
    label = torch.randint(0, 3, (400,), generator=generator)
    inputs = 0.3 + 0.4 * torch.rand(400, 1, 8, 8, generator=generator)
    for row, k in enumerate(label.tolist()):
        inputs[row, 0, :, 2 * k + 1 : 2 * k + 3] += 0.1
    model = cnn(3, seed=seed).train()
    optimiser = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(40):
        optimiser.zero_grad()
        F.cross_entropy(model(inputs[:200]), label[:200]).backward()
        optimiser.step()
    batch = batch_for(model.eval(), inputs[200:])
    return model.requires_grad_(False), batch.with_target("label", label[200:])


def robust_gap(model: Linear, batch: Batch, eps: float, norm: Norm = Norm.LINF) -> Tensor:
    """Returns the smallest margin that an attacker of a linear model can reach inside [0, 1]; robust when over 0.

    L1 and L0 are exact: the steepest values or pixels go as far as [0, 1] lets them. Linf and L2 are exact where
    inputs stay eps away from 0 and 1: margin of each wrong class minus eps times the dual norm.
    """
    label = batch.targets["label"]
    logits = model(batch.inputs).detach()
    margins = logits.gather(1, label[:, None]) - logits
    difference = model.weight.detach()[label][:, None] - model.weight.detach()[None]
    gaps = margins - _largest_gain(difference, batch.inputs, eps, norm)
    return gaps.scatter(1, label[:, None], torch.inf).amin(1)


def _largest_gain(difference: Tensor, inputs: Tensor, eps: float, norm: Norm) -> Tensor:
    """Returns how much a perturbation of size eps lowers `difference` (N, classes, values) times the inputs."""
    if norm is Norm.LINF:
        return eps * difference.abs().sum(2)
    if norm is Norm.L2:
        return eps * difference.norm(dim=2)
    flat = inputs.flatten(1)[:, None]
    room = torch.where(difference > 0, flat, 1 - flat)
    if norm is Norm.L0:
        whole = (difference.abs() * room).unflatten(2, inputs.shape[1:]).sum(2).flatten(2)
        return whole.topk(int(eps), dim=2).values.sum(2)
    order = difference.abs().argsort(2, descending=True)
    slope, room = difference.abs().gather(2, order), room.gather(2, order)
    spent = torch.minimum((eps - room.cumsum(2) + room).clamp(min=0), room)
    return (slope * spent).sum(2)


def protocol_of(
    *members: Member, eps: Sequence[float] = (0.05,), norm: Norm = Norm.LINF, support: str = "everything", **threat
) -> AttackProtocol:
    """Returns a protocol of these members at these budgets."""
    return AttackProtocol(
        name="toy",
        title="Toy",
        threat_model=ThreatModel(norm=norm, support=support, **threat),
        budgets=tuple(Budget(norm=norm, eps=value) for value in eps),
        tasks=("classification",),
        members=lambda facts, budget: members,
    )


def attack(
    model: nn.Module,
    batch: Batch,
    protocol: AttackProtocol,
    *,
    task: Task | None = None,
    slots: int = 8,
    seed: int = 0,
    randomness: Randomness = Randomness.NONE,
    search: nn.Module | None = None,
    twin: nn.Module | None = None,
    journal: Journal | None = None,
) -> Outcome:
    """Runs a protocol through the engine on a toy victim."""
    task = task or Classification(model(batch.inputs[:1]).shape[1])

    def victim(module: nn.Module, kind: Randomness = Randomness.NONE, **options) -> ModelVictim:
        return ModelVictim(module, task, slots=slots, randomness=kind, seed=seed, **options)

    judge = victim(model, randomness)
    surrogates = {} if twin is None else {"twin": victim(twin)}
    if randomness is not Randomness.NONE:
        surrogates["frozen_draw"] = victim(model, randomness, frozen_draw=0)
    access = Access(victim=judge, search=judge if search is None else victim(search), surrogates=surrogates)
    facts = CellFacts(
        task=task.spec.name, n_classes=getattr(task, "n_classes", 2), randomness=randomness, has_twin=twin is not None
    )
    return run_protocol(access, batch, protocol, facts, seed=seed, journal=journal)


def shuffled(batch: Batch, seed: int) -> tuple[Batch, Tensor]:
    """Returns the batch in another order, and the place of each original row in it."""
    order = torch.randperm(len(batch), generator=torch.Generator().manual_seed(seed))
    return batch.take(order), order.argsort()
