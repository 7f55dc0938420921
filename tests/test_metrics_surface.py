"""Surface distances against SciPy, and the cases without a surface by hand."""

import warnings

import numpy as np
import pytest
import torch
from scipy.ndimage import binary_erosion, distance_transform_edt

from datasets.metrics.surface import hd95

SIZE = (12, 16)
DIAGONAL = (12**2 + 16**2) ** 0.5


def square(top, left, edge, value=1):
    mask = torch.zeros(1, *SIZE, dtype=torch.int64)
    mask[0, top : top + edge, left : left + edge] = value
    return mask


def reference(prediction, mask):
    """Returns the larger of both directed 95th percentiles of surface distances of two binary images."""
    edges = [image & ~binary_erosion(image) for image in (prediction, mask)]
    distances = [distance_transform_edt(~edge) for edge in edges]
    return max(np.percentile(distances[1][edges[0]], 95), np.percentile(distances[0][edges[1]], 95))


@pytest.mark.parametrize("seed", range(5))
def test_against_scipy(seed):
    generator = torch.Generator().manual_seed(seed)
    top, left, edge = (int(torch.randint(1, 5, (), generator=generator)) for _ in range(3))
    mask, prediction = square(top, left, edge + 2), square(top + 2, left + 3, edge + 1)
    prediction[0, 10, 14] = 1  # a far false positive
    expected = reference(prediction[0].numpy() == 1, mask[0].numpy() == 1)
    assert hd95(prediction, mask, 2).tolist() == [pytest.approx(expected, rel=1e-5)]


def test_a_shift_by_hand():
    assert hd95(square(2, 5, 4), square(2, 2, 4), 2).tolist() == [3.0]
    assert hd95(square(2, 2, 4), square(2, 2, 4), 2).tolist() == [0.0]


def test_the_mean_over_the_targets_classes():
    mask = square(1, 1, 3) + square(6, 6, 3, value=2)
    prediction = square(1, 1, 3) + square(6, 8, 3, value=2)
    assert hd95(prediction, mask, 3).tolist() == [pytest.approx((0 + 2) / 2)]


def test_a_class_that_is_missed_counts_with_the_diagonal():
    mask = square(1, 1, 3) + square(6, 6, 3, value=2)
    assert hd95(square(1, 1, 3), mask, 3).tolist() == [pytest.approx(DIAGONAL / 2)]
    assert hd95(torch.zeros_like(mask), mask, 3).tolist() == [pytest.approx(DIAGONAL)]


def test_a_class_beside_the_targets_does_not_count():
    assert hd95(square(1, 1, 3) + square(6, 6, 3, value=2), square(1, 1, 3), 3).tolist() == [0.0]


def test_an_empty_target_has_no_distance():
    empty = torch.zeros(1, *SIZE, dtype=torch.int64)
    assert torch.isnan(hd95(empty, empty, 3)).all()
    assert torch.isnan(hd95(square(1, 1, 3), empty, 3)).all()


def test_images_do_not_depend_on_their_neighbours():
    masks = torch.cat([square(1, 1, 3), torch.zeros_like(square(0, 0, 1)), square(4, 4, 5)])
    predictions = torch.cat([square(1, 3, 3), square(1, 1, 2), square(4, 4, 5)])
    values = hd95(predictions, masks, 2)
    assert values.dtype == torch.float32
    assert values[[0, 2]].tolist() == [2.0, 0.0]
    assert torch.isnan(values[1])
    assert hd95(predictions[:1], masks[:1], 2).tolist() == [2.0]


def test_nothing_warns():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        hd95(torch.zeros(2, *SIZE, dtype=torch.int64), torch.cat([square(1, 1, 3), square(0, 0, 0)]), 3)
