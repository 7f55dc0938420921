"""Several labels at once: balanced accuracy over labels is what attacks lower, records state and boards rank."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score
from torch import nn

import benchmark.summary
from attacks.judging import FINAL
from attacks.objectives import objective_for
from attacks.victim import ModelVictim
from benchmark.batch_design import design_of
from benchmark.obstacles import base_chain, defense_obstacle, protocol_obstacle
from benchmark.rounding import judge_with_doubt
from benchmark.summary import Summary
from benchmark.validation.defense import Bench, _behaviour, _few
from datasets.batch import Batch, Dataset, Split
from datasets.tasks.classification import MultiLabelClassification, label_weights
from registry import DATASETS, DEFENSES, PROTOCOLS, Member, load_entries
from registry.errors import InputContractError
from reports.standings import build_standings
from results.consistency import table_problems
from results.sample_design import SampleDesign
from results.sample_table import WEIGHT
from results.statistics import mean_estimate
from tests.synthetic_records import LINF_GRID, make_dataset, make_protocol, make_record, write_store
from tests.toys import attack, cnn, images, protocol_of

load_entries()
FGSM = Member(name="fgsm", attack="attacks.gradient:PGD", options={"steps": 1}, objective="margin")
RNG = np.random.default_rng(3)
LABELS = (RNG.random((60, 4)) < (0.5, 0.1, 0.3, 0.0)).astype(np.float32)
"""The last label never occurs."""
FITTING = [
    entry
    for entry in DEFENSES
    if "classification" in entry.tasks
    and entry.datasets == ("*",)
    and not (entry.one_label or entry.detects)
    and not entry.is_control
]
OF_LABELS = ("outputs are raw", "its recipe", "a quick evaluation")
"""How the clauses begin that the kind of labels matters to."""
QUICK = ("Undefended", "Madry2018PGDAT", "JPEG")


def batch_of(labels: np.ndarray, **targets: np.ndarray) -> Batch:
    shown = {"labels": torch.from_numpy(labels)} | {name: torch.from_numpy(value) for name, value in targets.items()}
    return Batch(sample_ids=torch.arange(len(labels)), inputs=images(len(labels), shape=(1, 8, 8)), targets=shown)


def labelled_phantom() -> Dataset:
    """The phantom of two classes with three labels: its class, one half of the samples, and one in five."""
    plain = _few(DATASETS["phantom2"].load(None))
    splits = {}
    for name, split in plain.splits.items():
        order = np.arange(len(split))
        labels = np.stack([split.targets["label"], order % 2, order % 5 == 0], 1).astype(np.float32)
        splits[name] = Split(images=split.images, targets={"labels": labels, "weights": label_weights(labels)})
    sizes = {name: len(split) for name, split in splits.items()}
    spec = replace(
        plain.spec, name="labels3", multi_label=True, class_names=("a", "b", "c"), splits=sizes, harmful_confusions=()
    )
    return Dataset(spec=spec, splits=splits, sha256="0" * 64)


def test_the_mean_of_weighted_scores_is_the_balanced_accuracy_over_labels():
    guess = (RNG.random(LABELS.shape) < 0.4).astype(np.float32)
    weights = label_weights(LABELS)
    task, batch = MultiLabelClassification(4), batch_of(LABELS, weights=weights)
    task.check_targets(batch)
    scores = task.score({"predictions": torch.from_numpy(guess)}, batch).numpy()
    assert ((scores >= 0) & (scores <= 1)).all() and weights.mean() == pytest.approx(1)
    truth = np.mean([balanced_accuracy_score(LABELS[:, k], guess[:, k]) for k in range(3)])
    assert (scores * weights.mean(1)).mean() == pytest.approx(truth, rel=1e-6)
    for constant in (np.zeros_like(LABELS), np.ones_like(LABELS)):
        scores = task.score({"predictions": torch.from_numpy(constant)}, batch).numpy()
        assert (scores * weights.mean(1)).mean() == pytest.approx(0.5, rel=1e-6)


def test_labels_without_two_values_count_alike():
    assert (label_weights(np.ones((5, 2), np.float32)) == 1).all()


def test_weights_that_make_no_sense_are_told():
    task = MultiLabelClassification(4)
    for weights in (np.zeros_like(LABELS), -label_weights(LABELS), np.ones((60, 2), np.float32)):
        with pytest.raises(InputContractError, match="weights of labels must be at least 0"):
            task.check_targets(batch_of(LABELS, weights=weights))
    with pytest.raises(InputContractError, match="of `label_weights` over the whole split"):
        task.check_targets(batch_of(LABELS))


def test_attacks_ascend_what_is_scored():
    """Where a rare label and a frequent one cannot both be wrong, the rare one is worth more."""
    weights = label_weights(LABELS)
    row = int(np.flatnonzero(LABELS[:, 1])[0])
    batch = batch_of(LABELS, weights=weights).take(torch.tensor([row]))
    wrong, right = 100 * (1 - 2 * batch.targets["labels"]), 100 * (2 * batch.targets["labels"] - 1)
    margin, values = objective_for(MultiLabelClassification(4), "margin"), {}
    for label in (0, 1):
        logits = right.clone()
        logits[0, label] = wrong[0, label]
        values[label] = float(margin(logits, batch, torch.ones(1)))  # the last step is the sharpest
        score = MultiLabelClassification(4).score({"predictions": (logits > 0).float()}, batch)
        assert values[label] == pytest.approx(1 - float(score), abs=1e-6)
    assert values[1] > 3 * values[0]


def test_records_state_it_clean_and_under_attack(monkeypatch):
    monkeypatch.setattr(benchmark.summary, "CORPUS_RESAMPLES", 2)
    model, spec = cnn(4), replace(labelled_phantom().spec, class_names=("a", "b", "c", "d"), input_shape=(1, 8, 8))
    split = Split(
        images=images(60, shape=(1, 8, 8)).numpy(), targets={"labels": LABELS, "weights": label_weights(LABELS)}
    )
    batch, task = split.all(), MultiLabelClassification(4)
    outcome = attack(model, batch, protocol_of(FGSM, eps=(0.2,)), task=task)
    summary = Summary(ModelVictim(model, task, slots=8), batch, spec, outcome)
    budget = summary.budgets[0]
    assert summary.clean["clean"].value == pytest.approx(summary.clean["balanced_accuracy"].value, abs=1e-6)
    assert budget.metrics["robust"].value == pytest.approx(budget.metrics["balanced_accuracy"].value, abs=1e-6)
    assert budget.metrics["robust"].value < summary.clean["clean"].value
    assert summary.constant_predictor == 0.5
    table = summary.table()
    assert table[WEIGHT].mean() == pytest.approx(1, abs=1e-6)


def weighted(made, weight):
    """Returns a synthetic record whose samples count with a weight."""

    def mean(column):
        return mean_estimate(made.samples[column], False, SampleDesign(weights=weight))

    budgets = [
        replace(result, metrics=result.metrics | {"robust": mean(f"score_{place}")})
        for place, result in enumerate(made.record.budgets)
    ]
    record = replace(made.record, budgets=tuple(budgets), clean=made.record.clean | {"clean": mean("clean_score")})
    return replace(made, record=record, samples=made.samples.assign(**{WEIGHT: weight}).drop(columns="clean_label"))


def test_boards_rank_weighted_scores(tmp_path):
    data, shares = make_dataset("chestmnist", n_test=300), (0.9, 0.9, 0.6, 0.3, 0.1)
    weight = np.where(np.arange(300) < 60, 3.0, 0.5)  # mean 1
    plain = make_record(dataset=data, clean=0.95, robust=shares)
    other = make_record(
        dataset=data, clean=0.95, robust=(0.8, 0.7, 0.5, 0.2, 0.1), protocol=make_protocol("adaptive:x"), seed=0
    )
    made = [weighted(plain, weight), weighted(other, weight)]
    board = next(found for found in build_standings(write_store(tmp_path, made)).boards if found.ranks)
    (row,) = board.rows
    place = [budget.label for budget in LINF_GRID].index(board.budget.label)
    lowest = np.minimum(plain.samples[f"score_{place}"], plain.samples["clean_score"])
    assert row.robust.value == pytest.approx((plain.samples[f"score_{place}"] * weight).mean(), abs=1e-6)
    together = np.minimum(lowest, other.samples[[f"score_{k}" for k in range(place + 1)]].min(axis=1))
    assert row.best_known.value == pytest.approx((together * weight).mean(), abs=1e-6)
    assert row.best_known.value < row.robust.value and row.lowered_by
    right = plain.samples["clean_score"] >= 0.5
    assert row.attack_success_rate.value == pytest.approx((together[right] < 0.5).mean(), abs=1e-6)


def test_of_part_of_a_split_the_perfect_score_is_1():
    """Weights are those of the split, whose mean is 1; that of its first samples is another."""
    weights = label_weights(LABELS)[:9]
    part = batch_of(LABELS[:9], weights=weights)
    assert weights.mean() != pytest.approx(1, abs=0.01)
    assert part.mean(torch.ones(9)) == pytest.approx(1)
    assert mean_estimate(np.ones(9), True, design_of(part)).high == 1


class Fixed(nn.Module):
    """Answers the same whatever it sees."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.logits.expand(len(inputs), -1) + 0 * inputs.sum()


