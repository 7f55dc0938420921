"""What a protocol attacks: the defended model, the copies that are searched in its place, and its surrogates."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn

from attacks.prepare import is_low_precision, prepare
from attacks.queries import Spent
from attacks.steady import fewest_steady_rows
from attacks.victim import Access, ModelVictim
from datasets.batch import Batch
from datasets.tasks.base import Task
from defenses.stages import declared_stages, hidden_stages, shown
from registry import AttackProtocol, CellFacts, DatasetSpec, Need, Randomness


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A model and what must be known of it to attack it."""

    model: nn.Module
    """In eval mode, on the device."""
    task: Task
    """What a score is."""
    spec: DatasetSpec
    """The data set of the batch."""
    randomness: Randomness = Randomness.NONE
    """Where it draws random numbers."""
    twin: nn.Module | None = None
    """The undefended model of the same data set and seed, or None."""
    examples: Batch | None = None
    """Samples on which its faster copies are compared with it; None for the first ones under attack. Others than those
    keep the choice of a copy, and with it every verdict, apart from what else is attacked, and in which order."""

    def slots(self, batch: Batch) -> int:
        """Returns the rows of a physical batch of these samples."""
        return slots_for(batch.inputs, self.randomness)


def access_to(
    subject: Subject, batch: Batch, protocol: AttackProtocol, *, slots: int, seed: int
) -> tuple[Access, CellFacts]:
    """Returns the victim with its faster copies and surrogates, and the facts that members are chosen by.

    Args:
        subject: The model.
        batch: The samples, on the device.
        protocol: Says which surrogates are needed; one without budgets searches nothing and needs no copies.
        slots: Rows of a physical batch.
        seed: Seed of the attacks.
    """
    spent, some = Spent(), batch
    if subject.examples is not None:
        some = marked(subject, subject.examples.to(batch.inputs.device))
    some = some.take(slice(0, slots))

    def victim(model: nn.Module, randomness: Randomness = Randomness.NONE, **options) -> ModelVictim:
        made = ModelVictim(model, subject.task, slots=slots, randomness=randomness, seed=seed, spent=spent, **options)
        if protocol.budgets:
            made.fewest = fewest_steady_rows(made, some)
        return made

    def fastest(model: nn.Module, *, low_precision: bool = True) -> nn.Module | None:
        drawing = partial(judge.drawing, some.sample_ids)
        return prepare(model, some.inputs, low_precision=low_precision, drawing=drawing)

    random, surrogates = subject.randomness, {}
    judge = victim(subject.model, random)
    fast = fastest(subject.model) if protocol.budgets else None
    search = exact = judge if fast is None else victim(fast, random)
    if fast is not None and is_low_precision(fast):
        exact = victim(fastest(subject.model, low_precision=False) or subject.model, random)
    if random is not Randomness.NONE:
        surrogates[str(Need.FROZEN_DRAW)] = victim(fast or subject.model, random, frozen_draw=0)
    if subject.twin is not None and Need.TWIN in protocol.needs:
        surrogates[str(Need.TWIN)] = victim(fastest(subject.twin) or subject.twin)
    for need in (Need.BARE, Need.MECHANISM):
        part = shown(subject.model, str(need)) if protocol.budgets else None
        if part is not None:
            surrogates[str(need)] = victim(part, random, scored=need is not Need.MECHANISM)
    facts = CellFacts(
        task=subject.task.spec.name,
        n_classes=subject.spec.n_classes,
        multi_label=subject.spec.multi_label,
        randomness=subject.randomness,
        stages=declared_stages(subject.model),
        hidden_stages=hidden_stages(subject.model),
        has_twin=str(Need.TWIN) in surrogates,
        has_bare=str(Need.BARE) in surrogates,
        has_mechanism=str(Need.MECHANISM) in surrogates,
        n_modalities=len(subject.spec.modalities),
        ranked_budget=protocol.ranked_budget or subject.spec.ranked_budget,
    )
    return Access(victim=judge, search=search, exact=exact, surrogates=surrogates), facts


def marked(subject: Subject, batch: Batch) -> Batch:
    """Returns the batch with the false alarms of a detector on its unchanged images; of other models as it is."""
    if not hasattr(subject.task, "mark"):
        return batch
    victim = ModelVictim(subject.model, subject.task, slots=subject.slots(batch), randomness=subject.randomness)
    return subject.task.mark(victim.outputs(batch), batch)


def slots_for(inputs: Tensor, randomness: Randomness = Randomness.NONE) -> int:
    """Returns the rows of a physical batch of such inputs, (N, ...): where a row is cheapest on their device.

    A CPU is filled by 128. A GPU takes 256, or as many as hold 4 million values; with draws that share a batch, up to
    twice as many.
    """
    if not inputs.is_cuda:
        return 128
    most = 256 if randomness is Randomness.NONE else 512
    values = max(1, inputs.shape[1:].numel())
    return min(most, max(32, 2 ** ((1 << 22) // values).bit_length() // 2))


def described(access: Access) -> str:
    """Returns how the model was searched, for people: the size of physical batches and the copy in its place."""
    copy = "itself" if access.search is access.victim else "as a copy"
    precision = " in bfloat16" if is_low_precision(access.search.model) else ""
    fewest, most = access.victim.fewest, access.victim.slots
    rows = f"{most} rows" if fewest == most else f"{fewest} to {most} rows"
    return f"{rows}, searched {copy}{precision}"
