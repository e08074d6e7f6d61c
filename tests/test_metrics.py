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
from dasrec.metrics import CONVENTIONS, METRICS, USUAL, Predicted, Ranked, choose_metrics, tally
from dasrec.metrics.facts import thirds
from tests import references_metrics as references
from tests.references_metrics import Catalogue, Person, as_block
from tests.strategies import cuts

PAGE = Path(__file__).parents[1] / "docs" / "metrics.md"
RANKING = [name for name, metric in METRICS.items() if metric.kind == "ranking"]
USERS = [name for name, metric in METRICS.items() if metric.values is not None]
ERRORS = [name for name, metric in METRICS.items() if metric.kind == "values"]
N_ITEMS = 12
# of the first six items 0 is the most popular and 5 unknown; the others have one interaction each
COUNTS = [8, 4, 2, 2, 1, 0] + [1] * 6
GROUPS = [0, 0, 0, 1, 1, 1, 2, 2, 2, -1, -1, -1]
FACTORS = np.array([[1, 0], [0, 2], [3, 3], [0, 0], [-1, 0], [1, 1]] * 2, float)
CATALOGUE = Catalogue(COUNTS, 16, GROUPS, FACTORS)


def person(listed: list[int], truth: set[int], seen: set[int] = frozenset()) -> Person:
    return Person(listed, dict.fromkeys(truth, 1.0), frozenset(seen), (0.0,) * N_ITEMS)


def figure(name: str, block: Ranked | Predicted, n: int = 5) -> float:
    total = tally(METRICS[name], block, (n,))
    return METRICS[name].finalize(total[0] if METRICS[name].kind == "ranking" else total)


def measure(name: str, lists: list[list[int]], truth: list[set[int]], n: int) -> float:
    """Measure lists in one block."""
    people = [person(*each) for each in zip(lists, truth, strict=True)]
    return figure(name, as_block(people, n=n, catalogue=CATALOGUE), n)


def predicted(values: list[float], predictions: list[float]) -> Predicted:
    places = np.arange(len(values), dtype=np.int32)
    pair = (np.array(each, np.float32) for each in (values, predictions))
    return Predicted(*pair, places, places)


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
    "f1": 2 / (5 / 3 + 7 / 3),
    "r_precision": 3 / 5,
    "ndcg_graded": (1 + 1 / 2 + 1 / math.log2(5))
    / (1 + 1 / math.log2(3) + 1 / 2 + 1 / math.log2(5) + 1 / math.log2(6)),
    "accuracy": (12 - 2 - 4) / 12,
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
    "f1": 2 / (5 / 1 + 2 / 1),
    "r_precision": 0.0,
    "ndcg_graded": (1 / 2) / (1 + 1 / math.log2(3)),
    "accuracy": (12 - 4 - 1) / 12,
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
    "f1": 2 / (5 / 1 + 2 / 1),
    "r_precision": 1 / 2,
    "ndcg_graded": (1 / math.log2(3)) / (1 + 1 / math.log2(3)),
    "accuracy": (12 - 1 - 1) / 12,
}
BY_HAND_OF_NOTHING = dict.fromkeys(BY_HAND, 0.0) | {"item_coverage": 5 / 12, "accuracy": 6 / 12}


@pytest.mark.parametrize("name", BY_HAND)
def test_by_hand(name: str) -> None:
    assert measure(name, [LIST], [TRUTH], 5) == pytest.approx(BY_HAND[name], rel=1e-12)
    assert measure(name, [LIST], [FEW], 5) == pytest.approx(BY_HAND_OF_FEW[name], rel=1e-12)
    short = measure(name, [[1, 2]], [FEW], 5)
    assert short == pytest.approx(BY_HAND_OF_SHORT[name], rel=1e-12)
    assert measure(name, [LIST], [{9}], 5) == BY_HAND_OF_NOTHING[name]


@pytest.mark.parametrize("name", BY_HAND)
def test_users_count_equally_however_much_they_have_to_find(name: str) -> None:
    both = measure(name, [LIST, LIST], [TRUTH, FEW], 5)
    assert both == pytest.approx((BY_HAND[name] + BY_HAND_OF_FEW[name]) / 2, rel=1e-12)


@pytest.mark.parametrize("name", BY_HAND)
def test_nothing_found_or_everything(name: str) -> None:
    everything = measure(name, [[3, 4, 5]], [{3, 4, 5}], 3)
    assert everything == (3 / N_ITEMS if name == "item_coverage" else 1.0)