def test_rounding_doubts_as_much_as_a_label_weighs():
    row = int(np.flatnonzero(LABELS[:, 1])[0])
    batch = batch_of(LABELS, weights=label_weights(LABELS)).take(torch.tensor([row]))
    model = Fixed(torch.tensor([[1.0, 1e-9, 1.0, 1.0]])).eval()
    _, doubt = judge_with_doubt(ModelVictim(model, MultiLabelClassification(4), slots=1), batch, FINAL, 1.0)
    weights = batch.targets["weights"][0]
    assert float(doubt) == pytest.approx(float(weights[1] / weights.sum()))


def test_consistency_knows_the_weights():
    weight = np.where(np.arange(156) < 52, 2.0, 0.5)
    made = weighted(make_record(), weight)
    steps = {f"step_{index}": made.samples[f"member_{index}"].eq("") * -1 for index in range(5)}
    problems = table_problems(made.record, made.samples.assign(**steps))
    assert not [problem for problem in problems if "clean score" in problem]
    forgot = table_problems(made.record, made.samples.assign(**steps).drop(columns=WEIGHT))
    assert [problem for problem in forgot if "clean score" in problem]


def test_what_needs_one_class_an_image_is_skipped_with_its_reason():
    spec = labelled_phantom().spec
    for name in ("Zhang2019TRADES", "Wang2020MART", "Dhar2026DGMP", "Xu2018FeatureSqueezing"):
        found = defense_obstacle(base_chain(DEFENSES[name], DEFENSES), spec)
        assert "one class an image, and labels3 has several labels" in found.reason
    assert defense_obstacle(base_chain(DEFENSES["Madry2018PGDAT"], DEFENSES), spec) is None
    assert "need one class an image" in protocol_obstacle(PROTOCOLS["reference:autoattack"], spec).reason
    assert protocol_obstacle(PROTOCOLS["standard"], spec) is None
    assert defense_obstacle(base_chain(DEFENSES["Zhang2019TRADES"], DEFENSES), DATASETS["phantom2"]) is None


@pytest.mark.parametrize(
    "entry",
    [pytest.param(e, id=e.name, marks=[] if e.name in QUICK else pytest.mark.slow) for e in FITTING],
)
def test_every_other_defense_trains_and_is_attacked_on_several_labels(entry, tmp_path):
    bench = Bench(entry=entry, dataset=labelled_phantom(), folder=tmp_path)
    asked = [found for found in _behaviour(bench, lambda text: None) if found.clause.startswith(OF_LABELS)]
    assert len(asked) == len(OF_LABELS) and [found for found in asked if not found.ok] == []
