"""The page in a real browser, amid a fit; pictures are left in ``artefacts/``."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dasrec.cluster import connect
from dasrec.dashboard import PAGES
from tests.browser import NARROW, WIDE, browsing, find_chromium, fitting, make_store
from tests.conftest import ROOT

pytestmark = [
    pytest.mark.browser,
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        find_chromium() is None,
        reason="NOT TESTED IN A BROWSER: no chromium on the PATH; install Debian's chromium",
    ),
]
ARTEFACTS = ROOT / "artefacts"
WAIT = 120_000  # milliseconds; a page shows numbers at once where nobody else has the cores
MANY = 10_000  # iterations: more than there is time for


@pytest.fixture(scope="module")
def dashboard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Fit on two worker processes while the tests look; yield the address of Dask's dashboard."""
    folder: Path = tmp_path_factory.mktemp("browser")
    with connect("processes:2") as client:
        assert client is not None
        data = make_store(folder, n_events=100_000)
        with fitting(data, iterations=MANY, folder=folder):
            yield client.dashboard_link.rpartition("/")[0]


def text_of(page: Any, tile: str) -> str:
    found: str = page.locator(f"#{tile} dd").inner_text(timeout=WAIT)
    return found


def wait_for_iteration(page: Any, *, after: int = 0) -> int:
    """Wait until the bar shows a later iteration; return its number."""
    bar = page.get_by_text(f"of {MANY:,}")
    bar.wait_for(timeout=WAIT)
    for _ in range(WAIT // 250):
        number = int(bar.inner_text().split()[1].replace(",", ""))
        if number > after:
            return number
        page.wait_for_timeout(250)
    pytest.fail(f"there was no iteration after {after}")


def take(page: Any, name: str) -> None:
    ARTEFACTS.mkdir(exist_ok=True)
    page.screenshot(path=ARTEFACTS / f"dashboard-{name}.png", full_page=True)


def drawn(page: Any, name: str) -> str:
    """Return the pixels of a figure, as text."""
    script = """name => {
        const root = Bokeh.documents[0].get_model_by_name(name);
        return Bokeh.index.get_by_id(root.id).export("png", false).canvas.toDataURL();
    }"""
    found: str = page.evaluate(script, name)
    return found


def test_numbers_and_figures_move_during_a_fit(dashboard: str) -> None:
    with browsing(size=WIDE) as page:
        page.goto(f"{dashboard}/status")
        page.get_by_role("link", name="Dasrec", exact=True).first.click()
        assert page.url == dashboard + PAGES[0]
        page.get_by_role("heading", name="fit implicit-als").wait_for(timeout=WAIT)
        first = wait_for_iteration(page)
        before, picture = text_of(page, "objective"), drawn(page, "objective")
        wait_for_iteration(page, after=first + 1)
        page.wait_for_timeout(1000)
        assert text_of(page, "objective") != before
        assert drawn(page, "objective") != picture
        for tile in ("monitor", "rows", "balance", "read", "memory", "left"):
            assert any(each.isdigit() for each in text_of(page, tile)), tile
        assert float(text_of(page, "balance")) >= 1
        take(page, "wide")


@pytest.mark.parametrize("dark", [False, True])
def test_a_narrow_screen_fits(dashboard: str, dark: bool) -> None:
    with browsing(size=NARROW, dark=dark) as page:
        page.goto(dashboard + PAGES[0])
        wait_for_iteration(page)
        page.wait_for_timeout(1000)
        assert page.evaluate("document.documentElement.scrollWidth") == NARROW[0]
        # at once, since tiles are put anew twice a second
        script = "all => all.map(each => each.getBoundingClientRect().toJSON())"
        boxes = page.locator(".figures > div, .tile").evaluate_all(script)
        assert len(boxes) == 6 + 8
        assert all(0 <= box["left"] < box["right"] <= NARROW[0] for box in boxes)
        take(page, "dark" if dark else "narrow")


def test_the_plot_alone_has_no_navigation_and_shows_the_same(dashboard: str) -> None:
    with urllib.request.urlopen(f"{dashboard}/individual-plots.json", timeout=60) as answer:
        assert PAGES[1] in answer.read().decode()
    with browsing(size=(700, 600)) as page:
        page.goto(dashboard + PAGES[1])
        wait_for_iteration(page)
        assert page.locator("#myTopnav").count() == 0
        assert page.locator(".figures > div").count() == 6
        take(page, "alone")


def test_an_earlier_job_can_be_chosen(dashboard: str) -> None:
    with browsing(size=WIDE) as page:
        page.goto(dashboard + PAGES[0])
        wait_for_iteration(page)
        name = next(each for each in page.locator("option").all_inner_texts() if "ingest" in each)
        page.locator("select").select_option(label=name)
        page.get_by_role("heading", name="ingest").wait_for(timeout=WAIT)
        assert text_of(page, "objective") == "\N{EN DASH}"
