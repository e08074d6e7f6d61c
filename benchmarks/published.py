"""Reproduce published figures on MovieLens 100K: python benchmarks/published.py

Prints ours beside the published ones, and PASS or FAIL; exit status 1 on FAIL.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import dasrec
from dasrec import DataUnavailableError
from dasrec.datasets import LogFiles, movielens_100k
from dasrec.evaluate import as_record

FOLD_ROWS = 20_000

# Surprise and MyMediaLite, their own pages; MyMediaLite's item ranking is for the fold u1 alone:
# our Popular gives its figures for MostPopular to the last digit there, and lower ones on u2 to u5
PUBLISHED_RMSE = {
    "Surprise, biases": (0.944, 0.748),
    "Surprise, SVD": (0.934, 0.737),
    "Surprise, SVD++": (0.919, 0.721),
    "MyMediaLite, UserItemBaseline": (0.94192, 0.74503),
    "MyMediaLite, BiasedMF k=40": (0.91242, 0.72119),
    "MyMediaLite, BiasedMF k=320": (0.91073, 0.72053),
}
PUBLISHED_RANKING = {
    "MyMediaLite, MostPopular": {"precision@5": 0.322, "map": 0.189},
    "MyMediaLite, UserKNN": {"precision@5": 0.525},
    "MyMediaLite, BPRMF": {"precision@5": 0.475, "map": 0.305},
    "MyMediaLite, WRMF": {"precision@5": 0.556, "precision@10": 0.491, "map": 0.355, "ndcg": 0.705},
}


def measure(model: dasrec.Model, splits: list[dasrec.Split], **options: Any) -> dict[str, float]:
    """Fit and evaluate on each split; the means."""
    records = []
    for split in splits:
        measured = dasrec.evaluate(model.fit(split.train), split, **options)
        records.append(as_record(measured)["metrics"])
    return {key: float(np.mean([each[key] for each in records])) for key in records[0]}


def rating_prediction(store: dasrec.Interactions) -> dict[str, dict[str, float]]:
    """RMSE and MAE, 5-fold cross-validation at random."""
    splits = list(dasrec.split_folds(store, 5, rng=1))
    models = {
        "dasrec, Biases": dasrec.Biases(),
        "dasrec, ALS": dasrec.ALS(rng=0),
        "dasrec, SGD": dasrec.SGD(rng=0),
        "dasrec, SVDpp": dasrec.SVDpp(rng=0),
    }
    return {name: measure(model, splits, metrics=["rmse", "mae"]) for name, model in models.items()}


def item_ranking(store: dasrec.Interactions, log: LogFiles) -> dict[str, dict[str, float]]:
    """Precision, MAP and NDCG on the folds u1 to u5 that GroupLens published with the data."""
    rows = pd.read_csv(log.paths[0], sep=None, engine="python")
    users, items = rows[log.columns["user"]], rows[log.columns["item"]]
    splits = []
    for fold in range(5):
        part = slice(fold * FOLD_ROWS, (fold + 1) * FOLD_ROWS)
        splits.append(
            dasrec.split_listed(
                store, user_ids=users[part], item_ids=items[part], name=f"u{fold + 1}"
            )
        )
    figures = {}
    for name, model in (
        ("dasrec, Popular", dasrec.Popular()),
        ("dasrec, ImplicitALS", dasrec.ImplicitALS(rng=0)),
        ("dasrec, BPR", dasrec.BPR(rng=0)),
        ("dasrec, WARP", dasrec.WARP(rng=0)),
    ):
        whole = store.n_items
        for where, part in (("u1", splits[:1]), ("mean of u1 to u5", splits)):
            found = measure(model, part, n=(5, 10, whole), metrics=["precision", "map", "ndcg"])
            figures[f"{name}, {where}"] = {
                "precision@5": found["precision@5"],
                "precision@10": found["precision@10"],
                "map": found[f"map@{whole}"],
                "ndcg": found[f"ndcg@{whole}"],
            }
    return figures


def check(ratings: dict[str, Any], ranking: dict[str, Any]) -> dict[str, bool]:
    """Hold the figures to what we expect."""
    popular = ranking["dasrec, Popular, u1"]["precision@5"]
    implicit = ranking["dasrec, ImplicitALS, u1"]["precision@5"]
    return {
        "explicit ALS, 5-fold, RMSE at most 0.920": ratings["dasrec, ALS"]["rmse"] <= 0.920,
        "explicit ALS better than biases alone": ratings["dasrec, ALS"]["rmse"]
        < ratings["dasrec, Biases"]["rmse"],
        "SGD, 5-fold, RMSE at most 0.912": ratings["dasrec, SGD"]["rmse"] <= 0.912,
        "SVD++, 5-fold, RMSE at most 0.905": ratings["dasrec, SVDpp"]["rmse"] <= 0.905,
        "implicit ALS, u1, P@5 at least 0.54": implicit >= 0.54,
        "BPR, u1, P@5 at least 0.47": ranking["dasrec, BPR, u1"]["precision@5"] >= 0.47,
        "WARP, u1, P@5 at least 0.52": ranking["dasrec, WARP, u1"]["precision@5"] >= 0.52,
        "implicit ALS, u1, P@5 above popular by at least 0.2": implicit - popular >= 0.2,
        "popular, u1, P@5 as MyMediaLite publishes": abs(popular - 0.322) < 0.0005,
    }


def show(ratings: dict[str, Any], ranking: dict[str, Any], checks: dict[str, bool]) -> None:
    """Print tables, ours beside the published."""
    published = pd.DataFrame(PUBLISHED_RMSE, index=["rmse", "mae"]).T
    table = pd.concat([pd.DataFrame(ratings).T, published])
    print("Rating prediction, 5-fold cross-validation\n", table.round(4).to_string(), "\n")
    table = pd.concat([pd.DataFrame(ranking).T, pd.DataFrame(PUBLISHED_RANKING).T])
    print("Item ranking, GroupLens' folds\n", table.round(4).to_string(na_rep="-"))
    print("MyMediaLite's figures are for u1 alone: there, Popular has those of MostPopular.\n")
    for what, holds in checks.items():
        print("PASS" if holds else "FAIL", what)


def main() -> int:
    """Run everything; 0 if all checks pass."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    try:
        log = movielens_100k()
    except DataUnavailableError as error:
        print(error, file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as folder:
        events = dasrec.read_events(list(log.paths), **log.columns)
        store = dasrec.write_interactions(events, Path(folder) / "store")
        ratings, ranking = rating_prediction(store), item_ranking(store, log)
    checks = check(ratings, ranking)
    if arguments.json:
        print(json.dumps({"ratings": ratings, "ranking": ranking, "checks": checks}))
    else:
        show(ratings, ranking, checks)
    return 0 if all(checks.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
