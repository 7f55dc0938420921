"""The page of a defense: quality and false alarms beside scores that never rank, and variants of the same paper."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from registry import Budget, DefenseEntry, Family, KnownBy, Norm, Paper, Truth
from reports.site import build_site
from results.record import Estimate
from tests.synthetic_records import Synthetic, make_defense, make_protocol, make_record, write_store

LEVELS = [Budget(norm=Norm.LINF, eps=eps / 255) for eps in (4, 8)]
ADAPTIVE = make_protocol("adaptive:purifier", budgets=LEVELS)
GRID = make_protocol(budgets=LEVELS)
PAPER = Paper(title="A <b>paper</b>", authors="Doe", year=2026, url="https://example.org/paper")


def quality(value: float, n: int) -> Estimate:
    return Estimate(value=value, low=value - 0.01, high=value + 0.01, n=n)


def restored(n: int, psnr: float) -> dict[str, Estimate]:
    return {
        "restored_psnr": quality(psnr, n),
        "restored_ssim": quality(0.654, n),
        "restored_mse": quality(0.00421, n),
    }


def unattacked(defense: DefenseEntry, clean: float = 0.85) -> Synthetic:
    """Returns a record of the clean protocol."""
    made = make_record(defense=defense, protocol=make_protocol("clean", budgets=LEVELS), clean=clean)
    return replace(made, record=replace(made.record, budgets=(), flags=()))


def with_clean(made: Synthetic, **metrics: Estimate) -> Synthetic:
    return replace(made, record=replace(made.record, clean=made.record.clean | metrics))


def page(folder: Path, name: str, *made: Synthetic) -> str:
    build_site(write_store(folder / "records", made), folder / "site")
    return (folder / "site" / "defenses" / f"{name}.html").read_text()


def section(text: str, title: str) -> list[str]:
    """Returns the rows of the table under a heading as words, the head first."""
    table = text[text.index(f"<h2>{title}</h2>") :].split("</table>")[0]
    rows = re.findall(r"<tr.*?</tr>", table, flags=re.DOTALL)
    return [" ".join(re.sub(r"<[^>]+>", " ", re.sub(r"</t[dh]>", " | ", row)).split()) for row in rows]


def test_other_protocols_show_all_of_the_quality_of_restored_images(tmp_path):
    defense = make_defense("Purifier", family=Family.PURIFICATION)
    attacked = make_record(defense=defense, protocol=ADAPTIVE, robust=(0.4, 0.2))
    first, second = attacked.record.budgets
    budgets = (replace(first, metrics=first.metrics | restored(107, 20.9)), second)
    attacked = replace(attacked, record=replace(attacked.record, budgets=budgets))
    clean = with_clean(unattacked(defense), **restored(156, 23.98))
    head, *lines = section(page(tmp_path, "Purifier", clean, attacked), "Other protocols")
    assert "PSNR, restored | SSIM, restored | MSE, restored | Restored images" in head
    assert "| 20.9\u202fdB | 0.654 | 0.00421 | 107 |".replace("\u202f", " ") in lines[0]
    assert lines[1].endswith("| – | – | – | – |")
    assert "| 24.0\u202fdB | 0.654 | 0.00421 | 156 |".replace("\u202f", " ") in lines[2]


def test_without_restored_images_the_table_has_no_columns_for_them(tmp_path):
    text = page(tmp_path, "Plain", unattacked(make_defense("Plain")))
    assert section(text, "Other protocols")[0].endswith("| n | ASR |") and "alarms" not in text


def test_false_alarms_of_a_detector_stand_beside_its_accuracy(tmp_path):
    defense = make_defense("Detector", family=Family.DETECTION, ranks=False)
    clean = with_clean(unattacked(defense), rejected=quality(0.0641, 156))
    text = page(tmp_path / "a", "Detector", clean)
    assert "false alarms 6.4" in section(text, "Other protocols")[1]
    assert "False alarms: the share of unchanged images that the detector rejects" in text
    made = with_clean(make_record(defense=defense, protocol=GRID, robust=(0.4, 0.2)), rejected=quality(0.0641, 156))
    first, second = made.record.budgets
    budgets = (replace(first, metrics=first.metrics | {"rejected": quality(0.2, 156)}), second)
    made = replace(made, record=replace(made.record, budgets=budgets))
    assert "false alarms 6.4" in page(tmp_path / "b", "Detector", made)


def variants(folder: Path) -> str:
    kinds = {"paper": PAPER, "family": Family.PURIFICATION}
    first, second = make_defense("VariantA", **kinds), make_defense("VariantB", **kinds)
    return page(
        folder,
        "VariantA",
        make_record(defense=first, protocol=GRID, clean=0.8, robust=(0.6, 0.5)),
        make_record(defense=first, protocol=ADAPTIVE, robust=(0.4, 0.25)),
        unattacked(second, 0.75),
        make_record(protocol=GRID, robust=(0.1, 0.0)),
        unattacked(make_defense("PlainFilter", family=Family.PURIFICATION), 0.7),
        unattacked(make_defense("Stranger", family=Family.REGULARISATION)),
        unattacked(make_defense("Other", **kinds | {"paper": replace(PAPER, title="Else")})),
    )


def test_variants_of_a_paper_stand_side_by_side_with_what_has_none(tmp_path):
    text = variants(tmp_path)
    head, *lines = section(text, "Variants of the same paper")
    assert head.endswith("Robust, Linf 4/255 | Robust, Linf 8/255 |")
    names = ["Variant A purification", "Variant B purification", "Plain Filter purification", "Undefended undefended"]
    assert [line.split(" | ")[1] for line in lines] == names
    cells = lines[0].split(" | ")
    assert cells[2].startswith("80.1 ") and cells[3] == "156", cells
    assert re.fullmatch(r"60.3 \S+ standard 39.7 \S+ adaptive:purifier", cells[4]), cells
    assert re.fullmatch(r"50.0 \S+ standard 25.0 \S+ adaptive:purifier", cells[5].removesuffix(" |")), cells
    assert lines[1].endswith("| 156 | – | – |")
    assert 'href="../defenses/VariantB.html"' in text and "<b>paper</b>" not in text


def test_the_clean_score_of_a_variant_is_that_of_its_ranked_board(tmp_path):
    kinds = {"paper": PAPER, "family": Family.PURIFICATION}
    first, second = make_defense("VariantA", **kinds), make_defense("VariantB", **kinds)
    pixels = make_protocol("standard:l0", budgets=[Budget(norm=Norm.L0, eps=1)])
    few = make_record(defense=first, protocol=pixels, clean=0.6, robust=(0.5,), n=30)
    full = make_record(defense=first, protocol=GRID, clean=0.8, robust=(0.6, 0.5))
    text = page(tmp_path, "VariantA", few, full, unattacked(second, 0.75))
    _, line, _ = section(text, "Variants of the same paper")
    assert line.split(" | ")[2].startswith("80.1 ")


def test_an_entry_alone_with_its_paper_has_no_such_table(tmp_path):
    alone = make_defense("VariantA", paper=PAPER)
    assert "Variants of" not in page(tmp_path, "VariantA", make_record(defense=alone), make_record())


def test_controls_are_no_variants(tmp_path):
    kinds = {"paper": PAPER, "family": Family.PURIFICATION}
    known = Truth(known_by=KnownBy.ATTACK, statement="known")
    control = make_defense("ControlX", family=Family.CONTROL_HONEST, truth=known, paper=PAPER)
    made = [unattacked(make_defense(name, **kinds)) for name in ("A1", "A2")]
    text = page(tmp_path, "A1", *made, unattacked(control))
    assert len(section(text, "Variants of the same paper")) == 3 and "ControlX.html" not in text
