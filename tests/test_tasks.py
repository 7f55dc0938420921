"""Tasks: scores against scikit-learn, corpus metrics, and clear words for outputs and targets that do not fit."""

import warnings

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, jaccard_score, roc_auc_score
from torch.nn import functional as F

from datasets.batch import Batch
from datasets.tasks import Task, model_outputs, task_for
from datasets.tasks.classification import Classification, MultiLabelClassification
from datasets.tasks.segmentation import Segmentation
from registry import DatasetSpec
from registry.errors import InputContractError, ModelContractError
from results.statistics import FAIL_BELOW
from tests.toy_tasks import multimodal_batch

GENERATOR = torch.Generator().manual_seed(5)


def batch_of(**targets) -> Batch:
    n = len(next(iter(targets.values())))
    return Batch(sample_ids=torch.arange(n), inputs=torch.zeros(n, 1, 4, 5), targets=targets)


def spec(task, classes=3, **more) -> DatasetSpec:
    names = tuple(f"c{k}" for k in range(classes))
    splits = {"train": 1, "val": 1, "test": 1}
    texts = {"title": "T", "license": "L", "citation": "C", "reader": "a:b"}
    return DatasetSpec(name="toy", task=task, input_shape=(1, 4, 5), class_names=names, splits=splits, **texts, **more)


def facts_of(task, outputs, batch):
    return task.facts(task.decode(outputs, batch), batch)


def scores_of(task, outputs, batch):
    return task.score(task.decode(outputs, batch), batch)


def random_logits(*shape):
    return torch.randn(*shape, generator=GENERATOR)


def test_the_task_follows_the_data_set():
    assert task_for(spec("classification")).n_classes == 3
    assert isinstance(task_for(spec("classification", multi_label=True)), MultiLabelClassification)
    assert isinstance(task_for(spec("segmentation")), Segmentation)
    for task in (Classification(2), MultiLabelClassification(2), Segmentation(2)):
        assert isinstance(task, Task)
        assert 0 <= task.stop_at < task.fail_below == FAIL_BELOW