def test_what_is_listed_by_hand() -> None:
    """A list of 0, 2 and 5 of which 2 and 5 are hits; the user knows 1, 3 and 6."""
    one = person([0, 2, 5], {2, 5, 7}, {1, 3, 6})
    block = as_block([one], n=3, catalogue=CATALOGUE)
    cosines = 1 / math.sqrt(2), 1 / math.sqrt(2), 1.0
    expected = {
        # 8 of 16, 2 of 16, and nobody, who counts as one
        "novelty": (1 + 3 + 4) / 3,
        # the three of largest c are 0, 1 and 2
        "serendipity": 1 / 3,
        "diversity": 1 - sum(cosines) / 3,
        "popularity": (8 + 2 + 0) / 3,
        "popularity_ratio": (10 / 3) / ((64 + 16 + 4 + 4 + 7) / (8 + 4 + 2 + 2 + 7)),
        "item_coverage": 3 / 12,
        "catalogue_coverage": 2 / 11,
        "user_coverage": 1.0,
        # three items once, nine never: (2 (10 + 11 + 12) - 3 * 13) / (12 * 3)
        "gini": 27 / 36,
        # known: one of each group; listed: two of group 0, one of group 1
        "calibration": sum(math.log(1 / 3 / (0.99 * q + 0.01 / 3)) / 3 for q in (2 / 3, 1 / 3, 0)),
        # right about 2 and 5, wrong about 0 and 7, of nine candidates
        "accuracy": 7 / 9,
    }
    for name, value in expected.items():
        assert figure(name, block, 3) == pytest.approx(value, rel=1e-6), name


def test_graded_gains_are_test_weights() -> None:
    """Weights 4, 1, -2 and 3; the list has those of 1, -2 and 4, in this order."""
    one = Person([1, 2, 0], {0: 4.0, 1: 1.0, 2: -2.0, 3: 3.0})
    block = as_block([one], n=3, catalogue=CATALOGUE)
    gained, most = 1 + 0 + 4 / 2, 4 + 3 / math.log2(3) + 1 / 2
    assert figure("ndcg_graded", block, 3) == pytest.approx(gained / most, rel=1e-12)
    bad = as_block([Person([1], {0: -1.0, 1: 0.0})], n=3, catalogue=CATALOGUE)
    assert math.isnan(figure("ndcg_graded", bad, 3))


def test_auc_by_hand() -> None:
    """Of four others, scored 1 2 3 4, one item to find is above 2.5 of them and one above none."""
    scores = (3.0, 0.5, 9.0, 1.0, 2.0, 3.0, 4.0, 8.0, 8.0, 8.0, 8.0, 8.0)
    one = Person([2], {0: 1.0, 1: 1.0}, frozenset({2, 7, 8, 9, 10, 11}), scores)
    block = as_block([one], n=1, catalogue=CATALOGUE)
    assert figure("auc", block) == (2.5 / 4 + 0) / 2
    whole = Person([2], {0: 1.0}, frozenset(range(1, 12)), scores)
    assert math.isnan(figure("auc", as_block([whole], n=1, catalogue=CATALOGUE)))
    both = as_block([one, whole], n=1, catalogue=CATALOGUE)
    assert figure("auc", both) == (2.5 / 4 + 0) / 2


def test_errors_by_hand() -> None:
    # over interactions: (1 + 0 + 4) / 3 and (1 + 0 + 2) / 3
    block = predicted([4, 3, 1], [5, 3, 3])
    assert figure("rmse", block) == math.sqrt(5 / 3)
    assert figure("mae", block) == 3 / 3
    chances = predicted([1, 0, 0.5], [0.5, 0.25, 0.5])
    assert figure("log_loss", chances) == pytest.approx((2 * math.log(2) + math.log(4 / 3)) / 3)
    assert figure("log_loss", predicted([1], [0])) == pytest.approx(-math.log(1e-15))
    with pytest.raises(InputError, match="log_loss is for values from 0 to 1, and 5 is stored"):
        figure("log_loss", predicted([1, 5], [0.5, 0.5]))


def test_squares_are_summed_in_float64() -> None:
    # float32 has no number between 2^24 and 2^24 + 2
    assert METRICS["rmse"].chunk(predicted([2**12, 1], [0, 0])).tolist() == [2**24 + 1, 2]
    assert METRICS["mae"].chunk(predicted([2**24, 1], [0, 0])).tolist() == [2**24 + 1, 2]


def test_nothing_measured_is_nan() -> None:
    block = predicted([], [])
    for name in ERRORS:
        assert math.isnan(figure(name, block))
    nobody = as_block([], n=5, catalogue=CATALOGUE)._replace(wins=np.empty(0))
    for name in METRICS.keys() - set(ERRORS):
        found = figure(name, nobody)
        assert found == 0 if name in ("item_coverage", "catalogue_coverage") else math.isnan(found)


# -- against loops ---------------------------------------------------------------------------------


