"""First learning rates of each optimizer on MovieLens 100K: python benchmarks/rates.py

A random fifth is held out. Prints RMSE of SGD, and NDCG@10 of BPR in 30 epochs, for five rates
each, everything else as by default.
"""

from __future__ import annotations

import sys
import tempfile
from typing import Any

import common
import numpy as np
import pandas as pd
from scipy import sparse

import dasrec
from dasrec import DataUnavailableError
from dasrec.datasets import movielens_100k
from dasrec.results import as_record

RATINGS = {
    "sgd": (0.005, 0.01, 0.02, 0.05, 0.1),
    "momentum": (0.0005, 0.001, 0.002, 0.005, 0.01),
    "adagrad": (0.01, 0.02, 0.05, 0.1, 0.2),
    "adam": (0.0005, 0.001, 0.002, 0.005, 0.01),
}
PAIRS = {
    "sgd": (0.01, 0.02, 0.05, 0.1, 0.2),
    "momentum": (0.001, 0.002, 0.005, 0.01, 0.02),
    "adagrad": (0.01, 0.02, 0.05, 0.1, 0.2),
    "adam": (0.0005, 0.001, 0.002, 0.005, 0.01),
}


def tried(kind: Any, rates: dict[str, tuple[float, ...]], split: Any, **options: Any) -> None:
    """Print a table: a row an optimizer, what was measured at each rate."""
    rows = []
    for optimizer, each in rates.items():
        found = []
        for rate in each:
            model = kind(optimizer=optimizer, learning_rate=rate, rng=0, **options.get("more", {}))
            measured = dasrec.evaluate(model.fit(split.train), split, **options["what"])
            (value,) = as_record(measured)["metrics"].values()
            found.append(f"{value:.4f} at {rate:g}")
        rows.append([optimizer, *found])
    print(f"{kind.__name__}\n{common.table(['optimizer', *[''] * 5], rows)}")


def main() -> int:
    """Try all rates."""
    try:
        log = movielens_100k()
    except DataUnavailableError as error:
        print(error, file=sys.stderr)
        return 1
    read = pd.read_csv(log.paths[0], sep=None, engine="python")
    user, item, value = (read[log.columns[name]] for name in ("user", "item", "value"))
    cells = (value.to_numpy(np.float32), (user - 1, item - 1))
    with tempfile.TemporaryDirectory() as folder:
        store = dasrec.interactions_from_scipy(sparse.csr_array(cells), f"{folder}/store")
        split = dasrec.split_random(store, 0.2, rng=0)
        tried(dasrec.SGD, RATINGS, split, what={"metrics": ["rmse"]})
        lists = {"metrics": ["ndcg"], "n": 10}
        tried(dasrec.BPR, PAIRS, split, what=lists, more={"iterations": 30})
    return 0


if __name__ == "__main__":
    sys.exit(main())
