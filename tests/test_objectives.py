"""Objectives: hand-worked values, references of torch and NumPy, gradients by finite differences, 2 to many classes."""

import math

import numpy as np
import pytest
import torch
from monai.losses import DiceLoss
from scipy.spatial.distance import jensenshannon
from torch.nn import functional as F

from attacks.objectives import OBJECTIVES, objective_for
from datasets.batch import Batch
from datasets.tasks.classification import Classification, MultiLabelClassification
from datasets.tasks.segmentation import Segmentation
from registry.errors import InvalidEntryError
from tests.toy_tasks import Landmark

CLASSES = (2, 3, 4, 9, 100)


def labelled(labels) -> Batch:
    labels = torch.as_tensor(labels)
    name = "labels" if labels.ndim == 2 else "label"
    targets = {name: labels} | ({"weights": torch.ones_like(labels)} if name == "labels" else {})
    return Batch(sample_ids=torch.arange(len(labels)), inputs=torch.zeros(len(labels), 1, 1, 1), targets=targets)


def random_case(k, n=12, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(n, k, generator=generator, dtype=torch.float64)
    return logits, labelled(torch.randint(0, k, (n,), generator=generator))


def value(name, logits, batch, task=None):
    task = task or Classification(logits.shape[1])
    return objective_for(task, name)(logits, batch, torch.zeros(len(batch)))


def test_hand_worked_values():
    logits, batch = torch.tensor([[1.0, 3.0, 0.0, 2.0], [1.0, 3.0, 0.0, 2.0]]), labelled([1, 0])
    assert value("margin", logits, batch).tolist() == [-1.0, 2.0]
    assert value("dlr", logits, batch).tolist() == [pytest.approx(-1 / 2), pytest.approx(2 / 2)]
    total = math.log(sum(math.exp(z) for z in (1, 3, 0, 2)))
    assert value("cross-entropy", logits, batch).tolist() == pytest.approx([total - 3, total - 1], rel=1e-6)


def test_two_classes_by_hand():
    logits, batch = torch.tensor([[0.5, -1.0], [0.5, -1.0]]), labelled([0, 1])
    assert value("margin", logits, batch).tolist() == [-1.5, 1.5]
    assert value("cross-entropy", logits, batch).tolist() == pytest.approx(
        [math.log1p(math.exp(-1.5)), math.log1p(math.exp(1.5))], rel=1e-6
    )


@pytest.mark.parametrize("k", CLASSES)
def test_against_references(k):
    logits, batch = random_case(k)
    label = batch.targets["label"].numpy()
    rows, array = np.arange(len(label)), logits.numpy()
    others = np.where(np.eye(k, dtype=bool)[label], -np.inf, array)
    margin = others.max(1) - array[rows, label]
    assert value("margin", logits, batch).numpy() == pytest.approx(margin)
    reference = F.cross_entropy(logits, batch.targets["label"], reduction="none")
    assert torch.equal(value("cross-entropy", logits, batch), reference)
    assert ((value("margin", logits, batch) > 0).numpy() == (array.argmax(1) != label)).all()
    if k >= 3:
        ordered = np.sort(array, 1)
        assert value("dlr", logits, batch).numpy() == pytest.approx(margin / (ordered[:, -1] - ordered[:, -3]))


@pytest.mark.parametrize("k", CLASSES[1:])
def test_dlr_does_not_change_with_the_logits_scale(k):
    logits, batch = random_case(k)
    assert torch.allclose(value("dlr", logits, batch), value("dlr", 1000 * logits + 5, batch))


@pytest.mark.parametrize("k", CLASSES[2:])
def test_targeted_dlr_is_the_goals_lead_over_the_spread_of_the_top_logits(k):
    logits, batch = random_case(k)
    objective = objective_for(Classification(k), "targeted-dlr")
    aimed = objective.aim(logits, batch, torch.ones(len(batch), dtype=torch.int64))
    array, rows, ordered = logits.numpy(), np.arange(len(batch)), np.sort(logits.numpy(), 1)[:, ::-1]
    lead = array[rows, aimed.targets["goal"].numpy()] - array[rows, batch.targets["label"].numpy()]
    expected = lead / (ordered[:, 0] - 0.5 * (ordered[:, 2] + ordered[:, 3]))
    assert objective(logits, aimed, None).numpy() == pytest.approx(expected)
    assert torch.allclose(objective(1000 * logits + 5, aimed, None), objective(logits, aimed, None))


@pytest.mark.parametrize("k", CLASSES)
def test_targets_are_the_wrong_classes_by_rank(k):
    logits, batch = random_case(k)
    objective, label = objective_for(Classification(k), "targeted-margin"), batch.targets["label"]
    order = logits.argsort(1, descending=True).tolist()
    ranked = [[j for j in row if j != y] for row, y in zip(order, label.tolist(), strict=True)]
    for restart in (0, 1, k - 2, k - 1, 2 * k):
        aimed = objective.aim(logits, batch, torch.full((len(batch),), restart))
        goals = aimed.targets["goal"]
        assert goals.tolist() == [row[restart % (k - 1)] for row in ranked]
        expected = logits.gather(1, goals[:, None]) - logits.gather(1, label[:, None])
        assert torch.equal(objective(logits, aimed, None), expected[:, 0])
    assert torch.equal(batch.targets["label"], label)
    assert "goal" not in batch.targets


def test_the_best_target_is_the_margin():
    logits, batch = random_case(9)
    objective = objective_for(Classification(9), "targeted-margin")
    runs = [objective(logits, objective.aim(logits, batch, torch.full((12,), r)), None) for r in range(8)]
    assert torch.equal(torch.stack(runs).amax(0), value("margin", logits, batch))


def test_several_labels():
    logits, task = torch.tensor([[2.0, -1.0, 0.5], [2.0, -1.0, 0.5]]), MultiLabelClassification(3)
    batch = labelled(torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]]))
    unit = 0.3 * 3.5 / 3  # the temperature at the first step, times the mean absolute logit
    shares = [sum(1 / (1 + math.exp(-z / unit)) for z in row) / 3 for row in ((-2, -1, -0.5), (2, 1, -0.5))]
    for scale in (1e-4, 1, 1e4):  # which changes no answer
        assert value("margin", scale * logits, batch, task).tolist() == pytest.approx(shares)
    sharp = objective_for(task, "margin")(logits, batch, torch.ones(2)).tolist()
    assert sharp == pytest.approx([0, 2 / 3], abs=1e-4)  # the labels that are wrong
    losses = [[math.log1p(math.exp(-z)) for z in row] for row in ((2, 1, 0.5), (-2, -1, 0.5))]
    assert value("cross-entropy", logits, batch, task).tolist() == pytest.approx([sum(r) / 3 for r in losses], rel=1e-5)


