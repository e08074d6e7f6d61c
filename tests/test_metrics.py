"""Metrics by hand with their denominators, against slow loops, and as their page states them."""

from __future__ import annotations

import math
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dasrec import InputError
from dasrec.kernels import ranking
from dasrec.metrics import METRICS, Predicted, Ranked, choose_metrics
from tests import references_models as references
from tests.strategies import cuts

PAGE = Path(__file__).parents[1] / "docs" / "metrics.md"
RANKING = [name for name, metric in METRICS.items() if metric.kind == "ranking"]
N_ITEMS = 12


def measure(name: str, lists: list[list[int]], truth: list[set[int]], n: int) -> float:
    """Measure lists, filled up with -1, in one block."""
    return METRICS[name].finalize(METRICS[name].chunk(ranked(lists, truth, n)))


def ranked(lists: list[list[int]], truth: list[set[int]], n: int) -> Ranked:
    full = np.array([[*row, *[-1] * (n - len(row))] for row in lists], np.int32).reshape(-1, n)
    indptr = np.cumsum([0, *map(len, truth)], dtype=np.int64)
    indices = np.array([item for wanted in truth for item in sorted(wanted)], np.int32)
    return Ranked(full, ranking.find_hits(full, indptr, indices), np.diff(indptr), N_ITEMS)


def predicted(values: list[float], predictions: list[float]) -> Predicted:
    return Predicted(np.array(values, np.float32), np.array(predictions, np.float32))


# a list of five with hits at ranks 1, 3 and 4, and seven items to find
LIST, TRUTH = [0, 10, 2, 3, 11], {0, 2, 3, 5, 6, 7, 8}
BY_HAND = {
    "precision": 3 / 5,
    "recall": 3 / 7,
    "ndcg": (1 + 1 / 2 + 1 / math.log2(5))
    / (1 + 1 / math.log2(3) + 1 / 2 + 1 / math.log2(5) + 1 / math.log2(6)),
    "map": (1 / 1 + 2 / 3 + 3 / 4) / 5,
    "mrr": 1 / 1,
    "hit_rate": 1.0,
    "item_coverage": 5 / 12,
}
# the same list with less to find than it is long: two items, one found, at rank 3
FEW = {2, 9}
BY_HAND_OF_FEW = {
    "precision": 1 / 5,
    "recall": 1 / 2,
    "ndcg": (1 / 2) / (1 + 1 / math.log2(3)),
    "map": (1 / 3) / 2,
    "mrr": 1 / 3,
    "hit_rate": 1.0,
    "item_coverage": 5 / 12,
}
# a list that ended after two places of five; its only hit is the last item of it
BY_HAND_OF_SHORT = {
    "precision": 1 / 5,
    "recall": 1 / 2,
    "ndcg": (1 / math.log2(3)) / (1 + 1 / math.log2(3)),
    "map": (1 / 2) / 2,
    "mrr": 1 / 2,
    "hit_rate": 1.0,
    "item_coverage": 2 / 12,
}
BY_HAND_OF_NOTHING = dict.fromkeys(BY_HAND, 0.0) | {"item_coverage": 5 / 12}


@pytest.mark.parametrize("name", RANKING)
def test_by_hand(name: str) -> None:
    assert measure(name, [LIST], [TRUTH], 5) == pytest.approx(BY_HAND[name], rel=1e-12)
    assert measure(name, [LIST], [FEW], 5) == pytest.approx(BY_HAND_OF_FEW[name], rel=1e-12)
    short = measure(name, [[1, 2]], [FEW], 5)
    assert short == pytest.approx(BY_HAND_OF_SHORT[name], rel=1e-12)
    assert measure(name, [LIST], [{9}], 5) == BY_HAND_OF_NOTHING[name]


@pytest.mark.parametrize("name", RANKING)
def test_users_count_equally_however_much_they_have_to_find(name: str) -> None:
    both = measure(name, [LIST, LIST], [TRUTH, FEW], 5)
    assert both == pytest.approx((BY_HAND[name] + BY_HAND_OF_FEW[name]) / 2, rel=1e-12)


@pytest.mark.parametrize("name", RANKING)
def test_nothing_found_or_everything(name: str) -> None:
    everything = measure(name, [[3, 4, 5]], [{3, 4, 5}], 3)
    assert everything == (3 / N_ITEMS if name == "item_coverage" else 1.0)


def test_errors_by_hand() -> None:
    # over interactions: (1 + 0 + 4) / 3 and (1 + 0 + 2) / 3
    block = predicted([4, 3, 1], [5, 3, 3])
    assert METRICS["rmse"].finalize(METRICS["rmse"].chunk(block)) == math.sqrt(5 / 3)
    assert METRICS["mae"].finalize(METRICS["mae"].chunk(block)) == 3 / 3


