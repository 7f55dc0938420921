"""The slips of `tests.mutations`: each can still be made, every attack has one, and the tests see them all."""

import pytest

from registry import ROOT
from tests.mutations import MUTATIONS, caught, copied, outcome
from tests.test_attacks import attack_classes

SLIPS = {mutation.name: mutation for mutation in MUTATIONS}
NO_SEARCH_OF_OURS = {"Corruption", "ReplayedSteps", "PublishedAutoAttack", "Torchattacks"}
"""A corruption is no search, a replay runs another attack, and the published code is what others are held against."""


@pytest.mark.parametrize("name", SLIPS)
def test_the_text_stands_once_in_its_file(name):
    slip = SLIPS[name]
    assert (ROOT / slip.path).read_text(encoding="utf-8").count(slip.old) == 1
    assert (ROOT / slip.test.split("::")[0]).is_file()


def test_every_attack_has_a_slip():
    assert attack_classes() - set(SLIPS) == NO_SEARCH_OF_OURS


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    return copied(tmp_path_factory.mktemp("mutations") / "copy")


@pytest.mark.slow
@pytest.mark.parametrize("test", sorted({mutation.test for mutation in MUTATIONS}))
def test_unchanged_code_passes(copy, test):
    assert outcome(copy, test) == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", SLIPS)
def test_the_slip_is_seen(copy, name):
    assert caught(SLIPS[name], copy)
