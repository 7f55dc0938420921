"""The pages in a real browser: scripts run under the content policy, tables sort, nothing overflows a phone."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from reports.site import build_site
from tests.synthetic_records import make_defense, make_record, write_store

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--no-first-run",
    "--virtual-time-budget=4000",
    "--enable-logging=stderr",
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine; install it to test pages in a browser"),
]


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("chromium")
    defenses = [make_defense(), *(make_defense(f"Defense{k}WithARatherLongName") for k in range(4))]
    made = [
        make_record(defense=defense, robust=(0.7, 0.6, 0.5 - 0.1 * k, 0.1, 0)) for k, defense in enumerate(defenses)
    ]
    build_site(write_store(folder / "records", made), folder / "site")
    return folder / "site"


def browse(page: Path, profile: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", *flags, page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=os.environ | {"LANG": "C.UTF-8"})


PAGES = ("index.html", "boards/breastmnist-linf-4-255.html", "defenses/Undefended.html", "methodology.html")


@pytest.mark.parametrize("name", PAGES)
def test_a_page_opens_from_disk_without_a_complaint(site, tmp_path, name):
    found = browse(site / name, tmp_path, "--dump-dom")
    assert "<main" in found.stdout
    complaints = [line for line in found.stderr.splitlines() if "CONSOLE" in line or "Content Security" in line]
    assert complaints == []


def test_tables_become_sortable_and_searchable(site, tmp_path):
    dom = browse(site / "boards/breastmnist-linf-4-255.html", tmp_path, "--dump-dom").stdout
    assert 'type="search"' in dom
    assert re.search(r'<th scope="col"[^>]*><button type="button">Defense</button>', dom)


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("name", PAGES)
def test_only_tables_scroll_sideways(site, tmp_path, name, width):
    """A probe page opens the page in a frame of a device's width and writes how wide its content is."""
    probe = site / f"probe-{width}.html"
    probe.write_text(
        f'<!doctype html><iframe src="{name}" width="{width}" height="900" style="border:0"></iframe><pre></pre>'
        "<script>onload = () => { const page = document.querySelector('iframe').contentDocument.documentElement;"
        "document.querySelector('pre').textContent = `wide ${page.scrollWidth} of ${page.clientWidth}`; };</script>"
    )
    dom = browse(probe, tmp_path, "--dump-dom", "--allow-file-access-from-files").stdout
    probe.unlink()
    wide, frame = map(int, re.search(r"wide (\d+) of (\d+)", dom).groups())
    assert frame >= width - 20
    assert wide <= frame


def test_clicking_a_heading_sorts_rows_and_leaves_the_unranked_below(site, tmp_path):
    """A probe page clicks on "Defense" inside the board and prints the names in their new order."""
    probe = site / "probe-sort.html"
    probe.write_text(
        '<!doctype html><iframe src="boards/breastmnist-linf-4-255.html" width="1280" height="900"></iframe><pre></pre>'
        "<script>onload = () => { const page = document.querySelector('iframe').contentDocument;"
        "const table = page.querySelector('table.board'); table.querySelectorAll('thead button')[1].click();"
        "const names = [...table.querySelectorAll('tbody th[scope=row] a')].map((name) => name.textContent);"
        "const search = page.querySelector('input[type=search]'); search.value = 'undefended';"
        "search.dispatchEvent(new Event('input'));"
        "const shown = [...table.tBodies[0].rows].filter((row) => !row.hidden).length;"
        "const sorted = table.querySelectorAll('thead th')[1].getAttribute('aria-sort');"
        "document.querySelector('pre').textContent = `${sorted}: ${names.join(' ')}; shown ${shown}`; };</script>"
    )
    dom = browse(probe, tmp_path, "--dump-dom", "--allow-file-access-from-files").stdout
    probe.unlink()
    names = " ".join([*(f"Defense{k}WithARatherLongName" for k in range(4)), "Undefended"])
    assert f"ascending: {names}; shown 1" in dom


def test_a_phone_shows_the_current_tab_and_the_robust_score_with_its_status(site, tmp_path):
    """A probe page measures, in a frame of a phone's width, where the tab, the robust cell and the badge end."""
    probe = site / "probe-phone.html"
    probe.write_text(
        '<!doctype html><iframe src="boards/breastmnist-linf-16-255.html" width="390" height="900" style="border:0">'
        "</iframe><pre></pre><script>onload = () => { const page = document.querySelector('iframe').contentDocument;"
        "const right = (found) => Math.round(page.querySelector(found).getBoundingClientRect().right);"
        "const row = 'table.board tbody tr ';"
        "const ends = ['nav.tabs [aria-current]', row + 'td.strong', row + 'th .badge'].map(right);"
        "document.querySelector('pre').textContent = `ends ${ends.join(' ')}.`; };</script>"
    )
    dom = browse(probe, tmp_path, "--dump-dom", "--allow-file-access-from-files").stdout
    probe.unlink()
    ends = [int(end) for end in re.search(r"ends ([\d ]+)\.", dom).group(1).split()]
    assert len(ends) == 3 and all(0 < end <= 375 for end in ends), ends
