"""What the page on Dask's dashboard costs: a fit with it beside the same fit without.

    python benchmarks/dashboard.py --strict

Fits of implicit ALS alternate on one cluster of worker processes: *watched*, with all that the page
takes while somebody looks at it (events of the caller, the plugin of the scheduler, what workers
count, one open page), and *plain*, with nothing of it. What is compared is the time of whole fits
and the processor time of all processes, in pairs within a round; the ratio is the median over
rounds, with an interval by drawing rounds again. ``noise`` tells how many cores other programs kept
busy.

``told`` is another way to the same figure, which noise does not reach: the time of the plugin's and
the page's own functions and of what the caller waits for, by that of the fit.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import common
import numpy as np
from bokeh.client import pull_session
from common import Outcome, Target, say

import dasrec
from dasrec import blocks
from dasrec.cluster import connect
from dasrec.dashboard import Watcher, show
from dasrec.dashboard.page import Page
from dasrec.datasets import simulate_log

REPLICATES = 2000
CALLS = 10_000
MOST = 1.0  # percent of a fit
PACKAGES = ("dasrec", "dask", "bokeh", "numba")


def main() -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    for name, size in (("users", 10_000), ("items", 5_000), ("interactions", 500_000)):
        parser.add_argument(f"--{name}", type=common.count, default=size, help="as in 1M or 100k")
    parser.add_argument("--factors", type=int, default=64)
    parser.add_argument("--iterations", type=int, default=8)
    options = common.parse(parser, repeats=15)
    meter = Meter()
    with (
        tempfile.TemporaryDirectory() as folder,
        meter.counting(),
        connect(f"processes:{options.workers}") as client,
    ):
        store = make_store(options, Path(folder))
        model = dasrec.ImplicitALS(factors=options.factors, iterations=options.iterations, rng=0)
        say("compiling")
        model.fit(store)
        jobs = {
            "watched": partial(fit, model, store, contextlib.nullcontext),
            "plain": partial(fit, model, store, partial(plain, client, meter)),
        }
        looking = pull_session(url=show(client))  # as a browser does
        meter.reset()
        rounds = common.alternate(jobs, repeats=options.repeats)
        looking.close()
    outcomes = rounds.outcomes
    share = meter.net / sum(each.seconds for each in outcomes["watched"])
    return _tell(options, outcomes, share)


def make_store(options: argparse.Namespace, folder: Path) -> dasrec.Interactions:
    """Write a store of simulated interactions."""
    sizes = {"n_users": options.users, "n_items": options.items, "rng": options.seed}
    log = simulate_log(folder / "log.parquet", options.interactions, **sizes)
    events = dasrec.read_events([str(each) for each in log.paths], user="user", item="item")
    return dasrec.write_interactions(dasrec.clean(events, dedupe="last"), folder / "store")


def fit(model: Any, store: Any, setting: Callable[[], Any]) -> Outcome:
    """Fit once, with or without the page."""
    with setting(), common.timed() as answer:
        model.fit(store)
    return Outcome(answer["seconds"], answer["cpu_seconds"], 0, answer)


@contextlib.contextmanager
def plain(client: Any, meter: Meter) -> Iterator[None]:
    """Do without events, plugin, counters and the open page meanwhile."""
    client.run_on_scheduler(_switch, on=False)
    client.run(_count, on=False)
    meter.off = True
    with mock.patch.object(blocks, "tell"):
        yield
    meter.off = False
    client.run(_count, on=True)
    client.run_on_scheduler(_switch, on=True)


def _switch(dask_scheduler: Any, *, on: bool) -> None:
    """Take the plugin away, or put it back; its pages are not in use then."""
    if on:
        watcher = dask_scheduler.dasrec_aside
        dask_scheduler.add_plugin(watcher, name="dasrec")
        watcher._clock.start()
    else:
        dask_scheduler.dasrec_aside = dask_scheduler.plugins["dasrec"]
        dask_scheduler.dasrec_aside._clock.stop()
        dask_scheduler.remove_plugin(name="dasrec")


def _count(dask_worker: Any, *, on: bool) -> None:
    """Let a worker count what it reads and writes, or not."""
    if on:
        dask_worker.metrics["dasrec"] = dask_worker.dasrec_aside
    else:
        dask_worker.dasrec_aside = dask_worker.metrics.pop("dasrec")


class Meter:
    """Adds up what the functions of the page take; the scheduler is in this process."""

    def __init__(self) -> None:
        self.off = False
        self.seconds = 0.0
        self.calls = 0
        empty = self._timed(lambda *args, **facts: None)
        facts = dict.fromkeys(("stimulus_id", "worker", "nbytes", "typename", "startstops"))
        for _ in range(CALLS):
            empty("a-key", "processing", "memory", **facts)  # as most calls are
        self._own = self.seconds / CALLS  # of a call: what measuring takes

    def reset(self) -> None:
        """Begin anew."""
        self.seconds, self.calls = 0.0, 0

    @property
    def net(self) -> float:
        """Seconds without those that measuring took."""
        return self.seconds - self.calls * self._own

    @contextlib.contextmanager
    def counting(self) -> Iterator[None]:
        """Count what begins and ends within."""
        places: list[tuple[Any, str]] = [(Page, "update"), (blocks, "tell")]
        places += [(Watcher, name) for name in ("log_event", "transition", "sample")]
        with contextlib.ExitStack() as stack:
            for owner, name in places:
                timed = self._timed(getattr(owner, name))
                stack.enter_context(mock.patch.object(owner, name, timed))
            yield

    def _timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if self.off:
                return None
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds += time.perf_counter() - start
                self.calls += 1

        return call


def _interval(ratios: list[float]) -> tuple[float, float]:
    """Return between what the median lies in 95 of 100 draws of rounds."""
    draws = np.random.default_rng(0).choice(ratios, (REPLICATES, len(ratios)))
    low, high = np.quantile(np.median(draws, axis=1), [0.025, 0.975])
    return float(low), float(high)


def _tell(options: argparse.Namespace, outcomes: dict[str, list[Outcome]], share: float) -> int:
    found: dict[str, Any] = {"rounds": len(outcomes["plain"]), "told": share}
    rows = []
    for key, what in (("seconds", "wall"), ("cpu_seconds", "processors")):
        one, two = (
            [getattr(each, key) for each in outcomes[name]] for name in ("watched", "plain")
        )
        ratios = [a / b for a, b in zip(one, two, strict=True)]
        found[what] = {"ratio": statistics.median(ratios), "interval": _interval(ratios)}
        medians = [f"{statistics.median(each):.3f}" for each in (one, two)]
        low, high = found[what]["interval"]
        rows.append([what, *medians, f"{found[what]['ratio']:.4f}", f"{low:.4f} to {high:.4f}"])
    target = Target("the page's own time by that of the fit, %", 100 * share, MOST)
    noise = max(each.answer["noise"] for pair in outcomes.values() for each in pair)
    found["noise"], found["passed"] = noise, target.passed
    if options.json:
        print(json.dumps(found))
    else:
        print(common.machine(*PACKAGES))
        heads = ["seconds of a fit", "watched", "plain", "ratio", "95 % interval"]
        print(common.table(heads, rows))
        print(target, f"noise: {noise:.2f} cores", sep="\n")
    return 1 if options.strict and not target.passed else 0


if __name__ == "__main__":
    sys.exit(main())
