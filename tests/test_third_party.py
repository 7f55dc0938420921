"""Published attack libraries inside our shell: they run for every number of classes and leave nothing behind."""

import functools

import pyautoattack.autoattack as published
import pytest
import torch
from pyautoattack import AutoAttack
from pyautoattack.autopgd_base import APGDAttack

from attacks.third_party import CountedModel, fitting_members
from attacks.victim import ModelVictim
from datasets.tasks.classification import Classification
from registry import Member, Norm, Randomness
from tests.toys import NoisyInput, attack, batch_for, cnn, images, linear, protocol_of, robust_gap

EPS = 0.02


@pytest.fixture(autouse=True)
def fewer_queries(monkeypatch):
    """Square's 5000 queries and FAB's 100 steps are more than a linear toy needs."""

    def limited(attack_class, **limits):
        @functools.wraps(attack_class)
        def build(*args, **options):
            return attack_class(*args, **(options | limits))

        return build

    monkeypatch.setattr(published, "SquareAttack", limited(published.SquareAttack, n_queries=100))
    monkeypatch.setattr(published, "FABAttack_PT", limited(published.FABAttack_PT, n_iter=10))
    for name in ("APGDAttack", "APGDAttack_targeted"):
        monkeypatch.setattr(published, name, limited(getattr(published, name), n_iter=10))


def autoattack(attacks=None) -> Member:
    options = {} if attacks is None else {"attacks": attacks}
    return Member(name="autoattack", attack="attacks.third_party:PublishedAutoAttack", options=options)


def torchattacks(name="PGD", **options) -> Member:
    return Member(name=name, attack="attacks.third_party:Torchattacks", options={"name": name, **options})


@pytest.mark.parametrize("k", [2, 3, 4])
def test_autoattack_runs_on_every_number_of_classes(k):
    model = linear(k)
    batch = batch_for(model, images(24), wrong=2)
    state = torch.random.get_rng_state()
    outcome = attack(model, batch, protocol_of(autoattack(), eps=(EPS,)), slots=24).budgets[0]
    assert torch.equal(torch.random.get_rng_state(), state)
    (member,) = outcome.members
    assert (member.errors, member.violations, member.attempted) == (0, 0, 22), member.error
    assert member.forwards > 0 < member.backwards
    gap = robust_gap(model, batch, EPS)
    clear = gap.abs() > 0.01
    assert torch.equal(outcome.scores[clear], (gap > 0).float()[clear])
    assert 0.1 < outcome.scores.mean() < 0.9


def test_the_published_standard_version_fails_on_two_classes():
    """Why our adapter chooses the members: DLR takes the third largest logit."""
    model = linear(2)
    batch = batch_for(model, images(6))
    with torch.random.fork_rng(devices=[]), pytest.raises(IndexError):
        attacker = AutoAttack(model, norm="Linf", eps=EPS, version="standard", seed=0)
        attacker.verbose = False
        attacker.run_standard_evaluation(batch.inputs, batch.targets["label"])


def test_members_that_fit():
    assert fitting_members(2) == ("apgd-ce", "fab", "square")
    assert fitting_members(3) == ("apgd-ce", "apgd-dlr", "fab", "square")
    assert fitting_members(4) == fitting_members(10) == ("apgd-ce", "apgd-t", "fab-t", "square")
    assert fitting_members(2, stochastic=True) == ("apgd-ce",)
    assert fitting_members(3, stochastic=True) == fitting_members(10, stochastic=True) == ("apgd-ce", "apgd-dlr")


@pytest.fixture
def runs_of_apgd(monkeypatch):
    """Returns the loss, the draws of a gradient and the number of gradients of samples of every run of Auto-PGD."""
    found, run = [], APGDAttack.attack_single_run

    def recorded(self, x, y, *args, **options):
        found.append((self.loss, self.eot_iter, (self.n_iter + 1) * len(x)))
        return run(self, x, y, *args, **options)

    monkeypatch.setattr(APGDAttack, "attack_single_run", recorded)
    return found


@pytest.mark.parametrize(("k", "losses"), [(2, ["ce"]), (3, ["ce", "dlr"])])
def test_a_stochastic_victim_gets_the_published_rand_setting(k, losses, runs_of_apgd, caplog):
    base = linear(k)
    batch = batch_for(base, images(12))
    model = NoisyInput(base, sigma=0.02, drop=0.0)
    outcome = attack(model, batch, protocol_of(autoattack(), eps=(EPS,)), slots=12, randomness=Randomness.SAMPLE)
    (member,) = outcome.budgets[0].members
    assert member.errors == 0, member.error
    assert list(dict.fromkeys(loss for loss, _, _ in runs_of_apgd)) == losses
    assert {draws for _, draws, _ in runs_of_apgd} == {20}
    assert member.backwards == sum(draws * gradients for _, draws, gradients in runs_of_apgd)
    assert "randomized" not in caplog.text


