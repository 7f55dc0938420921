"""Dice and intersection over union: scikit-learn and MONAI as references, and the empty cases by hand."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.metrics import compute_iou
from monai.metrics.meandice import compute_dice
from sklearn.metrics import f1_score, jaccard_score
from torch.nn import functional as F

from datasets.metrics.dice import class_overlaps, foreground_dice, foreground_iou


def dice(prediction, mask, k):
    return foreground_dice(*class_overlaps(prediction, mask, k))


def iou(prediction, mask, k):
    return foreground_iou(*class_overlaps(prediction, mask, k))


def maps(k, n=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    mask = torch.randint(0, k, (n, 7, 9), generator=generator)
    noise = torch.randint(0, k, (n, 7, 9), generator=generator)
    return torch.where(torch.rand(n, 7, 9, generator=generator) < 0.6, mask, noise), mask


@pytest.mark.parametrize("k", [2, 3, 6])
def test_against_references(k):
    prediction, mask = maps(k)
    for row in range(len(mask)):
        true, found, held = (
            mask[row].flatten(),
            prediction[row].flatten(),
            sorted(set(mask[row].unique().tolist()) - {0}),
        )
        expected = f1_score(true, found, labels=held, average="macro", zero_division=0)
        assert dice(prediction, mask, k)[row] == pytest.approx(expected, abs=1e-6)
        expected = jaccard_score(true, found, labels=held, average="macro", zero_division=0)
        assert iou(prediction, mask, k)[row] == pytest.approx(expected, abs=1e-6)
    one_hot = [F.one_hot(labels, k).movedim(-1, 1) for labels in (prediction, mask)]
    assert torch.allclose(dice(prediction, mask, k), compute_dice(*one_hot, include_background=False).nanmean(1))
    assert torch.allclose(iou(prediction, mask, k), compute_iou(*one_hot, include_background=False).nanmean(1))


def test_counts_by_hand():
    mask = torch.tensor([[[0, 1, 1], [2, 2, 0]]])
    prediction = torch.tensor([[[1, 1, 0], [2, 0, 0]]])
    intersection, predicted, true = class_overlaps(prediction, mask, 3)
    assert (intersection.tolist(), predicted.tolist(), true.tolist()) == ([[1, 1]], [[2, 1]], [[2, 2]])
    assert dice(prediction, mask, 3).tolist() == [pytest.approx((2 / 4 + 2 / 3) / 2)]
    assert iou(prediction, mask, 3).tolist() == [pytest.approx((1 / 3 + 1 / 2) / 2)]


EMPTY, ONE, TWO = torch.zeros(1, 2, 2), torch.eye(2)[None], 2 * torch.eye(2)[None]
CORNERS = {
    "both empty": (EMPTY, EMPTY, 1.0),
    "only the target is empty": (ONE, EMPTY, 0.0),
    "only the prediction is empty": (EMPTY, ONE, 0.0),
    "another class is predicted": (TWO, ONE, 0.0),
    "perfect": (TWO, TWO, 1.0),
    "a class beside the target's is predicted": (torch.tensor([[[1, 2], [2, 1]]]), ONE, 1.0),
    "one class of two is missed": (ONE, torch.tensor([[[1, 2], [2, 1]]]), 0.5),
}


@pytest.mark.parametrize(("prediction", "mask", "expected"), CORNERS.values(), ids=CORNERS)
def test_corner_cases(prediction, mask, expected):
    for metric in (dice, iou):
        value = metric(prediction.long(), mask.long(), 3)
        assert value.tolist() == [expected]
        assert value.dtype == torch.float32


@settings(max_examples=40, deadline=None)
@given(k=st.integers(2, 5), n=st.integers(1, 4), seed=st.integers(0, 10**6))
def test_bounds_and_relations(k, n, seed):
    prediction, mask = maps(k, n, seed)
    first, second = dice(prediction, mask, k), iou(prediction, mask, k)
    assert first.shape == (n,)
    assert ((first >= 0) & (first <= 1)).all()
    assert (second <= first + 1e-6).all()
    assert torch.equal(dice(mask, mask, k), torch.ones(n))
    if k == 2:
        assert torch.allclose(second, first / (2 - first), atol=1e-6)
    assert torch.equal(dice(prediction[:1], mask[:1], k), first[:1])
