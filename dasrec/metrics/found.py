"""Metrics of what lists have found, and of predicted values."""

from __future__ import annotations

import numpy as np

from dasrec.errors import InputError
from dasrec.kernels import ranking
from dasrec.metrics.base import Doubles, Metric, Predicted, Ranked, mean, user_mean

_JARVELIN = "Järvelin and Kekäläinen 2002, doi:10.1145/582415.582418"
_MANNING = "Manning, Raghavan and Schütze 2008, ISBN 978-0-521-86571-5, chapter 8"
_HERLOCKER = "Herlocker et al. 2004, doi:10.1145/963770.963772"
_EPSILON = 1e-15  # of a probability, before its logarithm is taken


def squares(block: Predicted) -> Doubles:
    """Return the sum of squared errors, in float64, and their number."""
    errors = block.values.astype(np.float64) - block.predictions
    return np.array([np.square(errors).sum(), len(errors)])


def distances(block: Predicted) -> Doubles:
    """Return the sum of absolute errors, and their number."""
    errors = block.values.astype(np.float64) - block.predictions
    return np.array([np.abs(errors).sum(), len(errors)])


def log_losses(block: Predicted) -> Doubles:
    """Return the sum of -(r ln p + (1 - r) ln(1 - p)), and their number."""
    values = block.values.astype(np.float64)
    outside = values[(values < 0) | (values > 1)]
    if len(outside):
        msg = f"log_loss is for values from 0 to 1, and {outside[0]:g} is stored; leave it out"
        raise InputError(msg)
    chances = np.clip(block.predictions.astype(np.float64), _EPSILON, 1 - _EPSILON)
    losses = -values * np.log(chances) - (1 - values) * np.log(1 - chances)
    return np.array([losses.sum(), len(losses)])


def root_mean(total: Doubles) -> float:
    """Return the root of the mean."""
    return float(np.sqrt(mean(total)))


def graded(block: Ranked) -> Doubles:
    """Return NDCG of each user with test weights as gains."""
    truth = block.truth
    gains = ranking.find_gains(block.lists, block.hits, truth.indptr, truth.indices, truth.data)
    discount = ranking.discounts(gains.shape[1])
    return ranking.graded_ndcg(gains, ranking.ideal_gains(truth.indptr, truth.data, discount))


def auc(block: Ranked) -> Doubles:
    """Return the mean share of other candidates below each item to be found."""
    assert block.wins is not None  # the metric says that it needs them
    return ranking.row_means(block.wins, block.truth.indptr)


def accuracy(block: Ranked) -> Doubles:
    """Return the share of candidates about which listing or not listing was right."""
    n_candidates = block.n_items - np.diff(block.seen.indptr)
    n_wrong = block.n_listed + block.n_truth - 2 * block.hits.sum(axis=1)
    return np.asarray(1 - n_wrong / n_candidates)


RMSE = Metric(
    "rmse",
    "values",
    squares,
    root_mean,
    "sqrt(sum (r - p)^2 / |test|)",
    _HERLOCKER,
    smaller=True,
)
MAE = Metric("mae", "values", distances, mean, "sum |r - p| / |test|", _HERLOCKER, smaller=True)
LOG_LOSS = Metric(
    "log_loss",
    "values",
    log_losses,
    mean,
    "-sum (r ln p + (1 - r) ln(1 - p)) / |test|",
    "Good 1952, doi:10.1111/j.2517-6161.1952.tb00104.x",
    smaller=True,
)
PRECISION = user_mean(
    "precision", lambda b: ranking.precision(b.hits, b.n_truth), "|hits| / n", _HERLOCKER
)
RECALL = user_mean(
    "recall", lambda b: ranking.recall(b.hits, b.n_truth), "|hits| / |truth|", _HERLOCKER
)
NDCG = user_mean(
    "ndcg",
    lambda b: ranking.ndcg(b.hits, b.n_truth),
    "DCG / ideal DCG of min(n, |truth|) hits",
    _JARVELIN,
)
MAP = user_mean(
    "map",
    lambda b: ranking.average_precision(b.hits, b.n_truth),
    "sum over hits of precision at its rank / min(n, |truth|)",
    _MANNING,
)
MRR = user_mean(
    "mrr",
    lambda b: ranking.reciprocal_rank(b.hits, b.n_truth),
    "1 / rank of the first hit",
    "Voorhees 1999, trec.nist.gov/pubs/trec8/papers/qa_report.pdf",
)
HIT_RATE = user_mean(
    "hit_rate",
    lambda b: ranking.hit_rate(b.hits, b.n_truth),
    "1 if there is a hit, else 0",
    "Deshpande and Karypis 2004, doi:10.1145/963770.963776",
)
OTHERS = (
    user_mean(
        "f1", lambda b: ranking.f1(b.hits, b.n_truth), "2 |hits| / (n + |truth|)", _HERLOCKER
    ),
    user_mean(
        "r_precision",
        lambda b: ranking.r_precision(b.hits, b.n_truth),
        "|hits among the first m| / m, m = min(n, |truth|)",
        _MANNING,
    ),
    user_mean(
        "ndcg_graded",
        graded,
        "DCG with gains max(r, 0) / that of the min(n, |truth|) largest r, best first",
        _JARVELIN,
    ),
    user_mean(
        "auc",
        auc,
        "|pairs of a truth and another candidate with a lower score, equal ones half| / |pairs|",
        "Rendle et al. 2009, arxiv.org/abs/1205.2618",
        needs=("wins",),
        kind="order",
    ),
    user_mean(
        "accuracy", accuracy, "(|hits| + |neither listed nor truth|) / |candidates|", _MANNING
    ),
)
