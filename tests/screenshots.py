"""Draw the pictures of the README: ``python -m tests.screenshots [FOLDER]``, by default docs/."""

from __future__ import annotations

import contextlib
import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image

import dasrec
from dasrec.cli import main as command
from dasrec.cluster import connect
from dasrec.dashboard import PAGES
from tests.browser import browsing, find_chromium, fitting, make_store

ITERATIONS = 16
_COLOURS = 200  # of a picture; flat pages need no more, and it has half of the bytes


def draw_dashboard(target: Path, folder: Path) -> None:
    """Take a picture of the page amid a fit on two worker processes."""
    with connect("processes:2") as client:
        assert client is not None
        address = client.dashboard_link.rpartition("/")[0] + PAGES[0]
        data = make_store(folder)
        with fitting(data, iterations=ITERATIONS, folder=folder), browsing() as page:
            page.goto(address)
            page.get_by_text(f"Iteration {ITERATIONS - 4} of {ITERATIONS}").wait_for(
                timeout=300_000
            )
            page.wait_for_timeout(700)
            _take(page, target)


def draw_report(target: Path, folder: Path) -> None:
    """Take a picture of the upper part of what ``dasrec report`` writes."""
    with contextlib.chdir(folder):  # the page says where the store lies
        split = dasrec.split_by_time(make_store(Path()), 0.2)
        dasrec.ImplicitALS(rng=0).fit(split.train).save("model")
        how = ["--model", "model", "--split", "time:0.2", "--n", "10,20"]
        command(["report", "store", "page.html", *how], standalone_mode=False)
    with browsing(size=(1000, 1100)) as page:
        page.goto((folder / "page.html").as_uri() + "#section-2")  # figures, not tables
        page.wait_for_timeout(3000)
        _take(page, target)


def _take(page: Any, target: Path) -> None:
    page.screenshot(path=target)
    with Image.open(target) as picture:
        picture.convert("RGB").quantize(_COLOURS).save(target, optimize=True)


def main(place: str = "docs") -> None:
    """Draw all of them."""
    if find_chromium() is None:
        sys.exit("There is no chromium on the PATH; install Debian's package chromium")
    with tempfile.TemporaryDirectory() as folder:
        for name, draw in (("dashboard", draw_dashboard), ("report", draw_report)):
            scratch = Path(folder, name)
            scratch.mkdir()
            target = Path(place, f"{name}.png")
            draw(target, scratch)
            print(f"{target}: {target.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main(*sys.argv[1:])