@st.composite
def people(draw: st.DrawFn) -> tuple[list[Person], int]:
    """Draw users with short lists of what they do not know, equal scores, weights of all signs."""
    n = draw(st.integers(1, N_ITEMS))
    drawn = []
    for _ in range(draw(st.integers(1, 6))):
        order = draw(st.permutations(range(N_ITEMS)))
        n_seen = draw(st.integers(0, N_ITEMS - 2))
        seen, left = order[:n_seen], order[n_seen:]
        truth = draw(st.sets(st.sampled_from(left), min_size=1))
        weights = {item: draw(st.integers(-2, 5)) / 2 for item in sorted(truth)}
        listed = draw(st.permutations(left))[: draw(st.integers(0, n))]
        scores = draw(st.tuples(*[st.integers(0, 3)] * N_ITEMS))
        drawn.append(Person(listed, weights, frozenset(seen), tuple(map(float, scores))))
    return drawn, n


@st.composite
def catalogues(draw: st.DrawFn) -> Catalogue:
    counts = draw(st.lists(st.integers(0, 5), min_size=N_ITEMS, max_size=N_ITEMS))
    groups = draw(st.lists(st.integers(-1, 2), min_size=N_ITEMS, max_size=N_ITEMS))
    numbers = st.lists(st.integers(-2, 2), min_size=2, max_size=2)
    factors = draw(st.lists(numbers, min_size=N_ITEMS, max_size=N_ITEMS))
    return Catalogue(counts, 5, groups, np.array(factors, float))


def same(found: float, expected: float) -> bool:
    return found == pytest.approx(expected, rel=1e-6, abs=1e-6, nan_ok=True)


@given(people(), catalogues())
def test_metrics_are_those_of_loops(drawn: tuple[list[Person], int], known: Catalogue) -> None:
    some, n = drawn
    expected = references.measure(some, n=n, catalogue=known)
    assert expected.keys() == METRICS.keys() - set(ERRORS)
    block = as_block(some, n=n, catalogue=known)
    for name, value in expected.items():
        assert same(figure(name, block, n), value), name


@given(people(), catalogues())
def test_values_of_users_are_those_of_loops(
    drawn: tuple[list[Person], int], known: Catalogue
) -> None:
    some, n = drawn
    block = as_block(some, n=n, catalogue=known)
    each = [
        references.user_metrics(one, n=n, catalogue=known, inside=range(N_ITEMS)) for one in some
    ]
    assert set(USERS) == set(each[0])
    for name in USERS:
        found = METRICS[name].values(block.cut(n))
        assert found.dtype == np.float64
        assert found.shape == (len(some),)
        assert all(map(same, found, [one[name] for one in each])), name


@given(people(), catalogues(), st.data())
def test_blocks_add_up(
    drawn: tuple[list[Person], int], known: Catalogue, data: st.DataObject
) -> None:
    some, n = drawn
    places = data.draw(cuts(len(some)))
    assert len(places) > 2
    blocks = [as_block(some[a:b], n=n, catalogue=known) for a, b in pairwise(places)]
    blocks = [b if b.wins is not None else b._replace(wins=np.empty(0)) for b in blocks]
    whole = as_block(some, n=n, catalogue=known)
    for name in METRICS.keys() - set(ERRORS):
        total = np.sum([tally(METRICS[name], block, (n,)) for block in blocks], axis=0)
        parts = METRICS[name].finalize(total[0] if METRICS[name].kind == "ranking" else total)
        assert same(parts, figure(name, whole, n)), name


@given(people(), catalogues(), st.data())
def test_groups_of_items_and_users_are_those_of_loops(
    drawn: tuple[list[Person], int], known: Catalogue, data: st.DataObject
) -> None:
    some, n = drawn
    members = data.draw(st.lists(st.booleans(), min_size=len(some), max_size=len(some)))
    inside = data.draw(st.sets(st.integers(0, N_ITEMS - 1), min_size=1))
    users, items = np.array(members), np.isin(np.arange(N_ITEMS), list(inside))
    block = as_block(some, n=n, catalogue=known)
    chosen = [one for one, member in zip(some, members, strict=True) if member]
    expected = references.measure(chosen, n=n, catalogue=known, inside=inside)
    if chosen:
        expected["calibration"] = references.measure(chosen, n=n, catalogue=known)["calibration"]
    for name in expected:
        total = tally(METRICS[name], block, (n, 1), users=[users, ~users], items=[items])
        first = total[0] if METRICS[name].whole else total[0, 0]
        first = first[0] if METRICS[name].kind == "ranking" else first
        assert same(METRICS[name].finalize(first), expected[name]), name


