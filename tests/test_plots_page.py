"""What docs/plots.md shows runs, and what its pages look like in a browser."""

from __future__ import annotations

from pathlib import Path

import pytest

from dasrec import report
from dasrec.datasets import simulate_log
from tests.browser import browsing, find_chromium
from tests.snippets import DOCS, python_blocks, run_page
from tests.test_cli import good
from tests.test_docs import quoted, section, table_rows

PHONE, DESK = (390, 844), (1280, 900)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of somebody who has a log and has run the page."""
    place = tmp_path_factory.mktemp("reader")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        simulate_log("log.csv", 5_000, n_users=100, n_items=80, rng=0)
        run_page("plots.md")
    return place


def test_a_newcomer_draws_a_csv_in_under_ten_lines(folder: Path) -> None:
    first = python_blocks(DOCS / "plots.md")[0]
    lines = [line for line in first.splitlines() if line.strip()]
    assert len(lines) < 10
    page = (folder / "my-log.html").read_text("utf-8")
    assert "Interactions of each item" in page
    assert "Activity in time" in page
    assert "Reasons for user" in (folder / "reasons.html").read_text("utf-8")


def test_the_figures_of_the_page_are_all_there_are() -> None:
    rows = table_rows(section("docs/plots.md", "Figures"))
    figures = [name for row in rows for name in quoted(row[0])]
    text = section("docs/plots.md", "Figures")
    others = {"PALETTE", "Section", "by_unit", "write_page"}
    tables = {name for name in report.__all__ if name.endswith(("_table", "_list"))}
    assert {*figures} == {*report.__all__} - others - tables
    assert all(f"`{name}`" in text for name in tables)


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.skipif(not find_chromium(), reason="there is no chromium")
@pytest.mark.parametrize("size", [PHONE, DESK], ids=["phone", "desk"])
def test_pages_fit_the_window_and_draw_every_figure(folder: Path, size: tuple[int, int]) -> None:
    store, model = folder / "my-store", folder / "model"
    if not model.exists():
        good("fit", store, model, "--model", "implicit-als", "--factors", 8, "--iterations", 3)
    for place, name in ((store, "store.html"), (model, "model.html")):
        good("report", place, folder / name)
    good("report", store, folder / "both.html", "--model", model)
    with browsing(size=size, offline=True) as page:
        for name in ("my-log.html", "reasons.html", "store.html", "model.html", "both.html"):
            page.goto((folder / name).as_uri())
            wanted = page.locator("figure").count()
            page.wait_for_function(
                "n => [...document.querySelectorAll('figure > div')].filter("
                "each => each.querySelector('*')?.shadowRoot).length === n",
                arg=wanted,
            )
            assert wanted > 0
            assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
            boxes = [each.bounding_box() for each in page.locator("figure").all()]
            assert all(box["height"] > 200 for box in boxes)
            assert all(box["x"] + box["width"] <= size[0] for box in boxes)
