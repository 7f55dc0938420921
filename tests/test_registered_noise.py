"""Every registered defense that draws random numbers, with its committed weights: the null check, order and shards."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from attacks.engine import Outcome, run_protocol
from attacks.victim import Access, ModelVictim
from datasets.batch import Batch
from datasets.locate import data_root
from datasets.tasks.base import task_for
from defenses.build import defended_model
from registry import DATASETS, DEFENSES, AttackProtocol, CellFacts, Member, Randomness, ThreatModel, linf, load_entries
from registry.errors import CheckpointError
from tests.toys import shuffled

pytestmark = pytest.mark.slow
load_entries()
DATASET = "breastmnist"
NOISY = sorted(
    entry.name for entry in DEFENSES if entry.randomness is not Randomness.NONE and "classification" in entry.tasks
)
SAMPLES = 6


def attacked(name: str, batch: Batch, eps: float) -> Outcome:
    """Returns what a short attack does to a defense.

    Raises:
        CheckpointError: No weights are committed.
    """
    spec, entry = DATASETS[DATASET], DEFENSES[name]
    model, _ = defended_model(entry, spec, 0, None)
    victim = ModelVictim(model, task_for(spec), slots=32, randomness=entry.randomness)
    apgd = Member(name="apgd", attack="attacks.apgd:APGD", options={"steps": 2}, objective="margin")
    protocol = AttackProtocol(
        name="toy",
        title="Two steps",
        threat_model=ThreatModel(),
        budgets=(linf(eps),),
        tasks=("classification",),
        members=lambda facts, budget: (apgd,),
    )
    facts = CellFacts(task="classification", n_classes=spec.n_classes, randomness=entry.randomness)
    return run_protocol(Access(victim=victim, search=victim), batch, protocol, facts)


@pytest.fixture(scope="module")
def batch() -> Batch:
    root = data_root(None)
    if not (Path(root) / DATASETS[DATASET].source.filename).is_file():
        pytest.skip(f"{DATASET} is not in {root}")
    return DATASETS[DATASET].load(root).splits["test"].take(range(SAMPLES))


@pytest.mark.parametrize("name", NOISY)
def test_eps_0_is_the_clean_score_and_order_and_shards_change_nothing(name, batch):
    try:
        plain = attacked(name, batch, 0.0)
    except CheckpointError as error:
        pytest.skip(str(error))
    assert torch.equal(plain.budgets[0].points, batch.inputs)
    assert torch.equal(plain.budgets[0].scores, plain.clean_scores)
    expected = attacked(name, batch, 8 / 255).budgets[0].scores
    other, back = shuffled(batch, 1)
    assert torch.equal(attacked(name, other, 8 / 255).budgets[0].scores[back], expected)
    shards = [attacked(name, batch.take(rows), 8 / 255).budgets[0].scores for rows in (slice(0, 2), slice(2, None))]
    assert torch.equal(torch.cat(shards), expected)
