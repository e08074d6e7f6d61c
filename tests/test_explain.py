"""Reasons add up to scores, whatever is minimised, and agree with the formula written out."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

import dasrec
from dasrec import ALS, ImplicitALS, InputError, Interactions, MismatchError
from dasrec.cluster import connect
from dasrec.kernels.reasons import contributions, cosines
from dasrec.models import load_model
from dasrec.testing import N_GROUPS, N_USERS, planted_matrix, planted_ratings
from tests import references_models as references

USER = 11


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Interactions:
    matrix = planted_ratings()
    matrix.data *= np.random.default_rng(1).uniform(0.5, 1.5, matrix.nnz).astype(np.float32)
    with mock.patch("dasrec.memory.LEAST_BLOCK_CELLS", 200):
        made = dasrec.interactions_from_scipy(matrix, tmp_path_factory.mktemp("explain") / "data")
    table = pd.DataFrame({"id": np.arange(N_USERS), "group": np.arange(N_USERS) % N_GROUPS})
    return dasrec.write_features(made.url, "user", table, ids="id")


def fit(kind: Any, data: Interactions, **parameters: Any) -> Any:
    return kind(**{"factors": 4, "iterations": 3, "rng": 0, **parameters}).fit(data)


KINDS = [
    (ImplicitALS, {}),
    (ImplicitALS, {"unobserved_weight": 0.1, "regularization_exponent": 1.0, "factors": 20}),
    (ImplicitALS, {"nonnegative": True}),
    (ImplicitALS, {"user_features": True}),
    (ImplicitALS, {"solver": "subspace"}),
    (ALS, {}),
    (ALS, {"biases": False}),
    (ALS, {"nonnegative": True, "tolerance": 1e-9}),
    (ALS, {"nonnegative": True, "biases": False}),
    (ALS, {"user_features": True, "solver": "cg"}),
    (dasrec.SGD, {}),
    (dasrec.SGD, {"biases": False}),
    (dasrec.SGD, {"regularization": 0.0}),
    (dasrec.GradientDescent, {}),
    (dasrec.SVDpp, {"iterations": 20}),
    (dasrec.SVDpp, {"biases": False, "iterations": 20}),
]


@pytest.mark.parametrize(("kind", "parameters"), KINDS)
def test_contributions_add_up_to_the_score_of_the_user_folded_in(
    data: Interactions, kind: Any, parameters: dict[str, Any]
) -> None:
    model = fit(kind, data, **parameters)
    found = dasrec.explain(model, data, user_id=USER, n=data.n_items, reasons=data.n_items)
    items = model.item_ids_.numbers(found["item_id"].values)
    vectors = model.fold_in(data)[USER].astype(float) @ model.scoring_vectors()[1].astype(float).T
    assert len(items) > 10
    np.testing.assert_allclose(found["total"] + found["offset"], vectors[items], atol=2e-4)
    # all reasons are there, the largest first
    np.testing.assert_allclose(found["contribution"].sum("reason"), found["total"], atol=1e-12)
    own = data.read_rows("user_items", USER, USER + 1).indices
    assert found.attrs["n_seen"] == len(own)
    assert set(found["reason_id"].values[0].tolist()) - {-1} == set(own.tolist())
    given_ = found["contribution"].values[:, : len(own)]
    assert (np.diff(given_, axis=1) <= 0).all()
    assert np.isnan(found["contribution"].values[:, len(own) :]).all()
    assert np.ptp(given_) > 0.01


def test_contributions_are_those_of_the_formula(data: Interactions) -> None:
    """Of Hu, Koren and Volinsky, in terms of docs/conventions.md, in no other basis."""
    model = fit(ImplicitALS, data, regularization=0.3, unobserved_weight=0.2)
    found = dasrec.explain(model, data, user_id=USER, item_ids=np.array([0, 3]), reasons=3)
    items = model.item_factors_.values.astype(float)
    row = data.read_rows("user_items", USER, USER + 1)
    ridge = 0.3 * (len(row.indices) + 0.2 * data.n_items) ** 0.5
    system = 0.2 * items.T @ items + ridge * np.eye(4)
    own = items[row.indices]
    expected = references.contributions(
        items[[0, 3]], own, row.data.astype(float), np.ones(len(own)), system
    )
    order = np.argsort(-expected, axis=1)[:, :3]
    assert found["reason_id"].values.tolist() == row.indices[order].tolist()
    best = np.take_along_axis(expected, order, axis=1)
    np.testing.assert_allclose(found["contribution"], best, rtol=1e-4)
    np.testing.assert_allclose(found["total"], expected.sum(axis=1), rtol=1e-4)
    assert (found["offset"] == 0).all()


@st.composite
def _quadratics(draw: st.DrawFn) -> tuple[Any, ...]:
    k, m, n = (draw(st.integers(1, most)) for most in (4, 3, 6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    half = rng.normal(size=(k, k))
    system = half @ half.T + np.eye(k)
    weights = rng.uniform(0, 3, n) * rng.integers(0, 2, n)
    return rng.normal(size=(m, k)), rng.normal(size=(n, k)), weights, rng.normal(size=n), system


@given(_quadratics())
def test_the_kernel_is_its_slow_twin(what: tuple[Any, ...]) -> None:
    found = contributions(*what)
    np.testing.assert_allclose(found, references.contributions(*what), atol=1e-10)
    targets, rows, weights, goals, system = what
    # at the minimum nothing goes down
    x = np.linalg.solve(system + (rows.T * weights) @ rows, rows.T @ (weights * goals))
    np.testing.assert_allclose(found.sum(axis=1), targets @ x, atol=1e-10)


def test_cosines_of_what_has_no_length_are_0() -> None:
    rows = np.array([[3, 4], [0, 0], [-6, -8]], np.float32)
    np.testing.assert_allclose(cosines(rows[:2], rows), [[1, 0, -1], [0, 0, 0]], atol=1e-12)


@pytest.mark.parametrize(
    ("kind", "parameters"),
    [(dasrec.BPR, {}), (dasrec.Softmax, {}), (dasrec.SGD, {"regularization": 0.0, "factors": 40})],
)
def test_other_models_tell_what_is_alike(
    data: Interactions, kind: Any, parameters: dict[str, Any]
) -> None:
    model = fit(kind, data, **parameters)
    found = dasrec.explain(model, data, user_id=USER, n=4, reasons=2)
    assert found.attrs["how"] == "cosine"
    vectors = model.item_factors_.values.astype(float)
    a, b = int(found["item_id"][0]), int(found["reason_id"][0, 0])
    lengths = np.linalg.norm(vectors[a]) * np.linalg.norm(vectors[b])
    expected = vectors[a] @ vectors[b] / lengths
    assert float(found["contribution"][0, 0]) == pytest.approx(expected, rel=1e-5)
    # what every user gets alike is told apart from what is the user's own
    items = model.item_ids_.numbers(found["item_id"].values)
    alike = model.item_biases_.values[items] + np.asarray(getattr(model, "mean_", 0))
    np.testing.assert_allclose(found["offset"], np.asarray(alike, float), rtol=1e-6)
    np.testing.assert_allclose(found["total"] + found["offset"], found["score"], rtol=1e-5)
    own = vectors[items] @ model.user_factors_.values[USER]
    if kind is not dasrec.SGD:  # which has biases of users
        np.testing.assert_allclose(found["total"], own, atol=1e-5)


def test_the_list_is_that_of_recommend(data: Interactions) -> None:
    model = fit(ImplicitALS, data)
    listed = model.recommend([USER], n=5, seen=data)
    found = dasrec.explain(model, data, user_id=USER, n=5)
    assert found["item_id"].values.tolist() == listed["item_id"].values[0].tolist()
    np.testing.assert_allclose(found["score"], listed["score"][0], rtol=1e-5)
    assert found.attrs == {
        "model": "implicit-als",
        "user_id": USER,
        "how": "contributions",
        "n_seen": found.attrs["n_seen"],
    }
    assert list(found["contribution"].dims) == ["rank", "reason"]


def test_ids_may_be_strings(tmp_path: Path) -> None:
    cells = sparse.coo_array(planted_matrix())
    users, items = (
        [f"{side}{place}" for place in each] for side, each in zip("ui", cells.coords, strict=True)
    )
    events = dasrec.read_events(pd.DataFrame({"u": users, "i": items}), user="u", item="i")
    data = dasrec.write_interactions(events, tmp_path / "data")
    model = fit(ImplicitALS, data)
    found = dasrec.explain(model, data, user_id="u3", n=2, reasons=data.n_items)
    assert set(found["item_id"].values) <= set(data.item_ids.ids)
    assert pd.isna(found["reason_id"].values[0, -1])


def test_what_cannot_be_explained_is_refused(data: Interactions, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="popular has no vectors of items"):
        dasrec.explain(dasrec.Popular().fit(data), data, user_id=USER)
    model = fit(ImplicitALS, data)
    with pytest.raises(InputError, match="reasons is 0"):
        dasrec.explain(model, data, user_id=USER, reasons=0)
    with pytest.raises(InputError, match="12345"):
        dasrec.explain(model, data, user_id=12345)
    part = dasrec.split_users(data, 0.3, rng=0).train
    (gone, *_) = np.flatnonzero(part.counts("user_items") == 0)
    with pytest.raises(InputError, match=f"user {gone} has no items in"):
        dasrec.explain(model, part, user_id=int(gone))
    other = dasrec.interactions_from_scipy(planted_matrix()[:-1], tmp_path / "other")
    with pytest.raises(MismatchError, match="does not belong"):
        dasrec.explain(model, other, user_id=USER)


@pytest.mark.slow
def test_reasons_are_the_same_on_a_cluster(data: Interactions, tmp_path: Path) -> None:
    model = load_model(fit(ImplicitALS, data).save(tmp_path / "model"))
    alone = dasrec.explain(model, data, user_id=USER)
    with connect("processes:2"):
        assert dasrec.explain(model, data, user_id=USER).identical(alone)
