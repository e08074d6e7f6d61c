"""Measure lists with another library; run by the Python of an environment that holds it.

Reads {"library", "lists", "truth", "seen", "n", "n_items"} from standard input as JSON, truth and
seen as lists of [item, weight] a user, and prints {"version", "metrics"}; names are ours.
"""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from typing import Any

import numpy as np


def by_implicit(case: dict[str, Any]) -> dict[str, float]:
    """Ask ``ranking_metrics_at_k`` about a model whose lists are given."""
    from implicit.evaluation import ranking_metrics_at_k
    from scipy.sparse import csr_matrix

    lists = np.array([row + [-1] * (case["n"] - len(row)) for row in case["lists"]], np.int32)

    class Given:
        def recommend(self, users: Any, user_items: Any, N: int) -> tuple[Any, Any]:
            return lists[users, :N], np.zeros((len(users), N), np.float32)

    def matrix(rows: list[list[list[float]]]) -> Any:
        cells = [(u, int(i), w) for u, row in enumerate(rows) for i, w in row]
        users, items, weights = zip(*cells, strict=True)
        shape = (len(rows), case["n_items"])
        return csr_matrix((np.array(weights, np.float32), (users, items)), shape=shape)

    return ranking_metrics_at_k(
        Given(), matrix(case["seen"]), matrix(case["truth"]), K=case["n"], show_progress=False
    )


def by_lenskit(case: dict[str, Any]) -> dict[str, float]:
    """Run LensKit's analysis of all lists."""
    from lenskit.data import ItemList, ItemListCollection
    from lenskit.metrics import NDCG, Hit, ListGini, Precision, Recall, RecipRank, RunAnalysis
    from lenskit.metrics.ranking import AveragePrecision

    lists, truth = ItemListCollection.empty(["user_id"]), ItemListCollection.empty(["user_id"])
    for user, (listed, wanted) in enumerate(zip(case["lists"], case["truth"], strict=True)):
        lists.add(ItemList(np.array(listed, np.int64), ordered=True), user_id=user)
        items, weights = (np.array(each) for each in zip(*wanted, strict=True))
        truth.add(ItemList(items.astype(np.int64), rating=weights.astype(float)), user_id=user)
    n, n_items = case["n"], case["n_items"]
    metrics = {
        "precision": Precision(n),
        "recall": Recall(n),
        "ndcg": NDCG(n),
        "ndcg_graded": NDCG(n, gain="rating"),
        "map": AveragePrecision(n),
        "mrr": RecipRank(n),
        "hit_rate": Hit(n),
        "gini": ListGini(n, items=n_items),
    }
    analysis = RunAnalysis()
    for name, metric in metrics.items():
        analysis.add_metric(metric, label=name)
    measured = analysis.measure(lists, truth)
    figures = measured.list_summary()["mean"].to_dict() | measured.global_metrics().to_dict()
    return {name: float(figures[name]) for name in metrics}


def by_rectools(case: dict[str, Any]) -> dict[str, float]:
    """Run RecTools' ``calc_metrics``."""
    import pandas as pd
    from rectools import metrics as rt

    def table(rows: list[list[Any]], columns: list[str]) -> Any:
        return pd.DataFrame(
            [(user, *cell) for user, row in enumerate(rows) for cell in row],
            columns=["user_id", *columns],
        )

    ranked = [[(item, rank) for rank, item in enumerate(row, 1)] for row in case["lists"]]
    n = case["n"]
    metrics = {
        "precision": rt.Precision(n),
        "recall": rt.Recall(n),
        "f1": rt.F1Beta(n),
        "r_precision": rt.Precision(n, r_precision=True),
        "accuracy": rt.Accuracy(n),
        "hit_rate": rt.HitRate(n),
        "ndcg": rt.NDCG(n),
        "map": rt.MAP(n),
        "mrr": rt.MRR(n),
        "novelty": rt.MeanInvUserFreq(n),
        "popularity": rt.AvgRecPopularity(n),
        "serendipity": rt.Serendipity(n),
        "item_coverage": rt.CatalogCoverage(n, normalize=True),
        "user_coverage": rt.CoveredUsers(n),
    }
    found = rt.calc_metrics(
        metrics,
        reco=table(ranked, ["item_id", "rank"]),
        interactions=table(case["truth"], ["item_id", "weight"]),
        prev_interactions=table(case["seen"], ["item_id", "weight"]),
        catalog=range(case["n_items"]),
    )
    return {name: float(value) for name, value in found.items()}


BY = {"implicit": by_implicit, "lenskit": by_lenskit, "rectools": by_rectools}

if __name__ == "__main__":
    given = json.load(sys.stdin)
    library = given["library"]
    print(json.dumps({"version": version(library), "metrics": BY[library](given)}))