@pytest.mark.parametrize("k", [2, 3, 4, 9])
def test_classification_against_scikit_learn(k):
    label = torch.arange(60) % k
    logits = random_logits(60, k) + F.one_hot(label, k)
    task, batch = Classification(k), batch_of(label=label)
    task.check_targets(batch)
    scores, facts = scores_of(task, task.check_outputs(logits, batch), batch), facts_of(task, logits, batch)
    assert scores.mean() == pytest.approx(accuracy_score(label, logits.argmax(1)))
    assert torch.allclose(task.training_loss(logits, batch).mean(), F.cross_entropy(logits, label))
    metrics = task.corpus_metrics(facts)
    assert metrics["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(label, logits.argmax(1)))
    probabilities = logits.double().softmax(1).numpy()
    truth = roc_auc_score(label, probabilities[:, 1] if k == 2 else probabilities, multi_class="ovr")
    assert metrics["auroc"] == pytest.approx(truth, abs=1e-6)
    assert facts["probabilities"].shape == (60, k)


def test_classification_by_hand():
    logits = torch.tensor([[0.0, 1.0], [2.0, 0.0], [0.0, 3.0], [1.0, 0.0]])
    task, batch = Classification(2), batch_of(label=torch.tensor([1, 0, 0, 0]))
    assert scores_of(task, logits, batch).tolist() == [1, 1, 0, 1]
    metrics = task.corpus_metrics(facts_of(task, logits, batch))
    assert metrics == {"balanced_accuracy": pytest.approx((1 + 2 / 3) / 2), "auroc": pytest.approx(2 / 3)}


def test_metrics_where_a_class_is_missing():
    """Areas under curves are undefined without both classes; nothing is invented and nothing warns."""
    task, batch = Classification(3), batch_of(label=torch.tensor([0, 0, 1]))
    facts = facts_of(task, torch.eye(3), batch)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        metrics = task.corpus_metrics(facts)
    assert metrics == {"balanced_accuracy": pytest.approx((0.5 + 0) / 2)}
    single = {name: values[:1] for name, values in facts.items()}
    assert task.corpus_metrics(single)["balanced_accuracy"] == 1.0


def test_several_labels_against_scikit_learn():
    labels = (torch.rand(50, 4, generator=GENERATOR) < 0.4).float()
    labels[:, 3] = 0  # never occurs: left out of the means
    logits = random_logits(50, 4) + labels
    task, batch = MultiLabelClassification(4), batch_of(labels=labels, weights=torch.ones_like(labels))
    task.check_targets(batch)
    facts, guess = facts_of(task, logits, batch), (logits > 0).int().numpy()
    assert scores_of(task, logits, batch).numpy() == pytest.approx((guess == labels.numpy()).mean(1))
    expected = F.binary_cross_entropy_with_logits(logits, labels, reduction="none").mean(1)
    assert torch.allclose(task.training_loss(logits, batch), expected)
    metrics = task.corpus_metrics(facts)
    truth = [balanced_accuracy_score(labels[:, k], guess[:, k]) for k in range(3)]
    areas = [roc_auc_score(labels[:, k], logits[:, k]) for k in range(3)]
    assert metrics["balanced_accuracy"] == pytest.approx(np.mean(truth))
    assert metrics["auroc"] == pytest.approx(np.mean(areas))
    assert task.corpus_metrics({name: values[:1] for name, values in facts.items()}) == {}


@pytest.mark.parametrize("k", [2, 4])
def test_segmentation_against_scikit_learn(k):
    mask = torch.randint(0, k, (6, 4, 5), generator=GENERATOR)
    logits = random_logits(6, k, 4, 5) + 2 * F.one_hot(mask, k).movedim(-1, 1)
    task, batch = Segmentation(k), batch_of(mask=mask)
    task.check_targets(batch)
    scores = scores_of(task, task.check_outputs(logits, batch), batch)
    facts, guess = facts_of(task, logits, batch), logits.argmax(1)
    for row in range(6):
        true, found = mask[row].flatten(), guess[row].flatten()
        held = sorted(set(true.tolist()) - {0})
        assert scores[row] == pytest.approx(f1_score(true, found, labels=held, average="macro", zero_division=0))
        iou = jaccard_score(true, found, labels=held, average="macro", zero_division=0)
        assert facts["iou"][row] == pytest.approx(iou)
    pooled = f1_score(mask.flatten(), guess.flatten(), labels=list(range(1, k)), average="macro")
    metrics = task.corpus_metrics(facts)
    assert metrics["voxel_dice"] == pytest.approx(pooled)
    assert metrics["iou"] == pytest.approx(facts["iou"].mean())
    assert "false_positive_px" not in metrics


def test_images_with_an_empty_target_are_counted_apart():
    mask = torch.zeros(3, 4, 5, dtype=torch.int64)
    mask[0, :2] = 1
    found = mask.clone()
    found[1, 0, :3] = 1  # 3 false positives; the third image stays empty
    task, batch = Segmentation(2), batch_of(mask=mask)
    logits = F.one_hot(found, 2).movedim(-1, 1).float()
    assert scores_of(task, logits, batch).tolist() == [1, 0, 1]
    metrics = task.corpus_metrics(facts_of(task, logits, batch))
    assert metrics == {
        "iou": 1.0,
        "voxel_dice": pytest.approx(20 / 23),
        "hd95": 0.0,
        "false_positive_px": 1.5,
    }
    empty = task.corpus_metrics(facts_of(task, logits[1:2], batch.take(slice(1, 2))))
    assert empty == {"false_positive_px": 3.0}


def test_an_erased_lesion_scores_zero():
    mask = torch.zeros(1, 4, 5, dtype=torch.int64)
    mask[0, 1, 1] = 1
    task, batch = Segmentation(2), batch_of(mask=mask)
    nothing = torch.stack([torch.ones(1, 4, 5), torch.zeros(1, 4, 5)], 1)
    assert scores_of(task, nothing, batch).tolist() == [0]
    assert facts_of(task, nothing, batch)["hd95"].tolist() == [pytest.approx(41**0.5)]


def test_segmentation_trains_on_cross_entropy_plus_dice():
    mask = torch.randint(0, 3, (2, 4, 5), generator=GENERATOR)
    logits = random_logits(2, 3, 4, 5)
    task, batch = Segmentation(3), batch_of(mask=mask)
    loss = task.training_loss(logits, batch)
    cross_entropy = F.cross_entropy(logits, mask, reduction="none").mean((1, 2))
    assert ((loss - cross_entropy) > 0).all()
    assert ((loss - cross_entropy) < 1).all()
    perfect = 50.0 * F.one_hot(mask, 3).movedim(-1, 1)
    assert task.training_loss(perfect, batch).max() < 1e-3


LABELS, MASKS = torch.tensor([0, 1]), torch.zeros(2, 4, 5, dtype=torch.int64)
BAD_TARGETS = [
    (Classification(2), {"label": torch.tensor([0, 2])}, "labels must be 0 to 1"),
    (Classification(2), {"label": torch.tensor([-1, 0])}, "got -1 to 0"),
    (Classification(2), {"label": LABELS[:, None]}, "int64"),
    (Classification(2), {"label": LABELS.float()}, "int64"),
    (Classification(2), {"mask": MASKS}, "label"),
    (
        MultiLabelClassification(2),
        {"labels": torch.tensor([[0.0, 2.0], [0, 1]]), "weights": torch.ones(2, 2)},
        "0 or 1",
    ),
    (MultiLabelClassification(2), {"labels": torch.zeros(2, 3)}, "labels"),
    (Segmentation(2), {"mask": MASKS + 2}, "mask values must be 0 to 1, got 2 to 2"),
    (Segmentation(2), {"mask": MASKS[:, :3]}, "size of the images"),
    (Segmentation(2), {"mask": MASKS.float()}, "int64"),
]


@pytest.mark.parametrize(("task", "targets", "text"), BAD_TARGETS)
def test_targets_that_do_not_fit_are_refused(task, targets, text):
    with pytest.raises(InputContractError, match=text):
        task.check_targets(batch_of(**targets))


NAN = torch.tensor([[0.0, 1.0], [torch.nan, 0.0]])
BAD_OUTPUTS = [
    (Classification(2), (torch.zeros(2, 2), None), "got a tuple"),
    (Classification(2), {"logits": torch.zeros(2, 2)}, "got a dict"),
    (Classification(2), torch.zeros(2, 3), r"\(2, 2\), one per class, got \(2, 3\)"),
    (Classification(2), torch.zeros(2), "for 2 inputs"),
    (Classification(2), torch.zeros(3, 2), "for 2 inputs"),
    (Classification(2), torch.zeros(2, 2, dtype=torch.int64), "int64"),
    (Classification(2), NAN, "NaN or infinity for 1 of 2 inputs"),
    (Classification(2), NAN.nan_to_num(nan=torch.inf), "NaN or infinity for 1 of 2 inputs"),
    (MultiLabelClassification(3), torch.zeros(2, 2), "one per label"),
    (Segmentation(2), torch.zeros(2, 2, 4, 4), "one map per class"),
    (Segmentation(2), torch.zeros(2, 3, 4, 5), "one map per class"),
]


@pytest.mark.parametrize(("task", "outputs", "text"), BAD_OUTPUTS)
def test_outputs_that_do_not_fit_are_refused(task, outputs, text):
    with pytest.raises(ModelContractError, match=text):
        task.check_outputs(outputs, batch_of(label=LABELS))


@pytest.mark.parametrize("task", [Classification(3), MultiLabelClassification(3), Segmentation(3)])
def test_a_batch_of_one(task):
    outputs = random_logits(1, 3, 4, 5) if isinstance(task, Segmentation) else random_logits(1, 3)
    labels = torch.tensor([[1.0, 0, 1]])
    batch = batch_of(label=torch.tensor([1]), labels=labels, weights=torch.ones(1, 3), mask=MASKS[:1] + 1)
    task.check_targets(batch)
    assert scores_of(task, task.check_outputs(outputs, batch), batch).shape == (1,)
    assert all(len(values) == 1 for values in facts_of(task, outputs, batch).values())
    assert task.training_loss(outputs, batch).shape == (1,)


def test_a_model_gets_what_the_batch_holds():
    plain = batch_of(label=LABELS)
    assert model_outputs(lambda inputs: inputs + 1, plain).shape == plain.inputs.shape
    model, batch = multimodal_batch(3)
    expected = model(batch.inputs, context=batch.context, present=batch.present)
    assert torch.equal(model_outputs(model, batch), expected)
