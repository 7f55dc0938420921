"""The page of a defense that draws random numbers says what its draws are worth; that of another one says nothing."""

import re
from dataclasses import replace

import pytest

from registry import Family, Randomness
from reports.defense_pages import DefensePages
from reports.html import environment
from reports.noise import noise_of
from tests.synthetic_records import make_defense, make_protocol, make_record
from tests.test_leaderboard import board_at, row_of, standings_of

NOISY = make_defense("Noisy", family=Family.NOISE_INJECTION, randomness=Randomness.SAMPLE)
PLAIN = replace(NOISY, name="PlainNoise", paper=None)
OTHER = make_defense("Dhar2026NUMAN", family=Family.NOISE_INJECTION, randomness=Randomness.SAMPLE)
OTHER = replace(OTHER, paper=make_defense("Madry2018PGDAT").paper)
PGD_AT = make_defense("Madry2018PGDAT")
SWEEP = make_protocol("adaptive:eot-sweep")
ROBUST = (0.7, 0.6, 0.5, 0.3, 0.1)
DRAWS = ((20, 16, 0.5), (50, 32, 0.4), (100, 64, 0.35))


def swept(defense, falls=DRAWS, robust=ROBUST):
    """Returns the record of a sweep whose members take these (steps, draws a step) and leave these scores."""
    made = make_record(defense=defense, protocol=SWEEP, robust=robust)
    record = made.record

    def members(result):
        kept = zip(result.members, falls, strict=False)
        return tuple(
            replace(
                member,
                name=f"apgd-{steps * draws}",
                card={**member.card, "options": {"steps": steps, "eot_samples": draws}},
                robust_after=left,
                backwards=steps * draws,
            )
            for member, (steps, draws, left) in kept
        )

    budgets = tuple(replace(result, members=members(result)) for result in record.budgets)
    return replace(made, record=replace(record, budgets=budgets))


@pytest.fixture
def standings(tmp_path):
    return standings_of(
        tmp_path,
        make_record(defense=OTHER, robust=ROBUST),
        swept(OTHER),
        swept(PLAIN, robust=(0.6, 0.5, 0.4, 0.2, 0.1)),
        make_record(defense=PLAIN, robust=(0.6, 0.5, 0.3, 0.1, 0.0)),
        make_record(defense=PGD_AT, robust=(0.78, 0.75, 0.7, 0.5, 0.2)),
        make_record(),
    )


def noise(standings, name):
    board = board_at(standings)
    return noise_of(board, row_of(board, name), standings.others)


def test_it_is_compared_with_plain_noise_and_adversarial_training(standings):
    gains = {item.row.defense.name: item.gain for item in noise(standings, "Dhar2026NUMAN").against}
    assert set(gains) == {"PlainNoise", "Madry2018PGDAT"}
    assert gains["PlainNoise"] == pytest.approx(0.2, abs=0.01)
    assert gains["Madry2018PGDAT"] == pytest.approx(-0.2, abs=0.01)


def test_scores_stand_against_draws(standings):
    (sweep,) = noise(standings, "Dhar2026NUMAN").sweeps
    assert [(step.draws, step.left[2]) for step in sweep.steps] == [(320, 0.5), (1600, 0.4), (6400, 0.35)]
    assert sweep.falls[2] == pytest.approx(0.05)  # 320 and 1,600 draws are less than half of all
    assert len(sweep.budgets) == len(sweep.falls) == 5


def test_a_deterministic_defense_has_no_draws(standings):
    assert noise(standings, "Undefended") is None


def test_the_sweep_of_other_weights_is_not_shown(tmp_path):
    stranger = swept(OTHER)
    weights = replace(stranger.record.checkpoint, sha256="0" * 64)
    stranger = replace(stranger, record=replace(stranger.record, checkpoint=weights))
    found = standings_of(tmp_path, make_record(defense=OTHER), stranger, make_record())
    assert noise(found, "Dhar2026NUMAN").sweeps == ()


def test_a_sweep_of_which_an_attack_raised_shows_nothing(tmp_path):
    raised = swept(OTHER)
    budgets = [replace(b, members=(replace(b.members[0], errors=3), *b.members[1:])) for b in raised.record.budgets]
    raised = replace(raised, record=replace(raised.record, budgets=tuple(budgets)))
    found = standings_of(tmp_path, make_record(defense=OTHER), raised, make_record())
    assert noise(found, "Dhar2026NUMAN").sweeps == ()


def test_the_page_says_it_in_words(standings):
    pages = dict(DefensePages(environment(), standings).render())
    text = {name: " ".join(re.sub(r"<[^>]*>", " ", page).split()) for name, page in pages.items()}
    page = next(page for name, page in text.items() if "Dhar2026NUMAN" in name)
    assert re.search(r"keeps (at most )?50\.\d %", page)
    assert re.search(r"(19|20)\.\d points more than PlainNoise , plain noise, \(at most (29|30)\.\d %\)", page)
    assert re.search(r"(19|20)\.\d points less than Madry2018PGDAT \((69|70)\.\d %\)", page)
    assert "Differences from or between upper bounds may change." in page
    assert "Score against draws" in page
    assert "the same sweep of draws ( adaptive:eot-sweep ) it keeps 50.0 % and PlainNoise , plain noise, 39.7 %" in page
    plain = next(page for name, page in text.items() if "PlainNoise" in name)
    assert "Score against draws" in plain and "the same sweep" not in plain
    assert not any("What its draws are worth" in page for name, page in text.items() if "PGDAT" in name)
