"""Chromium of the system, and a fit that runs while somebody looks."""

from __future__ import annotations

import contextlib
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dasrec
from dasrec import ImplicitALS, Interactions, Training
from dasrec.datasets import simulate_log

WIDE, NARROW = (1360, 900), (390, 844)
_NEAR = ("file:", "data:", "blob:")


def find_chromium() -> str | None:
    """Return where Debian's chromium is; a browser of Playwright's own is never fetched."""
    return shutil.which("chromium")


@contextlib.contextmanager
def browsing(
    *, size: tuple[int, int] = WIDE, dark: bool = False, offline: bool = False
) -> Iterator[Any]:
    """Yield a page of a browser without a window; what its scripts complain of is an error.

    So is, if it should be ``offline``, all that it asks for but files.
    """
    from playwright.sync_api import sync_playwright

    faults: list[str] = []
    with sync_playwright() as playwright:
        # in a container there is neither a sandbox nor much shared memory
        given = ["--no-sandbox", "--disable-dev-shm-usage"]
        chromium = playwright.chromium.launch(executable_path=find_chromium(), args=given)
        width, height = size
        page = chromium.new_page(
            viewport={"width": width, "height": height},
            color_scheme="dark" if dark else "light",
        )
        page.on("pageerror", lambda error: faults.append(str(error)))
        if offline:
            page.on(
                "request", lambda asked: asked.url.startswith(_NEAR) or faults.append(asked.url)
            )
        yield page
        chromium.close()
    assert not faults, faults


def make_store(folder: Path, *, n_events: int = 300_000) -> Interactions:
    """Write a store of simulated interactions."""
    log = simulate_log(folder / "log.csv", n_events, n_users=6000, n_items=3000, rng=0)
    columns: dict[str, Any] = log.columns
    events = dasrec.clean(dasrec.read_events(list(log.paths), **columns), bad_rows="drop")
    return dasrec.write_interactions(events, folder / "store")


@contextlib.contextmanager
def fitting(data: Interactions, *, iterations: int, folder: Path) -> Iterator[None]:
    """Fit a model in the background until the end of the block, and no longer."""
    split = dasrec.split_random(data, 0.2, rng=0)
    enough = threading.Event()
    training = Training(
        monitor=dasrec.holdout(split, "ndcg@10", users=2000, rng=0),
        callbacks=(lambda _: enough.is_set(),),
        checkpoint=folder / "checkpoint",
        memory="2GB",
    )
    model = ImplicitALS(factors=64, iterations=iterations, rng=0)
    thread = threading.Thread(target=model.fit, args=(split.train,), kwargs={"training": training})
    thread.start()
    try:
        yield
    finally:
        enough.set()
        thread.join()
