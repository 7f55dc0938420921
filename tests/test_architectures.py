"""Architectures: shapes, sizes, normalisation inside, and which one a data set gets."""

import pytest
import torch

from defenses.architectures import default, resnet, timm_resnet, unet
from registry import DatasetSpec, Source
from registry.errors import InvalidEntryError


def spec(task="classification", shape=(1, 28, 28), n_classes=2, embedded=False, modalities=("image",)):
    return DatasetSpec(
        name="toy",
        title="Toy",
        task=task,
        input_shape=shape,
        class_names=tuple(f"class {k}" for k in range(n_classes)),
        splits={"train": 4, "val": 2, "test": 2},
        license="none",
        citation="none",
        reader="toy:read",
        source=None if embedded else Source(filename="toy.npz"),
        modalities=modalities,
    )


def parameters(model):
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 64, 64), (3, 96, 96)])
def test_the_narrow_resnet_gives_one_logit_per_class(shape):
    model = resnet.build(spec(shape=shape, n_classes=5)).eval()
    assert model(torch.rand(2, *shape)).shape == (2, 5)


def test_the_narrow_resnet_at_width_64_has_the_size_of_the_published_cifar_network():
    assert parameters(resnet.NarrowResNet18(3, 10, width=64)) == 11_173_962
    assert 0.65e6 < parameters(resnet.build(spec())) < 0.75e6


def test_larger_images_get_a_stem_that_halves_the_resolution():
    assert resnet.build(spec(shape=(1, 28, 28))).stem[0].stride == (1, 1)
    assert resnet.build(spec(shape=(1, 64, 64))).stem[0].stride == (2, 2)


@pytest.mark.parametrize("shape", [(1, 32, 32), (1, 64, 64), (3, 40, 55)])
def test_the_unet_keeps_the_size_of_the_image(shape):
    model = unet.build(spec("segmentation", shape, n_classes=3)).eval()
    assert model(torch.rand(2, *shape)).shape == (2, 3, *shape[1:])
    assert 0.1e6 < parameters(model) < 0.3e6


def test_the_unet_carries_detail_past_its_lowest_level():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = unet.build(spec("segmentation", (1, 32, 32))).eval()
    image = torch.full((1, 1, 32, 32), 0.5)
    changed = image.clone()
    changed[0, 0, 16, 16] = 1.0
    difference = (model(changed) - model(image)).abs().sum(1)[0]
    assert difference[16, 16] > 10 * difference.mean()


def test_models_return_raw_logits_of_unnormalised_inputs():
    model = resnet.build(spec()).eval()
    logits = model(torch.rand(8, 1, 28, 28))
    assert not torch.allclose(logits.exp().sum(1), torch.ones(8))
    assert not torch.allclose(logits.sum(1), torch.ones(8))
    seen = []
    model.stem.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    model(torch.full((1, 1, 28, 28), 0.75))
    assert torch.equal(seen[0], torch.ones(1, 1, 28, 28))


def test_timm_models_are_behind_the_same_normalisation():
    model = timm_resnet.build(spec(shape=(1, 128, 128), n_classes=3)).eval()
    assert model(torch.rand(1, 1, 128, 128)).shape == (1, 3)
    assert parameters(model) > 11e6
    with pytest.raises(InvalidEntryError, match="resnet18, resnet50"):
        timm_resnet.build(spec(shape=(1, 128, 128)), model="resnet34")


def test_the_default_follows_task_and_size():
    assert isinstance(default.build(spec()), resnet.NarrowResNet18)
    assert isinstance(default.build(spec("segmentation", (1, 64, 64))), unet.UNet)
    assert parameters(default.build(spec(shape=(3, 224, 224)))) > 11e6


def test_generated_data_get_a_narrower_network_and_a_given_width_wins():
    assert default.build(spec()).head.in_features == 128
    assert default.build(spec(embedded=True)).head.in_features == 40
    assert default.build(spec(embedded=True), width=4).head.in_features == 32


@pytest.mark.parametrize(
    "unknown",
    [
        spec("landmark", (1, 64, 64)),
        spec(shape=(2, 1, 28, 28), modalities=("mr", "ct")),
    ],
)
def test_an_unknown_task_or_shape_is_told_to_name_an_architecture(unknown):
    with pytest.raises(InvalidEntryError, match=r"no default architecture for .* name one in the entry"):
        default.build(unknown)


def test_a_width_is_refused_where_there_is_none():
    with pytest.raises(InvalidEntryError, match="no width to choose"):
        default.build(spec(shape=(3, 224, 224)), width=8)


@pytest.mark.parametrize("module", [resnet, timm_resnet])
def test_classifiers_refuse_label_maps(module):
    with pytest.raises(InvalidEntryError, match="name another architecture"):
        module.build(spec("segmentation"))


def test_the_unet_refuses_labels():
    with pytest.raises(InvalidEntryError, match="name another architecture"):
        unet.build(spec())


def test_full_size_images_may_have_a_larger_network():
    model = default.build(spec(shape=(3, 128, 128)), full_size="resnet50")
    assert parameters(model) > 23e6
    assert default.build(spec(), full_size="resnet50").head.in_features == 128
    with pytest.raises(InvalidEntryError, match="model must be one of"):
        default.build(spec(shape=(3, 128, 128)), full_size="resnet34")
    with pytest.raises(InvalidEntryError, match="the resnet50 for 224 pixels has no width"):
        default.build(spec(shape=(3, 224, 224)), width=8, full_size="resnet50")
