"""How far the images that a purifier or filter hands on are from the clean ones: on clean and on attacked inputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from attacks.engine import Outcome
from attacks.victim import ModelVictim
from benchmark.batch_design import design_of
from benchmark.summary import Summary
from datasets.batch import Batch
from results.record import BudgetResult, Estimate
from results.statistics import mean_estimate

ROUNDING_MSE = 1 / (12 * 255**2)
"""Mean squared error of rounding to 8 bits: an image that differs less counts as this far, or its PSNR is infinite."""
SSIM_WINDOW = 11
"""Edge of the window of structural similarity, in pixels."""

Metrics = dict[str, Estimate]


def with_restored_images(
    summary: Summary, model: nn.Module, victim: ModelVictim, batch: Batch, outcome: Outcome
) -> tuple[Metrics, tuple[BudgetResult, ...]]:
    """Returns the clean metrics and the budgets of a summary, with the quality of restored images where there are any.

    Clean quality is a mean over all images. At a budget it is one over the images whose stored worst input differs from
    the original, as `n` says: all others are clean images, whose quality is known already.

    Args:
        summary: What else is known.
        model: The defended model; one without the method `restored` shows no such images, and one that resizes its
            inputs none that can be compared with them.
        victim: Says how it is evaluated: size of batches, draws of its noise.
        batch: The evaluated samples.
        outcome: Worst inputs, as they are stored.
    """
    if not callable(getattr(model, "restored", None)):
        return summary.clean, summary.budgets
    shown = ModelVictim(
        Restorer(model), victim.task, slots=victim.slots, fewest=victim.fewest, randomness=victim.randomness
    )

    one = batch.take(slice(0, 1))
    if not len(one) or shown.outputs(one).shape != one.inputs.shape:
        return summary.clean, summary.budgets

    def quality(rows: Tensor, inputs: Tensor) -> Metrics:
        part = batch.take(rows)
        found = image_quality(_images(part.inputs), _images(shown.outputs(part.with_inputs(inputs))))
        return {f"restored_{name}": _estimate(values, part) for name, values in found.items()}

    everything = torch.arange(len(batch), device=batch.inputs.device)
    clean = summary.clean | quality(everything, batch.inputs)
    budgets = []
    for result, found in zip(summary.budgets, outcome.budgets, strict=True):
        rows = (found.points != batch.inputs).flatten(1).any(1).nonzero()[:, 0]
        if len(rows):
            attacked = image_quality(_images(batch.inputs[rows]), _images(found.points[rows]))["psnr"]
            more = quality(rows, found.points[rows]) | {"attacked_psnr": _estimate(attacked, batch.take(rows))}
            result = replace(result, metrics=result.metrics | more)
        budgets.append(result)
    return clean, tuple(budgets)


def image_quality(clean: np.ndarray, images: np.ndarray) -> Mapping[str, np.ndarray]:
    """Returns PSNR in dB, structural similarity and mean squared error of each image against its clean one.

    Args:
        clean: float64 (N, C, H, W) in [0, 1].
        images: The same shape; values beyond [0, 1] are cut off, as a screen would.

    Returns:
        "psnr", "mse" and, of images with edges of 11 pixels and more, "ssim": float64 (N,) each.
    Source: scikit-image; SSIM with the Gaussian window of Wang et al. 2004, doi 10.1109/TIP.2003.819861.
    """
    from skimage.metrics import mean_squared_error, peak_signal_noise_ratio, structural_similarity

    large, window = (
        min(clean.shape[-2:]) >= SSIM_WINDOW,
        {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False},
    )
    largest = 10 * np.log10(1 / ROUNDING_MSE)
    psnr, ssim, mse = (np.zeros(len(clean)) for _ in range(3))
    for row, (original, image) in enumerate(zip(clean, np.clip(images, 0, 1), strict=True)):
        mse[row] = mean_squared_error(original, image)
        near = mse[row] <= ROUNDING_MSE
        psnr[row] = largest if near else peak_signal_noise_ratio(original, image, data_range=1)
        if large:
            ssim[row] = structural_similarity(original, image, data_range=1, channel_axis=0, **window)
    return {"psnr": psnr, "mse": mse} | ({"ssim": ssim} if large else {})


class Restorer(nn.Module):
    """A model seen as the map from images to restored images.

    Args:
        model: Has the method `restored`.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Tensor, **beside: Tensor) -> Tensor:
        """Returns the restored images; `beside` is what else the model takes, e.g. `context`."""
        return self.model.restored(inputs, **beside)


def _estimate(values: np.ndarray, batch: Batch) -> Estimate:
    return mean_estimate(values, False, design_of(batch).equally())


def _images(inputs: Tensor) -> np.ndarray:
    """Returns images as float64 (N, C, H, W); the modalities of a sample become channels."""
    return inputs.reshape(len(inputs), -1, *inputs.shape[-2:]).double().cpu().numpy()
