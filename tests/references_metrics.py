"""Slow twins of the metrics: one user at a time, sets and loops, right at first sight."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from dasrec.kernels import ranking
from dasrec.metrics import Items, Ranked
from dasrec.typing import CsrBlock

NAN = math.nan


@dataclass(frozen=True)
class Person:
    """One user: a list, what is to be found with its weights, what is known, scores of all."""

    listed: list[int]
    truth: dict[int, float]
    seen: frozenset[int] = frozenset()
    scores: tuple[float, ...] = ()


@dataclass(frozen=True)
class Catalogue:
    """What training knows of the items."""

    counts: list[int]
    n_trained: int
    groups: list[int]
    factors: Any  # (n_items, d)

    @property
    def n_items(self) -> int:
        return len(self.counts)


def mean(values: Collection[float]) -> float:
    """Return the mean of those that are numbers."""
    known = [value for value in values if not math.isnan(value)]
    return math.fsum(known) / len(known) if known else NAN


def found_metrics(ranks: list[int], wanted: list[float], got: list[float], n: int) -> dict:
    """Measure hits at these ranks; ``wanted`` are the weights to find, ``got`` those of hits."""
    best, n_truth = min(n, len(wanted)), len(wanted)
    ideal = math.fsum(1 / math.log2(rank + 1) for rank in range(1, best + 1))
    largest = sorted((max(w, 0.0) for w in wanted), reverse=True)[:best]
    most = math.fsum(w / math.log2(rank + 1) for rank, w in enumerate(largest, 1))
    gained = math.fsum(max(w, 0) / math.log2(r + 1) for r, w in zip(ranks, got, strict=True))
    precision, recall = len(ranks) / n, len(ranks) / n_truth
    return {
        "precision": precision,
        "recall": recall,
        "f1": 2 / (1 / precision + 1 / recall) if ranks else 0.0,
        "r_precision": sum(rank <= best for rank in ranks) / best,
        "ndcg": math.fsum(1 / math.log2(rank + 1) for rank in ranks) / ideal,
        "ndcg_graded": gained / most if most else NAN,
        "map": math.fsum(found / rank for found, rank in enumerate(ranks, 1)) / best,
        "mrr": 1 / ranks[0] if ranks else 0.0,
        "hit_rate": 1.0 if ranks else 0.0,
    }


def auc(one: Person, wanted: Collection[int]) -> float:
    """Compare each item to be found with each other candidate."""
    others = set(range(len(one.scores))) - one.seen - set(one.truth)
    pairs = [(one.scores[i], one.scores[j]) for i in wanted for j in others]
    return mean([1.0 if a > b else 0.5 if a == b else 0.0 for a, b in pairs])


def cosine(one: Any, other: Any) -> float:
    """Return the cosine of two vectors, 0 if one of them is 0."""
    lengths = math.sqrt((one @ one) * (other @ other))
    return float(one @ other) / lengths if lengths else 0.0


def listed_metrics(items: list[int], hits: set[int], n: int, catalogue: Catalogue) -> dict:
    """Measure what is listed, found or not."""
    counts = catalogue.counts
    order = sorted(range(len(counts)), key=lambda item: (-counts[item], item))
    squares, total = sum(c * c for c in counts), sum(counts)
    chances = [max(counts[item], 1) / max(catalogue.n_trained, 1) for item in items]
    spreads = [
        1 - cosine(catalogue.factors[i], catalogue.factors[j]) for i, j in combinations(items, 2)
    ]
    popularity = mean([counts[item] for item in items])
    return {
        "user_coverage": 1.0 if items else 0.0,
        "novelty": mean([-math.log2(chance) for chance in chances]),
        "serendipity": len(hits - set(order[:n])) / n,
        "diversity": mean(spreads),
        "popularity": popularity,
        "popularity_ratio": popularity / (squares / total) if total else NAN,
    }


def calibration(one: Person, items: Sequence[int], groups: list[int]) -> float:
    """Return the divergence of a list's groups from those of what is known."""
    before, after = (
        Counter(groups[item] for item in some if groups[item] >= 0) for some in (one.seen, items)
    )
    if not before or not after:
        return NAN
    p = {group: count / before.total() for group, count in before.items()}
    q = {group: count / after.total() for group, count in after.items()}
    return math.fsum(p[g] * math.log(p[g] / (0.99 * q.get(g, 0) + 0.01 * p[g])) for g in p)


