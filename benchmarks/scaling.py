"""How the time of an iteration grows with data and workers, and whether a model of it predicts.

    python benchmarks/scaling.py --sizes 10M,30M,100M --counts 1,2,4

Implicit ALS is fitted to logs of n pairs of 1M users and 100k items, by worker processes of one
thread each. A time is the median of iterations after the first, in which blocks are read.

    seconds = start + cell n / cores + serial n

with as many cores as there are workers, but no more than the machine has, is fitted by least
squares of relative errors to all runs but the largest, on the most workers, which it then predicts.
``start`` is what an iteration takes without cells, ``cell`` the time of a core for a cell of both
orientations, and ``serial`` what does not get less with more cores: the scheduler and the store.
``cell`` gives the rate that ``dasrec plan scale --cell-rate`` takes.

The figures depend on the machine; ``noise`` tells how many cores other programs kept busy.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from functools import partial
from typing import Any

import als
import common
import numpy as np
from common import Outcome, Target, run, say, short
from scipy.optimize import nnls

FACTORS = 64
PACKAGES = ("dasrec", "dask", "numba", "numpy")
Run = tuple[int, int]  # pairs, workers


def main() -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sizes", default="10M,30M,100M", help="pairs of each log")
    parser.add_argument("--counts", default="1,2,4", help="numbers of workers")
    for name, size in (("users", 1_000_000), ("items", 100_000)):
        parser.add_argument(f"--{name}", type=common.count, default=size, help="as in 1M or 100k")
    parser.add_argument("--iterations", type=int, default=3)
    options = common.parse(parser, repeats=1)
    sizes = sorted(common.count(each) for each in options.sizes.split(","))
    counts = sorted(int(each) for each in options.counts.split(","))
    data = {n: als.simulated_matrix(options, options.users, options.items, n) for n in sizes}
    shared = {"factors": FACTORS, "iterations": options.iterations}
    say("compiling")
    run(fit, cores=options.workers, data=data[sizes[0]], n_workers=1, **shared)
    jobs = {
        (n, count): partial(
            run, fit, cores=options.workers, data=data[n], n_workers=count, **shared
        )
        for n in sizes
        for count in counts
    }
    named = {f"{short(n)}, {count} workers": job for (n, count), job in jobs.items()}
    rounds = common.alternate(named, repeats=options.repeats)
    times = {
        key: statistics.median(each.seconds for each in outcomes)
        for key, outcomes in zip(jobs, rounds.outcomes.values(), strict=True)
    }
    _tell(options, times, list(rounds.outcomes.values()))
    return 0


def fit(data: str, *, n_workers: int, factors: int, iterations: int) -> dict[str, Any]:
    """Fit on worker processes of one thread each; tell the median of iterations but the first."""
    from distributed import Client, LocalCluster

    import dasrec
    from dasrec.cluster import connect

    with (
        LocalCluster(n_workers=n_workers, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster) as client,
        connect(client.scheduler.address),
        common.timed() as answer,
    ):
        model = als._model(factors, iterations)
        model.fit(dasrec.open_interactions(f"{data}/store"))
    each = model.history_["seconds"].values[1:]
    return {**answer, "seconds": float(np.median(each))}


def terms(key: Run, cores: int) -> list[float]:
    """Return what each parameter of the model is multiplied with."""
    n, count = key
    return [1.0, n / min(count, cores), float(n)]


def fitted(times: dict[Run, float], cores: int) -> np.ndarray:
    """Fit the parameters, at least 0, to relative errors."""
    rows = np.array([terms(key, cores) for key in times])
    seconds = np.array(list(times.values()))
    scale = rows.max(axis=0)  # which differ by a factor of 10^8
    found, _ = nnls(rows / scale / seconds[:, None], np.ones(len(seconds)))
    return np.asarray(found / scale)


def _tell(
    options: argparse.Namespace, times: dict[Run, float], outcomes: list[list[Outcome]]
) -> None:
    largest, cores = max(times), options.workers
    parameters = fitted({key: each for key, each in times.items() if key != largest}, cores)
    said = {key: float(parameters @ terms(key, cores)) for key in times}
    target = Target(
        f"error of the prediction for {short(largest[0])} on {largest[1]} workers",
        abs(said[largest] / times[largest] - 1),
        0.2,
    )
    start, cell, serial = parameters
    rate = 2 / cell if cell else float("inf")
    if options.json:
        rows = [{"n": n, "workers": w, "seconds": times[n, w], "said": said[n, w]} for n, w in said]
        print(json.dumps({"runs": rows, "parameters": [start, cell, serial], "rate": rate}))
        return
    noises = [statistics.median(each.answer["noise"] for each in some) for some in outcomes]
    peaks = [statistics.median(each.peak_bytes for each in some) for some in outcomes]
    rows = [
        [
            f"{short(n)}, {count} workers",
            f"{times[n, count]:.2f}",
            f"{said[n, count]:.2f}",
            f"{peak / 1e6:.0f}",
            f"{noise:.2f}",
        ]
        for (n, count), peak, noise in zip(times, peaks, noises, strict=True)
    ]
    print(common.machine(*PACKAGES))
    print(common.table(["", "s/iteration", "model", "peak MB", "noise"], rows))
    print(f"\nstart {start:.2f} s, cell {cell * 1e9:.1f} ns, serial {serial * 1e9:.2f} ns a cell")
    print(f"cells a second and core at {FACTORS} factors: {rate / 1e6:.1f}M\n\n{target}")


if __name__ == "__main__":
    sys.exit(main())
