"""`benchmark.evaluate`: a model and data of one's own, and every way to hand them in wrongly."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from benchmark import evaluate
from registry.errors import BenchmarkError, InputContractError, UserError
from tests.toys import batch_for, images, linear

FGSM = "paper:mi-protector-fgsm"
SHAPE = (1, 8, 8)


def model_and_data(n: int = 6) -> tuple[nn.Module, tuple[torch.Tensor, torch.Tensor]]:
    """Returns a linear model of 3 classes with images that it classifies rightly."""
    model = linear(3, shape=SHAPE)
    batch = batch_for(model, images(n, shape=SHAPE))
    return model, (batch.inputs, batch.targets["label"])


def test_own_arrays_under_an_attack():
    model, data = model_and_data()
    record = evaluate(model, data, protocol=FGSM)
    assert record.clean["clean"].value == 1.0 and record.clean["clean"].n == 6
    robust = [result.metrics["robust"].value for result in record.budgets]
    assert robust[0] > robust[-1] and record.budgets[-1].members[0].broken > 0
    assert evaluate(model, data, protocol=FGSM).key == record.key
    assert evaluate(model, data, protocol=FGSM, n=2).clean["clean"].n == 2


def test_a_named_data_set():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(28 * 28, 2)).eval()
    record = evaluate(model, "phantom2", protocol="clean", n=10)
    assert record.dataset["name"] == "phantom2" and record.clean["clean"].n == 10


def test_label_maps():
    torch.manual_seed(0)
    model = nn.Conv2d(1, 3, 3, padding=1).eval()
    inputs, masks = images(4, shape=SHAPE), torch.randint(0, 3, (4, 8, 8))
    record = evaluate(model, (inputs, masks), task="segmentation", protocol="corruption:gaussian")
    assert record.quality == "Dice" and len(record.budgets) == 5


def test_weights_in_bfloat16_have_a_checksum_too():
    model, data = model_and_data()
    record = evaluate(Upcast(model.bfloat16()), data, protocol="clean")
    assert len(record.checkpoint.sha256) == 64


class Upcast(nn.Module):
    """Holds weights in bfloat16 and answers in float32."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.eval()

    def forward(self, inputs):
        return self.net(inputs.bfloat16()).float()


class Answers(nn.Module):
    """A model whose answer goes through a function."""

    def __init__(self, model, change):
        super().__init__()
        self.model, self.change = model, change
        self.eval()

    def forward(self, inputs):
        return self.change(self.model(inputs))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda z: (z, z), "tuple"),
        (lambda z: z * float("nan"), "NaN"),
        (lambda z: z[:, :2], "3"),
    ],
    ids=["tuple", "NaN", "classes"],
)
def test_what_no_model_may_answer(change, told):
    model, data = model_and_data()
    with pytest.raises(BenchmarkError, match=told):
        evaluate(Answers(model, change), data, protocol="clean", class_names=("a", "b", "c"))


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (lambda x, y: (255 * x, y), r"\[0, 1\]"),
        (lambda x, y: (x, y.float()), "int64"),
        (lambda x, y: (x, y[:-1]), "as many targets"),
        (lambda x, y: (x[0], y), "N, C, H, W"),
        (lambda x, y: (x, y - 5), "label"),
    ],
    ids=["0 to 255", "float labels", "one label too few", "one image", "negative labels"],
)
def test_what_no_data_may_be(wrong, told):
    model, data = model_and_data()
    with pytest.raises(BenchmarkError, match=told):
        evaluate(model, wrong(*data), protocol="clean")


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"protocol": "standart"}, "standard"),
        ({"dataset": "breastmnst"}, "breastmnist"),
        ({"n": 0}, "1 or more"),
        ({"device": "cuda:99"}, "cuda"),
        ({"device": "tpu"}, "cpu"),
    ],
)
def test_misspelt_names_and_absent_devices(asked, told):
    model, data = model_and_data()
    with pytest.raises(BenchmarkError, match=told):
        evaluate(model, **{"dataset": data, "protocol": "clean"} | asked)


def test_a_model_in_training_mode_is_refused():
    model, data = model_and_data()
    with pytest.raises(BenchmarkError, match="eval"):
        evaluate(model.train(), data, protocol="clean")


def test_what_was_not_expected_is_told_with_what_was():
    inputs, labels = torch.rand(4, 1, 8, 8), torch.tensor([0, 1, 0, 1])
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2)).eval()
    with pytest.raises(UserError, match="randomness is one of none, sample, model, got 'samples'"):
        evaluate(model, (inputs, labels), randomness="samples")
    with pytest.raises(InputContractError, match="one label for each image"):
        evaluate(model, (inputs, torch.eye(2, dtype=torch.int64).repeat(2, 1)))
    record = evaluate(model, (inputs.requires_grad_(), labels), protocol="clean")
    assert 0 <= record.clean["clean"].value <= 1
