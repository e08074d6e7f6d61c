"""How much sooner successive halving finds the best of 27 configurations than training them all.

    python benchmarks/search.py

Both search one grid, 3 x 3 x 3, of implicit ALS on one simulated log, measure the same tested users
and may train each configuration for 27 iterations. ``grid`` trains all of them to the end; of
``halving`` 27, 9, 3 and 1 go on to 1, 3, 9 and 27. Each runs alone in a process of its own,
restricted to ``--workers`` cores. ``--processes`` runs the trials of halving as tasks of worker
processes, and must find the same.

The figures depend on the machine; ratios within one run are what counts. ``noise`` tells how many
cores other programs kept busy meanwhile: where it is not near 0, read the processor time.
"""

from __future__ import annotations

import argparse
import json
import sys
from functools import partial
from typing import Any

import common
from als import simulated_matrix
from common import Rounds, Target, run, timed

GRID, HALVING, PROCESSES = "grid", "halving", "halving, processes"
SPACE = {
    "factors": [16, 32, 64],
    "regularization": [0.03, 0.3, 3.0],
    "unobserved_weight": [0.02, 0.1, 0.5],
}
MOST = 27  # iterations of a configuration that is trained to the end
PACKAGES = ("dasrec", "dask", "numba", "numpy", "scikit-learn")


def search(
    folder: str, *, strategy: str, users: float | None, processes: int, seed: int
) -> dict[str, Any]:
    """Search, and return what was found."""
    import dasrec

    split = dasrec.split_random(dasrec.open_interactions(f"{folder}/store"), 0.2, rng=seed)
    model = dasrec.ImplicitALS(iterations=MOST, rng=seed)
    budget = None if strategy == GRID else 27 * MOST
    trials = dasrec.Trials(users=users, rng=seed)
    with common.cluster(f"processes:{processes}" if processes else "threads"), timed() as answer:
        found = dasrec.search(
            model, space=SPACE, split=split, strategy=strategy, budget=budget, trials=trials
        )
    facts = {"metric": found.best_metric, "spent": found.trials.attrs["spent"]}
    return {**answer, **facts, "parameters": found.best_params}


def main() -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    for name, size in (("users", 20_000), ("items", 10_000), ("interactions", 1_000_000)):
        parser.add_argument(f"--{name}", type=common.count, default=size, help="as in 100k or 17M")
    parser.add_argument("--sample", type=float, help="search on this share of the users")
    parser.add_argument("--processes", action="store_true", help="also halving in processes")
    options = common.parse(parser, repeats=1)
    folder = simulated_matrix(options, options.users, options.items, options.interactions)
    job = partial(run, search, cores=options.workers, folder=folder, seed=options.seed)
    jobs = {
        name: partial(job, strategy=strategy, users=options.sample, processes=n)
        for name, strategy, n in (
            (GRID, GRID, 0),
            (HALVING, HALVING, 0),
            (PROCESSES, HALVING, options.workers),
        )
        if name != PROCESSES or options.processes
    }
    rounds = common.alternate(jobs, repeats=options.repeats)
    targets = _targets(rounds)
    if options.json:
        found = {name: [vars(each) for each in each] for name, each in rounds.outcomes.items()}
        found["targets"] = [{**vars(it), "passed": it.passed} for it in targets]
        print(json.dumps({**found, "machine": common.machine(*PACKAGES)}, indent=1))
    else:
        print(common.machine(*PACKAGES), _table(rounds), "", sep="\n")
        print(*targets, sep="\n")
    return int(options.strict and not all(target.passed for target in targets))


def _targets(rounds: Rounds) -> list[Target]:
    best = rounds.outcomes[GRID][0].answer["metric"]
    time = rounds.ratio("seconds", HALVING, GRID)
    targets = [Target("halving, seconds by those of the grid", time, 1 / 3)]
    for name in rounds.outcomes:
        if name != GRID:
            found = rounds.outcomes[name][0].answer["metric"]
            targets.append(
                Target(f"{name}, metric below the best (%)", 100 * (1 - found / best), 1)
            )
    if PROCESSES in rounds.outcomes:
        bits = {rounds.outcomes[name][0].answer["metric"] for name in (HALVING, PROCESSES)}
        targets.append(Target("different results on threads and processes", len(bits) - 1, 0))
    return targets


def _table(rounds: Rounds) -> str:
    rows = []
    for name, outcomes in rounds.outcomes.items():
        answer = outcomes[0].answer
        rows.append(
            [
                name,
                f"{rounds.median('seconds', name):.1f}",
                f"{rounds.median('cpu_seconds', name):.1f}",
                answer["spent"],
                f"{answer['metric']:.4f}",
                ", ".join(f"{key} {value:g}" for key, value in answer["parameters"].items()),
                f"{answer['noise']:.1f}",
            ]
        )
    head = ["search", "seconds", "cpu seconds", "iterations", "ndcg@10", "best", "noise"]
    return common.table(head, rows)


if __name__ == "__main__":
    sys.exit(main())
