"""Metrics of what is listed, found or not: coverage, concentration, novelty, diversity."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from dasrec.kernels import ranking
from dasrec.kernels.csr import rows_of
from dasrec.metrics.base import Doubles, Metric, Ranked, shown, user_mean
from dasrec.typing import Longs

_GE = "Ge, Delgado-Battenfeld and Jannach 2010, doi:10.1145/1864708.1864761"
_MIX = 0.01  # how much of the history is mixed into a list, so that no group has a share of 0


def popularity_of(block: Ranked) -> Longs:
    """Return the training interactions of every item."""
    assert block.items.popularity is not None  # the metric says that it needs them
    return block.items.popularity


def shown_of_trained(block: Ranked) -> Doubles:
    """Return the same, NaN also for items without a training interaction."""
    return np.where(popularity_of(block) > 0, shown(block), np.nan)


def covered(total: Doubles) -> float:
    """Return the share of items in question that are listed at all; NaN if there are none."""
    asked = total[~np.isnan(total)]
    return float((asked > 0).mean()) if len(asked) else float("nan")


def concentration(total: Doubles) -> float:
    """Return the Gini index of how often items are listed."""
    return ranking.gini(total[~np.isnan(total)])


def novelty(block: Ranked) -> Doubles:
    """Return the mean self-information of each list, in bits."""
    chances = np.maximum(popularity_of(block), 1) / max(block.items.n_trained, 1)
    return ranking.list_means(block.lists, -np.log2(chances))


def serendipity(block: Ranked) -> Doubles:
    """Return the share of places with a hit that the list of the most popular would not have."""
    n = block.lists.shape[1]
    assert block.items.order is not None  # the metric says that it needs it
    expected = block.items.order[block.lists] < n
    return np.asarray((block.hits & ~expected).sum(axis=1) / n)


def diversity(block: Ranked) -> Doubles:
    """Return 1 - mean cosine of the pairs of each list."""
    assert block.items.directions is not None  # the metric says that it needs them
    return ranking.list_spreads(block.lists, block.items.directions)


def mean_popularity(block: Ranked) -> Doubles:
    """Return the mean number of training interactions of the items of each list."""
    return ranking.list_means(block.lists, popularity_of(block))


def popularity_ratio(block: Ranked) -> Doubles:
    """Return the same by what training has on average, each item as often as it was used."""
    counts = popularity_of(block).astype(np.float64)
    usual = ranking.ratio((counts**2).sum(keepdims=True), counts.sum(keepdims=True))
    return np.asarray(mean_popularity(block) / usual)


def calibration(block: Ranked) -> Doubles:
    """Return how far the item groups of each list are from those of what is known of the user."""
    groups = block.items.groups
    assert groups is not None  # the metric says that it needs them
    shape = (len(block.lists), int(groups.max(initial=-1)) + 1)
    rows, places = np.nonzero(block.lists >= 0)
    before = ranking.group_shares(rows_of(block.seen.indptr), groups[block.seen.indices], shape)
    listed = groups[block.lists[rows, places]]
    return ranking.divergence(
        before, ranking.group_shares(rows.astype(np.int32), listed, shape), _MIX
    )


ITEM_COVERAGE = Metric(
    "item_coverage", "ranking", shown, covered, "|items in any list| / n_items", _GE
)
GINI = Metric(
    "gini",
    "ranking",
    shown,
    concentration,
    "sum (2 i - n_items - 1) x_i / (n_items sum x_i), x_1 <= x_2 <= ...: how often each is listed",
    "Fleder and Hosanagar 2009, doi:10.1287/mnsc.1080.0974",
    smaller=True,
)
NOVELTY = user_mean(
    "novelty",
    novelty,
    "sum over list of -log2(max(c, 1) / trained users) / |list|",
    "Zhou et al. 2010, doi:10.1073/pnas.1000488107",
    needs=("popularity",),
)
POPULARITY = user_mean(
    "popularity",
    mean_popularity,
    "sum over list of c / |list|",
    "Yin et al. 2012, doi:10.14778/2311906.2311916",
    needs=("popularity",),
)
OTHERS = (
    Metric(
        "catalogue_coverage",
        "ranking",
        shown_of_trained,
        covered,
        "|items with c > 0 in any list| / |items with c > 0|",
        _GE,
        needs=("popularity",),
    ),
    user_mean(
        "user_coverage",
        lambda b: (b.n_listed > 0).astype(np.float64),
        "1 if anything is listed, else 0",
        "Shani and Gunawardana 2011, doi:10.1007/978-0-387-85820-3_8",
    ),
    GINI,
    NOVELTY,
    user_mean(
        "serendipity",
        serendipity,
        "|hits that are not among the n items of largest c| / n",
        _GE,
        needs=("popularity",),
    ),
    user_mean(
        "diversity",
        diversity,
        "sum over pairs of list of (1 - cosine of item factors) / |pairs|",
        "Ziegler et al. 2005, doi:10.1145/1060745.1060754",
        needs=("directions",),
    ),
    POPULARITY,
    user_mean(
        "popularity_ratio",
        popularity_ratio,
        "(sum over list of c / |list|) / (sum over items of c^2 / sum over items of c)",
        "Abdollahpouri et al. 2019, arxiv.org/abs/1907.13286",
        needs=("popularity",),
    ),
    replace(
        user_mean(
            "calibration",
            calibration,
            "sum over item groups of p ln(p / (0.99 q + 0.01 p))",
            "Steck 2018, doi:10.1145/3240323.3240372",
            needs=("groups",),
        ),
        smaller=True,
        whole=True,
    ),
)
