"""A wrapper's weight file does not repeat what the file of its frozen base holds, and loads only behind that base."""

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from defenses import checkpoints
from defenses.seeding import seeded
from defenses.stages import Preprocessed
from registry.errors import CheckpointError


def base(seed=0):
    with seeded(seed):
        return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(72, 2))


def wrapped(inner, seed=1):
    with seeded(seed):
        return Preprocessed(nn.Conv2d(1, 1, 1), inner)


def saved(path, model, inner, before):
    kept = checkpoints.kept_tensors(model, inner, before)
    checkpoints.save(path, model, {}, without=kept)
    return kept


def state(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def test_an_unchanged_base_is_not_stored_again(tmp_path):
    inner, path = base(), tmp_path / "net.safetensors"
    kept = saved(path, wrapped(inner), inner, state(inner))
    assert kept == {f"net.{name}" for name in inner.state_dict()}
    assert set(load_file(path)) == {"transform.weight", "transform.bias"}
    other = wrapped(inner, seed=2)
    checkpoints.load(path, other, base=inner)
    expected = wrapped(inner).state_dict()
    assert all(torch.allclose(tensor, expected[name], atol=1e-3) for name, tensor in other.state_dict().items())


def test_what_training_changed_is_stored(tmp_path):
    inner, path = base(), tmp_path / "net.safetensors"
    before, model = state(inner), wrapped(inner)
    with torch.no_grad():
        inner[3].bias.add_(1)
        inner[1].running_mean.add_(1)
    saved(path, model, inner, before)
    assert set(load_file(path)) == {"transform.weight", "transform.bias", "net.3.bias", "net.1.running_mean"}
    fresh = base()
    loaded = wrapped(fresh, seed=2)
    checkpoints.load(path, loaded, base=fresh)
    assert torch.allclose(fresh[3].bias, before["3.bias"] + 1, atol=1e-2)
    assert torch.equal(fresh[0].weight, before["0.weight"])


def test_a_base_that_was_copied_is_stored_whole(tmp_path):
    inner, copied = base(), base()
    model = wrapped(copied)
    assert saved(tmp_path / "net.safetensors", model, inner, state(inner)) == set()
    assert len(load_file(tmp_path / "net.safetensors")) == len(model.state_dict())


def test_a_file_without_its_base_is_refused_where_no_base_stands(tmp_path):
    inner, path = base(), tmp_path / "net.safetensors"
    saved(path, wrapped(inner), inner, state(inner))
    with pytest.raises(CheckpointError, match="missing"):
        checkpoints.load(path, wrapped(base()))
    with pytest.raises(CheckpointError, match="missing"):
        checkpoints.load(path, wrapped(base()), base=base())


def test_own_tensors_may_not_be_absent(tmp_path):
    inner, path = base(), tmp_path / "net.safetensors"
    checkpoints.save(path, wrapped(inner), {}, without={"transform.bias", *(f"net.{n}" for n in inner.state_dict())})
    with pytest.raises(CheckpointError, match="missing"):
        checkpoints.load(path, wrapped(inner), base=inner)
