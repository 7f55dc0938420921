"""What the engine was measured at: kept, replaced, read again, and shown."""

import dataclasses

import pytest

from registry.errors import ResultsError
from reports.html import environment
from reports.pages import render_methodology
from reports.standings import build_standings
from results.measurements import Measurement, keep_measurement, read_measurements
from results.store import RecordStore

FIGURE = Measurement(
    what="Times faster than <another>",
    subject="Undefended on phantom2, n 8, Linf 4/255",
    value=1.9,
    aim="6 or more",
    reached=False,
    detail="10 s against 19 s",
    load=0.5,
    cores=2,
    device="cpu",
    torch="2.14.1",
    date="2026-01-02",
)


def test_a_figure_replaces_that_of_its_subject_alone(tmp_path):
    path = tmp_path / "measurements.json"
    other = dataclasses.replace(FIGURE, subject="Madry2018PGDAT on phantom2, n 8, Linf 4/255", value=2.0)
    later = dataclasses.replace(FIGURE, value=2.5)
    for found in (FIGURE, other, later):
        keep_measurement(found, path)
    assert read_measurements(path) == (other, later)


def test_no_file_holds_no_figures(tmp_path):
    assert read_measurements(tmp_path / "measurements.json") == ()


@pytest.mark.parametrize("text", ["{", "[1]", '[{"what": "x"}]', '{"what": "x"}'])
def test_a_torn_file_is_told(tmp_path, text):
    path = tmp_path / "measurements.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ResultsError, match="measure again"):
        read_measurements(path)


def test_the_committed_figures_can_be_read():
    committed = read_measurements()
    assert committed
    assert all(found.what and found.detail for found in committed)


def test_the_methodology_page_shows_a_figure_and_that_its_aim_is_missed(tmp_path):
    page = render_methodology(environment(), build_standings(RecordStore(tmp_path)), [FIGURE])
    assert "Times faster than &lt;another&gt;" in page
    assert "1.9 (missed)" in page
    assert "10 s against 19 s" in page


def test_without_figures_there_is_no_section(tmp_path):
    assert "The engine, measured" not in render_methodology(environment(), build_standings(RecordStore(tmp_path)))
