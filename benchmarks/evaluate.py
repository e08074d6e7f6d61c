"""How fast a model is evaluated over the full catalogue, and how near that is to plain products.

    python benchmarks/evaluate.py --users 200k --repeats 3

All rank by the same vectors of users and items, for all users with something to find, without what
they have seen. The log is that of als.py; a fifth of it is to be found. dasrec reads its store
within the time that is measured, the others have SciPy matrices or data frames in memory before.
LensKit ranks for ``--lenskit-users`` only, in one process; it is compared by what a user takes. It
needs older libraries than dasrec: it runs in what ``make peers`` builds, or in the Python that
``DASREC_PEERS`` names.

``rank`` ranks as a task of dasrec does, from memory; ``rank all`` leaves out no item for being too
short. ``score`` does the same with vectors that are no numbers: nothing is ever above a limit, so
what is left is the time of scoring, and what is between the two that of selection. ``sgemm``
multiplies blocks of users by all items with BLAS, one thread a core, into memory used again.
``implicit`` has BLAS limited to one thread, as it asks; ``implicit, as it comes`` has not.

The figures depend on the machine; ratios within one run are what counts. ``noise`` tells how many
cores other programs kept busy meanwhile: where it is not near 0, read the processor time.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import statistics
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import als
import common
import numpy as np
from common import Rounds, Target, run, say, short, timed

DASREC, RANK, RANK_ALL, SCORE, SGEMM = "dasrec", "rank", "rank all", "score", "sgemm"
IMPLICIT, PLAIN, LENSKIT = "implicit", "implicit, as it comes", "lenskit"
PACKAGES = ("dasrec", "dask", "numba", "numpy", IMPLICIT, LENSKIT)
SPLIT = "random:0.2"
BLOCK = 1024  # users that sgemm multiplies at a time


# --- what is ranked


def prepared(options: argparse.Namespace, n_users: int) -> str:
    """Return the folder of a store, a model and its matrices, made if the cache lacks it."""
    pairs = round(options.interactions * n_users / options.users)
    log = als.simulated_matrix(options, n_users, options.items, pairs)
    folder = Path(f"{log}-evaluate-{options.factors}")
    if not folder.exists():
        say(f"making {folder}")
        draft = folder.with_name(f"{folder.name}.partial")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir()
        sizes = {"factors": options.factors}
        run(make_model, cores=options.workers, log=log, folder=str(draft), **sizes)
        draft.replace(folder)
    return str(folder)


def make_model(log: str, folder: str, *, factors: int) -> dict[str, Any]:
    """Fit a few iterations; write the model, its vectors, and both parts of the split."""
    from scipy import sparse

    import dasrec

    split = dasrec.parse_split(dasrec.open_interactions(f"{log}/store"), SPLIT, rng=0)
    model = dasrec.ImplicitALS(
        factors=factors, regularization=0.003, unobserved_weight=0.1, iterations=5, rng=0
    ).fit(split.train)
    model.save(f"{folder}/model")
    for name, vectors in zip(("users", "items"), model.scoring_vectors(), strict=True):
        np.save(f"{folder}/{name}.npy", vectors)
    for name, view in (("train", split.train), ("test", split.test)):
        sparse.save_npz(f"{folder}/{name}.npz", view.to_scipy(), compressed=False)
    Path(folder, "store").symlink_to(f"{log}/store")
    return {}


def _loaded(folder: str) -> tuple[Any, ...]:
    from scipy import sparse

    users, items = (np.load(f"{folder}/{name}.npy") for name in ("users", "items"))
    train, test = (
        sparse.csr_matrix(sparse.load_npz(f"{folder}/{name}.npz")) for name in ("train", "test")
    )
    return users, items, train, test


# --- the jobs


def evaluate_dasrec(folder: str, *, n: int) -> dict[str, Any]:
    """Evaluate in threads, from the store."""
    import dasrec

    model = dasrec.load_model(f"{folder}/model")
    model.scoring_vectors()
    held = model.user_factors_.nbytes + model.item_factors_.nbytes
    with timed() as answer:
        split = dasrec.parse_split(dasrec.open_interactions(f"{folder}/store"), SPLIT, rng=0)
        found = dasrec.evaluate(model, split, n=n)
    figures = {"ndcg": float(found["ndcg"].item()), "map": float(found["map"].item())}
    return {**answer, **figures, "users": found.attrs["n_users"], "vector_bytes": held}


def rank_only(folder: str, *, n: int, how: str = RANK) -> dict[str, Any]:
    """Rank in threads as a task does; or all items; or only score, vectors that are no numbers."""
    from dasrec.kernels.listing import by_length
    from dasrec.models.base import rank_items

    users, items, train, _ = _loaded(folder)
    if how == SCORE:
        users[:] = np.nan
    catalogue = by_length(items)
    if how != RANK:  # what may be of any length is never too short
        catalogue = *catalogue[:2], np.full(len(items), np.inf)
    indptr = train.indptr.astype(np.int64)

    def task(rows: slice) -> None:
        seen = indptr[rows.start : rows.stop + 1], train.indices
        rank_items(users[rows], catalogue, n, seen)

    task(slice(0, 1))
    return _in_threads(task, len(users), 4 * BLOCK)


def multiply(folder: str, *, n: int) -> dict[str, Any]:
    """Multiply blocks of users by all items."""
    import threading

    del n
    users, items, _, _ = _loaded(folder)
    own = threading.local()

    def product(rows: slice) -> None:
        if not hasattr(own, "scores"):
            own.scores = np.zeros((BLOCK, len(items)), np.float32)
        some = users[rows]
        np.matmul(some, items.T, out=own.scores[: len(some)])

    return _in_threads(product, len(users), BLOCK)


def _in_threads(task: Any, n_users: int, height: int) -> dict[str, Any]:
    from threadpoolctl import threadpool_limits

    blocks = [slice(top, min(top + height, n_users)) for top in range(0, n_users, height)]
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(common.available_cores()) as pool:
        list(pool.map(task, blocks[: 2 * common.available_cores()]))
        with timed() as answer:
            list(pool.map(task, blocks))
    return {**answer, "users": n_users}


def evaluate_implicit(folder: str, *, n: int, limit: int | None = 1) -> dict[str, Any]:
    """Evaluate in as many threads as there are cores."""
    from implicit.cpu.als import AlternatingLeastSquares
    from implicit.evaluation import ranking_metrics_at_k
    from threadpoolctl import threadpool_limits

    users, items, train, test = _loaded(folder)
    model = AlternatingLeastSquares(factors=users.shape[1])
    model.user_factors, model.item_factors = users, items
    with threadpool_limits(limit, "blas"), timed() as answer:
        threads = common.available_cores()
        found = ranking_metrics_at_k(
            model, train, test, K=n, show_progress=False, num_threads=threads
        )
    tested = int((np.diff(test.indptr) > 0).sum())
    return {**answer, "ndcg": found["ndcg"], "map": found["map"], "users": tested}


def evaluate_lenskit(folder: str, *, n: int, most: int) -> dict[str, Any]:
    """Recommend in one process and measure the lists, for some users."""
    import pandas as pd
    from lenskit.als import ImplicitMFScorer
    from lenskit.batch import recommend
    from lenskit.data import ItemListCollection, from_interactions_df
    from lenskit.metrics import NDCG, Hit, Precision, Recall, RecipRank, RunAnalysis
    from lenskit.pipeline import topn_pipeline

    users, items, train, test = _loaded(folder)

    def table(matrix: Any) -> pd.DataFrame:
        pairs = matrix.tocoo()
        return pd.DataFrame({"user_id": pairs.row, "item_id": pairs.col})

    scorer = ImplicitMFScorer(embedding_size=users.shape[1], epochs=1, user_embeddings="prefer")
    pipeline = topn_pipeline(scorer, n=n)
    pipeline.train(from_interactions_df(table(train)))
    part = pipeline.component("scorer") if hasattr(pipeline, "component") else scorer
    for each in {id(part): part, id(scorer): scorer}.values():
        each.user_embeddings = users[each.users.ids()]
        each.item_embeddings = items[each.items.ids()]
    tested = np.flatnonzero(np.diff(test.indptr))[:most]
    truth = ItemListCollection.from_df(table(test[: tested[-1] + 1]), ["user_id"])
    analysis = RunAnalysis()
    for metric in (NDCG(n), Recall(n), Precision(n), Hit(n), RecipRank(n)):
        analysis.add_metric(metric)
    with timed() as answer:
        lists = recommend(pipeline, tested.tolist(), n, n_jobs=1)
        found = analysis.measure(lists, truth)
    mean = found.list_summary()["mean"]
    figure = next(float(value) for name, value in mean.items() if str(name).startswith("NDCG"))
    return {**answer, "ndcg": figure, "users": len(tested)}


# --- the comparison


def main() -> int:
    """Run what the command line asks for."""
    options = _options()
    folder, quarter = (prepared(options, size) for size in (options.users, options.users // 4))
    cores, n = options.workers, options.n
    run(evaluate_dasrec, cores=cores, folder=quarter, n=n)  # compiles the kernels
    jobs: dict[str, Any] = {
        name: partial(run, job, cores=cores, folder=folder, n=n, **more)
        for name, job, more in (
            (DASREC, evaluate_dasrec, {}),
            *((how, rank_only, {"how": how}) for how in (RANK, RANK_ALL, SCORE)),
            (SGEMM, multiply, {}),
            (IMPLICIT, evaluate_implicit, {}),
            (PLAIN, evaluate_implicit, {"limit": None}),
        )
        if not name.startswith(IMPLICIT) or IMPLICIT in options.peers
    }
    jobs["a quarter"] = partial(run, evaluate_dasrec, cores=cores, folder=quarter, n=n)
    if LENSKIT in options.peers:
        most = options.lenskit_users
        jobs[LENSKIT] = partial(
            *(run, evaluate_lenskit),
            cores=cores,
            python=options.lenskit,
            folder=folder,
            n=n,
            most=most,
        )
    rounds = common.alternate(jobs, repeats=options.repeats)
    targets = _targets(rounds)
    if options.json:
        found = {"rounds": rounds.outcomes, "machine": common.machine(*PACKAGES)}
        found["targets"] = [{**vars(each), "passed": each.passed} for each in targets]
        print(json.dumps(found, indent=1, default=vars))
    else:
        print(common.machine(*PACKAGES), _report(rounds, options), "", *targets, sep="\n")
    return int(options.strict and not all(each.passed for each in targets))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    for name, size in (("users", 200_000), ("items", 30_000), ("interactions", 17_000_000)):
        parser.add_argument(f"--{name}", type=common.count, default=size, help="as in 20k or 17M")
    parser.add_argument("--factors", type=int, default=64)
    parser.add_argument("--n", type=int, default=20, help="length of lists")
    parser.add_argument("--lenskit-users", type=common.count, default=2000)
    parser.add_argument("--peers", default=f"{IMPLICIT},{LENSKIT}", help="'' for none")
    options = common.parse(parser, repeats=3)
    options.peers = [peer for peer in options.peers.split(",") if peer]
    options.lenskit = os.environ.get("DASREC_PEERS", ".venv-peers/bin/python")
    there = {
        IMPLICIT: importlib.util.find_spec(IMPLICIT) is not None,
        LENSKIT: shutil.which(options.lenskit) is not None,
    }
    for peer in [peer for peer in options.peers if not there[peer]]:
        say(f"{peer} is skipped, as it is not installed")
        options.peers.remove(peer)
    return options


def _by_user(rounds: Rounds, key: str, name: str, other: str) -> float:
    """Return the median over rounds of what a user takes with one by what it takes with another."""
    pairs = zip(rounds.outcomes[name], rounds.outcomes[other], strict=True)
    each = [
        getattr(one, key) / one.answer["users"] / getattr(two, key) * two.answer["users"]
        for one, two in pairs
    ]
    return statistics.median(each)


def _held(rounds: Rounds, name: str) -> float:
    """Return the bytes at the peak beside those at the start and the vectors, which it may copy."""
    return statistics.median(
        each.peak_bytes - each.answer["start_bytes"] for each in rounds.outcomes[name]
    )


def _targets(rounds: Rounds) -> list[Target]:
    targets = []
    for peer, least in ((IMPLICIT, 5), (PLAIN, 5), (LENSKIT, 20)):
        if peer in rounds.outcomes:
            for key, what in (("seconds", "time"), ("cpu_seconds", "processor time")):
                slower = _by_user(rounds, key, peer, DASREC)
                targets.append(
                    Target(f"{what} of {peer} by dasrec's", slower, least, at_least=True)
                )
    speed = _by_user(rounds, "cpu_seconds", SGEMM, SCORE)
    targets.append(Target("rate of scoring by sgemm's", speed, 0.7, at_least=True))
    score = _by_user(rounds, "cpu_seconds", SCORE, RANK_ALL)
    targets.append(Target("share of selection in ranking all", 1 - score, 0.25))
    grown = _held(rounds, DASREC) - _held(rounds, "a quarter")
    targets.append(Target("MB more at the peak with four times the users", grown / 1e6, 30))
    return targets


def _report(rounds: Rounds, options: argparse.Namespace) -> str:
    rows = []
    for name, outcomes in rounds.outcomes.items():
        seconds, cpu = (rounds.median(key, name) for key in ("seconds", "cpu_seconds"))
        users = outcomes[0].answer["users"]
        work = 2e-9 * users * options.items * options.factors
        noise, start = (
            statistics.median(each.answer[key] for each in outcomes)
            for key in ("noise", "start_bytes")
        )
        rows.append(
            [
                name,
                short(users),
                f"{seconds:.2f}",
                f"{cpu:.2f}",
                f"{cpu / users * 1e6:.1f}",
                f"{work / cpu:.1f}",
                f"{rounds.median('peak_bytes', name) / 1e6:.0f}",
                f"{start / 1e6:.0f}",
                f"{noise:.2f}",
                *(f"{outcomes[0].answer.get(key, np.nan):.5f}" for key in ("ndcg", "map")),
            ]
        )
    header = "users,s,CPU s,CPU us/user,GFLOP/CPU s,peak MB,at start,noise,ndcg,map".split(",")
    title = f"{options.items} items, {options.factors} factors, n = {options.n}"
    return f"{title}\n\n{common.table(['', *header], rows)}"


if __name__ == "__main__":
    sys.exit(main())
