"""Where other libraries and papers mean something else by a name.

Read in implicit 0.7.3 (``evaluation.pyx``), LensKit 2025.8.1 (``metrics/ranking``), RecTools 0.19
(``metrics``), RecBole (``evaluator/metrics.py`` and ``collector.py``) and the notebook of Liang et
al. 2018 (arxiv.org/abs/1802.05814, github.com/dawenl/vae_cf).
"""

from __future__ import annotations

import numpy as np

from dasrec.kernels import ranking
from dasrec.metrics.base import Doubles, Items, Metric, Ranked, mean, shown, user_mean

_IMPLICIT = "implicit 0.7.3, evaluation.pyx"
_LENSKIT = "LensKit 2025.8.1, metrics/ranking"
_RECBOLE = "RecBole, evaluator/metrics.py"
_RECTOOLS = "RecTools 0.19, metrics"
_LIANG = "Liang et al. 2018, arxiv.org/abs/1802.05814"


def pooled_hits(block: Ranked) -> Doubles:
    """Return the hits of all users, and how many there could have been."""
    return np.array(
        [block.hits.sum(), np.minimum(block.hits.shape[1], block.n_truth).sum()], np.float64
    )


def weighted_auc(block: Ranked) -> Doubles:
    """Return the sum of wins over what all users are to find, and their number."""
    assert block.wins is not None  # the metric says that it needs them
    wins = block.wins[~np.isnan(block.wins)]
    return np.array([wins.sum(), len(wins)])


def reachable_recall(block: Ranked) -> Doubles:
    """Return |hits| / min(n, |truth|)."""
    return np.asarray(block.hits.sum(axis=1) / np.minimum(block.hits.shape[1], block.n_truth))


def clipped_discounts(n: int) -> Doubles:
    """Return 1 / log2(max(rank, 2)) for ranks 1..n: the first two count alike."""
    return 1.0 / np.log2(np.maximum(np.arange(1, n + 1), 2))


def clipped_ndcg(block: Ranked) -> Doubles:
    """Return NDCG with the first two ranks alike."""
    weights = clipped_discounts(block.hits.shape[1])
    ideal = np.concatenate(([0.0], np.cumsum(weights)))
    best = np.minimum(len(weights), block.n_truth)
    return np.asarray(block.hits @ weights / ideal[best])


def clipped_graded(block: Ranked) -> Doubles:
    """Return the same with test weights as gains."""
    truth = block.truth
    weights = clipped_discounts(block.hits.shape[1])
    gains = ranking.find_gains(block.lists, block.hits, truth.indptr, truth.indices, truth.data)
    return ranking.ratio(gains @ weights, ranking.ideal_gains(truth.indptr, truth.data, weights))


def precision_sums(block: Ranked) -> Doubles:
    """Return the sum over hits of precision at the rank of each."""
    at_rank = block.hits.cumsum(axis=1) / np.arange(1, block.hits.shape[1] + 1)
    return np.asarray((at_rank * block.hits).sum(axis=1))


def covered_and_padding(total: Doubles) -> float:
    """Return the share of the catalogue and one more item that is listed."""
    return float((total > 0).sum() / (len(total) + 1))


def padded_gini(total: Doubles) -> float:
    """Return the Gini index over the catalogue and one more item that is never listed."""
    return ranking.gini(np.append(total, 0.0))


def accuracy_of_catalogue(block: Ranked) -> Doubles:
    """Return accuracy over all items, seen or not, of a list taken to be full."""
    n_wrong = block.hits.shape[1] + block.n_truth - 2 * block.hits.sum(axis=1)
    return np.asarray(1 - n_wrong / block.n_items)


def surprise(block: Ranked) -> Doubles:
    """Return the mean over each list of how much better a hit's rank is than its popularity's."""
    counts, n_items = _popularity(block.items), block.n_items
    _, distinct = np.unique(-counts, return_inverse=True)
    place = np.where(counts > 0, distinct + 1, n_items + 1)
    ranks = np.arange(1, block.lists.shape[1] + 1)
    gains = np.maximum(place[block.lists] - ranks, 0) * block.hits
    return ranking.ratio(gains.sum(axis=1), n_items * block.n_listed)


