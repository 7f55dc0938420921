"""Pages: complete, escaped, the same bytes every time, and careful with other people's files."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from registry import ROOT, Budget, Norm, Randomness, linf
from registry.errors import ResultsError
from reports.figures import CurvePoint, curve_figure
from reports.html import https, short_number, slug
from reports.markdown import escape
from reports.site import MANIFEST, build_site, check_site
from results.record import Estimate
from results.store import RecordStore
from tests.synthetic_records import (
    RED,
    make_claim,
    make_dataset,
    make_defense,
    make_failure,
    make_protocol,
    make_record,
    write_store,
)

EVIL = "<script>alert(1)</script>"
HOSTILE_TITLE = "Hostile"
GRID = make_protocol(budgets=[Budget(norm=Norm.LINF, eps=eps / 255) for eps in (4, 8)])
PGD_AT = make_defense("Madry2018PGDAT", claims=(make_claim(),))


class Page(HTMLParser):
    """Collects what a browser would act upon: tags with their attributes, and the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def all(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag == name]


def page_of(path: Path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


def hostile_record():
    """Returns a record in which every submitted text is an attack on the page's reader."""
    made = make_record(defense=make_defense("Evil"), dataset=make_dataset("hostile"), protocol=GRID, flags=(RED,))
    record = made.record
    record.dataset.update(title=HOSTILE_TITLE + EVIL, citation=EVIL, homepage="javascript:alert(2)", notes=EVIL)
    record.dataset["class_names"] = [EVIL, "benign"]
    record.defense.update(summary=EVIL, departures=EVIL, family=EVIL, recipe={"train": EVIL})
    record.defense["name"] = "../../" + EVIL
    record.defense["paper"] = {"title": EVIL, "authors": EVIL, "year": 2020, "url": "javascript:alert(3)", "venue": ""}
    record.defense["claims"] = [make_claim(dataset="hostile").card() | {"protocol": EVIL, "source": '" onclick="x'}]
    record.protocol["title"] = EVIL
    return made


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> RecordStore:
    hippocampus = make_dataset("msd_hippocampus", task="segmentation", n_test=312)
    made = [
        make_record(protocol=GRID, robust=(0.3, 0.1)),
        make_record(defense=PGD_AT, protocol=GRID, robust=(0.6, 0.4), seed=0),
        make_record(defense=PGD_AT, protocol=GRID, robust=(0.62, 0.4), seed=1),
        make_record(defense=make_defense("JPEG"), protocol=GRID, robust=(0.5, 0.3), flags=(RED,)),
        make_failure(defense=make_defense("Broken"), protocol=GRID),
        make_record(dataset=hippocampus, protocol=GRID, robust=(0.2, 0.1)),
        hostile_record(),
    ]
    folder = tmp_path_factory.mktemp("records")
    store = write_store(folder, made)
    (folder / "breastmnist/Undefended/torn-s0-0.json").write_text('{"schema": 1,')
    (folder / "breastmnist/Undefended/newer-s0-0.json").write_text('{"schema": 99}')
    return store


@pytest.fixture(scope="module")
def site(store, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("pages") / "site"
    build_site(store, out)
    return out


def all_pages(site: Path) -> list[Path]:
    return sorted(site.rglob("*.html"))


def test_every_kind_of_page_is_there(site):
    names = {path.relative_to(site).as_posix() for path in site.rglob("*") if path.is_file()}
    assert {
        "index.html",
        "methodology.html",
        "leaderboard.json",
        "leaderboard.csv",
        "leaderboard.md",
        "boards/breastmnist-linf-4-255.html",
        "boards/breastmnist-linf-8-255.html",
        "boards/breastmnist-linf-4-255.md",
        "boards/msd_hippocampus-linf-4-255.html",
        "defenses/Madry2018PGDAT.html",
        "defenses/Broken.html",
        "assets/style.css",
        "assets/table.js",
    } <= names


def test_two_builds_give_the_same_bytes_wherever_the_records_lie(store, site, tmp_path):
    copy = tmp_path / "elsewhere"
    subprocess.run(["cp", "-r", str(store.folder), str(copy)], check=True)
    build_site(RecordStore(copy), tmp_path / "site")
    assert {p.relative_to(site): p.read_bytes() for p in site.rglob("*") if p.is_file()} == {
        p.relative_to(tmp_path / "site"): p.read_bytes() for p in (tmp_path / "site").rglob("*") if p.is_file()
    }


def test_a_build_without_change_touches_no_file(store, tmp_path):
    out = tmp_path / "site"
    before = {path: path.stat().st_mtime_ns for path in build_site(store, out)}
    assert {path: path.stat().st_mtime_ns for path in build_site(store, out)} == before


def test_what_is_submitted_is_shown_and_never_run(site):
    for path in all_pages(site):
        page = page_of(path)
        assert [script["src"].split("/")[-1] for script in page.all("script")] == ["table.js"], path.name
        assert not any(name.startswith("on") or name == "style" for _, found in page.tags for name in found), path.name
        assert not any((link.get("href") or "").startswith("javascript:") for link in page.all("a")), path.name
    board = page_of(site / "boards/hostile-linf-4-255.html")
    assert HOSTILE_TITLE + EVIL in board.text


def test_a_hostile_name_stays_inside_its_folder(site):
    (page,) = [path for path in (site / "defenses").iterdir() if "script" in path.name]
    assert re.fullmatch(r"[A-Za-z0-9._-]+\.html", page.name)
    assert "../../" + EVIL in page_of(page).text


def test_markdown_and_json_hold_hostile_text_as_text(site):
    text = (site / "boards/hostile-linf-4-255.md").read_text()
    assert "<script>" not in text
    assert "javascript" not in text
    rows = json.loads((site / "leaderboard.json").read_text())["rows"]
    assert next(row for row in rows if row["dataset"] == "hostile")["paper"]["url"] is None


def test_pages_load_nothing_from_elsewhere(site):
    for path in all_pages(site):
        page = page_of(path)
        (policy,) = [
            meta["content"] for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy"
        ]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        loaded = [script["src"] for script in page.all("script")] + [link["href"] for link in page.all("link")]
        assert all(not urlsplit(url).scheme and not urlsplit(url).netloc for url in loaded)
        for url in loaded:
            assert (path.parent / url).is_file(), (path, url)


def test_every_link_leads_somewhere(site):
    for path in all_pages(site):
        page = page_of(path)
        anchors = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
        for link in page.all("a"):
            parts = urlsplit(link["href"])
            if parts.scheme:
                assert parts.scheme == "https"
            elif parts.path:
                assert (path.parent / parts.path).is_file(), (path.name, link["href"])
            else:
                assert parts.fragment in anchors, (path.name, link["href"])


def test_tables_are_accessible(site):
    for path in all_pages(site):
        page = page_of(path)
        assert len(page.all("caption")) == len(page.all("table"))
        assert all("scope" in head for head in page.all("th"))
        assert page.all("html")[0]["lang"] == "en"
        assert len(page.all("h1")) == 1
        assert all(drawn.get("aria-label") or drawn.get("aria-hidden") for drawn in page.all("svg"))


def test_the_index_tells_what_could_not_be_read_and_what_failed(site):
    text = page_of(site / "index.html").text
    assert "2 records could not be read" in text
    assert "breastmnist/Undefended/torn-s0-0.json" in text
    assert "newer version" in text
    assert "1 evaluation failed" in text


def test_a_board_says_what_its_numbers_are_taken_over(site):
    page = page_of(site / "boards/breastmnist-linf-4-255.html")
    words = " ".join(page.text.split())
    for part in ("156 test samples", "73.1 %", "not in aggregate ranks", "none entered", "Without a rank", "≤", "▽"):
        assert part in words, part
    assert "evaluation failed: ModelContractError" in words
    tabs = [link for link in page.all("a") if link.get("aria-current") == "page"]
    assert [tab["href"] for tab in tabs] == ["../boards/breastmnist-linf-4-255.html"]


def test_a_defense_page_holds_its_evidence(site):
    words = " ".join(page_of(site / "defenses/Madry2018PGDAT.html").text.split())
    for part in (
        "Towards Deep Learning Models",
        "PGD-20, Linf 4/255",
        "cascaded",
        "apgd-ce",
        "sha256",
        "learning_rate",
    ):
        assert part in words, part
    command = (
        "benchmark run --suite full --dataset breastmnist --defense Madry2018PGDAT --protocol standard --seeds 0,1"
    )
    assert command in words
    jpeg = " ".join(page_of(site / "defenses/JPEG.html").text.split())
    assert RED.evidence in jpeg


def test_a_reproduction_command_is_quoted_for_the_shell(site):
    (page,) = [path for path in (site / "defenses").iterdir() if "script" in path.name]
    assert f"--defense '../../{EVIL}'" in page_of(page).text


def test_pages_of_an_earlier_build_go_and_files_of_others_stay(tmp_path):
    out = tmp_path / "site"
    both = write_store(tmp_path / "both", [make_record(protocol=GRID), make_record(defense=PGD_AT, protocol=GRID)])
    build_site(both, out)
    (out / "defenses/notes.html").write_text("mine")
    (out / "CNAME").write_text("example.org")
    one = write_store(tmp_path / "one", [make_record(protocol=GRID)])
    assert "extra: defenses/Madry2018PGDAT.html" in check_site(one, out)
    build_site(one, out)
    assert not (out / "defenses/Madry2018PGDAT.html").exists()
    assert (out / "defenses/notes.html").read_text() == "mine"
    assert (out / "CNAME").exists()
    assert check_site(one, out) == ["extra: defenses/notes.html"]


def test_a_page_that_somebody_changed_is_not_removed(tmp_path):
    out = tmp_path / "site"
    build_site(
        write_store(tmp_path / "both", [make_record(protocol=GRID), make_record(defense=PGD_AT, protocol=GRID)]), out
    )
    (out / "defenses/Madry2018PGDAT.html").write_text("edited by hand")
    build_site(write_store(tmp_path / "one", [make_record(protocol=GRID)]), out)
    assert (out / "defenses/Madry2018PGDAT.html").read_text() == "edited by hand"


def test_a_manifest_cannot_name_files_outside_the_site(store, tmp_path):
    precious = tmp_path / "precious.txt"
    precious.write_text("keep")
    out = tmp_path / "site"
    out.mkdir()
    checksum = hashlib.sha256(b"keep").hexdigest()
    (out / MANIFEST).write_text(json.dumps({"files": {"../precious.txt": checksum, str(precious): checksum}}))
    build_site(store, out)
    assert precious.read_text() == "keep"


def test_check_names_stale_and_missing_pages(store, tmp_path):
    out = tmp_path / "site"
    build_site(store, out)
    assert check_site(store, out) == []
    (out / "index.html").write_text("old")
    (out / "methodology.html").unlink()
    assert check_site(store, out) == ["stale: index.html", "missing: methodology.html"]


def test_an_empty_store_still_gives_an_index(tmp_path):
    build_site(RecordStore(tmp_path / "none"), tmp_path / "site")
    assert "No finished record" in page_of(tmp_path / "site/index.html").text
    assert json.loads((tmp_path / "site/leaderboard.json").read_text()) == {"schema": 1, "rows": [], "controls": []}


def test_a_folder_that_cannot_be_written_is_one_clear_error(store, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ResultsError, match=r"cannot write pages in .*choose another --out"):
        build_site(store, tmp_path / "file")


def test_reports_import_without_torch():
    code = "import sys, reports.site; assert not {'torch', 'datasets', 'defenses', 'attacks'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


@pytest.mark.parametrize(
    "url",
    ["javascript:alert(1)", "http://a.org", "https://", "//a.org", "https://a.org/\n<b>", 'https://a.org/"x', "", None],
)
def test_only_clean_https_addresses_become_links(url):
    assert https(url) is None
    assert https("https://arxiv.org/abs/1706.06083") == "https://arxiv.org/abs/1706.06083"


def test_names_become_distinct_safe_file_names():
    names = ["Madry2018PGDAT", "a/b", "a b", "..", "", "ü" * 300, "x" * 300]
    slugs = [slug(name) for name in names]
    assert slugs[0] == "Madry2018PGDAT"
    assert len(set(slugs)) == len(slugs)
    assert all(re.fullmatch(r"[A-Za-z0-9_+-][A-Za-z0-9._+-]{0,80}", text) for text in slugs)


def test_markdown_of_a_submitted_text_has_no_markup():
    assert escape("a|b [c](javascript:x) <b>\n# d") == r"a\|b \[c\]\(javascript\:x\) &lt;b&gt; \# d"


def test_large_numbers_are_short():
    assert [short_number(value) for value in (12, 175_258, 35_700_000)] == ["12", "175\u202fk", "35.7\u202fM"]


def test_a_curve_falls_where_its_score_falls():
    points = [
        CurvePoint(size=size, estimate=Estimate(value=v, low=v, high=v, n=9))
        for size, v in ((0, 1), (0.1, 0.5), (0.2, 0))
    ]
    figure = curve_figure([("own", "own", points)], norm="L2", quality="accuracy", constant_predictor=0.5)
    (curve,) = figure.curves
    assert [mark.x for mark in curve.marks] == sorted({mark.x for mark in curve.marks})
    assert [mark.y for mark in curve.marks] == [figure.top, figure.baseline, figure.bottom]
    assert [tick.label for tick in figure.x_ticks] == ["0", "0.1", "0.2"]


def test_pages_print_the_few_draws_of_a_randomised_defense_as_an_upper_bound(tmp_path):
    noisy = make_defense("Noisy", randomness=Randomness.SAMPLE)
    at = make_protocol("adaptive:eot-sweep", budgets=(linf(4 / 255),))
    sweep = make_record(defense=noisy, protocol=at, robust=(0.3,))  # more draws lower nothing
    assert build_site(write_store(tmp_path / "records", [make_record(defense=noisy), sweep]), tmp_path / "site")
    boards = {path.name: path.read_text() for path in (tmp_path / "site" / "boards").glob("*.html")}
    assert {name: "≤" in text for name, text in boards.items()} == {
        name: "linf-4-255" not in name.lower() for name in boards
    }
