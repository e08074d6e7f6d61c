"""Vectors drawn to what features say: the joint objective, weights, cold starts, clusters."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import dask
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

import dasrec
from dasrec import ALS, ImplicitALS, InputError, Interactions, MismatchError, Training
from dasrec import priors as module
from dasrec.cluster import connect
from dasrec.features import Features
from dasrec.models import Model, load_model
from dasrec.priors import Regression
from dasrec.schema import FACTOR
from dasrec.testing import N_GROUPS, N_ITEMS, N_USERS, ModelSuite, planted_matrix, planted_ratings
from dasrec.typing import Ids, Rng
from tests import references_models as references
from tests.snippets import run_page

BOTH = pytest.mark.parametrize("kind", [ALS, ImplicitALS])
SOLVERS = pytest.mark.parametrize("solver", ["exact", "cg"])
Kind = type[ALS] | type[ImplicitALS]

COLD_USERS = np.array([4, 5, 6, 7, 57, N_USERS - 1])
COLD_ITEMS = np.array([8, 9, 10, 11, 25, N_ITEMS - 1])


def cold_matrix(kind: Kind = ImplicitALS, *, rng: int = 0) -> Any:
    """Return planted cells, none of them in some rows and columns."""
    cells = (planted_ratings if kind is ALS else planted_matrix)(rng=rng).toarray()
    cells[COLD_USERS], cells[:, COLD_ITEMS] = 0, 0
    return sparse.csr_array(cells)


def groups(n: int, *, noise: int = 2, rng: int = 0) -> pd.DataFrame:
    """Describe users or items: the group, and numbers that mean nothing."""
    drawn = np.random.default_rng(rng).normal(size=(n, noise))
    table = pd.DataFrame(drawn, columns=[f"noise {i}" for i in range(noise)])
    table["group"] = np.array(list("abcd"))[np.arange(n) % N_GROUPS]
    return table.assign(id=np.arange(n))


def write(place: Path, matrix: Any) -> Interactions:
    with mock.patch("dasrec.memory.LEAST_BLOCK_CELLS", 200):
        made = dasrec.interactions_from_scipy(matrix, place)
    assert len(made.cuts("user_items")) > 4
    dasrec.write_features(made.url, "user", groups(N_USERS), ids="id")
    return dasrec.write_features(made.url, "item", groups(N_ITEMS, rng=1), ids="id")


@pytest.fixture(scope="module")
def implicit_data(tmp_path_factory: pytest.TempPathFactory) -> Interactions:
    return write(tmp_path_factory.mktemp("priors") / "data", cold_matrix())


@pytest.fixture(scope="module")
def explicit_data(tmp_path_factory: pytest.TempPathFactory) -> Interactions:
    return write(tmp_path_factory.mktemp("priors") / "data", cold_matrix(ALS))


@pytest.fixture
def data(request: pytest.FixtureRequest, kind: Kind) -> Interactions:
    name = "explicit_data" if kind is ALS else "implicit_data"
    found: Interactions = request.getfixturevalue(name)
    return found


def make(kind: Kind, **parameters: Any) -> Any:
    given_ = {"factors": 5, "iterations": 4, "rng": 0, "tolerance": 1e-9}
    return kind(**{**given_, "user_features": True, "item_features": True, **parameters})


def features_of(data: Interactions, side: Any) -> Any:
    return dasrec.open_features(data, side).matrix.toarray()


def objective_of(model: Any, data: Interactions) -> Callable[[Any, Any], float]:
    """Return the twin's joint objective of vectors and priors, at this model's parameters."""
    cells, parameters = references.Cells.of(data.to_scipy()), model.get_params()
    if isinstance(model, ALS):
        return lambda at, priors: references.explicit_objective(cells, at, parameters, priors)
    return lambda at, priors: references.implicit_objective(cells, at, parameters, priors)


def point_of(model: Any, data: Interactions) -> tuple[Any, Any]:
    """Return vectors and priors of a fitted model, in float64."""
    sides = (("user", model.user_features), ("item", model.item_features))
    priors = tuple(
        references.Prior.of(model, side, features_of(data, side)) if used else None
        for side, used in sides
    )
    return (references.Explicit if isinstance(model, ALS) else references.Implicit).of(
        model
    ), priors


# -- the joint objective ---------------------------------------------------------------------------


@BOTH
@SOLVERS
@pytest.mark.parametrize(
    ("factors", "sides"),
    [(3, (True, True)), (24, (True, True)), (24, (True, False)), (3, (False, True))],
)
def test_the_history_is_the_joint_objective_and_falls(
    data: Interactions, kind: Kind, solver: Any, factors: int, sides: tuple[bool, bool]
) -> None:
    chosen = {"user_features": sides[0], "item_features": sides[1]}
    model = make(kind, factors=factors, solver=solver, feature_regularization=0.7, **chosen)
    history = model.fit(data).history_["objective"].values
    assert (np.diff(history) < 0).all()
    for iterations in (1, 4):
        model.set_params(iterations=iterations).fit(data)
        assert np.array_equal(model.history_["objective"].values, history[:iterations])
        expected = objective_of(model, data)(*point_of(model, data))
        assert history[iterations - 1] == pytest.approx(expected, rel=1e-5)


def steepness(objective: Callable[[Any], float], at: Any, *, rows: Any) -> float:
    """Return how steep the objective is at a point, in terms of how steep it is at zero."""
    there, origin = (references.slopes(objective, each, rows=rows) for each in (at, 0 * at))
    assert np.abs(origin).max() > 0.1
    return float(np.abs(there).max() / np.abs(origin).max())


@BOTH
@SOLVERS
def test_weights_are_at_their_minimum_and_so_are_folded_users(
    data: Interactions, kind: Kind, solver: Any
) -> None:
    model = make(kind, solver=solver, iterations=2).fit(data)
    objective, (at, priors) = objective_of(model, data), point_of(model, data)

    def by_item_weights(weights: Any) -> float:
        return objective(at, (priors[0], priors[1]._replace(weights=weights)))

    def by_users(users: Any) -> float:
        return objective(at._replace(users=users), priors)

    weights = priors[1].weights
    assert steepness(by_item_weights, weights, rows=range(len(weights))) < 1e-4
    folded = model.fold_in(data)[:, :-1].astype(float)
    if kind is ALS:
        folded[:, -1] -= float(model.mean_)
    warm = np.setdiff1d(np.arange(0, N_USERS, 5), COLD_USERS)
    assert steepness(by_users, folded, rows=warm) < 1e-3
    assert steepness(by_users, at.users, rows=warm) > 1e-3  # weights and items have moved since


def test_strong_weights_of_the_penalty_leave_the_features_alone(
    implicit_data: Interactions,
) -> None:
    """With endless regularisation it is the model without features."""
    without, strong = (
        make(ImplicitALS, feature_regularization=1e12, **sides).fit(implicit_data)
        for sides in ({"user_features": False, "item_features": False}, {})
    )
    warm = np.setdiff1d(np.arange(N_USERS), COLD_USERS)
    ours, theirs = (each.user_factors_.values[warm] for each in (strong, without))
    assert np.abs(np.abs(ours) - np.abs(theirs)).max() < 1e-4
    assert not hasattr(without, "user_feature_weights_")


# -- the regression --------------------------------------------------------------------------------


def regression(matrix: Any, ridge: Any, mu: float) -> Regression:
    features = mock.create_autospec(Features, instance=True)
    features.matrix, features.names = sparse.csr_array(matrix.astype(np.float32)), None
    return Regression(features, ridge, mu)


@settings(max_examples=40)
@given(
    shape=st.tuples(st.integers(1, 40), st.integers(1, 9), st.integers(1, 4)),
    share=st.sampled_from([0.1, 0.4, 1.0]),
    mu=st.sampled_from([0.1, 3.0]),
    direct=st.booleans(),
    rows=st.sampled_from([3, 100]),
    seed=st.integers(0, 999),
)
def test_weights_are_those_of_least_squares(
    shape: tuple[int, int, int], share: float, mu: float, direct: bool, rows: int, seed: int
) -> None:
    draw = np.random.default_rng(seed)
    n, width, k = shape
    matrix = (draw.normal(size=(n, width)) * (draw.random((n, width)) < share)).astype(np.float32)
    ridge = draw.uniform(0.1, 5, n) * (draw.random(n) < 0.8)
    vectors = draw.normal(size=(n, k)).astype(np.float32)
    wanted = references.regress(matrix.astype(float), ridge, vectors.astype(float), mu)
    with (
        mock.patch.object(module, "_DIRECT", width if direct else 0),
        mock.patch.object(module, "_ROWS", rows),
    ):
        ours = regression(matrix, ridge, mu)
        found = ours.solve(vectors, draw.normal(size=(width, k)).astype(np.float32))
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, wanted, rtol=0, atol=2e-5)
        prior = references.Prior(matrix.astype(float), found.astype(float))
        expected = references.penalty(vectors, ridge, prior, {"feature_regularization": mu})
        assert ours.penalty(vectors, found) == pytest.approx(expected, rel=1e-5)
    filled = ours.fill(vectors, found)
    assert np.array_equal(filled[ridge > 0], vectors[ridge > 0])
    np.testing.assert_allclose(filled[ridge == 0], (matrix @ found)[ridge == 0], atol=1e-5)


@BOTH
def test_many_features_give_the_model_of_few(data: Interactions, kind: Kind) -> None:
    """Conjugate gradients and the direct solution lead to the same."""
    few = make(kind).fit(data).scoring_vectors()
    with mock.patch.object(module, "_DIRECT", 0):
        many = make(kind).fit(data).scoring_vectors()
    scores = [users @ items.T for users, items in (few, many)]
    np.testing.assert_allclose(scores[0], scores[1], rtol=0, atol=2e-3)


# -- cold starts -----------------------------------------------------------------------------------


@BOTH
@SOLVERS
def test_cold_items_and_cold_users_are_found_by_their_features(
    data: Interactions, kind: Kind, solver: Any
) -> None:
    """Nobody has used these items: popularity knows nothing, features tell the group."""
    model = make(kind, solver=solver, iterations=8).fit(data)
    users, items = model.scoring_vectors()
    scores = users @ items[COLD_ITEMS[:N_GROUPS]].T
    assert (scores.argmax(axis=1) == np.arange(N_USERS) % N_GROUPS).mean() > 0.95
    lists = model.recommend(COLD_USERS, n=5)["item_id"].values
    assert (lists % N_GROUPS == COLD_USERS[:, None] % N_GROUPS).mean() > 0.95
    without = make(kind, user_features=False, item_features=False).fit(data)
    users, items = without.scoring_vectors()
    chance = users @ items[COLD_ITEMS[:N_GROUPS]].T
    assert (np.ptp(chance, axis=1) == 0).all()


@BOTH
def test_rows_without_cells_have_what_features_say(data: Interactions, kind: Kind) -> None:
    model = make(kind).fit(data)
    at, priors = point_of(model, data)
    for vectors, prior, cold in zip(at[:2], priors, (COLD_USERS, COLD_ITEMS), strict=True):
        said = prior.features @ prior.weights
        np.testing.assert_allclose(vectors[cold], said[cold], rtol=0, atol=1e-5)
        warm = np.setdiff1d(np.arange(len(vectors)), cold)
        assert not np.allclose(vectors[warm], said[warm], atol=1e-2)


@BOTH
def test_a_cold_user_without_features_is_as_without_any(data: Interactions, kind: Kind) -> None:
    table = groups(N_USERS, noise=0).drop(index=COLD_USERS[0])
    place = f"{data.url}-{kind.__name__}"
    copy = dasrec.interactions_from_scipy(data.to_scipy(), place, overwrite=True)
    copy = dasrec.write_features(copy.url, "user", table, ids="id")
    model = make(kind, item_features=False).fit(copy)
    assert not model.user_factors_.values[COLD_USERS[0]].any()
    assert model.user_factors_.values[COLD_USERS[1:]].any(axis=1).all()
    if kind is ImplicitALS:
        ours = model.recommend(COLD_USERS[:1], n=9)["item_id"].values
        popular = dasrec.Popular().fit(copy).recommend(COLD_USERS[:1], n=9)["item_id"].values
        assert ours.tolist() == popular.tolist()


@BOTH
def test_folding_in_is_the_next_user_sweep(data: Interactions, kind: Kind) -> None:
    """But for the weights of users, which a fit would learn anew after it."""
    model = make(kind, iterations=3).fit(data)
    folded, before = model.fold_in(data), model.scoring_vectors()[0]
    np.testing.assert_allclose(folded[COLD_USERS], before[COLD_USERS], rtol=0, atol=1e-5)
    later = make(kind, iterations=4).fit(data).scoring_vectors()[0]
    warm = np.setdiff1d(np.arange(N_USERS), COLD_USERS)
    products = [each[warm] @ each[warm].T for each in (folded, later, before)]
    np.testing.assert_allclose(*products[:2], rtol=0, atol=5e-4)
    assert not np.allclose(products[0], products[2], atol=1e-3)
    part = dasrec.split_users(data, 0.3, rng=0)
    assert np.isfinite(model.fold_in(part.train)).all()


# -- clusters, checkpoints, places -----------------------------------------------------------------


def learned(model: Any) -> list[Any]:
    arrays = [*model.scoring_vectors(), model.history_["objective"].values]
    return [
        each.tobytes()
        for each in (*arrays, model.user_feature_weights_.values, model.item_feature_weights_)
        for each in [np.asarray(each)]
    ]


@BOTH
@pytest.mark.slow
def test_threads_and_processes_give_the_same_bits(data: Interactions, kind: Kind) -> None:
    def fit_all() -> list[Any]:
        models = (make(kind, solver=each) for each in ("exact", "cg"))
        return [part for model in models for part in learned(model.fit(data))]

    with dask.config.set(scheduler="synchronous"):
        alone = fit_all()
    with dask.config.set(scheduler="threads", num_workers=4):
        assert fit_all() == alone
    with connect("processes:2"):
        assert fit_all() == alone


@BOTH
@SOLVERS
def test_a_resumed_fit_has_the_bits_of_one_that_was_never_stopped(
    data: Interactions, tmp_path: Path, kind: Kind, solver: Any
) -> None:
    training = Training(checkpoint=tmp_path / "model", resume=True)
    make(kind, solver=solver, iterations=2).fit(data, training=training)
    resumed = make(kind, solver=solver, iterations=5).fit(data, training=training)
    assert learned(resumed) == learned(make(kind, solver=solver, iterations=5).fit(data))
    assert learned(load_model(tmp_path / "model")) == learned(resumed)


@BOTH
def test_the_best_iteration_is_kept_with_its_weights(
    data: Interactions, tmp_path: Path, kind: Kind
) -> None:
    figures = iter([1.0, 3.0, 2.0, 1.0, 1.0])
    training = Training(
        monitor=lambda model: next(figures), patience=2, checkpoint=tmp_path / "m", resume=True
    )
    kept = make(kind, iterations=9).fit(data, training=training)
    best = make(kind, iterations=2).fit(data)
    assert learned(kept)[:2] == learned(best)[:2]
    assert learned(kept)[3:] == learned(best)[3:]
    again = make(kind, iterations=4).fit(data, training=training)
    assert learned(again)[3:] == learned(best)[3:]


def test_changed_features_are_not_gone_on_with(tmp_path: Path) -> None:
    data = write(tmp_path / "data", cold_matrix())
    training = Training(checkpoint=tmp_path / "model", resume=True)
    model = make(ImplicitALS, iterations=2).fit(data, training=training)
    other = dasrec.write_features(data.url, "item", groups(N_ITEMS, rng=7), ids="id")
    with pytest.raises(MismatchError, match="was fitted on another store, version or part"):
        make(ImplicitALS).fit(other, training=training)
    make(ImplicitALS).fit(data, training=training)
    model.fold_in(other)  # new numbers under the same names are news of the users
    other = dasrec.write_features(data.url, "user", groups(N_USERS, noise=3), ids="id")
    with pytest.raises(MismatchError, match="has other features of users than the model learned"):
        model.fold_in(other)


@BOTH
def test_a_saved_model_has_its_weights_and_their_names(
    data: Interactions, tmp_path: Path, kind: Kind
) -> None:
    model = make(kind).fit(data)
    loaded = load_model(model.save(tmp_path / "model"))
    names = ["noise 0", "noise 1", "group=a", "group=b", "group=c", "group=d"]
    for each in (model, loaded):
        weights = each.user_feature_weights_
        assert weights.dims == ("user_feature", FACTOR)
        assert weights["user_feature"].values.tolist() == names
        assert hasattr(each, "item_feature_biases_") == (kind is ALS)
    assert learned(loaded) == learned(model)
    assert np.array_equal(loaded.fold_in(data), model.fold_in(data))


@BOTH
def test_a_fit_without_features_forgets_those_before(data: Interactions, kind: Kind) -> None:
    model = make(kind).fit(data)
    model.set_params(user_features=False, item_features=False).fit(data)
    assert not [name for name in vars(model) if "_feature_" in name]


def test_the_example_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    dasrec.interactions_from_scipy(planted_matrix(), "my-store")
    names = run_page("features.md")
    found = names["model"]
    assert found.item_feature_weights_["item_feature"].values.tolist() == [
        "genre=crime",
        "genre=drama",
        "genre=war",
    ]
    assert found.score([5], [4711]) != 0
    assert dasrec.open_interactions("my-store").n_items == N_ITEMS + 1


def test_biases_that_are_off_stay_off(explicit_data: Interactions) -> None:
    model = make(ALS, biases=False).fit(explicit_data)
    for name in ("user_biases_", "item_biases_", "user_feature_biases_", "item_feature_biases_"):
        assert not getattr(model, name).values.any()


def test_a_plan_counts_features(implicit_data: Interactions) -> None:
    features = [dasrec.open_features(implicit_data, "item")]
    plans = [dasrec.plan_fit(implicit_data, factors=8, features=each) for each in ([], features)]
    assert plans[1].factor_bytes > plans[0].factor_bytes + 4 * 9 * N_ITEMS


@BOTH
@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"feature_regularization": 0}, "feature_regularization is 0; expected a finite number"),
        ({"user_features": "yes"}, "user_features is 'yes'; expected one of: True, False"),
        ({"item_features": 2}, "item_features is 2; expected one of: True, False"),
    ],
)
def test_bad_parameters_are_refused(
    data: Interactions, kind: Kind, parameters: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        make(kind, **parameters).fit(data)


@BOTH
def test_a_store_without_features_is_refused(tmp_path: Path, kind: Kind) -> None:
    bare = dasrec.interactions_from_scipy(cold_matrix(), tmp_path / "bare")
    with pytest.raises(InputError, match="has no features of users; write them with write_feat"):
        make(kind).fit(bare)


# -- what holds for every model --------------------------------------------------------------------


class WithFeatures(ModelSuite):
    cut_tolerance = 1e-4

    def write(
        self, place: Path, *, user_ids: Ids | None = None, item_ids: Ids | None = None
    ) -> Interactions:
        made = super().write(place, user_ids=user_ids, item_ids=item_ids)
        for side, n, ids in (("user", N_USERS, user_ids), ("item", N_ITEMS, item_ids)):
            table = groups(n, noise=1).drop(columns="id")
            known: Any = side
            table[f"{side}_id"] = np.arange(n) if ids is None else ids
            made = dasrec.write_features(made.url, known, table)
        return made

    def test_rows_without_interactions_are_zero_and_silent(self, tmp_path: Path) -> None:
        """They are what features say; test_rows_without_cells_have_what_features_say has that."""
        data = self.write(tmp_path / "data")
        model = self.make(rng=0).fit(data)
        lists = model.recommend(data.user_ids.ids[-1:], n=5, seen=data)
        own = lists["item_id"].values % N_GROUPS == (N_USERS - 1) % N_GROUPS
        assert own.all()


class TestALS(WithFeatures):
    def make(self, *, rng: Rng) -> Model:
        return ALS(factors=4, iterations=4, rng=rng, user_features=True, item_features=True)


class TestImplicitALS(WithFeatures):
    def make(self, *, rng: Rng) -> Model:
        return ImplicitALS(factors=8, iterations=8, rng=rng, user_features=True, item_features=True)


del WithFeatures  # pytest would run it, and it makes no model
