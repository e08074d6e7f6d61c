"""The same lists measured by other libraries, and by us with their formulas."""

from __future__ import annotations

import json
import math
import sys
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from dasrec.kernels.ranking import win_shares
from dasrec.metrics import CONVENTIONS, METRICS, Metric, Ranked, tally
from tests.peers.lists import LIBRARIES, RECORDED, ask, case_of, peer_python
from tests.references_metrics import Catalogue, Person, as_block

FIGURES = json.loads(RECORDED.read_text("utf-8"))
CASES = [(library, short) for library in LIBRARIES for short in (False, True)]
EXACT = {"rel": 1e-9, "abs": 0}


def name_of(case: tuple[str, bool]) -> str:
    return f"{case[0]}, {'short' if case[1] else 'full'} lists"


def block_of(case: dict[str, Any]) -> Ranked:
    people = [
        Person(listed, {int(i): w for i, w in truth}, frozenset(int(i) for i, _ in seen))
        for listed, truth, seen in zip(case["lists"], case["truth"], case["seen"], strict=True)
    ]
    counts = [0] * case["n_items"]
    for one in people:
        for item in one.seen:
            counts[item] += 1
    nothing = np.zeros((len(counts), 1))
    known = Catalogue(counts, len(people), [-1] * len(counts), nothing)
    return as_block(people, n=case["n"], catalogue=known)


def figure(metric: Metric, block: Ranked) -> float:
    total = tally(metric, block, (block.lists.shape[1],))
    return metric.finalize(total[0] if metric.kind == "ranking" else total)


def of_lists(library: str) -> set[str]:
    """Return what a library has that needs lists alone."""
    return {name for name, metric in CONVENTIONS[library].items() if metric.kind == "ranking"}


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_figures_are_those_that_the_library_gave(case: tuple[str, bool]) -> None:
    library, short = case
    told = FIGURES[name_of(case)]["metrics"]
    assert told.keys() == of_lists(library)
    block = block_of(case_of(library, short=short))
    assert (block.n_listed < block.lists.shape[1]).any() == short
    assert (block.n_truth > block.lists.shape[1]).any()
    for name, value in told.items():
        assert figure(CONVENTIONS[library][name], block) == pytest.approx(value, **EXACT), name


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_the_library_still_gives_these_figures(case: tuple[str, bool]) -> None:
    library, short = case
    python = sys.executable if library == "implicit" else peer_python()
    told = ask(case_of(library, short=short), python)
    if told is None:
        pytest.skip(
            f"NOT TESTED AGAINST {library}: {python} has none, only figures that were recorded are "
            "compared; run make peers, or set DASREC_PEERS to a Python that has it"
        )
    recorded = FIGURES[name_of(case)]
    assert told["version"] == recorded["version"]
    assert told["metrics"] == pytest.approx(recorded["metrics"], **EXACT)


def test_where_a_convention_differs_the_figures_do() -> None:
    """Else a formula that is stated to differ would not be tested by these lists."""
    for library, short in CASES:
        block = block_of(case_of(library, short=short))
        for name, metric in CONVENTIONS[library].items():
            if metric is METRICS[name] or metric.kind != "ranking":
                continue
            if METRICS[name].kind == "order" or (not short and (library, name) in ONLY_SHORT):
                continue
            ours, theirs = figure(METRICS[name], block), figure(metric, block)
            assert abs(ours - theirs) > 1e-4, (library, name)


# of full lists these are what they are here
ONLY_SHORT = {("lenskit", "precision"), ("lenskit", "map")}


# -- by hand, where the library cannot be installed beside the others ------------------------------

# a list of 3 with hits at ranks 1 and 3 and four to find, and one with a hit at rank 2 and one to
# find; 10 items, 6 of them listed, 4 of these once and none twice
HAND = [
    Person([0, 1, 2], dict.fromkeys((0, 2, 3, 4), 1.0)),
    Person([5, 6, 7], {6: 1.0}),
]
HAND_CATALOGUE = Catalogue([6, 5, 4, 3, 2, 1, 3, 1, 0, 0], 9, [-1] * 10, np.zeros((10, 1)))
LOG3 = 1 / math.log2(3)
NDCG = ((1 + 1 / 2) / (1 + LOG3 + 1 / 2) + LOG3) / 2
# recbole/evaluator/metrics.py and collector.py of RUCAIBox/RecBole
RECBOLE = {
    "precision": (2 / 3 + 1 / 3) / 2,
    "recall": (2 / 4 + 1 / 1) / 2,
    "ndcg": NDCG,
    "map": ((1 + 2 / 3) / 3 + (1 / 2) / 1) / 2,
    "mrr": (1 + 1 / 2) / 2,
    "hit_rate": 1.0,
    # num_items counts the padding: 11
    "item_coverage": 6 / 11,
    # sum of (2 i - 11 - 1) over i = 6..11, by 6 lists' places and by 11
    "gini": sum(2 * i - 12 for i in range(6, 12)) / 6 / 11,
    "popularity": (15 / 3 + 5 / 3) / 2,
}
# the notebook of dawenl/vae_cf, NDCG_binary_at_k_batch and Recall_at_k_batch
VAE = {"recall": (2 / 3 + 1 / 1) / 2, "ndcg": NDCG}


@pytest.mark.parametrize(("library", "expected"), [("recbole", RECBOLE), ("vae", VAE)])
def test_by_hand(library: str, expected: dict[str, float]) -> None:
    assert expected.keys() == of_lists(library)
    block = as_block(HAND, n=3, catalogue=HAND_CATALOGUE)
    for name, value in expected.items():
        assert figure(CONVENTIONS[library][name], block) == pytest.approx(value, **EXACT), name


def test_auc_of_recbole_weighs_users_by_what_they_are_to_find() -> None:
    """GAUC by its formula: pairs of ranks over the candidates, weights |truth|, ties halved."""
    scores = ((5.0, 4.0, 4.0, 3.0, 2.0), (1.0, 5.0, 3.0, 2.0, 4.0))
    people = [
        Person([], {1: 1.0, 4: 1.0}, frozenset({3}), scores[0]),
        Person([], {4: 1.0}, frozenset({1}), scores[1]),
    ]
    known = Catalogue([1] * 5, 2, [-1] * 5, np.zeros((5, 1)))
    block = as_block(people, n=1, catalogue=known)
    # first user: 4 candidates, ranks 2.5 and 4; second: 4 candidates, rank 1
    first = (2 * 5 - 2 * 3 / 2 - (2.5 + 4)) / (2 * 2)
    second = (1 * 5 - 1 * 2 / 2 - 1) / (1 * 3)
    expected = (2 * first + 1 * second) / 3
    assert figure(CONVENTIONS["recbole"]["auc"], block) == pytest.approx(expected, **EXACT)
    assert figure(METRICS["auc"], block) == pytest.approx((first + second) / 2, **EXACT)


def test_auc_is_that_of_scikit_learn() -> None:
    draw = np.random.default_rng(0)
    scores = draw.integers(0, 20, (5, 40)).astype(np.float32)
    wanted = np.sort(draw.permuted(np.tile(np.arange(40), (5, 1)), axis=1)[:, :6], axis=1)
    truth = np.arange(0, 31, 6), wanted.astype(np.int32).ravel()
    nothing = np.zeros(6, np.int64), np.empty(0, np.int32)
    found = win_shares(scores, nothing, truth).reshape(5, 6).mean(axis=1)
    for row in range(5):
        expected = roc_auc_score(np.isin(np.arange(40), wanted[row]), scores[row])
        assert found[row] == pytest.approx(expected, rel=1e-12)
