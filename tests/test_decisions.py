"""One decision of each sample: pixels of label maps and single labels are asked whether their margins jump."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from attacks.soundness.decisions import PLACE, decisions, one_decision
from attacks.soundness.examination import examine
from attacks.soundness.finding import Finding
from attacks.soundness.jump import MANY_LIMIT, jump_finding
from attacks.victim import Access, ModelVictim
from datasets.batch import Batch
from datasets.tasks.classification import Classification, MultiLabelClassification
from datasets.tasks.segmentation import Segmentation
from registry import Budget, CellFacts, Member, Norm, Randomness
from tests.toys import NoisyInput, attack, batch_for, images, linear, protocol_of

SHAPE, N, LABELS = (1, 8, 8), 12, 5


class Maps(nn.Module):
    """Logits of each pixel from its neighbourhood, for images around one half."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        weight = torch.randn((3, 1, 3, 3), generator=torch.Generator().manual_seed(seed))
        self.weight = nn.Parameter(weight - weight.mean((2, 3), keepdim=True))

    def forward(self, inputs: Tensor) -> Tensor:
        return nn.functional.conv2d(inputs - 0.5, self.weight.to(inputs.dtype), padding=1)


class Behind(nn.Module):
    """Decides what one model decides, by as much as another is sure of something else; on a gentle ramp, or at once."""

    def __init__(self, base: nn.Module, other: nn.Module, *, band: float) -> None:
        super().__init__()
        self.base, self.other, self.band = base, other, band

    def forward(self, inputs: Tensor) -> Tensor:
        with torch.no_grad():
            logits = self.base(inputs)
            if logits.ndim == 2:
                side, lead = logits.sign(), logits.abs()
            else:
                first, second = logits.topk(2, 1).values.unbind(1)
                side = torch.zeros_like(logits).scatter(1, logits.argmax(1, keepdim=True), 1.0)
                lead = (first - second)[:, None]
            ramp = (lead / self.band).clamp(max=1)
        height = nn.functional.softplus(4 + self.other(inputs))
        return side * (height if height.ndim == 2 else height[:, :1]) * ramp


TASKS = {"label maps": Segmentation(3), "several labels": MultiLabelClassification(LABELS)}
BASES = {
    "label maps": (Maps(0), Maps(7)),
    "several labels": (linear(LABELS, shape=SHAPE), linear(LABELS, shape=SHAPE, seed=7)),
}


def batch_of(task: str, wrong: float = 0.1) -> Batch:
    """Returns images as one model decides them, but for some decisions."""
    inputs = images(N, shape=SHAPE)
    with torch.no_grad():
        outputs = BASES[task][0](inputs)
    flipped = torch.rand(outputs.argmax(1).shape, generator=torch.Generator().manual_seed(3)) < wrong
    if task == "label maps":
        targets = {"mask": torch.where(flipped, (outputs.argmax(1) + 1) % 3, outputs.argmax(1))}
    else:
        labels = (outputs > 0).float()
        targets = {"labels": labels, "weights": torch.ones_like(labels)}
    return Batch(sample_ids=torch.arange(N), inputs=inputs, targets=targets)


def found(task: str, model: nn.Module, *, slope: bool = True) -> Finding:
    batch = batch_of(task)
    victim = ModelVictim(model, TASKS[task], slots=32)
    return jump_finding(victim, batch, torch.arange(N), victim.outputs(batch), slope=slope)


@pytest.mark.parametrize("task", TASKS)
def test_margins_that_follow_the_decisions_do_not_jump(task):
    finding = found(task, BASES[task][0])
    assert not finding.red and finding.values["share"] < MANY_LIMIT / 2 and finding.values["n"] > 40, finding.evidence
    assert 0.95 < finding.values["boundary eps/4"] < 1.3  # over 1: a margin to several classes is convex


@pytest.mark.parametrize("task", TASKS)
def test_decisions_behind_another_margin_jump(task):
    finding = found(task, Behind(*BASES[task], band=1e-3))
    assert finding.red and finding.values["share"] > 0.5, finding.evidence


@pytest.mark.parametrize("task", TASKS)
def test_a_gentle_ramp_has_another_slope_than_its_gradient_says(task):
    finding = found(task, Behind(*BASES[task], band=2.0))
    assert finding.red and finding.values["share"] < MANY_LIMIT, finding.evidence
    assert not 0.3 < finding.values["boundary eps/4"] < 2.5