def test_squares_are_summed_in_float64() -> None:
    # float32 has no number between 2^24 and 2^24 + 2
    assert METRICS["rmse"].chunk(predicted([2**12, 1], [0, 0])).tolist() == [2**24 + 1, 2]
    assert METRICS["mae"].chunk(predicted([2**24, 1], [0, 0])).tolist() == [2**24 + 1, 2]


def test_nothing_measured_is_nan() -> None:
    for name in ("rmse", "mae"):
        assert math.isnan(METRICS[name].finalize(METRICS[name].chunk(predicted([], []))))
    for name in RANKING:
        figure = measure(name, [], [], 5)
        assert figure == 0 if name == "item_coverage" else math.isnan(figure)


@st.composite
def lists_and_truth(draw: st.DrawFn) -> tuple[list[list[int]], list[set[int]], int]:
    n = draw(st.integers(1, N_ITEMS))
    items = st.permutations(range(N_ITEMS))
    lists = draw(st.lists(items, min_size=1, max_size=6))
    lengths = [draw(st.integers(0, n)) for _ in lists]
    wanted = st.sets(st.integers(0, N_ITEMS - 1), min_size=1)
    truth = [draw(wanted) for _ in lists]
    return [row[:length] for row, length in zip(lists, lengths, strict=True)], truth, n


@given(lists_and_truth())
def test_ranking_metrics_are_those_of_loops(drawn: tuple[list[list[int]], list[set], int]) -> None:
    lists, truth, n = drawn
    expected = references.evaluate_lists(lists, truth, n=n, n_items=N_ITEMS)
    assert expected.keys() == set(RANKING)
    for name, value in expected.items():
        assert measure(name, lists, truth, n) == pytest.approx(value, rel=1e-12), name


@given(lists_and_truth(), st.data())
def test_blocks_add_up(drawn: tuple[list[list[int]], list[set], int], data: st.DataObject) -> None:
    lists, truth, n = drawn
    places = data.draw(cuts(len(lists)))
    assert len(places) > 2
    for name in RANKING:
        metric = METRICS[name]
        parts = [metric.chunk(ranked(lists[a:b], truth[a:b], n)) for a, b in pairwise(places)]
        whole = measure(name, lists, truth, n)
        assert metric.finalize(np.sum(parts, axis=0)) == pytest.approx(whole, rel=1e-12), name


@given(
    st.lists(st.tuples(st.floats(-5, 5, width=32), st.floats(-5, 5, width=32)), min_size=1),
    st.data(),
)
def test_errors_are_those_of_loops(pairs: list[tuple[float, float]], data: st.DataObject) -> None:
    differences = [value - guess for value, guess in pairs]
    expected = {
        "rmse": math.sqrt(math.fsum(each**2 for each in differences) / len(pairs)),
        "mae": math.fsum(abs(each) for each in differences) / len(pairs),
    }
    places = data.draw(cuts(len(pairs)))
    blocks = [pairs[a:b] for a, b in pairwise(places)]
    for name, value in expected.items():
        chunk = METRICS[name].chunk
        parts = [chunk(predicted([v for v, _ in part], [g for _, g in part])) for part in blocks]
        found = METRICS[name].finalize(np.sum(parts, axis=0))
        assert found == pytest.approx(value, rel=1e-9, abs=1e-12), name


def test_the_page_states_every_formula_and_no_other() -> None:
    page = PAGE.read_text("utf-8").replace("\\|", "|")
    rows = re.findall(r"^\| `(\w+)` \| (.+) \|$", page, re.MULTILINE)
    stated = dict(rows)
    assert len(stated) == len(rows)
    assert stated == {name: metric.formula for name, metric in METRICS.items()}


def test_metrics_are_chosen_by_name() -> None:
    def chosen(names: object, **options: bool) -> list[str]:
        return [metric.name for metric in choose_metrics(names, **options)]

    assert chosen(None, predicts_values=True) == list(METRICS)
    assert chosen(None, predicts_values=False) == RANKING
    assert chosen("ndcg", predicts_values=False) == ["ndcg"]
    assert chosen(["mae", "map"], predicts_values=True) == ["mae", "map"]
    known = (
        "expected some of: rmse, mae, precision, recall, ndcg, map, mrr, hit_rate, item_coverage"
    )
    with pytest.raises(InputError, match=f"metric 'f7' is unknown; {known}"):
        chosen(["recall", "f7"], predicts_values=True)
    with pytest.raises(InputError, match="mae needs predicted values, and this model only ranks"):
        chosen(["mae"], predicts_values=False)