def test_objectives_that_do_not_fit_are_refused():
    with pytest.raises(InvalidEntryError, match="dlr needs 3 classes"):
        objective_for(Classification(2), "dlr")
    with pytest.raises(InvalidEntryError, match="targeted-dlr needs 4 classes"):
        objective_for(Classification(3), "targeted-dlr")
    for name in ("targeted-margin", "dlr", "targeted-dlr"):
        with pytest.raises(InvalidEntryError, match="one label a sample"):
            objective_for(MultiLabelClassification(4), name)
    with pytest.raises(InvalidEntryError, match=r"no objective 'marginn'; it has .*cross-entropy, d"):
        objective_for(Classification(3), "marginn")
    with pytest.raises(InvalidEntryError, match="none yet"):
        objective_for(Landmark(), "margin")


FEWEST_CLASSES = {"dlr": 3, "targeted-dlr": 4}


@pytest.mark.parametrize(
    ("name", "k"),
    [(o, k) for o in sorted(OBJECTIVES["classification"]) for k in (2, 3, 4, 9) if k >= FEWEST_CLASSES.get(o, 2)],
)
def test_gradients_by_finite_differences(name, k):
    logits, batch = random_case(k, n=4)
    objective = objective_for(Classification(k), name)
    if hasattr(objective, "aim"):
        batch = objective.aim(logits, batch, torch.zeros(4, dtype=torch.int64))
    assert torch.autograd.gradcheck(lambda z: objective(z, batch, None), logits.requires_grad_())


def test_gradients_of_several_labels():
    logits = random_case(3, n=4)[0].requires_grad_()
    batch = labelled(torch.tensor([[1.0, 0, 0], [0, 0, 0], [1, 1, 1], [0, 1, 1]], dtype=torch.float64))
    objective = objective_for(MultiLabelClassification(3), "cross-entropy")
    assert torch.autograd.gradcheck(lambda z: objective(z, batch, None), logits)


@pytest.mark.parametrize("scale", [0.1, 10.0])
def test_logit_scale_changes_no_attack_on_several_labels(scale):
    logits = random_case(3, n=4)[0]
    batch = labelled(torch.tensor([[1.0, 0, 0], [0, 0, 0], [1, 1, 1], [0, 1, 1]], dtype=torch.float64))
    objective = objective_for(MultiLabelClassification(3), "margin")

    def direction(factor: float) -> torch.Tensor:
        leaf = logits.clone().requires_grad_()
        return torch.autograd.grad(objective(factor * leaf, batch, torch.full((4,), 0.5)).sum(), leaf)[0]

    assert torch.allclose(direction(scale), direction(1.0))


