"""Grey-box attacks: only the surrogate is asked, its worst point is handed over, and the published stop is kept."""

import math

import torch

from attacks.crafted import Crafted
from attacks.entries import tsai
from attacks.victim import Access, ModelVictim
from datasets.tasks.classification import Classification
from registry import PROTOCOLS, Budget, CellFacts, Family, Need, Norm, linf, load_entries
from tests.rows import RNG, rows_for
from tests.toys import batch_for, cnn, images, linear

EXHAUSTIVE = {"attack": "attacks.one_pixel:OnePixel", "surrogate": "bare"}
DE = {"attack": "attacks.one_pixel_de:OnePixelDE", "options": {"population": 20, "generations": 10}}


def access_to(surrogate, victim):
    task = Classification(2)
    made = {name: ModelVictim(model, task, slots=16) for name, model in (("bare", surrogate), ("own", victim))}
    return Access(victim=made["own"], search=made["own"], surrogates={"bare": made["bare"]})


def one_pixel_changes(point, original):
    """Every image that differs in one pixel of 0 or 1."""
    for place in range(original.numel()):
        for value in (0.0, 1.0):
            changed = original.clone()
            changed.view(-1)[place] = value
            yield changed


def test_it_hands_over_the_point_that_is_worst_for_the_surrogate_and_asks_the_victim_nothing():
    surrogate, victim = linear(2), linear(2, seed=5)
    inputs = images(5)
    batch = batch_for(surrogate, inputs)
    access = access_to(surrogate, victim)
    found = Crafted(**EXHAUSTIVE).run(access, batch, rows_for(inputs, Norm.L0, 1).ball, RNG)
    assert access.victim.spent.forwards == 0
    assert access.surrogates["bare"].spent.forwards == 5 * (1 + 2 * 16)

    @torch.no_grad()
    def loss(points, label):
        return torch.nn.functional.cross_entropy(surrogate(points[None]), label[None])

    for point, original, label in zip(found, inputs, batch.targets["label"], strict=True):
        assert int((point != original).sum()) == 1
        best = max(float(loss(changed, label)) for changed in one_pixel_changes(point, original))
        assert math.isclose(float(loss(point, label)), best, rel_tol=1e-5)


def test_a_row_ends_once_the_surrogate_is_fooled_as_far_as_asked():
    inputs = images(6)
    model = linear(2)
    batch, ball = batch_for(model, inputs), rows_for(inputs, Norm.L0, 3).ball
    full, early = access_to(model, model), access_to(model, model)
    Crafted(**DE, surrogate="bare").run(full, batch, ball, RNG)
    points = Crafted(**DE, surrogate="bare", stop_above=0.7).run(early, batch, ball, RNG)
    assert early.surrogates["bare"].spent.forwards < full.surrogates["bare"].spent.forwards
    assert (points != inputs).flatten(1).sum(1).max() <= 3


def test_without_a_surrogate_it_crafts_on_the_victim():
    inputs, model = images(3), linear(2)
    access = access_to(linear(2, seed=9), model)
    Crafted(**DE).run(access, batch_for(model, inputs), rows_for(inputs, Norm.L0, 1).ball, RNG)
    assert access.victim.spent.forwards > 0
    assert access.surrogates["bare"].spent.forwards == 0


def test_the_protocol_is_the_published_attack_on_the_bare_network():
    load_entries()
    protocol = PROTOCOLS["paper:tsai"]
    assert [budget.size for budget in protocol.budgets] == [1, 3, 5]
    assert not protocol.ranks
    assert Family.PURIFICATION in protocol.families and Family.ADVERSARIAL_TRAINING not in protocol.families
    (member,) = protocol.ensemble(CellFacts(task="classification", n_classes=2, has_bare=True), protocol.budgets[0])
    assert member.options["options"] == {"population": 400, "generations": 100}
    assert math.isclose(math.exp(-member.options["stop_above"]), 0.05)
    assert member.options["surrogate"] == Need.BARE
    for facts, surrogate in (({"has_twin": True}, Need.TWIN), ({"has_twin": False}, None)):
        (member,) = tsai.exhaustive(CellFacts(task="classification", n_classes=2, **facts), linf(0))
        assert member.options["surrogate"] == surrogate


def test_it_runs_in_the_engine():
    from attacks.engine import run_protocol
    from registry import AttackProtocol, Member, ThreatModel

    model, inputs = cnn(2), images(4, shape=(1, 8, 8))
    batch = batch_for(model, inputs)
    member = Member(name="de", attack="attacks.crafted:Crafted", options={**DE, "stop_above": 3.0})
    protocol = AttackProtocol(
        name="toy",
        title="Toy",
        threat_model=ThreatModel(norm=Norm.L0),
        budgets=(Budget(norm=Norm.L0, eps=5),),
        tasks=("classification",),
        members=lambda facts, budget: (member,),
    )
    outcome = run_protocol(access_to(model, model), batch, protocol, CellFacts(task="classification", n_classes=2))
    done = outcome.budgets[0].members[0]
    assert done.error is None and done.violations == 0 and done.attempted == 4
