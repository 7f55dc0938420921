"""Is `standard` as strong as the published AutoAttack and a far longer run of ours together? Sample by sample.

Run on demand: `python -m tox -e performance -- tests/performance/test_strength.py -s`; MEDROBUST_IMAGES sets the images
of each model (default 50).
"""

from __future__ import annotations

import pytest

from attacks.ball import ball_for
from attacks.draws import KeyedRandom
from attacks.standard_ensemble import members
from attacks.third_party import PublishedAutoAttack
from attacks.victim import Access, ModelVictim
from registry import Budget, Member, ThreatModel, linf
from tests.performance.models import attacked, fixed, number, protocol, report, right_at, subject

pytestmark = pytest.mark.slow
MODELS = (
    ("Undefended", "breastmnist"),
    ("Madry2018PGDAT", "breastmnist"),
    ("Zhang2019TRADES", "breastmnist"),
    ("Undefended", "pneumoniamnist"),
    ("Madry2018PGDAT", "pneumoniamnist"),
    ("Undefended", "pathmnist_subset"),
    ("Madry2018PGDAT", "pathmnist_subset"),
    ("Zhang2019TRADES", "pathmnist_subset"),
    ("Madry2018PGDAT", "phantom2"),
    ("Undefended", "phantom4"),
    ("Madry2018PGDAT", "phantom4"),
)
LONGER = 5
"""How many times the steps and restarts of APGD the long run takes."""


def long_run(n_classes: int) -> tuple[Member, ...]:
    """Returns APGD with 5 times the steps and 5 restarts, on the margin to each other class."""
    options = {"steps": 100 * LONGER, "restarts": LONGER * (n_classes - 1)}
    aim = "margin" if n_classes == 2 else "targeted-margin"
    return (Member(name="long", attack="attacks.apgd:APGD", options=options, objective=aim),)


@pytest.mark.parametrize(("defense", "dataset"), MODELS)
def test_standard_is_as_strong_as_autoattack_and_a_long_run_together(defense, dataset):
    model, batch = subject(defense, dataset, number("IMAGES", 50))
    budget: Budget = model.spec.ranked_budget
    assert budget.norm == linf(1.0).norm
    long = fixed(*long_run(model.spec.n_classes))
    ours, longer = (attacked(model, batch, protocol(m, (budget,)))[1].budgets[0].scores > 0 for m in (members, long))
    victim = ModelVictim(model.model, model.task)
    ball = ball_for(ThreatModel(), budget, batch.inputs)
    points = PublishedAutoAttack().run(Access(victim=victim, search=victim), batch, ball, KeyedRandom(seed=0))
    theirs = right_at(model, batch, points)
    weaker = int((ours & ~(theirs & longer)).sum())
    allowed = max(1, len(batch) / 200)
    stronger = int((~ours & theirs & longer).sum())
    assert report(
        "Samples on which `standard` is weaker than AutoAttack and a long run together",
        f"{defense} on {dataset}, n {len(batch)}, {budget.label}",
        weaker,
        aim=f"{allowed:g} or less",
        reached=weaker <= allowed,
        detail=f"{int(ours.sum())} survive `standard`, {int(theirs.sum())} AutoAttack, {int(longer.sum())} APGD with "
        f"{LONGER} times the steps and {LONGER} restarts for each; on {stronger} it is stronger",
    )
