"""Input transformations: what they compute, that rows do not depend on each other, and their declared stand-ins."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from defenses.stages import Preprocessed, Stage, declared_stages
from defenses.transforms import BitDepth, Jpeg, MedianFilter, bit_depth, jpeg, median_filter
from registry.errors import InvalidEntryError

TRANSFORMS = [Jpeg(), BitDepth(), MedianFilter()]
ids = [type(transform).__name__ for transform in TRANSFORMS]


def images(n=5, channels=1, height=12, width=20, seed=0):
    return torch.rand(n, channels, height, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("transform", TRANSFORMS, ids=ids)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_shape_range_and_dtype_are_kept(transform, channels):
    for dtype in (torch.float32, torch.float64):
        inputs = images(channels=channels).to(dtype)
        outputs = transform(inputs)
        assert outputs.shape == inputs.shape
        assert outputs.dtype == dtype
        assert outputs.min() >= 0
        assert outputs.max() <= 1
        assert transform.bpda_twin(inputs).shape == inputs.shape


@pytest.mark.parametrize("transform", TRANSFORMS, ids=ids)
def test_a_row_does_not_depend_on_its_neighbours(transform):
    inputs = images()
    whole = transform(inputs)
    assert torch.equal(whole, torch.cat([transform(row[None]) for row in inputs]))
    assert torch.equal(whole.flip(0), transform(inputs.flip(0)))


@pytest.mark.parametrize("transform", TRANSFORMS, ids=ids)
def test_modalities_are_treated_alike(transform):
    inputs = images(n=6).reshape(2, 3, 1, 12, 20)
    assert torch.equal(transform(inputs).reshape(6, 1, 12, 20), transform(inputs.reshape(6, 1, 12, 20)))


def test_jpeg_is_what_pillow_writes_and_reads():
    inputs = images(n=1, channels=3)
    pixels = (inputs[0] * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="JPEG", quality=40)
    expected = torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1) / 255
    assert torch.equal(Jpeg(40)(inputs)[0], expected)


def test_lower_jpeg_quality_is_further_from_the_image():
    inputs = images()
    errors = [(Jpeg(quality)(inputs) - inputs).abs().mean() for quality in (95, 75, 30)]
    assert errors[0] < errors[1] < errors[2]


def test_bit_depth_leaves_eight_levels():
    values = torch.linspace(0, 1, 1000).reshape(1, 1, 20, 50)
    assert torch.allclose(BitDepth(3)(values).unique(), torch.arange(8) / 7)
    assert torch.equal(BitDepth(1)(values).unique(), torch.tensor([0.0, 1.0]))


def test_the_median_filter_agrees_with_scipy():
    from scipy.ndimage import median_filter as reference

    inputs = images(n=2, channels=2)
    expected = [[reference(plane, size=3, mode="mirror") for plane in image] for image in inputs.numpy()]
    assert torch.equal(MedianFilter(3)(inputs), torch.from_numpy(np.array(expected)))


@pytest.mark.parametrize("transform", [Jpeg(), BitDepth()], ids=["Jpeg", "BitDepth"])
def test_quantising_transforms_have_a_zero_gradient_and_a_useful_twin(transform):
    inputs = images().requires_grad_(True)
    (gradient,) = torch.autograd.grad(transform(inputs).square().sum(), inputs)
    assert torch.equal(gradient, torch.zeros_like(gradient))
    (gradient,) = torch.autograd.grad(transform.bpda_twin(inputs).square().sum(), inputs)
    assert torch.allclose(gradient, 2 * inputs)


def test_the_median_filter_is_differentiable_almost_everywhere():
    inputs = images(n=1, height=5, width=5).double().requires_grad_(True)
    assert torch.autograd.gradcheck(MedianFilter(), (inputs,), eps=1e-7)


def test_the_twin_of_the_median_is_the_mean_of_the_neighbourhood():
    inputs = images(n=1)
    twin = MedianFilter(3).bpda_twin(inputs)
    assert torch.allclose(twin[0, 0, 4, 7], inputs[0, 0, 3:6, 6:9].mean())


@pytest.mark.parametrize("build", [jpeg, bit_depth, median_filter])
def test_factories_wrap_the_base_and_declare_one_stage(build):
    base = nn.Sequential(nn.Flatten(), nn.Linear(240, 2))
    model = build(None, base=base)
    assert isinstance(model, Preprocessed)
    assert isinstance(model.transform, Stage)
    assert declared_stages(model) == ("transform",)
    assert declared_stages(base) == ()
    inputs = images()
    assert torch.equal(model(inputs), base(model.transform(inputs)))


def test_impossible_settings_are_refused():
    with pytest.raises(InvalidEntryError, match="1 to 95, got 100"):
        Jpeg(100)
    with pytest.raises(InvalidEntryError, match="1 to 8, got 0"):
        BitDepth(0)
    with pytest.raises(InvalidEntryError, match="odd edge of 3 or more, got 4"):
        MedianFilter(4)
