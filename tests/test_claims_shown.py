"""What a page shows beside a published number: a replay, the ranking protocol, or that nothing compares."""

from __future__ import annotations

from dataclasses import replace

import pytest

from registry import Budget, Claim, Norm
from reports.site import build_site
from tests.synthetic_records import make_claim, make_defense, make_protocol, make_record, write_store

AT_3_PERCENT = Budget(norm=Norm.LINF, eps=0.03)


def lines(tmp_path, claims: tuple[Claim, ...]) -> list[str]:
    """Returns the rows of the table of claims on the page of a defense with records of two protocols."""
    defense = make_defense("Claimer", claims=claims)
    paper = make_protocol("paper:someone-pgd-20", budgets=[AT_3_PERCENT]) | {"cascades": False}
    made = [
        make_record(defense=defense, clean=0.9),
        make_record(defense=defense, protocol=paper, robust=(0.6,), flags=()),
        make_record(defense=defense, protocol=paper, robust=(0.2,), flags=(), weights="other", attack_seed=1),
    ]
    build_site(write_store(tmp_path / "records", made), tmp_path / "site")
    text = (tmp_path / "site/defenses/Claimer.html").read_text()
    table = text[text.index("Claimed and measured") :].split("<tbody>")[1].split("</tbody>")[0]
    return table.split("</tr>")[:-1]


@pytest.mark.parametrize(
    "claim",
    [
        replace(make_claim(), budget=None),
        make_claim(dataset="SARS-CoV-2 CT"),
        replace(make_claim(dataset="mean of 20 data sets"), budget=None, metric="cost"),
        make_claim(eps=0.07),
    ],
)
def test_a_claim_without_a_budget_or_data_set_of_ours_says_that_nothing_compares(tmp_path, claim):
    (line,) = lines(tmp_path, (claim,))
    assert "no number of this benchmark compares" in line and "58.0" in line


def test_a_claim_at_a_budget_of_the_paper_alone_shows_the_replay_of_the_same_weights(tmp_path):
    (line,) = lines(tmp_path, (make_claim(eps=0.03),))
    assert "paper:someone-pgd-20" in line and "60.3" in line and "40." not in line  # the other weights scored 20 %
    assert "no number" not in line


def test_claims_at_a_ranked_budget_and_on_clean_images_show_what_was_measured(tmp_path):
    robust, clean = lines(tmp_path, (make_claim(), replace(make_claim(), budget=None, metric="clean_accuracy")))
    assert "n 156" in robust and "30.1" in robust
    assert "89.7" in clean and "clean, n 156" in clean


def test_a_clean_claim_is_held_against_the_row_of_most_samples(tmp_path):
    claim = replace(make_claim(), budget=None, metric="clean_accuracy")
    defense, pixels = make_defense("Claimer", claims=(claim,)), [Budget(norm=Norm.L0, eps=1)]
    few = make_protocol("standard:l0", budgets=pixels)
    made = [
        make_record(defense=defense, protocol=few, clean=0.5, robust=(0.3,), n=40),
        make_record(defense=defense, clean=0.9),
    ]
    build_site(write_store(tmp_path / "records", made), tmp_path / "site")
    text = (tmp_path / "site/defenses/Claimer.html").read_text()
    assert "clean, n 156" in text[text.index("Claimed and measured") :].split("</table>")[0]


@pytest.mark.parametrize("name", ["Madry2018PGDAT", "GaussianAugmentation"])
def test_without_claims_a_page_says_what_was_entered_and_not_what_was_published(name, tmp_path):
    defense = make_defense(name)
    build_site(write_store(tmp_path / "records", [make_record(defense=defense)]), tmp_path / "site")
    text = (tmp_path / f"site/defenses/{name}.html").read_text()
    section = text[text.index("Claimed and measured") :].split("</section>")[0]
    assert "None entered: its entry lists no published number." in section
    assert ("Its paper may publish some, for other data sets and budgets" in section) == (defense.paper is not None)
