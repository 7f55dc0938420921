"""Adds what a defense can prove of itself to its record, beside what attacks found."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
from torch import nn

from datasets.batch import Batch
from registry import DefenseEntry, Randomness, ThreatKind, resolve
from results.budgets import as_budget
from results.certificates import CERTIFIED, MAJORITY, certified_column, check_certificates
from results.record import EvaluationRecord
from results.sample_design import SampleDesign
from results.statistics import is_binary, mean_estimate


def with_certificates(
    entry: DefenseEntry, model: nn.Module, batch: Batch, record: EvaluationRecord, samples: pd.DataFrame
) -> tuple[EvaluationRecord, pd.DataFrame]:
    """Returns a record and its sample table with the certificate of every budget; as they are where there is none.

    A certificate holds in a ball: it says nothing of corruptions, whose budgets are severities.

    Args:
        entry: The defense.
        model: It, in eval mode.
        batch: The evaluated samples, in the order of the table.
        record: What the attacks came to.
        samples: Its sample table.

    Raises:
        ViolatedCertificateError: An attack found less than the certificate proves.
    """
    if entry.certificate is None or not record.budgets or record.protocol["threat_model"]["kind"] != ThreatKind.BALL:
        return record, samples
    budgets = [as_budget(result.budget) for result in record.budgets]
    bounds = resolve(entry.certificate)(model, batch, budgets).double().cpu().numpy()
    columns = {certified_column(index): row for index, row in enumerate(bounds)}
    samples = samples.assign(**columns)
    stochastic = entry.randomness is not Randomness.NONE
    design = SampleDesign.of(samples)
    results = [
        replace(result, metrics=result.metrics | _metrics(row, stochastic, design))
        for result, row in zip(record.budgets, bounds, strict=True)
    ]
    record = replace(record, budgets=tuple(results))
    check_certificates(record, samples)
    return record, samples


def _metrics(bounds: np.ndarray, stochastic: bool, design: SampleDesign) -> dict:
    found = {CERTIFIED: mean_estimate(bounds, is_binary(bounds), design)}
    if stochastic:
        found[MAJORITY] = mean_estimate(bounds > 0.5, True, design)
    return found
