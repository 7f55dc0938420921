"""FGSM, BIM and MIM step by step beside torchattacks; random search as the baseline that must lose."""

import pytest
import torch
import torchattacks
from torch.nn import functional as F

from attacks.gradient import fgsm
from attacks.momentum import MIM, bim
from attacks.random_search import RandomSearch
from registry import Member, Norm
from tests.rows import play, rows_for
from tests.toys import attack, batch_for, cnn, images, linear, protocol_of, robust_gap

EPS = 8 / 255


@pytest.mark.parametrize(
    ("name", "ours", "options"),
    [
        ("FGSM", fgsm(), {}),
        ("BIM", bim(steps=10), {"alpha": EPS / 10, "steps": 10}),
        ("BIM", bim(steps=4, step_size=0.5), {"alpha": EPS / 2, "steps": 4}),
        ("MIFGSM", MIM(steps=10), {"alpha": EPS / 10, "steps": 10, "decay": 1.0}),
        ("MIFGSM", MIM(steps=7, step_size=0.3, decay=0.5), {"alpha": 0.3 * EPS, "steps": 7, "decay": 0.5}),
    ],
)
def test_they_end_where_torchattacks_ends(name, ours, options):
    model = cnn(3)
    batch = batch_for(model, images(30, shape=(1, 8, 8), low=0.0, high=1.0))
    label = batch.targets["label"]
    rows = rows_for(batch.inputs, Norm.LINF, EPS)
    asked = play(ours, rows, lambda points: F.cross_entropy(model(points), label, reduction="none"))
    theirs = getattr(torchattacks, name)(model, eps=EPS, **options)
    theirs.set_device("cpu")
    expected = theirs(batch.inputs, label)
    assert len(asked) == options.get("steps", 1) + 1
    different = ((asked[-1] - expected).abs() > 1e-5).flatten(1).any(1)
    assert different.sum() <= 1  # a gradient next to zero has either sign
    assert torch.equal(asked[0], batch.inputs)


def test_momentum_in_l2_by_hand():
    """x2 = x1 + eps / 2 times the unit of g1 + g2, each of unit L1 norm."""
    inputs = torch.full((1, 1, 2, 2), 0.5)
    weights = iter([torch.tensor([3.0, 1.0, 0.0, 0.0]), torch.tensor([0.0, 1.0, 1.0, 0.0]), torch.zeros(4)])
    rows = rows_for(inputs, Norm.L2, 0.2)
    asked = play(MIM(steps=2), rows, lambda points: (points * next(weights).reshape(1, 1, 2, 2)).flatten(1).sum(1))
    first = torch.tensor([0.75, 0.25, 0.0, 0.0])
    total = first + torch.tensor([0.0, 0.5, 0.5, 0.0])
    one = 0.5 + 0.1 * first / first.norm()
    assert asked[1].flatten().tolist() == pytest.approx(one.tolist(), abs=1e-6)
    assert asked[2].flatten().tolist() == pytest.approx((one + 0.1 * total / total.norm()).tolist(), abs=1e-6)


@pytest.mark.parametrize(("norm", "eps"), [(Norm.LINF, 0.06), (Norm.L2, 0.3), (Norm.L1, 0.8), (Norm.L0, 2)])
def test_random_search_asks_for_new_points_at_the_edge(norm, eps):
    inputs = images(3, shape=(1, 6, 6), low=0.4, high=0.6)
    rows = rows_for(inputs, norm, eps)
    rows.batch.sample_ids[2] = rows.batch.sample_ids[1]
    asked = play(RandomSearch(queries=20), rows, lambda points: points.flatten(1).sum(1))
    for points in asked:
        assert torch.allclose(rows.ball.size(points), torch.ones(3), atol=1e-4)
    changes = (asked - inputs).flatten(2)
    assert len(changes.flatten(0, 1).unique(dim=0)) >= 39  # two rows of one sample draw the same


STRONGER = {
    Norm.LINF: ("attacks.apgd:APGD", 0.05),
    Norm.L2: ("attacks.apgd:APGD", 0.19),
    Norm.L1: ("attacks.apgd_l1:APGDL1", 0.6),
    Norm.L0: ("attacks.pgd_l0:PGD0", 1),
}


@pytest.mark.parametrize("norm", STRONGER)
def test_random_search_loses(norm):
    """It breaks nothing that the closed form calls robust, and by far less than a gradient attack of its norm."""
    reference, eps = STRONGER[norm]
    model = linear(2, shape=(1, 8, 8))
    batch = batch_for(model, images(80, shape=(1, 8, 8)))
    gap = robust_gap(model, batch, eps, norm)

    def robust(reference, options):
        member = Member(name="x", attack=reference, options=options, objective="margin")
        return attack(model, batch, protocol_of(member, eps=(eps,), norm=norm), slots=40).budgets[0].scores > 0.5

    at_random = robust("attacks.random_search:RandomSearch", {"queries": 50})
    assert at_random[gap > 1e-4].all()
    assert at_random.sum() >= robust(reference, {"steps": 30}).sum() + 5
    assert (~at_random).sum() > 0
