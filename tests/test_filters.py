"""Classic denoising filters: by hand, pixel by pixel, and their gradients."""

import math

import pytest
import torch

from defenses.filters import AdaptiveMedian, NonLocalMeans, adaptive_median, non_local_means
from defenses.stages import Preprocessed, declared_stages, hidden_stages
from defenses.transforms import median_filter
from registry.errors import InvalidEntryError
from tests.toys import cnn

FILTERS = [AdaptiveMedian(), AdaptiveMedian(3), NonLocalMeans(), NonLocalMeans(5, 2, 0.3)]


def images(n=3, channels=1, height=12, width=14, seed=0):
    return torch.rand(n, channels, height, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("chosen", FILTERS, ids=repr)
@pytest.mark.parametrize("channels", [1, 3])
def test_shape_and_range_are_kept_and_rows_do_not_depend_on_neighbours(chosen, channels):
    inputs = images(channels=channels)
    whole = chosen(inputs)
    assert whole.shape == inputs.shape
    assert whole.min() >= 0 and whole.max() <= 1
    assert torch.equal(whole, torch.cat([chosen(row[None]) for row in inputs]))
    assert torch.equal(chosen(inputs[:, None]), whole[:, None])
    assert torch.equal(chosen.bpda_twin(inputs), inputs)


def by_the_book(image, largest, row, column):
    """Adaptive median of one pixel, as the paper's flow chart says it."""
    pixel = float(image[row, column])
    for size in range(3, largest + 1, 2):
        half = size // 2

        def mirrored(index, length):
            index = abs(index)
            return index if index < length else 2 * (length - 1) - index

        around = sorted(
            float(image[mirrored(row + i, image.shape[0]), mirrored(column + j, image.shape[1])])
            for i in range(-half, half + 1)
            for j in range(-half, half + 1)
        )
        low, median, high = around[0], around[len(around) // 2], around[-1]
        if low < median < high:
            return pixel if low < pixel < high else median
    return median


@pytest.mark.parametrize("largest", [3, 7])
def test_the_adaptive_median_is_the_published_one(largest):
    generator = torch.Generator().manual_seed(3)
    image = (torch.rand(11, 9, generator=generator) * 4).round() / 4  # few levels: all branches are taken
    image[:5, :5] = 0
    found = AdaptiveMedian(largest)(image[None, None])[0, 0]
    for row in range(11):
        for column in range(9):
            assert float(found[row, column]) == by_the_book(image, largest, row, column), (row, column)


def test_the_adaptive_median_takes_out_an_impulse_and_leaves_a_slope():
    slope = (torch.arange(12.0)[:, None] + 2 * torch.arange(12.0)[None])[None, None] / 40
    attacked = slope.clone()
    attacked[0, 0, 5, 5] = 1.0
    found = AdaptiveMedian()(attacked)
    assert abs(float(found[0, 0, 5, 5] - slope[0, 0, 5, 5])) < 0.06
    assert torch.equal(found[0, 0, 8:11, 1:4], slope[0, 0, 8:11, 1:4])


def test_non_local_means_by_loops():
    image, patch, distance, strength = images(n=1, channels=2, height=9, width=10)[0], 3, 2, 0.4
    padded = torch.nn.functional.pad(image[None], [distance + 1] * 4, mode="reflect")[0]

    def patch_at(row, column):
        return padded[:, row : row + patch, column : column + patch]

    expected = torch.zeros_like(image)
    for row in range(9):
        for column in range(10):
            own, weights, total = patch_at(row + distance, column + distance), 0.0, torch.zeros(2)
            for i in range(2 * distance + 1):
                for j in range(2 * distance + 1):
                    other = patch_at(row + i, column + j)
                    weight = math.exp(-float((own - other).square().mean()) / strength**2)
                    weights, total = weights + weight, total + weight * other[:, 1, 1]
            expected[:, row, column] = total / weights
    assert torch.allclose(NonLocalMeans(patch, distance, strength)(image[None])[0], expected, atol=1e-5)


def test_non_local_means_agrees_with_scikit_image_up_to_the_shape_of_the_patch():
    from skimage.restoration import denoise_nl_means

    generator = torch.Generator().manual_seed(0)
    clean = torch.linspace(0.2, 0.8, 24).expand(24, 24)
    noisy = clean + 0.05 * torch.randn(24, 24, generator=generator)
    ours = NonLocalMeans(3, 3, 0.1)(noisy[None, None])[0, 0]
    theirs = torch.from_numpy(denoise_nl_means(noisy.numpy(), patch_size=3, patch_distance=3, h=0.1, fast_mode=True))
    assert float((ours - theirs).abs().mean()) < 0.15 * float((ours - noisy).abs().mean())
    assert float((ours - clean).square().mean()) < 0.3 * float((noisy - clean).square().mean())


@pytest.mark.parametrize("chosen", [AdaptiveMedian(), NonLocalMeans(3, 2, 0.3)], ids=repr)
def test_gradients_are_the_true_ones(chosen):
    inputs = images(n=1, height=9, width=9).double().requires_grad_()
    direction = torch.randn(inputs.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    slope = torch.autograd.grad(chosen(inputs).square().sum(), inputs)[0]
    with torch.no_grad():
        up, down = (chosen(inputs + s * 1e-7 * direction).square().sum() for s in (1, -1))
    assert math.isclose(float((slope * direction).sum()), float((up - down) / 2e-7), rel_tol=1e-4)


@pytest.mark.parametrize("factory", [adaptive_median, non_local_means, median_filter])
def test_they_stand_in_front_of_the_base_and_show_what_they_hand_on(factory):
    base, inputs = cnn().eval(), images()
    model = factory(None, base=base)
    assert isinstance(model, Preprocessed)
    assert declared_stages(model) == ("transform",)
    assert torch.equal(model(inputs), base(model.restored(inputs)))
    assert not torch.equal(model.restored(inputs), inputs)


@pytest.mark.parametrize("factory", [adaptive_median, non_local_means, median_filter])
def test_no_filter_hides_its_gradient(factory):
    """A median selects, but where it does its gradient is exact; its mean as a stand-in attacks worse."""
    assert hidden_stages(factory(None, base=cnn())) == ()


def test_impossible_sizes_are_refused():
    for make in (lambda: AdaptiveMedian(4), lambda: NonLocalMeans(2), lambda: NonLocalMeans(strength=0)):
        with pytest.raises(InvalidEntryError):
            make()
