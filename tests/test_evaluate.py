"""Metrics by hand with their denominators; evaluation against brute force; leaks refused."""

from __future__ import annotations

import json
import re
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dasrec
from dasrec import InputError, Interactions, MismatchError
from dasrec.evaluate import as_record, evaluate_all
from dasrec.kernels import ranking
from dasrec.metrics import METRICS, choose_metrics
from dasrec.testing import planted_matrix

ROOT = Path(__file__).parents[1]


@pytest.fixture
def data(tmp_path: Path) -> Interactions:
    return dasrec.interactions_from_scipy(planted_matrix(), tmp_path / "data")


# a list of five with hits at ranks 1, 3 and 4, and seven items to find
HITS, TRUTH = np.array([[1, 0, 1, 1, 0]], bool), np.array([7])
DCG = 1 + 1 / np.log2(4) + 1 / np.log2(5)
IDEAL = sum(1 / np.log2(rank + 1) for rank in range(1, 6))
BY_HAND = {
    ranking.precision: 3 / 5,
    ranking.recall: 3 / 7,
    ranking.hit_rate: 1.0,
    ranking.reciprocal_rank: 1.0,
    ranking.average_precision: (1 / 1 + 2 / 3 + 3 / 4) / 5,
    ranking.ndcg: DCG / IDEAL,
}


@pytest.mark.parametrize("metric", BY_HAND, ids=lambda each: each.__name__)
def test_metrics_by_hand(metric: object) -> None:
    assert metric(HITS, TRUTH)[0] == pytest.approx(BY_HAND[metric])


def test_short_truth_bounds_map_and_ndcg() -> None:
    hits, truth = np.array([[0, 1, 0, 0, 0]], bool), np.array([1])
    assert ranking.average_precision(hits, truth)[0] == pytest.approx(0.5)
    assert ranking.ndcg(hits, truth)[0] == pytest.approx(1 / np.log2(3))
    assert ranking.reciprocal_rank(hits, truth)[0] == 0.5
    assert ranking.precision(hits, truth)[0] == pytest.approx(1 / 5)


@given(
    lists=st.lists(st.lists(st.booleans(), min_size=4, max_size=4), min_size=1, max_size=5),
    more=st.integers(0, 5),
)
def test_metrics_against_loops(lists: list[list[bool]], more: int) -> None:
    hits = np.array(lists)
    truth = hits.sum(axis=1) + more
    keep = truth > 0
    hits, truth = hits[keep], truth[keep]
    for row, n_truth in zip(range(len(hits)), truth, strict=True):
        ranks = [rank for rank in range(1, 5) if hits[row][rank - 1]]
        best = min(4, n_truth)
        dcg = sum(1 / np.log2(rank + 1) for rank in ranks)
        ideal = sum(1 / np.log2(rank + 1) for rank in range(1, best + 1))
        average = sum((i + 1) / rank for i, rank in enumerate(ranks)) / best
        expected = {
            ranking.precision: len(ranks) / 4,
            ranking.recall: len(ranks) / n_truth,
            ranking.hit_rate: float(bool(ranks)),
            ranking.reciprocal_rank: 1 / ranks[0] if ranks else 0.0,
            ranking.average_precision: average,
            ranking.ndcg: dcg / ideal,
        }
        for metric, value in expected.items():
            assert metric(hits, truth)[row] == pytest.approx(value)


def test_the_page_states_every_formula() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text().replace("\\|", "|")
    stated = dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", page, re.MULTILINE))
    assert stated == {name: metric.formula for name, metric in METRICS.items()}


def brute_force(data: Interactions, split: dasrec.Split, model: dasrec.Model, n: int) -> dict:
    users, items = model.scoring_vectors()
    scores = users @ items.T
    seen = split.seen.to_scipy().toarray() != 0
    test = split.test.to_scipy().toarray()
    scores[seen] = -np.inf
    precisions, recalls, shown = [], [], set()
    for user in np.flatnonzero((test != 0).any(axis=1)):
        order = np.lexsort((np.arange(data.n_items), -scores[user]))
        best = [item for item in order if np.isfinite(scores[user, item])][:n]
        shown |= set(best)
        found = sum(test[user, item] != 0 for item in best)
        precisions.append(found / n)
        recalls.append(found / (test[user] != 0).sum())
    raw = users @ items.T
    errors = (test - raw)[test != 0]
    return {
        f"precision@{n}": np.mean(precisions),
        f"recall@{n}": np.mean(recalls),
        f"item_coverage@{n}": len(shown) / data.n_items,
        "rmse": np.sqrt((errors**2).mean()),
        "mae": np.abs(errors).mean(),
    }


@pytest.mark.parametrize("cut", [10**6, 60])
def test_evaluation_is_what_brute_force_finds(tmp_path: Path, cut: int) -> None:
    with mock.patch("dasrec.memory.LEAST_BLOCK_CELLS", cut):
        data = dasrec.interactions_from_scipy(planted_matrix(), tmp_path / "data")
    assert (len(data.cuts("user_items")) > 3) == (cut == 60)
    split = dasrec.split_random(data, 0.25, rng=2)
    model = dasrec.ALS(factors=3, iterations=3, rng=0).fit(split.train)
    found = as_record(dasrec.evaluate(model, split, n=[4, 7]))
    assert found["model"] == "als"
    assert found["split"] == "random:0.25"
    assert found["seed"] == 2
    assert json.loads(json.dumps(found)) == found
    for n in (4, 7):
        for key, value in brute_force(data, split, model, n).items():
            assert found["metrics"][key] == pytest.approx(value, rel=1e-4), key


def test_users_held_out_are_folded_in(data: Interactions) -> None:
    split = dasrec.split_users(data, 0.3, rng=0)
    model = dasrec.ImplicitALS(factors=8, iterations=6, rng=0).fit(split.train)
    popular = dasrec.Popular().fit(split.train)
    measured = evaluate_all([model, popular], split, n=5)
    recall = measured["recall"].sel(n=5)
    assert recall.sel(model="implicit-als").item() > 2 * recall.sel(model="popular").item()
    assert measured["model"].values.tolist() == ["implicit-als", "popular"]


def test_a_model_that_may_know_the_test_is_refused(data: Interactions) -> None:
    split = dasrec.split_random(data, 0.2, rng=1)
    for view in (data, dasrec.split_random(data, 0.2, rng=2).train):
        model = dasrec.Popular().fit(view)
        with pytest.raises(MismatchError, match=r"may know what is tested\. Fit it on split.train"):
            dasrec.evaluate(model, split)
        assert dasrec.evaluate(model, split, allow_overlap=True)["recall"].notnull().all()


def test_what_cannot_be_measured_is_refused(data: Interactions) -> None:
    split = dasrec.split_random(data, 0.2, rng=1)
    model = dasrec.Popular().fit(split.train)
    with pytest.raises(InputError, match="catalogue has only 60 items; choose n <= 60"):
        dasrec.evaluate(model, split, n=61)
    with pytest.raises(InputError, match="metric 'f7' is unknown; expected some of: rmse, mae"):
        dasrec.evaluate(model, split, metrics=["f7"])
    with pytest.raises(InputError, match="rmse needs predicted values"):
        dasrec.evaluate(model, split, metrics=["rmse"])
    nothing = dasrec.split_random(data, 1e-9, rng=1)
    with pytest.raises(InputError, match="leaves nothing to test"):
        dasrec.evaluate(model.fit(nothing.train), nothing)
    assert [metric.name for metric in choose_metrics("ndcg", predicts_values=False)] == ["ndcg"]
