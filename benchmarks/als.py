"""How fast alternating least squares on implicit feedback is, and how low its objective gets.

    python benchmarks/als.py --factors 64,128,256 --repeats 3

All fit one simulated log: a power law of users and of items, 64 groups of taste, weights of 1. Each
runs alone in a process of its own, restricted to ``--workers`` cores. dasrec reads its store within
the time that is measured; the others have a SciPy matrix in memory beforehand, but for buffalo,
which reads a file of its own. It needs an older Python: that of ``.venv-buffalo``, or the one that
the environment variable ``DASREC_BUFFALO`` names.

The peers minimise  sum_stored c (1 - x.y)^2 + sum_others (x.y)^2 + l (|X|^2 + |Y|^2).  With weights
of 1, a = 1 / (c - 1), r = l / c, g = c / (c - 1) and factors longer by sqrt(g), that is a constant
plus g^2 (c - 1) times what dasrec minimises at ``regularization_exponent=0``:
sum_stored (1 - x.y)^2 + a sum_all (x.y)^2 + r (|X|^2 + |Y|^2).  So :func:`objective` compares all
but Spark, which scales l by counts and is timed only.

The figures depend on the machine; ratios within one run are what counts. ``noise`` tells how many
cores other programs kept busy meanwhile: where it is not near 0, read the processor time.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import json
import math
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import common
import numpy as np
from common import Outcome, Rounds, Target, run, say, short, timed

# Libraries are imported by the job that measures them, so that none carries those of another.

DASREC, IMPLICIT, SPARK = "dasrec", "implicit, CG", "Spark"
BUFFALO, BUFFERED = "buffalo, CG", "dasrec, its buffer"
PROCESSES, PROCESS = "dasrec, processes", "dasrec, one process"
BARE = "its kernels in a bare pool"
PEERS = {"implicit": "implicit", "cmfrec": "cmfrec", "spark": "pyspark", "buffalo": "buffalo"}
PACKAGES = ("dasrec", "dask", "numba", "numpy", *PEERS.values())
CONFIDENCE, REGULARIZATION = 20.0, 0.5  # c and r above
GROWTH = CONFIDENCE / (CONFIDENCE - 1)  # g above
SPARK_ITERATIONS = 3
FASTER = {64: 0.6, 128: 0.5, 256: 0.4}  # targets: time of an iteration by that of implicit
GROUPS, TASTES = 64, (0.5, 0.2, 0.1)  # shares of a user's groups; the rest is of any group
PIECE = 2 * 10**6  # pairs in memory at a time


# --- the log


def simulated_matrix(options: argparse.Namespace, n_users: int, n_items: int, n: int) -> str:
    """Return the folder of a log of ``n`` pairs, which is made if the cache does not have it."""
    sizes = f"{short(n_users)}x{short(n_items)}-{short(n)}"
    folder = options.cache / f"als-{sizes}-seed{options.seed}"
    if not folder.exists():
        say(f"making {folder}")
        draft = folder.with_name(f"{folder.name}.partial")
        shutil.rmtree(draft, ignore_errors=True)
        (draft / "pairs").mkdir(parents=True)
        sizes = {"n_users": n_users, "n_items": n_items, "n": n}
        run(make_matrix, cores=options.workers, folder=str(draft), seed=options.seed, **sizes)
        draft.replace(folder)
    return str(folder)


def make_matrix(folder: str, *, n_users: int, n_items: int, n: int, seed: int) -> dict[str, Any]:
    """Write ``n`` distinct pairs, some users at a time: as CSR, as a table, and as a store."""
    import pandas as pd

    import dasrec

    draw = np.random.default_rng([seed, 0])
    activity = np.append(0.0, _power_law(n_users, draw).cumsum())
    indptr = np.rint(activity / activity[-1] * n).astype(np.int32)
    if np.diff(indptr).max() > n_items // 2:
        msg = f"{n:,} pairs of {n_users:,} users are too many for {n_items:,} items; take fewer"
        raise ValueError(msg)
    choose = _tastes(n_users, n_items, draw)
    indices = np.lib.format.open_memmap(f"{folder}/indices.npy", "w+", np.int32, (n,))
    cuts = np.unique(np.searchsorted(indptr, [*range(0, n, PIECE), n]))
    for number, (start, stop) in enumerate(pairwise(cuts.tolist())):
        part = np.random.default_rng([seed, 1 + number])
        users = np.arange(start, stop)
        keys = _distinct(users, np.diff(indptr[start : stop + 1]), n_items, part, choose)
        pairs = {"user": keys // n_items, "item": keys % n_items}
        indices[indptr[start] : indptr[stop]] = pairs["item"]
        pd.DataFrame(pairs, dtype=np.int32).to_parquet(f"{folder}/pairs/{number:04}.parquet")
    np.save(f"{folder}/indptr.npy", indptr)
    np.save(f"{folder}/shape.npy", [n_users, n_items])
    del indices
    dasrec.interactions_from_scipy(_matrix(folder), f"{folder}/store")
    return {}


def _power_law(n: int, draw: np.random.Generator) -> np.ndarray:
    weights = 1 / (draw.permutation(n) + 1 + 0.002 * n)
    return weights / weights.sum()


def _tastes(n_users: int, n_items: int, draw: np.random.Generator) -> Callable[..., np.ndarray]:
    """Return what draws an item for each of an array of users."""
    order = draw.permutation(n_items)  # group by group
    mass = np.append(0.0, _power_law(n_items, draw).cumsum())
    edges = mass[np.linspace(0, n_items, GROUPS + 1).astype(np.int64)]
    lows, highs = np.append(edges[:-1], 0.0), np.append(edges[1:], mass[-1])  # the last: any group
    likes = np.full((n_users, len(TASTES) + 1), GROUPS)
    likes[:, :-1] = draw.integers(GROUPS, size=(n_users, len(TASTES)))

    def choose(users: np.ndarray, draw: np.random.Generator) -> np.ndarray:
        taste = np.searchsorted(np.cumsum(TASTES), draw.random(users.size), "right")
        low, high = (ends[likes[users, taste]] for ends in (lows, highs))
        where = np.searchsorted(mass, low + draw.random(users.size) * (high - low), "right") - 1
        return order[np.minimum(where, n_items - 1)]

    return choose


def _distinct(
    users: np.ndarray,
    counts: np.ndarray,
    n_items: int,
    draw: np.random.Generator,
    choose: Callable[..., np.ndarray],
) -> np.ndarray:
    """Draw so many different items for each user; where taste has too few, any item will do."""
    keys, lacking, tries = np.zeros(0, np.int64), counts, 0
    while lacking.any():
        rows = np.repeat(users, lacking)
        items = choose(rows, draw) if tries < 3 else draw.integers(n_items, size=rows.size)
        keys = np.sort(np.concatenate([keys, rows * n_items + items]))
        keys = keys[np.diff(keys, prepend=-1) > 0]  # np.unique hashes, ten times slower
        lacking = counts - np.bincount(keys // n_items - users[0], minlength=users.size)
        tries += 1
    return keys


def _matrix(folder: str, weight: float = 1.0) -> Any:
    from scipy import sparse

    indptr, shape = (np.load(f"{folder}/{name}.npy") for name in ("indptr", "shape"))
    indices = np.load(f"{folder}/indices.npy", mmap_mode="c")  # implicit wants to be able to write
    weights = np.full(indices.size, weight, np.float32)
    return sparse.csr_matrix((weights, indices, indptr), shape=tuple(shape.tolist()))


# --- the jobs


def fit_dasrec(
    data: str,
    out: str,
    *,
    factors: int,
    iterations: int,
    solver: str = "auto",
    cluster: Any = "threads",
    memory: str | int | None = None,
) -> dict[str, Any]:
    """Fit in threads, or on a cluster that is started beforehand; within ``memory`` if given."""
    import dasrec

    settings = {}
    if memory:  # beside a checkpoint lie factors that do not fit
        settings["training"] = dasrec.Training(memory=memory, checkpoint=f"{out}/model")
    with common.cluster(cluster):
        try:
            with timed() as answer:
                model = _model(factors, iterations, solver)
                model.fit(dasrec.open_interactions(f"{data}/store"), **settings)
        except dasrec.BudgetError as error:
            return {"refused": str(error)}
    _save(out, model.user_factors_.data, model.item_factors_.data)
    history = model.history_
    answer["objectives"] = history["objective"].values.tolist()
    return _by_iteration(answer, history["seconds"].values.tolist())


def fit_buffered(
    data: str, out: str, *, factors: int, iterations: int, buffer: int
) -> dict[str, Any]:
    """Fit within what it needs, and so many MiB of decoded blocks."""
    import dasrec

    plan = _model(factors, 1).plan(dasrec.open_interactions(f"{data}/store"))
    memory = plan.peak_bytes - plan.cache_bytes + buffer * 2**20
    return fit_dasrec(data, out, factors=factors, iterations=iterations, memory=memory)


def fit_bare(data: str, out: str, *, factors: int, iterations: int) -> dict[str, Any]:
    """Run the kernels of dasrec on its blocks, decoded beforehand, in a bare pool of threads."""
    from threadpoolctl import threadpool_limits

    import dasrec
    from dasrec.factors import form_of, narrow
    from dasrec.kernels.conjugate import refine_rows

    model, store = _model(factors, 1), dasrec.open_interactions(f"{data}/store")
    by_user, by_item = "user_items", "item_users"
    vectors = {
        by_user: np.zeros((store.n_users, factors), np.float32),
        by_item: model._begin(store.n_items, 0, None),
    }
    blocks = {
        side: [(a, b, store.read_rows(side, a, b)) for a, b in pairwise(store.cuts(side).tolist())]
        for side in vectors
    }
    rounded = model._may_round()

    def sweep(side: str, other: str) -> None:
        vectors[other], form, rotation = form_of(vectors[other], diagonal=True, rounded=rounded)
        ones = np.ones(len(vectors[other]), np.float32)
        fixed = narrow(vectors[other]) if rounded else (vectors[other], ones)
        base = (form / (CONFIDENCE - 1)).astype(np.float32)

        def solve(part: tuple[int, int, Any]) -> None:
            start, stop, block = part
            rows = block.indptr, block.indices, block.data, np.ones_like(block.data)
            ridge = np.full(stop - start, REGULARIZATION, np.float32)
            begin = vectors[side][start:stop] @ rotation
            found = refine_rows(rows, fixed, base, ridge, begin, model.tolerance, None)
            vectors[side][start:stop] = found[0]

        list(pool.map(solve, blocks[side]))

    each = []
    with (
        ThreadPoolExecutor(common.available_cores()) as pool,
        threadpool_limits(1, "blas"),
        timed() as answer,
    ):
        for _ in range(iterations):
            begun = time.perf_counter()
            sweep(by_user, by_item)
            sweep(by_item, by_user)
            each.append(time.perf_counter() - begun)
    _save(out, vectors[by_user], vectors[by_item])
    return _by_iteration(answer, each)


def _model(factors: int, iterations: int, solver: str = "auto") -> Any:
    import dasrec

    return dasrec.ImplicitALS(
        factors=factors,
        regularization=REGULARIZATION,
        unobserved_weight=1 / (CONFIDENCE - 1),
        regularization_exponent=0.0,
        iterations=iterations,
        solver=solver,
        rng=0,
    )


def fit_implicit(
    data: str, out: str, *, factors: int, iterations: int, use_cg: bool, trace: bool = False
) -> dict[str, Any]:
    """Fit in as many threads as there are cores; to trace is to ask for the objective as well."""
    from implicit.als import AlternatingLeastSquares
    from threadpoolctl import threadpool_limits

    matrix = _matrix(data, CONFIDENCE)
    model = AlternatingLeastSquares(
        factors=factors,
        regularization=REGULARIZATION * CONFIDENCE,
        alpha=1.0,  # the matrix holds the confidences
        iterations=iterations,
        use_cg=use_cg,
        num_threads=common.available_cores(),
        random_state=0,
    )
    each: list[float] = []
    objectives: list[float] = []

    def after(_number: int, seconds: float, _loss: float | None) -> None:
        each.append(seconds)
        if trace:
            found = objective(matrix, model.user_factors, model.item_factors, GROWTH)
            objectives.append(found)

    with threadpool_limits(1, "blas"), timed() as answer:
        model.fit(matrix, show_progress=False, callback=after)
    _save(out, model.user_factors, model.item_factors, GROWTH)
    return _by_iteration({**answer, "objectives": objectives}, each)


def fit_cmfrec(data: str, out: str, *, factors: int, iterations: int) -> dict[str, Any]:
    """Fit twice, as it does not say what an iteration takes."""
    from cmfrec import CMF_implicit

    matrix = _matrix(data).tocoo()

    def fit(n: int) -> Any:
        return CMF_implicit(
            k=factors,
            lambda_=REGULARIZATION * CONFIDENCE,
            alpha=CONFIDENCE - 1,  # its confidence is 1 + alpha w
            niter=n,
            use_cg=True,
            use_float=True,
            precompute_for_predictions=False,
            nthreads=common.available_cores(),
            verbose=False,
        ).fit(matrix)

    answer, model = _by_difference(fit, iterations)
    _save(out, model.A_, model.B_, GROWTH)
    return answer


def fit_buffalo(
    data: str, out: str, *, factors: int, iterations: int, buffer: int
) -> dict[str, Any]:
    """Fit out of a file that is made beforehand, of which a buffer holds some rows at a time."""
    from buffalo import ALS, ALSOption, MatrixMarketOptions, set_log_level

    halves: list[float] = []

    class Timed(ALS):
        def _iterate(self, *given: Any, **named: Any) -> Any:
            begun = time.perf_counter()
            found = super()._iterate(*given, **named)
            halves.append(time.perf_counter() - begun)
            return found

    set_log_level(0)
    place = Path(data, "buffalo.h5")
    source = MatrixMarketOptions().get_default_option()
    source.input.main = str(place) if place.exists() else _matrix(data)
    source.data.update(path=str(place), tmp_dir=data, use_cache=True, validation={})
    source.data.batch_mb = buffer
    options = ALSOption().get_default_option()
    options.update(
        d=factors,
        num_iters=iterations,
        num_workers=common.available_cores(),
        alpha=CONFIDENCE - 1,  # its confidence is 1 + alpha w
        reg_u=REGULARIZATION * CONFIDENCE,
        reg_i=REGULARIZATION * CONFIDENCE,
        compute_loss_on_training=False,
        evaluation_on_learning=False,
    )
    model = Timed(options, data_opt=source)
    model.initialize()
    with timed() as answer:
        model.train()
    _save(out, model.P, model.Q, GROWTH)
    return _by_iteration(answer, np.add(halves[::2], halves[1::2]).tolist())


def fit_spark(data: str, out: str, *, factors: int, iterations: int) -> dict[str, Any]:
    """Fit twice on one table in memory, in a local Spark, of no more than a few iterations."""
    from pyspark.ml.recommendation import ALS
    from pyspark.sql import SparkSession
    from pyspark.sql.functions import lit

    builder = SparkSession.builder.master(f"local[{common.available_cores()}]")
    for key, value in (
        ("driver.memory", "12g"),
        ("ui.enabled", "false"),
        ("local.dir", out),
        ("ui.showConsoleProgress", "false"),
    ):
        builder = builder.config(f"spark.{key}", value)
    session = builder.getOrCreate()
    table = session.read.parquet(f"{data}/pairs").withColumn("rating", lit(1.0)).cache()
    table.count()

    def fit(n: int, table: Any = table) -> Any:
        settings = {"implicitPrefs": True, "alpha": CONFIDENCE - 1, "regParam": 0.1, "seed": 0}
        columns = {"userCol": "user", "itemCol": "item", "ratingCol": "rating"}
        return ALS(rank=factors, maxIter=n, **settings, **columns).fit(table)

    fit(1, table.limit(10_000))  # compiles
    answer, _ = _by_difference(fit, min(iterations, SPARK_ITERATIONS))
    session.stop()
    return answer


def _by_iteration(answer: dict[str, Any], each: list[float]) -> dict[str, Any]:
    """Tell the median time of an iteration, and of its share of the processor."""
    cpu = answer["cpu_seconds"] / len(each)
    fit, seconds = answer["seconds"], statistics.median(each)
    return {**answer, "fit": fit, "each": each, "seconds": seconds, "cpu_seconds": cpu}


def _by_difference(fit: Callable[[int], Any], n: int) -> tuple[dict[str, Any], Any]:
    """Time an iteration as the difference between fits of ``n`` and of 1; return the former."""
    with timed() as once:
        fit(1)
    with timed() as answer:
        model = fit(n)
    answer |= {"fit": answer["seconds"], "start_bytes": once["start_bytes"]}
    for key in ("seconds", "cpu_seconds"):
        answer[key] = (answer[key] - once[key]) / (n - 1)
    return answer, model


def _save(out: str, users: Any, items: Any, growth: float = 1.0) -> None:
    Path(out).mkdir(exist_ok=True)
    np.save(f"{out}/growth.npy", growth)
    for name, vectors in (("users", users), ("items", items)):
        header = {"descr": "<f4", "fortran_order": False, "shape": vectors.shape}
        with Path(out, f"{name}.npy").open("wb") as file:
            np.lib.format.write_array_header_1_0(file, header)
            for at in range(0, len(vectors), 2**16):  # never all of what is lazy
                file.write(np.ascontiguousarray(vectors[at : at + 2**16], np.float32).data)


def start_up(data: str, *, began: float, kernels: str) -> dict[str, Any]:
    """Import dasrec and fit one iteration, with the compiled kernels that a folder holds."""
    os.environ["NUMBA_CACHE_DIR"] = kernels
    for name in common.EAGERLY:  # here imports are what is measured
        del os.environ[name]
    import dasrec

    _model(64, 1).fit(dasrec.open_interactions(f"{data}/store"))
    return {"seconds": time.time() - began}


def rate_of_updates(*, factors: int, began: float) -> dict[str, Any]:
    """Time exact solutions of long rows, and BLAS at the Gram matrix of as many cells, in turn."""
    from threadpoolctl import threadpool_limits

    from dasrec.kernels.solve import solve_rows

    del began
    n_rows, n = 40, 5000
    draw = np.random.default_rng(0)
    vectors = draw.standard_normal((n, factors), np.float32)
    cells = np.tile(np.arange(n, dtype=np.int32), n_rows), *np.ones((2, n_rows * n), np.float32)
    levels = np.ones(factors, np.float32), np.ones(n_rows, np.float32)
    indptr = np.arange(0, n_rows * n + 1, n)
    ratios = []
    with threadpool_limits(1, "blas"):
        for _ in range(30):
            begun = time.perf_counter()
            for _ in range(n_rows):
                vectors.T @ vectors
            between = time.perf_counter()
            solve_rows(indptr, *cells, vectors, *levels)
            ratios.append((between - begun) / (time.perf_counter() - between))
    return {"share": statistics.median(ratios)}


# --- what they found


def objective(matrix: Any, users: np.ndarray, items: np.ndarray, growth: float) -> float:
    """Return what dasrec minimises, in float64, at factors that are too long by sqrt(growth)."""
    told = _kernel()(matrix.indptr, matrix.indices, users, items, growth)
    grams = [_gram(vectors) / growth for vectors in (users, items)]
    everywhere, lengths = np.vdot(*grams), np.trace(sum(grams))
    return float(told + everywhere / (CONFIDENCE - 1) + REGULARIZATION * lengths)


def _gram(vectors: np.ndarray) -> np.ndarray:
    parts = (vectors[at : at + 2**14].astype(np.float64) for at in range(0, len(vectors), 2**14))
    return sum(part.T @ part for part in parts)


@functools.cache
def _kernel() -> Callable[..., float]:
    import numba

    @numba.njit(fastmath={"reassoc", "contract"})
    def misfit(indptr: Any, indices: Any, users: Any, items: Any, growth: float) -> float:
        total = 0.0
        for u in range(indptr.size - 1):
            for i in indices[indptr[u] : indptr[u + 1]]:
                score = 0.0
                for f in range(users.shape[1]):
                    score += np.float64(users[u, f]) * np.float64(items[i, f])
                total += (1 - score / growth) ** 2
        return total

    return misfit


def objectives_of(data: str, outs: dict[str, str]) -> dict[str, Any]:
    """Compute the objective of all factors that jobs saved."""
    matrix = _matrix(data)
    saved = {
        name: [np.load(f"{out}/{what}.npy") for what in ("users", "items", "growth")]
        for name, out in outs.items()
        if Path(out, "growth.npy").exists()
    }
    return {name: objective(matrix, *each) for name, each in saved.items()}


# --- the comparison


def main() -> int:
    """Run what the command line asks for."""
    options = _options()
    with tempfile.TemporaryDirectory(dir=options.cache) as folder:
        tiny = simulated_matrix(options, 1000, 2000, 10_000)
        data = simulated_matrix(options, options.users, options.items, options.interactions)
        starts = _starts(tiny, options, folder)
        results = {k: _measure(k, data, tiny, options, folder) for k in options.factors}
    targets = [
        *starts,
        *_rates(options),
        *(each for k, it in results.items() for each in _targets(k, it, options)),
    ]
    off = max(_off(result) for result in results.values())
    targets.append(Target("objective as dasrec tells it, off by 1/10000", off * 1e4, 1))
    if options.json:
        found = {
            "factors": results,
            "targets": [{**vars(it), "passed": it.passed} for it in targets],
        }
        found["machine"] = common.machine(*PACKAGES)
        print(json.dumps(found, indent=1, default=vars))
    else:
        print(common.machine(*PACKAGES))
        for k, result in results.items():
            print(f"\n{_report(k, result)}")
        print("", *targets, sep="\n")
    if options.plot:
        curves = {f"{n}, {k}": each for k, it in results.items() for n, each in _curves(it).items()}
        common.plot(options.plot, curves, "seconds", "objective")
    if options.plot_memory:
        budgets = {f"{k} factors": _by_budget(it, options) for k, it in results.items()}
        common.plot(
            options.plot_memory, budgets, "memory, GB", "seconds an iteration", from_zero=True
        )
    return int(options.strict and not all(each.passed for each in targets))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    for name, size in (("users", 200_000), ("items", 30_000), ("interactions", 17_000_000)):
        parser.add_argument(f"--{name}", type=common.count, default=size, help="as in 100k or 17M")
    parser.add_argument("--factors", default="64,128,256")
    parser.add_argument("--iterations", type=int, default=15)
    parser.add_argument("--peers", default=",".join(PEERS), help="'' for none")
    parser.add_argument("--buffer", type=int, default=64, help="MiB, of buffalo and beside it")
    parser.add_argument("--exact", action="store_true", help="also solve exactly")
    parser.add_argument("--bare", action="store_true", help="also its kernels without all else")
    parser.add_argument("--processes", action="store_true", help="also dasrec on workers")
    parser.add_argument("--memory", default="", help="also dasrec within limits, as in 512MB,1GB")
    parser.add_argument("--plot", type=Path, help="SVG of the objective against seconds")
    parser.add_argument("--plot-memory", type=Path, help="SVG of the time against the limit")
    options = common.parse(parser, repeats=3)
    options.factors = sorted(map(int, options.factors.split(",")))
    options.memory = [limit for limit in options.memory.split(",") if limit]
    options.peers = [peer for peer in options.peers.split(",") if peer]
    if unknown := set(options.peers) - set(PEERS):
        parser.error(f"--peers: {', '.join(unknown)}; expected any of {', '.join(PEERS)}")
    options.buffalo = shutil.which(os.environ.get("DASREC_BUFFALO", ".venv-buffalo/bin/python"))
    there = {peer: importlib.util.find_spec(name) for peer, name in PEERS.items()}
    there["buffalo"] = options.buffalo
    for peer in [peer for peer in options.peers if not there[peer]]:
        say(f"{peer} is skipped, as {PEERS[peer]} is not installed")
        options.peers.remove(peer)
    return options


def _starts(tiny: str, options: argparse.Namespace, folder: str) -> list[Target]:
    """Time the start with an empty folder of kernels, then with what that left there."""
    seconds = []
    for _ in range(1 + options.repeats):
        os.sync()
        call = {"data": tiny, "kernels": f"{folder}/kernels", "began": time.time()}
        seconds.append(run(start_up, cores=options.workers, **call).seconds)
    cold, warm = seconds[0], statistics.median(seconds[1:])
    name = "seconds to start and fit one iteration"
    return [Target(f"{name}, nothing compiled", cold, 30), Target(f"{name}, warm", warm, 3)]


def _rates(options: argparse.Namespace) -> list[Target]:
    targets = []
    for k in options.factors:
        share = run(rate_of_updates, cores=1, factors=k, began=time.time()).answer["share"]
        name = f"{k}: rate of exact solutions of long rows by that of BLAS"
        targets.append(Target(name, share, 0.6, at_least=True))
    return targets


def _jobs(
    options: argparse.Namespace, factors: int
) -> dict[str, tuple[Callable[..., Any], dict[str, Any]]]:
    jobs: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {DASREC: (fit_dasrec, {})}
    if options.exact:
        jobs[f"{DASREC}, exact"] = fit_dasrec, {"solver": "exact"}
    if options.bare:
        jobs[BARE] = fit_bare, {}
    if options.processes:
        local = {"kind": "local", "workers": 1, "threads": 1}
        jobs[PROCESSES] = fit_dasrec, {"cluster": {**local, "workers": options.workers}}
        jobs[PROCESS] = fit_dasrec, {"cluster": {**local, "threads": options.workers}}
    for memory in options.memory:
        jobs[f"{DASREC}, memory {memory}"] = fit_dasrec, {"memory": memory}
    if "implicit" in options.peers:
        jobs[IMPLICIT] = fit_implicit, {"use_cg": True}
        if options.exact:
            jobs["implicit, Cholesky"] = fit_implicit, {"use_cg": False}
    if "cmfrec" in options.peers:
        jobs["cmfrec, CG"] = fit_cmfrec, {}
    if "buffalo" in options.peers:
        jobs[BUFFALO] = fit_buffalo, {"buffer": options.buffer, "python": options.buffalo}
        jobs[BUFFERED] = fit_buffered, {"buffer": options.buffer}
    if "spark" in options.peers and factors == options.factors[0]:  # with more it takes hours
        jobs[SPARK] = fit_spark, {}
    return jobs


def _measure(
    factors: int, data: str, tiny: str, options: argparse.Namespace, folder: str
) -> dict[str, Any]:
    cores, jobs = options.workers, _jobs(options, factors)
    outs = {name: f"{folder}/{number}" for number, name in enumerate(jobs)}
    sizes = {"factors": factors, "iterations": options.iterations}

    def start(name: str, **changes: Any) -> Outcome:
        job, arguments = jobs[name]
        call = {"data": data, "out": outs[name], **sizes, **arguments, **changes}
        return run(job, cores=cores, **call)

    for name in [name for name in jobs if jobs[name][0] in (fit_dasrec, fit_buffered)]:
        start(name, data=tiny, iterations=1)  # compiles the kernels
        shutil.rmtree(outs[name], ignore_errors=True)  # a fit that is refused leaves nothing
    rounds = common.alternate(
        {name: partial(start, name) for name in jobs},
        repeats=options.repeats,
        may_fail=(BUFFALO, SPARK),
    )
    found = run(objectives_of, cores=cores, data=data, outs=outs).answer
    trace = start(IMPLICIT, trace=True).answer["objectives"] if IMPLICIT in jobs else []
    for out in outs.values():
        shutil.rmtree(out, ignore_errors=True)
    return {"rounds": rounds, "objectives": found, "trace": trace}


def _off(result: dict[str, Any]) -> float:
    told = {
        name: outcomes[0].answer["objectives"][-1]
        for name, outcomes in result["rounds"].outcomes.items()
        if outcomes[0].answer.get("objectives")
    }
    return max(abs(told[name] / result["objectives"][name] - 1) for name in told)


def _elapsed(outcome: Outcome) -> np.ndarray:
    """Return the seconds from the start of a fit to the end of each iteration."""
    each = outcome.answer["each"]
    return outcome.answer["fit"] - sum(each) + np.cumsum(each)


def _curves(result: dict[str, Any]) -> dict[str, list[tuple[float, float]]]:
    """Return (seconds, objective) after each iteration, of the first round."""
    first = {name: outcomes[0] for name, outcomes in result["rounds"].outcomes.items()}
    told = {DASREC: first[DASREC].answer["objectives"], IMPLICIT: result["trace"]}
    return {
        name: list(zip(_elapsed(first[name]).tolist(), values, strict=True))
        for name, values in told.items()
        if values
    }


def _by_budget(result: dict[str, Any], options: argparse.Namespace) -> list[tuple[float, float]]:
    """Return (GB, seconds of an iteration) for all limits of memory that were not refused."""
    from dask.utils import parse_bytes

    rounds: Rounds = result["rounds"]
    return [
        (parse_bytes(memory) / 1e9, rounds.median("seconds", name))
        for memory in options.memory
        if "refused" not in rounds.outcomes[name := f"{DASREC}, memory {memory}"][0].answer
    ]


def _sooner(rounds: Rounds, goal: float) -> float:
    """Return the time in which dasrec has an objective by that in which implicit is done."""
    ratios = []
    for mine, its in zip(rounds.outcomes[DASREC], rounds.outcomes[IMPLICIT], strict=True):
        there = _elapsed(mine)[np.array(mine.answer["objectives"]) <= goal]
        ratios.append((there[0] if there.size else math.inf) / its.answer["fit"])
    return statistics.median(ratios)


def _targets(k: int, result: dict[str, Any], options: argparse.Namespace) -> list[Target]:
    from dask.utils import parse_bytes

    rounds: Rounds = result["rounds"]
    targets = []
    if result["trace"]:
        if k in FASTER:
            faster = rounds.ratio("seconds", DASREC, IMPLICIT)
            targets.append(Target(f"{k}: time of an iteration by implicit's", faster, FASTER[k]))
        above = 100 * (result["objectives"][DASREC] / result["trace"][-1] - 1)
        targets.append(Target(f"{k}: objective above implicit's, %", above, 0))
        if k in (64, 128) and options.iterations == 15:
            sooner = _sooner(rounds, result["trace"][-1])
            targets.append(Target(f"{k}: time to implicit's objective by its own", sooner, 0.25))
    if BUFFALO in rounds.outcomes:
        faster = rounds.ratio("seconds", BUFFERED, BUFFALO)
        name = f"{k}: time of an iteration by buffalo's, both with a buffer of {options.buffer} MiB"
        targets.append(Target(name, faster, 1))
    if SPARK in rounds.outcomes:
        slower = rounds.ratio("seconds", SPARK, DASREC)
        targets.append(Target(f"{k}: times as fast as Spark", slower, 25, at_least=True))
    if options.bare:
        slower = rounds.ratio("seconds", DASREC, BARE)
        targets.append(Target(f"{k}: time of an iteration by that in a bare pool", slower, 1.1))
    if options.processes:
        slower = rounds.ratio("seconds", PROCESSES, PROCESS)
        name = f"{k}: time of workers of one thread by that of one worker with as many"
        targets.append(Target(name, slower, 1.15))
    for memory in options.memory:
        if "refused" in rounds.outcomes[f"{DASREC}, memory {memory}"][0].answer:
            continue
        most = rounds.median("peak_bytes", f"{DASREC}, memory {memory}") / parse_bytes(memory)
        targets.append(Target(f"{k}: peak by --memory {memory}", most, 1.15))
        slower = rounds.ratio("seconds", f"{DASREC}, memory {memory}", DASREC)
        targets.append(Target(f"{k}: time within {memory} by that without a limit", slower, 1.3))
    return targets


def _report(k: int, result: dict[str, Any]) -> str:
    rounds: Rounds = result["rounds"]
    rows = []
    for name, outcomes in rounds.outcomes.items():
        if refused := outcomes[0].answer.get("refused"):
            say(f"{name}: {refused}")
            rows.append([name, "refused"])
            continue
        keys = ("seconds", "cpu_seconds", "peak_bytes")
        start, noise, fit = (
            statistics.median(each.answer[key] for each in outcomes)
            for key in ("start_bytes", "noise", "fit")
        )
        rows.append(
            [
                name,
                *(f"{rounds.median(key, name):.3f}" for key in keys[:2]),
                f"{fit:.2f}",
                f"{rounds.median('peak_bytes', name) / 1e6:.0f}",
                f"{start / 1e6:.0f}",
                f"{noise:.2f}",
                f"{result['objectives'].get(name, math.nan):.6g}",
                *(f"{rounds.ratio(key, name, DASREC):.2f}" for key in keys),
            ]
        )
    header = "s/iteration,CPU s,fit s,peak MB,at start,noise,objective,time x,CPU x,peak x".split(
        ","
    )
    rows = [row + [""] * (len(header) + 1 - len(row)) for row in rows]
    parts = [common.table([f"{k} factors, {len(outcomes)} round(s)", *header], rows)]
    curves = _curves(result)
    steps = [
        [number + 1, *(f"{value:.6g}" for name in curves for value in curves[name][number])]
        for number in range(len(curves[DASREC]))
    ]
    heads = [head for name in curves for head in (f"{name}: s", "objective")]
    parts.append(common.table(["after iteration", *heads], steps))
    return "\n\n".join(parts)


if __name__ == "__main__":
    sys.exit(main())
