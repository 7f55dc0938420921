"""The heavy part of a run on this machine: data folder, weights and device put together for the runner."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from benchmark.cells import EvaluationCell, TrainingCell
from benchmark.environment import provenance
from benchmark.evaluation_cell import evaluate_cell
from benchmark.runner import Inside
from benchmark.training_cell import train_cell
from benchmark.weights import is_trained, weights_sha256
from registry import DATASETS, DEFENSES, PROTOCOLS, TASKS
from results.adversarials import Adversarials
from results.record import EvaluationRecord, Failure, RecordStatus
from results.store import unfinished_folder


@dataclass(frozen=True, kw_only=True, slots=True)
class Workplace:
    """Where cells run."""

    data_root: Path
    """The data folder."""
    checkpoints: Path
    """Folder of the weights trained here."""
    device: str
    """torch name of the device."""
    results: Path
    """Folder of the records, where interrupted cells keep what they have done."""
    sources: str
    """Checksum of the code that runs, taken when it began."""

    def train(self, cell: TrainingCell, inside: Inside) -> Path:
        """Trains one cell and returns the path of its weights."""
        return train_cell(
            cell, data_root=self.data_root, checkpoints=self.checkpoints, device=self.device, progress=inside
        )

    def evaluate(
        self, cell: EvaluationCell, inside: Inside
    ) -> tuple[EvaluationRecord, pd.DataFrame, Adversarials | None]:
        """Returns the record of one cell, its per-sample facts and its certificates."""
        return evaluate_cell(
            cell,
            data_root=self.data_root,
            checkpoints=self.checkpoints,
            device=self.device,
            progress=inside,
            unfinished=unfinished_folder(self.results, cell.key),
            sources=self.sources,
        )

    def failed_record(self, cell: EvaluationCell, failure: Failure) -> EvaluationRecord:
        """Returns the record that says why a cell failed; it holds no data checksum and no weights."""
        spec = DATASETS[cell.dataset]
        return EvaluationRecord(
            key=cell.key,
            status=RecordStatus.FAILED,
            dataset=spec.card(),
            data_sha256="",
            split=cell.split,
            n_planned=cell.n_samples,
            defense=DEFENSES[cell.defense].card(),
            checkpoint=None,
            protocol=PROTOCOLS[cell.protocol].card(),
            attack_seed=cell.attack_seed,
            revisions=dict(cell.revisions),
            quality=TASKS[spec.task].quality,
            provenance=provenance(self.device),
            failure=failure,
        )

    def is_trained(self, cell: TrainingCell) -> bool:
        """Returns whether the weights of a training are present."""
        return is_trained(cell, self.checkpoints)

    def weights_of(self, cell: EvaluationCell) -> str | None:
        """Returns the checksum of the weights that are present for a cell, or None."""
        return weights_sha256(cell, self.checkpoints)