def masks(n=4, k=3, seed=2):
    generator = torch.Generator().manual_seed(seed)
    mask = torch.randint(0, k, (n, 6, 7), generator=generator)
    logits = 2 * torch.randn(n, k, 6, 7, generator=generator, dtype=torch.float64)
    batch = Batch(sample_ids=torch.arange(n), inputs=torch.zeros(n, 1, 6, 7), targets={"mask": mask})
    return logits, batch


@pytest.mark.parametrize("k", (2, 3, 5))
def test_segmentation_against_references(k):
    logits, batch = masks(k=k)
    mask = batch.targets["mask"]
    task = Segmentation(k)
    log_probabilities = logits.log_softmax(1).numpy()
    picked = np.take_along_axis(log_probabilities, mask[:, None].numpy(), 1)
    assert value("cross-entropy", logits, batch, task).numpy() == pytest.approx(-picked.mean((1, 2, 3)))
    reference = DiceLoss(
        include_background=False, softmax=True, to_onehot_y=True, reduction="none", smooth_nr=1, smooth_dr=1
    )
    expected = reference(logits, mask[:, None]).reshape(len(mask), -1).mean(1)
    assert torch.allclose(value("soft-dice", logits, batch, task), expected.double())


def test_soft_dice_counts_only_classes_in_the_target():
    mask = torch.zeros(2, 2, 2, dtype=torch.int64)
    mask[0, 0, 0] = 1  # class 2 is absent; the second target is empty
    logits = torch.zeros(2, 3, 2, 2)
    batch = Batch(sample_ids=torch.arange(2), inputs=torch.zeros(2, 1, 2, 2), targets={"mask": mask})
    first = 1 - (2 * (1 / 3) + 1) / (4 / 3 + 1 + 1)
    second = 1 - 1 / (4 / 3 + 1)
    assert value("soft-dice", logits, batch, Segmentation(3)).tolist() == pytest.approx([first, second])


@pytest.mark.parametrize(
    "name", sorted(OBJECTIVES["segmentation"].keys() - {"cospgd", "sharp-dice"})
)  # parts held fixed
def test_segmentation_gradients_by_finite_differences(name):
    logits, batch = masks(n=2)
    batch.targets["mask"][1] = 0
    objective, progress = objective_for(Segmentation(3), name), torch.tensor([0.2, 0.7])
    assert torch.autograd.gradcheck(lambda z: objective(z, batch, progress), logits.requires_grad_())


def pixels(logits, mask) -> tuple[torch.Tensor, Batch]:
    """One row of pixels: logits by class and pixel, and their classes."""
    logits = torch.tensor(logits, dtype=torch.float64)[None, :, None, :]
    inputs = torch.zeros(1, 1, *logits.shape[2:])
    return logits, Batch(sample_ids=torch.zeros(1, dtype=int), inputs=inputs, targets={"mask": torch.tensor([[mask]])})


RIGHT, WRONG = -math.log(0.8), -math.log(0.4)
PIXELS = ([[math.log(0.8), math.log(0.6)], [math.log(0.2), math.log(0.4)]], [0, 1])
"""Two pixels of two classes: the true class has probability 0.8 in the first and 0.4 in the second."""


@pytest.mark.parametrize(("progress", "right", "wrong"), [(0.0, 1.0, 0.0), (0.5, 0.75, 0.25), (1.0, 0.5, 0.5)])
def test_segpgd_moves_from_right_pixels_to_all_of_them(progress, right, wrong):
    logits, batch = pixels(*PIXELS)
    found = objective_for(Segmentation(2), "segpgd")(logits, batch, torch.tensor([progress]))
    assert found.tolist() == pytest.approx([(right * RIGHT + wrong * WRONG) / 2])


def test_segpgd_takes_the_progress_of_each_row():
    logits, batch = pixels(*PIXELS)
    both = Batch(sample_ids=torch.arange(2), inputs=batch.inputs.repeat(2, 1, 1, 1), targets={})
    both = both.with_target("mask", batch.targets["mask"].repeat(2, 1, 1))
    found = objective_for(Segmentation(2), "segpgd")(logits.repeat(2, 1, 1, 1), both, torch.tensor([0.0, 1.0]))
    assert found.tolist() == pytest.approx([RIGHT / 2, (RIGHT + WRONG) / 4])