def test_a_deterministic_victim_keeps_one_gradient_a_step(runs_of_apgd):
    model = linear(2)
    attack(model, batch_for(model, images(6)), protocol_of(autoattack(("apgd-ce",)), eps=(EPS,)))
    assert {draws for _, draws, _ in runs_of_apgd} == {1}


@pytest.mark.parametrize(("norm", "eps"), [(Norm.LINF, EPS), (Norm.L2, 0.1)])
def test_autoattack_knows_linf_and_l2(norm, eps):
    model = linear(3)
    batch = batch_for(model, images(12))
    outcome = attack(model, batch, protocol_of(autoattack(("apgd-ce",)), eps=(eps,), norm=norm)).budgets[0]
    assert outcome.members[0].errors == 0, outcome.members[0].error
    assert (outcome.scores[robust_gap(model, batch, eps, norm) > 0] == 1).all()
    assert outcome.scores.mean() < 1


def test_restricted_supports_are_an_error():
    model = linear(2)
    batch = batch_for(model, images(4)).with_target("mask", torch.ones(4, 4, 4, dtype=torch.int64))
    for member in (autoattack(), torchattacks(steps=2)):
        outcome = attack(model, batch, protocol_of(member, eps=(EPS,), support="inside-mask")).budgets[0]
        assert outcome.members[0].errors == 4
        assert "no restricted support" in outcome.members[0].error


def test_torchattacks_pgd_is_exact_on_two_classes():
    model = linear(2)
    batch = batch_for(model, images(40), wrong=2)
    state = torch.random.get_rng_state()
    outcome = attack(model, batch, protocol_of(torchattacks(alpha=EPS / 2, steps=8), eps=(EPS,))).budgets[0]
    assert torch.equal(torch.random.get_rng_state(), state)
    assert outcome.members[0].errors == outcome.members[0].violations == 0
    assert torch.equal(outcome.scores, (robust_gap(model, batch, EPS) > 0).float())
    assert outcome.members[0].backwards == 8 * 38


def test_the_seed_decides():
    model = cnn(3)
    batch = batch_for(model, images(8, shape=(1, 8, 8)))
    protocol = protocol_of(torchattacks(alpha=0.003, steps=2), eps=(0.05,))
    points = [attack(model, batch, protocol, seed=seed).budgets[0].points for seed in (0, 0, 1)]
    assert (points[0] != batch.inputs).any()
    assert torch.equal(points[0], points[1])
    assert not torch.equal(points[0], points[2])


def test_nothing_is_printed(capsys):
    model = linear(3)
    batch = batch_for(model, images(6))
    attack(model, batch, protocol_of(autoattack(("apgd-ce",)), torchattacks("MIFGSM", steps=2), eps=(EPS,)))
    assert capsys.readouterr().out == ""


def test_a_name_that_does_not_exist_is_an_error_of_the_member():
    model = linear(2)
    batch = batch_for(model, images(5))
    outcome = attack(model, batch, protocol_of(torchattacks("Nothing"), eps=(EPS,))).budgets[0]
    assert outcome.members[0].errors == 5
    assert "Nothing" in outcome.members[0].error


@pytest.mark.parametrize("mode", [True, False])
def test_libraries_cannot_switch_the_victims_mode(mode):
    model = torch.nn.Sequential(torch.nn.Dropout(0.5), linear(2)).eval()
    model[0].train(mode)  # declared dropout at inference stays what it is
    counted = CountedModel(ModelVictim(model, Classification(2)))
    assert not counted.training
    counted.eval()
    counted.train()
    assert [m.training for m in model.modules()] == [False, mode, False]


def test_passes_are_counted():
    victim = ModelVictim(linear(2), Classification(2))
    counted = CountedModel(victim)
    inputs = images(5).requires_grad_()
    torch.autograd.grad(counted(inputs).sum(), inputs)
    with torch.no_grad():
        counted(inputs)
    counted(images(3))
    assert (victim.spent.forwards, victim.spent.backwards) == (13, 5)
    torch.autograd.grad(counted(inputs).sum(), inputs)
    assert victim.spent.backwards == 10  # earlier passes on the same inputs do not count again
