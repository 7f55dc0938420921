"""Admix: gradients over scaled copies, each mixed with a little of another image."""

from __future__ import annotations

import torch
from torch import Tensor

from attacks.draws import KeyedRandom
from attacks.stepped import Rows
from attacks.transformed import TransformedMomentum
from datasets.batch import Batch


class Admix(TransformedMomentum):
    """Momentum steps along the mean gradient over copies (x + eta z) / 2^i, with z an image of another class.

    Args:
        steps: Gradient steps.
        scales: Copies i = 0, 1, ... of each mixture, m1.
        mixtures: Images mixed in at each step, m2.
        eta: Share of the other image.
        step_size: Size of a step as a share of eps; None for 1 / steps.
        momentum: Share of the earlier direction that stays.
        eot_samples: Draws averaged in each answer of a stochastic defense.
        last_only: The last point alone is a candidate.
    Source: Wang et al. 2021, arXiv:2102.00436, equation 6 and algorithm 1. Copies are clipped to [0, 1], which models
        here require, and the other images come from the evaluated set instead of the batch: no verdict depends on
        the neighbours.
    """

    def __init__(
        self,
        *,
        steps: int = 10,
        scales: int = 5,
        mixtures: int = 3,
        eta: float = 0.2,
        step_size: float | None = None,
        momentum: float = 1.0,
        eot_samples: int = 1,
        last_only: bool = False,
    ) -> None:
        super().__init__(
            steps=steps,
            step_size=step_size,
            momentum=momentum,
            evaluations=scales * mixtures,
            eot_samples=eot_samples,
            last_only=last_only,
        )
        self._scales, self._eta = scales, eta
        self._set: Batch | None = None

    def see(self, batch: Batch) -> None:
        """Takes all samples of the cell, in any order."""
        self._set = batch.take(batch.sample_ids.argsort())

    def start(self, rows: Rows, rng: KeyedRandom) -> None:
        super().start(rows, rng)
        rows.memory["other"] = torch.zeros_like(rows.begin)
        rows.memory["scale"] = torch.ones_like(rows.step, dtype=torch.float32)

    def draw(self, rows: Rows, rng: KeyedRandom, place: Tensor) -> None:
        mixture = rows.step - place + place // self._scales  # one for all scales of a step
        keys = rng.keys(rows.batch.sample_ids, rows.restart, mixture)
        chance = rng.uniform(keys, (len(self._set),))
        own = self._set.sample_ids[None] == rows.batch.sample_ids[:, None]
        label = rows.batch.targets.get("label")
        same = own if label is None else self._set.targets["label"][None] == label[:, None]
        chosen = (chance - 1.0 * same - 1.0 * own).argmax(1)  # another class; else another image; else the image itself
        rows.memory["other"] = self._set.inputs[chosen]
        rows.memory["scale"] = 0.5 ** (place % self._scales).to(torch.float32)

    def transform(self, points: Tensor, rows: Rows) -> Tensor:
        scale = rows.memory["scale"].reshape(-1, *[1] * (points.ndim - 1))
        return (scale * (points + self._eta * rows.memory["other"])).clamp(0, 1)