def _best(block: Ranked) -> float:
    return float(ranking.discounts(block.hits.shape[1]).sum())


def _popularity(items: Items) -> Doubles:
    assert items.popularity is not None  # the metric says that it needs it
    return items.popularity.astype(np.float64)


def _reachable_recall(source: str) -> Metric:
    return user_mean("recall", reachable_recall, "|hits| / min(n, |truth|)", source)


IMPLICIT = (
    Metric(
        "precision",
        "ranking",
        pooled_hits,
        mean,
        "|hits| of all users / sum over users of min(n, |truth|)",
        _IMPLICIT,
    ),
    user_mean(
        "auc",
        lambda b: ranking.limited_auc(b.hits, b.n_truth, b.n_items),
        "AUC of the list, what it lacks in random order; others are n_items - |truth|",
        _IMPLICIT,
    ),
)
LENSKIT = (
    user_mean(
        "precision",
        lambda b: ranking.ratio(b.hits.sum(axis=1), b.n_listed),
        "|hits| / |list|",
        _LENSKIT,
    ),
    _reachable_recall(_LENSKIT),
    user_mean(
        "ndcg", clipped_ndcg, "as here, but ranks discounted by log2(max(rank, 2))", _LENSKIT
    ),
    user_mean(
        "ndcg_graded",
        clipped_graded,
        "as here, but ranks discounted by log2(max(rank, 2))",
        _LENSKIT,
    ),
    user_mean(
        "map",
        lambda b: ranking.ratio(precision_sums(b), np.minimum(b.n_listed, b.n_truth)),
        "sum over hits of precision at its rank / min(|list|, |truth|)",
        _LENSKIT,
    ),
)
RECBOLE = (
    Metric(
        "auc",
        "order",
        weighted_auc,
        mean,
        "sum over users of |truth| AUC / sum over users of |truth|",
        _RECBOLE,
        needs=("wins",),
    ),
    Metric(
        "item_coverage",
        "ranking",
        shown,
        covered_and_padding,
        "|items in any list| / (n_items + 1), the padding being an item",
        _RECBOLE,
    ),
    Metric(
        "gini",
        "ranking",
        shown,
        padded_gini,
        "as here, over n_items + 1 items, the padding being one",
        _RECBOLE,
    ),
)
RECTOOLS = (
    user_mean(
        "ndcg",
        lambda b: b.hits @ ranking.discounts(b.hits.shape[1]) / _best(b),
        "DCG / DCG of n hits",
        _RECTOOLS,
    ),
    user_mean(
        "map",
        lambda b: precision_sums(b) / b.n_truth,
        "sum over hits of precision at its rank / |truth|",
        _RECTOOLS,
    ),
    user_mean("r_precision", reachable_recall, "|hits| / min(n, |truth|)", _RECTOOLS),
    user_mean(
        "accuracy",
        accuracy_of_catalogue,
        "(n_items - n - |truth| + 2 |hits|) / n_items",
        _RECTOOLS,
    ),
    user_mean(
        "serendipity",
        surprise,
        "sum over hits of max(place by c - rank, 0) / n_items / |list|",
        _RECTOOLS,
        needs=("popularity",),
    ),
)
VAE = (_reachable_recall(_LIANG),)

# what each has under our names: the tables above, and what is the same there as here
LISTS = {
    "implicit": ("precision", "map", "ndcg", "auc"),
    "lenskit": (
        *("precision", "recall", "ndcg", "map", "mrr", "hit_rate", "ndcg_graded"),
        "gini",
    ),
    "recbole": (
        *("precision", "recall", "ndcg", "map", "mrr", "hit_rate", "item_coverage"),
        *("auc", "gini", "popularity", "rmse", "mae", "log_loss"),
    ),
    "rectools": (
        *("precision", "recall", "ndcg", "map", "mrr", "hit_rate", "item_coverage"),
        *("f1", "r_precision", "accuracy", "novelty", "popularity", "serendipity"),
        "user_coverage",
    ),
    "vae": ("recall", "ndcg"),
}
TABLES = {
    "implicit": IMPLICIT,
    "lenskit": LENSKIT,
    "recbole": RECBOLE,
    "rectools": RECTOOLS,
    "vae": VAE,
}
