"""Alternating least squares: objectives in float64, minima, scaling, bad input, clusters."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import dask
import numpy as np
import pytest
from distributed import Client, LocalCluster, get_task_stream
from scipy import sparse

import dasrec
from dasrec import ALS, BudgetError, ImplicitALS, InputError, Interactions
from dasrec.kernels.subspace import BLOCK
from dasrec.models import alternating
from dasrec.testing import planted_matrix, planted_ratings
from tests import references_models as references

BOTH = pytest.mark.parametrize("kind", [ALS, ImplicitALS])
ROWS = pytest.mark.parametrize("factors", [3, 24], ids=["rows longer", "rows shorter"])
Kind = type[ALS] | type[ImplicitALS]


def odd_matrix() -> sparse.csr_array[Any]:
    """Return the planted matrix with broken weights, and one stored zero."""
    matrix = planted_matrix()
    matrix.data *= np.random.default_rng(1).uniform(0.1, 1.5, matrix.nnz).astype(np.float32)
    matrix.data[7] = 0
    return matrix


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Interactions:
    with mock.patch("dasrec.memory.LEAST_BLOCK_CELLS", 200):
        made = dasrec.interactions_from_scipy(odd_matrix(), tmp_path_factory.mktemp("als") / "data")
    assert len(made.cuts("user_items")) > 4
    return made


@pytest.fixture(scope="module")
def cells() -> references.Cells:
    found = references.Cells.of(odd_matrix())
    assert found.stored.sum() == (found.weights != 0).sum() + 1
    return found


# -- what is minimised -----------------------------------------------------------------------------


@ROWS
@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("weight", [0.1, 1.0])
def test_implicit_history_is_the_objective_and_falls(
    data: Interactions, cells: references.Cells, factors: int, exponent: float, weight: float
) -> None:
    model = ImplicitALS(
        factors=factors,
        regularization=0.3,
        unobserved_weight=weight,
        regularization_exponent=exponent,
        iterations=5,
        rng=0,
    )
    history = model.fit(data).history_["objective"].values
    assert (np.diff(history) < 0).all()
    for iterations in (1, 2, 5):
        model.set_params(iterations=iterations).fit(data)
        # a shorter run is the beginning of a longer one
        assert np.array_equal(model.history_["objective"].values, history[:iterations])
        at = references.Implicit.of(model)
        expected = references.implicit_objective(cells, at, model.get_params())
        assert history[iterations - 1] == pytest.approx(expected, rel=1e-4)


@ROWS
@pytest.mark.parametrize("biases", [True, False])
def test_explicit_history_is_the_objective_and_falls(
    data: Interactions, cells: references.Cells, factors: int, *, biases: bool
) -> None:
    model = ALS(factors=factors, iterations=5, biases=biases, rng=0)
    history = model.fit(data).history_
    assert (np.diff(history["objective"].values) < 0).all()
    for iterations in (1, 2, 5):
        model.set_params(iterations=iterations).fit(data)
        assert np.array_equal(model.history_["objective"], history["objective"][:iterations])
        at = references.Explicit.of(model)
        expected = references.explicit_objective(cells, at, model.get_params())
        assert history["objective"].values[iterations - 1] == pytest.approx(expected, rel=1e-4)
        rmse = np.sqrt((references.explicit_errors(cells, at) ** 2).mean())
        assert history["train_rmse"].values[iterations - 1] == pytest.approx(rmse, rel=1e-4)
    assert float(model.mean_) == pytest.approx(cells.weights[cells.stored].mean())
    for learned in (model.user_biases_, model.item_biases_):
        assert learned.values.any() == biases


def steepness(objective: Callable[[Any], float], at: Any) -> float:
    """Return how steep the objective is at a point, in terms of how steep it is at zero."""
    rows = range(0, len(at), 7)
    there, origin = (references.slopes(objective, each, rows=rows) for each in (at, 0 * at))
    assert np.abs(origin).max() > 0.1
    return float(np.abs(there).max() / np.abs(origin).max())


@ROWS
@pytest.mark.parametrize("exponent", [0.0, 1.0])
@pytest.mark.parametrize("solver", ["exact", "cg"])
def test_each_implicit_side_is_at_its_minimum(
    data: Interactions, cells: references.Cells, factors: int, exponent: float, solver: Any
) -> None:
    """Items as fit leaves them; users as folding in solves them for these items."""
    model = ImplicitALS(
        factors=factors,
        regularization=0.2,
        unobserved_weight=0.5,
        regularization_exponent=exponent,
        iterations=2,
        solver=solver,
        tolerance=1e-12,
        rng=0,
    ).fit(data)
    at, parameters = references.Implicit.of(model), model.get_params()

    def by_items(items: Any) -> float:
        return references.implicit_objective(cells, at._replace(items=items), parameters)

    def by_users(users: Any) -> float:
        return references.implicit_objective(cells, at._replace(users=users), parameters)

    folded = model.fold_in(data)[:, :-1].astype(float)
    assert steepness(by_items, at.items) < 1e-5
    # folding in goes to 1e-8
    assert steepness(by_users, folded) < (1e-5 if solver == "exact" else 1e-4)
    assert steepness(by_users, at.users) > 1e-3  # items have moved since


@ROWS
def test_each_explicit_side_is_at_its_minimum(
    data: Interactions, cells: references.Cells, factors: int
) -> None:
    model = ALS(factors=factors, iterations=2, solver="exact", rng=0).fit(data)
    at, parameters = references.Explicit.of(model), model.get_params()

    def by_items(items: Any) -> float:
        return references.explicit_objective(cells, at._replace(items=items), parameters)

    def by_users(users: Any) -> float:
        return references.explicit_objective(cells, at._replace(users=users), parameters)

    folded = model.fold_in(data)[:, :-1].astype(float)
    folded[:, -1] -= float(model.mean_)
    assert steepness(by_items, at.items) < 1e-5
    # the mean is added in float32, and its last bits are lost with the subtraction
    assert steepness(by_users, folded) < 1e-3
    assert steepness(by_users, at.users) > 1e-3


@BOTH
def test_folding_in_is_the_next_user_sweep(data: Interactions, kind: Kind) -> None:
    """What fit would do next with the items that it left, but for a rotation of the factors."""
    now, later = (kind(factors=5, iterations=n, tolerance=1e-12, rng=0).fit(data) for n in (3, 4))
    folded, swept, before = now.fold_in(data), later.scoring_vectors()[0], now.scoring_vectors()[0]
    if kind is ALS:
        assert np.array_equal(folded, swept)
    np.testing.assert_allclose(folded @ folded.T, swept @ swept.T, rtol=0, atol=5e-4)
    assert not np.allclose(folded @ folded.T, before @ before.T, atol=1e-3)


# -- other ways to solve rows ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Interactions:
    """Ratings of items by more users than a block has factors."""
    place = tmp_path_factory.mktemp("als") / "dense"
    made = dasrec.interactions_from_scipy(planted_ratings(), place)
    assert np.median(made.counts("item_users")) > BLOCK
    return made


WAYS: dict[str, dict[str, Any]] = {
    "blocks": {"solver": "subspace", "factors": 70},
    "one block": {"solver": "subspace", "factors": 5},
    "non-negative": {"nonnegative": True, "factors": 20},
    "non-negative, few": {"nonnegative": True, "factors": 3},
}


def objective_of(kind: Kind, cells: references.Cells) -> Callable[[Any], float]:
    """Return what computes the objective of a model from its definition."""
    if kind is ImplicitALS:
        return lambda model: references.implicit_objective(
            cells, references.Implicit.of(model), model.get_params()
        )
    return lambda model: references.explicit_objective(
        cells, references.Explicit.of(model), model.get_params()
    )


@BOTH
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_any_solver_lowers_the_same_objective(
    dense: Interactions, kind: Kind, way: dict[str, Any]
) -> None:
    model = kind(iterations=8, rng=0, **way).fit(dense)
    objective = objective_of(kind, references.Cells.of(planted_ratings()))
    history = model.history_["objective"].values
    assert (np.diff(history) <= 1e-6 * history[0]).all()
    assert history[-1] < 0.95 * history[0]
    assert history[-1] == pytest.approx(objective(model), rel=1e-4)
    assert np.isfinite(model.history_["gap"].values).all()


@BOTH
def test_passes_over_blocks_come_to_what_exact_solutions_do(
    dense: Interactions, kind: Kind
) -> None:
    """In one block a pass is exact; over several it takes a few more iterations."""
    for factors, within in ((5, 1e-4), (40, 0.02)):
        ends = [
            kind(factors=factors, iterations=12, solver=solver, rng=0).fit(dense).history_
            for solver in ("exact", "subspace")
        ]
        lowest, blocks = (end["objective"].values for end in ends)
        assert blocks[-1] == pytest.approx(lowest[-1], rel=within)
    assert not np.array_equal(lowest, blocks)
    assert ends[1]["gap"].values.max() > 0.01


@BOTH
@pytest.mark.parametrize("factors", [3, 20])
@pytest.mark.parametrize("solved", ["users", "items"])
def test_non_negative_sides_are_at_their_bounded_minimum(
    data: Interactions, cells: references.Cells, kind: Kind, factors: int, solved: str
) -> None:
    """Items as fit leaves them, users as they are folded in: flat where positive, else rising."""
    model = kind(factors=factors, iterations=3, nonnegative=True, tolerance=1e-9, rng=0).fit(data)
    twin = references.Implicit if kind is ImplicitALS else references.Explicit
    at = twin.of(model)
    if solved == "users":
        folded = model.fold_in(data)[:, :-1].astype(float)
        if kind is ALS:
            folded[:, -1] -= float(model.mean_)
        at = at._replace(users=folded)

    def objective(side: Any) -> float:
        moved: Any = at._replace(**{solved: side})
        if kind is ImplicitALS:
            return references.implicit_objective(cells, moved, model.get_params())
        return references.explicit_objective(cells, moved, model.get_params())

    side, rows = getattr(at, solved), range(0, 50, 7)
    here, origin = (references.slopes(objective, each, rows=rows) for each in (side, 0 * side))
    slopes = here / np.abs(origin).max()
    bounded = side[::7][: len(slopes), :factors]
    assert (side[:, :factors] >= 0).all()
    assert (bounded == 0).any()
    assert (bounded > 0).any()
    assert np.abs(slopes[:, :factors][bounded > 0]).max() < 2e-3
    assert slopes[:, :factors][bounded == 0].min() > -2e-3
    assert np.abs(slopes[:, factors:]).max(initial=0) < 2e-3  # biases are free


def test_biases_of_non_negative_factors_are_free(data: Interactions) -> None:
    model = ALS(factors=4, iterations=4, nonnegative=True, rng=0).fit(data)
    assert (model.user_factors_.values >= 0).all()
    assert (model.item_factors_.values >= 0).all()
    assert (model.user_biases_.values < 0).any()
    assert float(model.mean_) == pytest.approx(odd_matrix().data.mean(), rel=1e-5)


def test_without_biases_non_negative_factors_have_no_mean_before_them(tmp_path: Path) -> None:
    """Else nothing could be predicted below the mean."""
    ratings = planted_ratings()
    data = dasrec.interactions_from_scipy(ratings, tmp_path / "data")
    model = ALS(factors=4, iterations=9, biases=False, nonnegative=True, rng=0).fit(data)
    users, items = model.scoring_vectors()
    assert float(model.mean_) == 0
    assert ((users @ items.T) >= 0).all()
    rows, columns = ratings.nonzero()
    found = (users @ items.T)[rows, columns]
    assert found[ratings.data <= 2].mean() < 2.5 < 3.5 < found[ratings.data >= 4].mean()


@BOTH
def test_folding_in_solves_exactly_whatever_the_solver(data: Interactions, kind: Kind) -> None:
    model = kind(factors=40, iterations=2, solver="subspace", rng=0).fit(data)
    blocks = model.fold_in(data)
    np.testing.assert_allclose(
        blocks, model.set_params(solver="cg").fold_in(data), rtol=0, atol=1e-6
    )
    assert not np.allclose(blocks, model.scoring_vectors()[0], atol=1e-3)


@BOTH
@pytest.mark.parametrize("solver", ["exact", "cg", "subspace"])
def test_only_one_solver_can_be_non_negative(data: Interactions, kind: Kind, solver: Any) -> None:
    message = f"solver is '{solver}' and nonnegative is True; expected 'auto'"
    with pytest.raises(InputError, match=message):
        kind(solver=solver, nonnegative=True).fit(data)
    with pytest.raises(InputError, match="nonnegative is 'yes'; expected one of: True, False"):
        kind(nonnegative="yes").fit(data)  # type: ignore[arg-type]


# -- scaling ---------------------------------------------------------------------------------------


def test_weights_count_in_terms_of_the_unobserved(tmp_path: Path, data: Interactions) -> None:
    """Four times all weights and the regularisation: four times the objective, the same minimum."""
    fourfold = dasrec.interactions_from_scipy(odd_matrix() * 4, tmp_path / "fourfold")
    options = {"factors": 4, "iterations": 3, "regularization_exponent": 0.0, "rng": 0}
    one = ImplicitALS(regularization=0.5, unobserved_weight=0.25, **options).fit(data)
    four = ImplicitALS(regularization=2.0, unobserved_weight=1.0, **options).fit(fourfold)
    assert np.allclose(one.user_factors_, four.user_factors_, rtol=1e-4, atol=1e-5)
    objectives = (model.history_["objective"].values for model in (one, four))
    assert next(objectives) * 4 == pytest.approx(next(objectives), rel=1e-5)
    other = ImplicitALS(regularization=0.5, unobserved_weight=1.0, **options).fit(fourfold)
    assert not np.allclose(one.user_factors_, other.user_factors_, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize(
    ("make", "scales"),
    [
        (lambda: ALS(factors=4, iterations=3, rng=0), True),
        (lambda: ImplicitALS(factors=4, iterations=3, regularization_exponent=1.0, rng=0), True),
        (lambda: ImplicitALS(factors=4, iterations=3, regularization_exponent=0.0, rng=0), False),
    ],
    ids=["explicit", "implicit, exponent 1", "implicit, exponent 0"],
)
def test_regularisation_scales_with_counts(
    tmp_path: Path, make: Callable[[], Any], *, scales: bool
) -> None:
    """If every user is there twice, items have twice the data and twice the penalty: no change."""
    once = planted_matrix()
    twice = sparse.vstack([once, once], "csr")
    one, two = (
        make().fit(dasrec.interactions_from_scipy(matrix, tmp_path / str(matrix.shape[0])))
        for matrix in (once, twice)
    )
    difference = np.abs(one.item_factors_.values - two.item_factors_.values).max()
    assert (difference < 1e-4) == scales
    assert scales or difference > 1e-3


@BOTH
def test_more_regularisation_makes_shorter_vectors(data: Interactions, kind: Kind) -> None:
    lengths = [
        np.linalg.norm(model.user_factors_) * np.linalg.norm(model.item_factors_)
        for model in (
            kind(factors=4, iterations=6, regularization=each, rng=0).fit(data)
            for each in (0.01, 0.1, 1.0)
        )
    ]
    assert lengths[0] > lengths[1] > lengths[2]


def test_seeds_matter_and_the_global_generator_does_not(data: Interactions) -> None:
    def factors(seed: int) -> Any:
        return ImplicitALS(factors=4, iterations=1, rng=seed).fit(data).item_factors_.values

    np.random.seed(0)
    first = factors(1)
    np.random.seed(1)
    assert np.array_equal(factors(1), first)
    assert not np.allclose(factors(2), first, atol=1e-3)


# -- what is not there, or not right ---------------------------------------------------------------


def test_users_without_interactions_are_ranked_by_popularity(data: Interactions) -> None:
    model = ImplicitALS(factors=3, iterations=2, rng=0).fit(data)
    popular = dasrec.Popular().fit(data)
    stranger = data.user_ids.ids[-1:]
    ours, theirs = (each.recommend(stranger, n=9)["item_id"].values for each in (model, popular))
    assert ours.tolist() == theirs.tolist()
    known = model.recommend(data.user_ids.ids[:1], n=9)["item_id"].values
    assert known.tolist() != ours.tolist()


def test_users_without_interactions_are_predicted_from_what_is_known(tmp_path: Path) -> None:
    data = dasrec.interactions_from_scipy(planted_ratings(), tmp_path / "data")
    model = ALS(factors=3, iterations=2, rng=0).fit(data)
    stranger, items = data.user_ids.ids[[-1] * 3], data.item_ids.ids[[0, 5, -1]]
    expected = float(model.mean_) + model.item_biases_.values[[0, 5, -1]]
    assert model.score(stranger, items) == pytest.approx(expected)
    assert model.score(stranger, items)[-1] == pytest.approx(planted_ratings().data.mean())


@BOTH
@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"factors": 0}, "factors is 0; expected a whole number, at least 1"),
        ({"factors": -2}, "factors is -2; expected a whole number, at least 1"),
        ({"factors": 2.5}, "factors is 2.5; expected a whole number"),
        ({"factors": True}, "factors is True; expected a whole number"),
        ({"iterations": 0}, "iterations is 0; expected a whole number, at least 1"),
        ({"regularization": 0}, "regularization is 0; expected a finite number greater than 0"),
        ({"regularization": -1.0}, "regularization is -1.0; expected a finite number greater"),
        ({"regularization": float("nan")}, "regularization is nan; expected a finite number"),
        ({"rng": -3}, "rng is -3; expected a whole number, from 0 to"),
        ({"rng": "seed"}, "rng is 'seed'; expected a whole number"),
    ],
)
def test_bad_parameters_are_refused(
    data: Interactions, kind: Kind, parameters: dict[str, Any], message: str
) -> None:
    model = kind(**parameters)  # the constructor only stores
    with pytest.raises(InputError, match=message):
        model.fit(data)
    with pytest.raises(InputError, match="not fitted"):
        model.recommend(np.array([0]))


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"unobserved_weight": 0}, "unobserved_weight is 0; expected a finite number greater"),
        ({"unobserved_weight": -1}, "unobserved_weight is -1"),
        ({"regularization_exponent": np.inf}, "regularization_exponent is inf"),
    ],
)
def test_bad_implicit_parameters_are_refused(
    data: Interactions, parameters: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        ImplicitALS(**parameters).fit(data)


def test_negative_weights_are_refused_where_they_mean_nothing(tmp_path: Path) -> None:
    matrix = planted_matrix()
    matrix.data[3] = -1
    data = dasrec.interactions_from_scipy(matrix, tmp_path / "data")
    with pytest.raises(InputError, match=r"negative weights; implicit feedback needs weights >= 0"):
        ImplicitALS(factors=2).fit(data)
    ALS(factors=2, iterations=1).fit(data)


@pytest.mark.parametrize(("kind", "weight"), [(ALS, 1e30), (ImplicitALS, 3e38)])
@pytest.mark.parametrize("way", [{}, {"solver": "subspace"}, {"nonnegative": True}])
def test_weights_that_overflow_are_refused(
    tmp_path: Path, kind: Kind, weight: float, way: dict[str, Any]
) -> None:
    matrix = planted_matrix()
    matrix.data[3:9] = weight
    data = dasrec.interactions_from_scipy(matrix, tmp_path / "data")
    with pytest.raises(InputError, match="overflow float32; scale the values down"):
        kind(factors=2, iterations=2, rng=0, **way).fit(data)


def test_nothing_to_learn_from_is_refused(data: Interactions) -> None:
    nothing = dasrec.split_random(data, 1e-9, rng=1).test
    with pytest.raises(InputError, match="no interactions to learn from"):
        ALS(factors=2).fit(nothing)


@BOTH
def test_what_does_not_fit_in_memory_is_refused_before_it_starts(
    data: Interactions, kind: Kind
) -> None:
    with (
        mock.patch("dasrec.plan.limit", return_value=10_000),
        mock.patch.object(alternating, "sweep", side_effect=AssertionError),
        pytest.raises(BudgetError, match=r"64 factors .* needs .* are available; pass checkpoint="),
    ):
        kind(factors=64).fit(data)


# -- interruptions ---------------------------------------------------------------------------------


def sweeping(n: int) -> Any:
    """Return a patch under which the sweep number ``n + 1`` is interrupted."""
    sweep, done = alternating.sweep, []

    def counted(*arguments: Any, **named: Any) -> Any:
        if len(done) == n:
            raise KeyboardInterrupt
        done.append(arguments)
        return sweep(*arguments, **named)

    return mock.patch.object(alternating, "sweep", counted)


@BOTH
def test_an_interrupted_fit_leaves_the_model_unfitted(data: Interactions, kind: Kind) -> None:
    model = kind(factors=4, iterations=5, rng=0)
    with sweeping(3), pytest.raises(KeyboardInterrupt):
        model.fit(data)
    assert not [name for name in vars(model) if name.endswith("_")]
    with pytest.raises(InputError, match="not fitted"):
        model.recommend(np.array([0]))


@BOTH
def test_an_interrupted_second_fit_leaves_the_first(
    data: Interactions, tmp_path: Path, kind: Kind
) -> None:
    """Not the mean and the seed of one with the factors of the other."""
    tenfold = dasrec.interactions_from_scipy(planted_matrix() * 10, tmp_path / "tenfold")
    model = kind(factors=4, iterations=2, rng=np.random.default_rng(0)).fit(data)
    before = dict(vars(model))
    scores = model.score(np.arange(9), np.arange(9))
    with sweeping(3), pytest.raises(KeyboardInterrupt):
        model.fit(tenfold)
    assert np.array_equal(model.score(np.arange(9), np.arange(9)), scores)
    assert vars(model).keys() == before.keys()
    assert all(value is before[name] for name, value in vars(model).items())
    model.fit(tenfold)
    assert not np.allclose(model.score(np.arange(9), np.arange(9)), scores)


def test_a_kernel_that_is_interrupted_stops_the_fit(data: Interactions) -> None:
    model = ImplicitALS(factors=4, solver="cg", rng=0)
    with (
        mock.patch("dasrec.sweeps.refine_rows", side_effect=KeyboardInterrupt),
        pytest.raises(KeyboardInterrupt),
    ):
        model.fit(data)
    with pytest.raises(InputError, match="not fitted"):
        model.recommend(np.array([0]))


# -- schedulers and clusters -----------------------------------------------------------------------


def learned(model: Any) -> list[Any]:
    arrays = (*model.scoring_vectors(), model.history_["objective"].values)
    return [each.copy() for each in arrays]


def fitted(kind: Kind, data: Interactions) -> list[Any]:
    solvers: tuple[Any, ...] = ("exact", "cg", "subspace")
    models = [kind(factors=4, iterations=3, solver=each, rng=1) for each in solvers]
    models.append(kind(factors=4, iterations=3, nonnegative=True, rng=1))
    return [array for model in models for array in learned(model.fit(data))]


def same(one: list[Any], other: list[Any]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@BOTH
def test_threads_and_one_after_the_other_give_the_same_bits(data: Interactions, kind: Kind) -> None:
    with dask.config.set(scheduler="synchronous"):
        alone = fitted(kind, data)
    for workers in (1, 4):
        with dask.config.set(scheduler="threads", num_workers=workers):
            assert same(fitted(kind, data), alone)
    assert same(fitted(kind, data), alone)


def on_cluster(kind: Kind, data: Interactions, client: Client) -> tuple[list[Any], set[str]]:
    """Fit on a cluster; return what was learned, and the workers that took part."""
    with get_task_stream(client) as stream:
        found = fitted(kind, data)
    sweeps = [task for task in stream.data if task["key"].startswith("als-")]
    return found, {task["worker"] for task in sweeps}


@pytest.mark.slow
@BOTH
def test_one_process_and_two_give_the_bits_of_threads(
    data: Interactions, cluster_client: Client, tmp_path: Path, kind: Kind
) -> None:
    with dask.config.set(scheduler="synchronous"):
        alone = fitted(kind, data)
    on_two, two = on_cluster(kind, data, cluster_client)
    assert len(two) == 2
    assert same(on_two, alone)
    with (
        LocalCluster(
            n_workers=1,
            threads_per_worker=2,
            processes=True,
            dashboard_address=":0",
            local_directory=str(tmp_path / "workers"),
        ) as cluster,
        Client(cluster) as client,
    ):
        on_one, one = on_cluster(kind, data, client)
    assert len(one) == 1
    assert not one & two
    assert same(on_one, alone)


@pytest.mark.parametrize("biases", ["no", 2, None])
def test_biases_are_there_or_not(tmp_path: Path, biases: Any) -> None:
    data = dasrec.interactions_from_scipy(planted_matrix(), tmp_path / "data")
    with pytest.raises(InputError, match="expected one of: True, False"):
        ALS(biases=biases).fit(data)