def test_sharp_dice_is_soft_dice_at_a_falling_share_of_the_mean_margin():
    logits, batch = masks(n=3)
    batch.targets["mask"][2] = 0
    task, mask, scales = Segmentation(3), batch.targets["mask"].numpy(), []
    for row, target in zip(logits.numpy(), mask, strict=True):
        true = np.take_along_axis(row, target[None], 0)[0]
        others = np.where(np.arange(3)[:, None, None] == target, -np.inf, row).max(0)
        scales.append(np.abs(others - true)[(target > 0) | (row.argmax(0) > 0)].mean())
    for progress, share in ((0.0, 0.1), (0.5, math.sqrt(0.1 * 0.03)), (1.0, 0.03)):
        colder = logits / (share * torch.tensor(np.array(scales)))[:, None, None, None]
        found = objective_for(task, "sharp-dice")(logits, batch, torch.full((3,), progress))
        assert torch.allclose(found, value("soft-dice", colder, batch, task))


@pytest.mark.parametrize("scale", [1e-4, 1e4])
def test_sharp_dice_has_the_same_gradient_direction_for_logits_of_any_scale(scale):
    logits, batch = masks(n=2)
    objective, slopes = objective_for(Segmentation(3), "sharp-dice"), []
    for factor in (1.0, scale):
        scaled = (factor * logits).float().requires_grad_()
        (slope,) = torch.autograd.grad(objective(scaled, batch, torch.full((2,), 0.5)).sum(), scaled)
        slopes.append(slope * factor)
    assert slopes[0].abs().max() > 1e-3
    assert torch.allclose(slopes[0], slopes[1], rtol=1e-3, atol=1e-6)


def test_sharp_dice_counts_all_pixels_where_nothing_is_foreground():
    logits, batch = pixels([[3.0, 2.0], [0.0, 1.0]], [0, 0])
    found = objective_for(Segmentation(2), "sharp-dice")(logits, batch, torch.zeros(1))
    expected = value("soft-dice", logits / (0.1 * 2.0), batch, Segmentation(2))
    assert torch.allclose(found, expected)


def test_masked_cross_entropy_leaves_wrong_pixels_alone():
    logits, batch = pixels(*PIXELS)
    found = value("masked-cross-entropy", logits, batch, Segmentation(2))
    assert found.tolist() == pytest.approx([RIGHT / 2])


def test_cospgd_by_hand_with_weights_that_have_no_gradient():
    logits, batch = pixels(*PIXELS)
    cosines = torch.tensor([[[0.8 / math.hypot(0.8, 0.2), 0.4 / math.hypot(0.4, 0.6)]]], dtype=torch.float64)
    objective, logits = objective_for(Segmentation(2), "cospgd"), logits.requires_grad_()
    found = objective(logits, batch, torch.zeros(1))
    assert found.tolist() == pytest.approx([(float(cosines[0, 0, 0]) * RIGHT + float(cosines[0, 0, 1]) * WRONG) / 2])
    (slope,) = torch.autograd.grad(found.sum(), logits)
    one_hot = F.one_hot(batch.targets["mask"], 2).movedim(-1, 1)
    assert torch.allclose(slope, cosines[:, None] * (logits.softmax(1) - one_hot) / 2)


@pytest.mark.parametrize("k", (2, 3, 5))
def test_jensen_shannon_against_scipy(k):
    logits, batch = masks(k=k)
    one_hot = F.one_hot(batch.targets["mask"], k).movedim(-1, 1).numpy()
    distance = jensenshannon(logits.softmax(1).numpy(), one_hot, axis=1)
    found = value("jensen-shannon", logits, batch, Segmentation(k))
    assert found.numpy() == pytest.approx((distance**2).mean((1, 2)))


@pytest.mark.parametrize("name", sorted(OBJECTIVES["segmentation"]))
def test_segmentation_objectives_stay_finite_on_extreme_logits(name):
    logits, batch = pixels([[1e4, -1e4], [-1e4, 1e4]], [0, 0])
    logits = logits.float().requires_grad_()
    found = objective_for(Segmentation(2), name)(logits, batch, torch.full((1,), 0.5))
    (slope,) = torch.autograd.grad(found.sum(), logits)
    assert torch.isfinite(found).all()
    assert torch.isfinite(slope).all()


def test_margin_of_a_label_map_by_hand():
    logits = torch.tensor([[[[2.0, 0.0]], [[1.0, 3.0]], [[0.0, 1.0]]]])  # one row of two pixels, three classes
    batch = Batch(
        sample_ids=torch.zeros(1, dtype=torch.int64),
        inputs=torch.zeros(1, 1, 1, 2),
        targets={"mask": torch.tensor([[[0, 2]]])},
    )
    objective = objective_for(Segmentation(3), "margin")
    assert objective(logits, batch, torch.zeros(1)).tolist() == [((1.0 - 2.0) + (3.0 - 1.0)) / 2]