def test_errors_are_told_apart_too() -> None:
    block = predicted([4, 3, 1], [5, 3, 3])
    users = [np.array([True, False, True]), np.array([False, True, False])]
    items = [np.array([True, True, False]), np.array([False, False, True])]
    total = tally(METRICS["mae"], block, (5,), users=users, items=items)
    assert total.tolist() == [[[1, 1], [2, 1]], [[0, 1], [0, 0]]]


@given(
    st.lists(st.tuples(st.floats(0, 1, width=32), st.floats(-5, 5, width=32)), min_size=1),
    st.data(),
)
def test_errors_are_those_of_loops(pairs: list[tuple[float, float]], data: st.DataObject) -> None:
    differences = [value - guess for value, guess in pairs]
    chances = [(value, min(max(guess, 1e-15), 1 - 1e-15)) for value, guess in pairs]
    losses = [-r * math.log(p) - (1 - r) * math.log(1 - p) for r, p in chances]
    expected = {
        "rmse": math.sqrt(math.fsum(each**2 for each in differences) / len(pairs)),
        "mae": math.fsum(abs(each) for each in differences) / len(pairs),
        "log_loss": math.fsum(losses) / len(pairs),
    }
    assert expected.keys() == set(ERRORS)
    places = data.draw(cuts(len(pairs)))
    blocks = [pairs[a:b] for a, b in pairwise(places)]
    for name, value in expected.items():
        chunk = METRICS[name].chunk
        parts = [chunk(predicted([v for v, _ in part], [g for _, g in part])) for part in blocks]
        found = METRICS[name].finalize(np.sum(parts, axis=0))
        assert found == pytest.approx(value, rel=1e-9, abs=1e-12), name


@given(st.lists(st.integers(0, 9), min_size=1, max_size=12))
def test_thirds_are_cut_by_interactions(counts: list[int]) -> None:
    codes = thirds(np.array(counts)).codes
    order = sorted(range(len(counts)), key=lambda item: (-counts[item], item))
    before = 0
    for item in order:
        share = 3 * before / sum(counts) if counts[item] else 2
        assert codes[item] == min(int(share), 2)
        before += counts[item]


# -- names and the page ----------------------------------------------------------------------------


def stated(pattern: str) -> dict[str, tuple[str, ...]]:
    page = PAGE.read_text("utf-8").replace("\\|", "|")
    rows = re.findall(pattern, page, re.MULTILINE)
    found = {row[:-2] if len(row) > 3 else row[0]: row[-2:] for row in rows}
    assert len(found) == len(rows)
    return found


def test_the_page_states_every_formula_with_its_source_and_no_other() -> None:
    ours = {name: (metric.formula, metric.source) for name, metric in METRICS.items()}
    assert stated(r"^\| `(\w+)` \| ([^`]+) \| ([^`]+) \|$") == ours


def test_the_page_states_where_other_libraries_differ() -> None:
    differ = {
        (library, name): (metric.formula, metric.source)
        for library, table in CONVENTIONS.items()
        for name, metric in table.items()
        if metric is not METRICS[name]
    }
    assert stated(r"^\| `(\w+)` \| `(\w+)` \| ([^`]+) \| ([^`]+) \|$") == differ


def test_the_page_says_what_each_library_has() -> None:
    page = PAGE.read_text("utf-8")
    for library, table in CONVENTIONS.items():
        (names,) = re.findall(rf"^\* `{library}`: (.+(?:\n  .+)*)$", page, re.MULTILINE)
        assert set(re.findall(r"`(\w+)`", names)) == table.keys(), library


def test_metrics_are_chosen_by_name() -> None:
    def chosen(names: object, **options: object) -> list[str]:
        return [metric.name for metric in choose_metrics(names, **options)]

    usual = [metric.name for metric in USUAL]
    assert chosen(None, predicts_values=True) == usual
    assert chosen(None, predicts_values=False) == usual[2:]
    assert chosen(None, predicts_values=False, compat="implicit") == ["precision", "ndcg", "map"]
    assert chosen("ndcg", predicts_values=False) == ["ndcg"]
    assert chosen(["mae", "map"], predicts_values=True) == ["mae", "map"]
    known = "expected some of: rmse, mae, precision, recall, ndcg, map, mrr, hit_rate, item_cov"
    with pytest.raises(InputError, match=f"metric 'f7' is unknown; {known}"):
        chosen(["recall", "f7"], predicts_values=True)
    with pytest.raises(InputError, match=r"'mrr' is unknown to compat='vae'; .* recall, ndcg"):
        chosen(["mrr"], predicts_values=True, compat="vae")
    with pytest.raises(InputError, match="compat is 'spark'; expected one of: implicit, lenskit"):
        chosen(["mrr"], predicts_values=True, compat="spark")
    with pytest.raises(InputError, match="mae needs predicted values, and what is measured only"):
        chosen(["mae"], predicts_values=False)
