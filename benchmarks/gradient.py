"""How fast stochastic gradient descent is, and how well it does after as many epochs.

    python benchmarks/gradient.py --factors 64 --epochs 10 --repeats 3

BPR beside implicit on pairs, squared error with biases beside LIBMF and Surprise on ratings of the
same cells, drawn from planted factors. One cell in twenty is held out. Each job runs alone in a
process of its own on ``--workers`` cores. dasrec reads its store within the time that is measured.
Updates are stored cells times epochs, and targets are by the clock: where the machine has other
work to do, read those by processor time. The share of pairs in order is over items drawn uniformly,
as dasrec draws them in training and implicit does not, so it favours dasrec.

    python benchmarks/gradient.py --memory 2GB --users 1M --items 100k --interactions 100M \\
        --epochs 1 --repeats 1

fits BPR within a limit of memory instead, and tells the most that the process held.

    python benchmarks/gradient.py --plot docs/gradient.svg

draws objective and NDCG against seconds instead, of least squares and gradient descent on the same
simulated log of a million ratings, each from a warm start of the compiler.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import tempfile
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any

import als
import common
import numpy as np
from common import Rounds, Target, run, timed
from dask.utils import parse_bytes

BPR, IMPLICIT, SGD, LIBMF, SURPRISE = (
    "dasrec, BPR",
    "implicit, BPR",
    "dasrec, SGD",
    "LIBMF",
    "Surprise",
)
RATE, SHRINK = 0.05, 0.01
RATING_RATE, RATING_SHRINK = 0.02, 0.05
HELD_OUT = 0.05
PAIRS = 200_000
DRAWN = {"ALS": 8, "SGD": 40, "implicit ALS": 12, "BPR": 25}
"""Models of the plot, and how many iterations they get."""

PACKAGES = ("dasrec", "numba", "numpy", "implicit", "libmf", "scikit-surprise")


def prepare(data: str, out: str, *, seed: int) -> dict[str, Any]:
    """Hold cells out; write the others, as pairs and with ratings, as arrays and as stores."""
    from scipy import sparse

    import dasrec

    matrix, draw = als._matrix(data), np.random.default_rng([seed, 2])
    rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    left, right = (draw.standard_normal((n, 8)) * 0.5 for n in matrix.shape)
    means = 3.5 + draw.standard_normal(matrix.shape[0])[rows] * 0.3
    ratings = np.einsum("ij,ij->i", left[rows], right[matrix.indices]) + means
    ratings = np.clip(ratings + draw.standard_normal(len(rows)) * 0.5, 0.5, 6)
    kept = draw.random(len(rows)) >= HELD_OUT
    for name, weights in (("pairs", np.ones(len(rows))), ("ratings", ratings)):
        cells = (weights[kept].astype(np.float32), (rows[kept], matrix.indices[kept]))
        train = sparse.csr_array(cells, shape=matrix.shape)
        sparse.save_npz(f"{out}/{name}.npz", sparse.csr_matrix(train))
        dasrec.interactions_from_scipy(train, f"{out}/{name}.store")
    held = np.column_stack([rows[~kept], matrix.indices[~kept]])
    np.savez(f"{out}/held.npz", cells=held, ratings=ratings[~kept])
    return {}


def fit_dasrec(out: str, *, name: str, factors: int, epochs: int) -> dict[str, Any]:
    """Fit BPR on pairs, or SGD on ratings."""
    import dasrec

    shared = {"factors": factors, "iterations": epochs, "rng": 0, "schedule": "constant"}
    if name == BPR:
        store = dasrec.open_interactions(f"{out}/pairs.store")
        model = dasrec.BPR(learning_rate=RATE, regularization=SHRINK, **shared)
    else:
        store = dasrec.open_interactions(f"{out}/ratings.store")
        model = dasrec.SGD(learning_rate=RATING_RATE, regularization=RATING_SHRINK, **shared)
    type(model)(**{**model.get_params(), "iterations": 1}).fit(store)  # compiles
    with timed() as answer:
        model.fit(store)
    users, items = model.scoring_vectors()
    quality = auc(out, users, items) if name == BPR else rmse(out, users, items)
    return {**answer, "updates": store.n_stored * epochs, "quality": quality}


def fit_within(data: str, *, memory: str, factors: int, epochs: int) -> dict[str, Any]:
    """Fit BPR on a simulated store within a limit of memory."""
    import dasrec

    store = dasrec.open_interactions(f"{data}/store")
    model = dasrec.BPR(
        factors=factors, iterations=epochs, learning_rate=RATE, regularization=SHRINK, rng=0
    )
    with timed() as answer:
        model.fit(store, training=dasrec.Training(memory=memory))
    lost = float(model.history_["mean_loss"].values[-1])
    return {**answer, "updates": store.n_stored * epochs, "quality": lost}


def fit_implicit(out: str, *, factors: int, epochs: int) -> dict[str, Any]:
    """Fit BPR in as many threads as there are cores."""
    from implicit.bpr import BayesianPersonalizedRanking
    from scipy import sparse

    train = sparse.load_npz(f"{out}/pairs.npz")
    model = BayesianPersonalizedRanking(
        factors=factors,
        learning_rate=RATE,
        regularization=SHRINK,
        iterations=epochs,
        num_threads=common.available_cores(),
        random_state=0,
    )
    with timed() as answer:
        model.fit(train, show_progress=False)
    # its last column holds the biases of items, and ones of users
    quality = auc(out, model.user_factors, model.item_factors)
    return {**answer, "updates": train.nnz * epochs, "quality": quality}


def fit_libmf(out: str, *, factors: int, epochs: int) -> dict[str, Any]:
    """Fit squared error, which LIBMF has without biases."""
    from libmf import mf
    from scipy import sparse

    train = sparse.load_npz(f"{out}/ratings.npz").tocoo()
    table = np.column_stack([train.row, train.col, train.data]).astype(np.float32)
    model = mf.MF(
        k=factors,
        nr_iters=epochs,
        nr_threads=common.available_cores(),
        eta=0.1,
        lambda_p2=RATING_SHRINK,
        lambda_q2=RATING_SHRINK,
        quiet=True,
    )
    with timed() as answer:
        model.fit(table)
    held = np.load(f"{out}/held.npz")
    found = np.asarray(model.predict(np.ascontiguousarray(held["cells"], np.int32)))
    quality = float(np.sqrt(np.mean((found - held["ratings"]) ** 2)))
    return {**answer, "updates": train.nnz * epochs, "quality": quality}


def fit_surprise(out: str, *, factors: int, epochs: int) -> dict[str, Any]:
    """Fit one epoch of SVD, which tells how long each takes."""
    import pandas as pd
    import surprise
    from scipy import sparse

    del epochs
    train = sparse.load_npz(f"{out}/ratings.npz").tocoo()
    table = pd.DataFrame({"user": train.row, "item": train.col, "rating": train.data})
    reader = surprise.Reader(rating_scale=(0.5, 6))
    data = surprise.Dataset.load_from_df(table, reader).build_full_trainset()
    model = surprise.SVD(n_factors=factors, n_epochs=1, lr_all=RATING_RATE, reg_all=RATING_SHRINK)
    with timed() as answer:
        model.fit(data)
    return {**answer, "updates": train.nnz, "quality": float("nan")}


def auc(out: str, users: np.ndarray, items: np.ndarray) -> float:
    """Return how often a held-out cell is above an item that its user has not."""
    from scipy import sparse

    train = sparse.load_npz(f"{out}/pairs.npz")
    draw = np.random.default_rng(3)
    cells = draw.permutation(np.load(f"{out}/held.npz")["cells"])[:PAIRS]
    others = draw.integers(items.shape[0], size=len(cells))
    unseen = np.asarray(train[cells[:, 0], others]).ravel() == 0
    rows, (some, rest) = users[cells[:, 0]], (items[cells[:, 1]], items[others])
    above = np.einsum("ij,ij->i", rows, some - rest) > 0
    return float(above[unseen].mean())


def rmse(out: str, users: np.ndarray, items: np.ndarray) -> float:
    """Return the error on held-out ratings."""
    held = np.load(f"{out}/held.npz")
    rows, columns = held["cells"].T
    found = np.einsum("ij,ij->i", users[rows], items[columns])
    return float(np.sqrt(np.mean((found - held["ratings"]) ** 2)))


def prepare_plot(out: str, *, seed: int) -> dict[str, Any]:
    """Write a log of ratings from planted tastes as a store."""
    import dasrec
    from dasrec.datasets import simulate_log

    simulate_log(f"{out}/log.parquet", 10**6, n_users=10_000, n_items=4000, rng=seed)
    names = {name: name for name in ("user", "item", "value", "timestamp")}
    events = dasrec.read_events(f"{out}/log.parquet", **names)
    dasrec.write_interactions(dasrec.clean(events, dedupe="last"), f"{out}/log.store")
    return {}


def fit_watched(out: str, *, name: str, factors: int) -> dict[str, Any]:
    """Fit a model, and tell after each iteration the seconds, the objective and NDCG@10."""
    import dasrec

    split = dasrec.split_random(dasrec.open_interactions(f"{out}/log.store"), 0.1, rng=0)
    kind = {"ALS": dasrec.ALS, "SGD": dasrec.SGD, "BPR": dasrec.BPR}.get(name, dasrec.ImplicitALS)
    extra = {} if name == "BPR" else {"regularization": 1.0 if name == "implicit ALS" else 0.08}
    model = kind(factors=factors, iterations=DRAWN[name], rng=0, **extra)
    kind(**{**model.get_params(), "iterations": 1}).fit(split.train)  # compiles
    monitor = dasrec.holdout(split, "ndcg@10", users=2000)
    with timed() as answer:
        model.fit(split.train, training=dasrec.Training(monitor=monitor))
    values = split.train.to_scipy().data.astype(float)
    least = {"BPR": np.log(2) * len(values), "implicit ALS": values.sum()}
    start = least.get(name, len(values) * values.var())
    history = model.history_
    return {
        **answer,
        "at": list(accumulate(history["seconds"].values.tolist())),
        "objective": (history["objective"].values / start).tolist(),
        "ndcg": history["monitor"].values.tolist(),
    }


def draw(path: Path, out: str, *, factors: int, seed: int, cores: int) -> None:
    """Fit all models of the plot one after the other, and draw what they tell."""
    run(prepare_plot, cores=cores, out=out, seed=seed)
    panels: dict[str, dict[str, list[tuple[float, float]]]] = {"objective": {}, "ndcg": {}}
    for name in DRAWN:
        answer = run(fit_watched, cores=cores, out=out, name=name, factors=factors).answer
        for what, curves in panels.items():
            curves[name] = list(zip(answer["at"], answer[what], strict=True))
        common.say(f"{name}: NDCG@10 {answer['ndcg'][-1]:.4f} after {answer['at'][-1]:.2f} s")
    x, y = "seconds", "objective, by that without factors"
    common.plot_beside(
        path,
        common.panel(panels["objective"], x, y, from_zero=True),
        common.panel(panels["ndcg"], x, "NDCG@10, held out", from_zero=True, names=280),
    )


def main() -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=common.count, default=50_000)
    parser.add_argument("--items", type=common.count, default=20_000)
    parser.add_argument("--interactions", type=common.count, default=4 * 10**6)
    parser.add_argument("--factors", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--memory", help="fit BPR alone within this, as in 2GB")
    parser.add_argument("--plot", type=Path, help="draw objective and NDCG against seconds")
    options = common.parse(parser, repeats=3)
    if options.plot:
        with tempfile.TemporaryDirectory(dir=options.cache) as out:
            told = {"factors": options.factors, "seed": options.seed, "cores": options.workers}
            draw(options.plot, out, **told)
        return 0
    data = als.simulated_matrix(options, options.users, options.items, options.interactions)
    rounds = _within(options, data) if options.memory else _beside(options, data)
    targets = _within_targets(rounds, options.memory) if options.memory else _targets(rounds)
    last = "mean loss" if options.memory else "quality"
    table = common.table(["job", "M updates/s", "M/CPU s", "peak MB", last], _rows(rounds))
    if options.json:
        told = {"rows": _rows(rounds), "targets": [str(each) for each in targets]}
        print(json.dumps(told))
    else:
        print(common.machine(*PACKAGES), table, *targets, sep="\n")
    return 1 if options.strict and not all(each.passed for each in targets) else 0


def _beside(options: argparse.Namespace, data: str) -> Rounds:
    """Fit dasrec and its peers in turns."""
    with tempfile.TemporaryDirectory(dir=options.cache) as out:
        run(prepare, cores=options.workers, data=data, out=out, seed=options.seed)
        call = {"out": out, "factors": options.factors, "epochs": options.epochs}
        jobs = {
            name: partial(run, fit_dasrec, cores=options.workers, name=name, **call)
            for name in (BPR, SGD)
        }
        for name, package, job in (
            (IMPLICIT, "implicit", fit_implicit),
            (LIBMF, "libmf", fit_libmf),
            (SURPRISE, "surprise", fit_surprise),
        ):
            if importlib.util.find_spec(package):
                jobs[name] = partial(run, job, cores=options.workers, **call)
            else:
                common.say(f"{package} is not installed")
        return common.alternate(jobs, repeats=options.repeats)


def _within(options: argparse.Namespace, data: str) -> Rounds:
    """Fit dasrec alone within a limit of memory."""
    call = {"data": data, "memory": options.memory, "factors": options.factors}
    job = partial(run, fit_within, cores=options.workers, epochs=options.epochs, **call)
    return common.alternate({BPR: job}, repeats=options.repeats)


def _within_targets(rounds: Rounds, memory: str) -> list[Target]:
    most = rounds.median("peak_bytes", BPR) / parse_bytes(memory)
    return [Target(f"peak by --memory {memory}", most, 1.15)]


def _speed(rounds: Rounds, name: str, key: str = "seconds") -> float:
    return rounds.outcomes[name][0].answer["updates"] / rounds.median(key, name) / 1e6


def _rows(rounds: Rounds) -> list[list[str]]:
    return [
        [
            name,
            *(f"{_speed(rounds, name, key):.2f}" for key in ("seconds", "cpu_seconds")),
            f"{rounds.median('peak_bytes', name) / 1e6:.0f}",
            f"{outcomes[0].answer['quality']:.4f}",
        ]
        for name, outcomes in rounds.outcomes.items()
    ]


def _targets(rounds: Rounds) -> list[Target]:
    found = []
    for mine, other, limit in (
        (BPR, IMPLICIT, 1.5),
        (BPR, SURPRISE, 20),
        (SGD, LIBMF, 0.8),
        (SGD, SURPRISE, 100),
    ):
        if other in rounds.outcomes:
            ratio = _speed(rounds, mine) / _speed(rounds, other)
            name = f"updates a second, {mine} by {other}"
            found.append(Target(name, ratio, limit, at_least=True))
    if IMPLICIT in rounds.outcomes:
        mine, other = (rounds.outcomes[each][0].answer["quality"] for each in (BPR, IMPLICIT))
        found.append(
            Target(
                "share of pairs in order, above that of implicit",
                mine - other,
                -0.002,
                at_least=True,
            )
        )
    return found


if __name__ == "__main__":
    sys.exit(main())