def user_metrics(
    one: Person, *, n: int, catalogue: Catalogue, inside: Collection[int]
) -> dict[str, float] | None:
    """Measure one user; None if there is nothing to find among the items in question."""
    wanted = {item: weight for item, weight in one.truth.items() if item in inside}
    if not wanted:
        return None
    listed = [(rank, i) for rank, i in enumerate(one.listed[:n], 1) if i in inside]
    hits = [(rank, i) for rank, i in listed if i in wanted]
    items = [item for _, item in listed]
    candidates = set(inside) - one.seen
    right = sum((item in items) == (item in wanted) for item in candidates)
    return {
        **found_metrics(
            [rank for rank, _ in hits], list(wanted.values()), [wanted[i] for _, i in hits], n
        ),
        "auc": auc(one, wanted),
        "accuracy": right / len(candidates),
        **listed_metrics(items, {item for _, item in hits}, n, catalogue),
        "calibration": calibration(one, items, catalogue.groups),
    }


def gini(counts: Sequence[float]) -> float:
    """Return half the mean difference of all pairs, by the mean."""
    differences = math.fsum(abs(a - b) for a in counts for b in counts)
    return differences / (2 * len(counts) * sum(counts)) if sum(counts) else NAN


def measure(
    people: Sequence[Person], *, n: int, catalogue: Catalogue, inside: Collection[int] | None = None
) -> dict[str, float]:
    """Measure all users with something to find; coverage is over their lists together."""
    inside = range(catalogue.n_items) if inside is None else inside
    found = [user_metrics(one, n=n, catalogue=catalogue, inside=inside) for one in people]
    each = [one for one in found if one is not None]
    shown = Counter(
        item
        for one, values in zip(people, found, strict=True)
        if values is not None
        for item in one.listed[:n]
        if item in inside
    )
    trained = {item for item in inside if catalogue.counts[item]}
    names = each[0] if each else {}
    return {name: mean([one[name] for one in each]) for name in names} | {
        "item_coverage": len(shown) / len(inside) if inside else NAN,
        "catalogue_coverage": len(trained & set(shown)) / len(trained) if trained else NAN,
        "gini": gini([shown[item] for item in inside]) if inside else NAN,
    }


def as_block(people: Sequence[Person], *, n: int, catalogue: Catalogue) -> Ranked:
    """Return these users as metrics see them."""
    truth = csr([dict(sorted(one.truth.items())) for one in people], catalogue.n_items)
    seen = csr([dict.fromkeys(sorted(one.seen), 1.0) for one in people], catalogue.n_items)
    rows = [(one.listed[:n] + [-1] * n)[:n] for one in people]
    lists = np.array(rows, np.int32).reshape(-1, n)
    scores = np.array([one.scores for one in people], np.float32)
    factors = np.asarray(catalogue.factors, np.float64)
    lengths = np.linalg.norm(factors, axis=1, keepdims=True)
    counts = np.array(catalogue.counts)
    order = np.empty(len(counts), np.int32)
    order[np.argsort(-counts, kind="stable")] = np.arange(len(counts))
    facts = Items(
        np.ones(catalogue.n_items, np.bool_),
        popularity=counts,
        order=order,
        n_trained=catalogue.n_trained,
        directions=np.nan_to_num(ranking.ratio(factors, lengths)).astype(np.float32),
        groups=np.array(catalogue.groups, np.int32),
    )
    wins = None
    if scores.size:
        wins = ranking.win_shares(
            scores, (seen.indptr, seen.indices), (truth.indptr, truth.indices)
        )
    hits = ranking.find_hits(lists, truth.indptr, truth.indices)
    return Ranked(lists, hits, truth, seen, facts, wins)


def csr(rows: Sequence[dict[int, float]], n_columns: int) -> CsrBlock:
    """Return rows of (column: weight) as a block."""
    return CsrBlock(
        np.cumsum([0, *map(len, rows)], dtype=np.int64),
        np.array([column for row in rows for column in row], np.int32),
        np.array([weight for row in rows for weight in row.values()], np.float32),
        n_columns,
    )


def evaluate_lists(
    lists: Sequence[Sequence[int]], truth: Sequence[set[int]], *, n: int, n_items: int
) -> dict[str, float]:
    """Measure lists and truth alone, by the usual metrics."""
    nothing = Catalogue([0] * n_items, 0, [-1] * n_items, np.zeros((n_items, 1)))
    people = [Person(list(a), dict.fromkeys(b, 1.0)) for a, b in zip(lists, truth, strict=True)]
    found = measure(people, n=n, catalogue=nothing)
    usual = ("precision", "recall", "ndcg", "map", "mrr", "hit_rate", "item_coverage")
    return {name: found[name] for name in usual}