@pytest.mark.parametrize("task", TASKS)
def test_a_chosen_decision_is_right_and_another_image_decides_otherwise(task):
    batch, victim = batch_of(task), ModelVictim(BASES[task][0], TASKS[task], slots=32)
    outputs = victim.outputs(batch)
    samples, other = decisions(TASKS[task], batch, torch.tensor([1, 4, 7]), outputs, 16)
    assert len(samples) == 16 and sorted(samples.sample_ids.unique().tolist()) == [1, 4, 7]
    assert len(set(zip(samples.sample_ids.tolist(), samples.targets[PLACE].tolist(), strict=True))) > 6
    single = one_decision(victim)
    assert torch.equal(single.outputs(samples).argmax(1), samples.targets["label"])
    assert (other[::2] >= 0).all() and (other[1::2] < 0).all()  # half are drawn whatever other images say
    theirs = single.outputs(samples.with_inputs(batch.inputs[other])).argmax(1)
    assert (theirs != samples.targets["label"])[::2].all()


def test_labels_that_count_nothing_are_not_chosen():
    batch = batch_of("several labels")
    weights = torch.zeros(N, LABELS).index_fill_(1, torch.tensor([2]), 1.0)
    batch = batch.with_target("weights", weights)
    outputs = BASES["several labels"][0](batch.inputs).detach()
    samples, _ = decisions(TASKS["several labels"], batch, torch.arange(N), outputs, 30)
    assert (samples.targets[PLACE] == 2).all()


def test_rare_classes_are_drawn_as_often_as_others():
    """Three of four pixels are of class 0; a third of the decisions are."""
    batch, rare = batch_of("label maps", wrong=0.0), torch.zeros(N, 8, 8, dtype=torch.int64)
    rare[:, 0, :8], rare[:, 1, :8] = 1, 2
    outputs = nn.functional.one_hot(rare, 3).movedim(-1, 1).float()
    samples, _ = decisions(TASKS["label maps"], batch.with_target("mask", rare), torch.arange(N), outputs, 120)
    assert samples.targets["label"].bincount().min() > 25


@pytest.mark.parametrize("task", TASKS)
def test_noise_hides_no_jump(task):
    """Under the sample's own noise another image may decide alike; such pairs have no boundary, and are not counted."""
    batch, model = batch_of(task), NoisyInput(Behind(*BASES[task], band=1e-3), 0.4, drop=0.0)
    victim = ModelVictim(model, TASKS[task], slots=32, randomness=Randomness.SAMPLE)
    finding = jump_finding(victim, batch, torch.arange(N), victim.outputs(batch), slope=False)
    assert finding.red and finding.values["share"] > 0.6, finding.evidence


def test_an_evaluation_of_label_maps_asks_for_jumps():
    """In L0, where no probe runs attacks."""
    options = {"attack": "attacks.pgd_l0:PGD0", "options": {"steps": 2}, "objective": "soft-dice"}
    protocol = replace(protocol_of(Member(name="pgd0", **options), eps=(1,), norm=Norm.L0), ranks=True)
    facts = CellFacts(task="segmentation", n_classes=3, ranked_budget=Budget(norm=Norm.L0, eps=1))
    batch, red = batch_of("label maps"), {}
    for name, model in {"honest": BASES["label maps"][0], "decoy": Behind(*BASES["label maps"], band=1e-3)}.items():
        victim = ModelVictim(model, TASKS["label maps"], slots=32)
        outcome = attack(model, batch, protocol, task=TASKS["label maps"], slots=32)
        _, found, _ = examine(Access(victim=victim, search=victim), batch, protocol, facts, outcome)
        red[name] = {finding.name: finding.red for finding in found}["jumping-margin"]
    assert red == {"honest": False, "decoy": True}


def test_noise_is_that_of_the_sample():
    """The logits of a decision are those of the whole output under the same draw."""
    batch = batch_of("label maps")
    victim = ModelVictim(
        NoisyInput(BASES["label maps"][0], drop=0.0), TASKS["label maps"], slots=7, randomness=Randomness.SAMPLE
    )
    outputs = victim.outputs(batch)
    samples, _ = decisions(TASKS["label maps"], batch, torch.arange(N), outputs, 24)
    place = samples.targets[PLACE]
    whole = outputs[samples.sample_ids].flatten(2)[torch.arange(len(samples)), :, place]
    assert torch.allclose(one_decision(victim).outputs(samples), whole, atol=1e-5)


@pytest.mark.parametrize("task", [*TASKS, "one label"])
def test_without_a_right_sample_there_is_nothing_to_ask(task):
    if task == "one label":
        model, kind = linear(2, shape=SHAPE), Classification(2)
        batch = batch_for(model, images(N, shape=SHAPE))
    else:
        model, kind, batch = BASES[task][0], TASKS[task], batch_of(task)
    victim = ModelVictim(model, kind, slots=32)
    finding = jump_finding(victim, batch, torch.arange(0), victim.outputs(batch))
    assert not finding.red and finding.values["n"] == 0
