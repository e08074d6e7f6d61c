"""Models, lists, functions and samples are ranked and measured alike."""

from __future__ import annotations

import functools
import pickle
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from distributed import Client

import dasrec
from dasrec import BudgetError, ImplicitALS, InputError, Sampled, Split, plan_ranking
from dasrec.evaluate import evaluate_all, evaluate_users
from dasrec.factors import LazyRows
from dasrec.metrics import METRICS
from dasrec.models.base import rank_items
from dasrec.results import as_record
from dasrec.scorers import SAMPLED_BIAS, Function, Scorer, Vectors, check_room
from dasrec.testing import planted_matrix
from tests import references


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Split:
    place = tmp_path_factory.mktemp("scorers") / "data"
    with mock.patch("dasrec.memory.LEAST_BLOCK_CELLS", 150):
        made = dasrec.interactions_from_scipy(planted_matrix(), place)
    assert len(made.cuts("user_items")) > 4
    return dasrec.split_random(made, 0.25, rng=2)


@pytest.fixture(scope="module")
def model(split: Split) -> ImplicitALS:
    return ImplicitALS(factors=4, iterations=3, rng=0).fit(split.train)


def all_scores(users: np.ndarray, *, vectors: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Score as rank_items does, so that lists are equal to the last place."""
    full = rank_items(vectors[0][users], vectors[1], len(vectors[1]))
    scores = np.empty((len(users), len(vectors[1])), np.float32)
    np.put_along_axis(scores, full[0].astype(np.int64), full[1], axis=1)
    return scores


def all_lists(users: np.ndarray, *, vectors: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    return rank_items(vectors[0][users], vectors[1], len(vectors[1]))[0].astype(np.int64)


class Mine:
    """A scorer of somebody else."""

    name = "mine"

    def __init__(self, vectors: tuple[np.ndarray, np.ndarray]) -> None:
        self.vectors = vectors

    def rank(self, users: np.ndarray, n: int, seen: Any) -> np.ndarray:
        return rank_items(self.vectors[0][users], self.vectors[1], n, seen)[0]


def metrics_of(given: Any, split: Split, **options: Any) -> dict[str, float]:
    return dict(as_record(dasrec.evaluate(given, split, n=(3, 10), **options))["metrics"])


def test_all_that_ranks_alike_is_measured_alike(
    model: ImplicitALS, split: Split, tmp_path: Path
) -> None:
    wanted = metrics_of(model, split)
    vectors = model.scoring_vectors()
    lists = dasrec.recommend_all(model, split.train, n=10, out=tmp_path / "lists")
    assert isinstance(Mine(vectors), Scorer)
    for each in (
        lists,
        Path(lists),
        functools.partial(all_scores, vectors=vectors),
        functools.partial(all_lists, vectors=vectors),
        Mine(vectors),
    ):
        assert metrics_of(each, split) == wanted, each


def test_whatever_ranks_has_values_of_users_groups_and_conventions(
    model: ImplicitALS, split: Split, tmp_path: Path
) -> None:
    vectors = model.scoring_vectors()
    lists = dasrec.recommend_all(model, split.train, n=10, out=tmp_path / "lists")
    groups = {"user": np.arange(120) % 2, "item": "popularity"}
    ours = [key for key, each in METRICS.items() if each.kind == "ranking" and key != "diversity"]
    for options in ({"groups": groups, "metrics": ours}, {"compat": "lenskit"}):
        wanted = metrics_of(model, split, **options)
        for each in (lists, functools.partial(all_scores, vectors=vectors), Mine(vectors)):
            assert metrics_of(each, split, **options) == pytest.approx(wanted, nan_ok=True)
    each = evaluate_users(lists, split, n=(3, 10))
    xr.testing.assert_identical(
        each.drop_attrs(), evaluate_users(model, split, n=(3, 10)).drop_attrs()
    )
    assert (each.attrs["model"], each.attrs["longest_list"]) == ("lists", 10)


def test_what_only_models_have_is_refused(model: ImplicitALS, split: Split, tmp_path: Path) -> None:
    vectors = model.scoring_vectors()
    lists = dasrec.recommend_all(model, split.train, n=10, out=tmp_path / "lists")
    scores = functools.partial(all_scores, vectors=vectors)
    for each in (lists, scores, Mine(vectors)):
        with pytest.raises(InputError, match="diversity needs item factors, and what is measured"):
            dasrec.evaluate(each, split, metrics=["diversity"])
        with pytest.raises(InputError, match="rmse needs predicted values, and what is measured"):
            dasrec.evaluate(each, split, metrics=["rmse"])
    for each in (lists, scores, Mine(vectors), Sampled(model)):
        for measure in (dasrec.evaluate, evaluate_users):
            with pytest.raises(InputError, match="auc needs the scores that a model gives to the"):
                measure(each, split, metrics=["recall", "auc"])
    given = Vectors(*vectors, "mine")
    found, wanted = (dasrec.evaluate(each, split, metrics=["auc"]) for each in (given, model))
    assert found["auc"].item() == wanted["auc"].item() > 0.5
    some = dasrec.evaluate(Sampled(model, 5), split, metrics=["diversity"])
    assert 0 < some["diversity"].item() < 2


def test_functions_are_asked_for_few_users_at_a_time(model: ImplicitALS, split: Split) -> None:
    wanted = metrics_of(model, split)
    asked = []

    def scores(users: np.ndarray) -> np.ndarray:
        asked.append(len(users))
        return all_scores(users, vectors=model.scoring_vectors())

    with mock.patch("dasrec.scorers.SCORE_CELLS", 5 * 60):
        assert metrics_of(scores, split) == wanted
    assert max(asked) == 5
    assert dasrec.evaluate(scores, split).attrs["model"] == "scores"


def test_users_without_a_list_are_counted(split: Split) -> None:
    def half(users: np.ndarray) -> np.ndarray:
        return np.where(users[:, None] % 2, np.arange(60), -1)

    tested = np.flatnonzero(split.test.counts("user_items"))
    measured = dasrec.evaluate(half, split, n=5)
    assert measured.attrs["n_users"] == len(tested)
    assert measured.attrs["n_unlisted"] == (tested % 2 == 0).sum() > 10
    every = dasrec.evaluate(lambda users: np.zeros((len(users), 60)), split, n=5)
    assert "n_unlisted" not in every.attrs


def test_lists_of_a_store_are_labelled(model: ImplicitALS, split: Split, tmp_path: Path) -> None:
    place = dasrec.recommend_all(model, split.train, n=7, out=tmp_path / "my-lists")
    both = evaluate_all([model, place], split, n=5)
    assert both["model"].values.tolist() == ["implicit-als", "my-lists"]
    attrs = dasrec.evaluate(place, split, n=5).attrs
    assert (attrs["unknown_users"], attrs["unknown_items"], attrs["longest_list"]) == (0, 0, 7)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (3, "int cannot be evaluated; expected a model, a folder of lists"),
        (lambda users: np.zeros((len(users), 59)), r"shape \(\d+, 59\) .* expected scores"),
        (lambda users: np.zeros(len(users), int), "expected scores, float of shape"),
        (
            lambda users: np.full((len(users), 2), 60),
            "from 60 to 60; expected numbers",
        ),
        (lambda users: np.full((len(users), 2), 5), "has an item twice"),
    ],
)
def test_nonsense_is_refused(split: Split, given: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        dasrec.evaluate(given, split)


def test_lists_of_another_shape_are_refused(model: ImplicitALS, split: Split) -> None:
    mine = Mine(model.scoring_vectors())
    with (
        mock.patch.object(mine, "rank", lambda users, n, seen: np.zeros((len(users), n))),
        pytest.raises(InputError, match=r"mine returned float64 .* expected lists of item"),
    ):
        dasrec.evaluate(mine, split)


def test_vectors_of_two_lengths_are_refused() -> None:
    users, items = np.ones((2, 3), np.float32), np.ones((4, 2), np.float32)
    with pytest.raises(InputError, match="users have 3 factors and items 2; expected as many"):
        rank_items(users, items, 1)


def test_some_users_at_a_time_make_the_whole(split: Split) -> None:
    model = dasrec.ALS(factors=3, iterations=2, rng=0).fit(split.train)
    every = [name for name in METRICS if name != "log_loss"]
    groups = {"user": np.arange(120) % 3, "item": "popularity"}
    several: tuple[Any, ...] = ({}, {"metrics": every, "groups": groups})
    wanted = [metrics_of(model, split, **options) for options in several]
    users = evaluate_users(model, split, n=(3, 10))
    with mock.patch("dasrec.memory.LISTED_CELLS", 30):
        for options, figures in zip(several, wanted, strict=True):
            found = metrics_of(model, split, **options)
            assert found == pytest.approx(figures, rel=1e-12, nan_ok=True)
        xr.testing.assert_identical(evaluate_users(model, split, n=(3, 10)), users)


# -- samples ---------------------------------------------------------------------------------------


def sampled_recall(model: Any, split: Split, *, negatives: int, seed: int, n: int) -> float:
    """Rank what is to be found among what the twin draws, all in plain loops."""
    seen, truth = (references.rows_as_sets(v.to_scipy()) for v in (split.seen, split.test))
    scores = all_scores(np.arange(120), vectors=model.scoring_vectors())
    recalls = []
    for user, wanted in enumerate(truth):
        if wanted:
            others = references.draw_others(
                seed, user, seen[user] | wanted, n_items=60, n=negatives
            )
            order = sorted((-scores[user, item], item) for item in {*others, *wanted})
            recalls.append(len({item for _, item in order[:n]} & wanted) / len(wanted))
    return float(np.mean(recalls))


@pytest.mark.parametrize("seed", [0, 5])
def test_samples_are_those_of_the_twin(model: ImplicitALS, split: Split, seed: int) -> None:
    measured = dasrec.evaluate(Sampled(model, 8, rng=seed), split, n=4)
    wanted = sampled_recall(model, split, negatives=8, seed=seed, n=4)
    assert measured["recall"].item() == pytest.approx(wanted, rel=1e-12)
    facts = {"sampled": 8, "sampled_seed": seed, "sampled_bias": SAMPLED_BIAS}
    assert facts.items() <= measured.attrs.items()
    assert measured.attrs["model"] == "implicit-als"
    # the bias that results warn of
    assert wanted > 1.2 * dasrec.evaluate(model, split, n=4)["recall"].item()


def test_a_sample_of_everything_is_the_catalogue(model: ImplicitALS, split: Split) -> None:
    wanted = metrics_of(model, split)
    scores = functools.partial(all_scores, vectors=model.scoring_vectors())
    for each in (Sampled(model, 60), Sampled(scores, 60)):
        assert metrics_of(each, split) == wanted


def test_values_are_predicted_alike_with_a_sample(split: Split) -> None:
    model = dasrec.ALS(factors=3, iterations=2, rng=0).fit(split.train)
    wanted = dasrec.evaluate(model, split, metrics=["rmse"])["rmse"].item()
    assert dasrec.evaluate(Sampled(model), split, metrics=["rmse"])["rmse"].item() == wanted


def test_samples_need_scores(model: ImplicitALS, split: Split, tmp_path: Path) -> None:
    place = dasrec.recommend_all(model, split.train, n=5, out=tmp_path / "lists")
    lists = functools.partial(all_lists, vectors=model.scoring_vectors())
    for each in (place, Mine(model.scoring_vectors()), lists):
        with pytest.raises(InputError, match="a sample is ranked by scores of all items"):
            dasrec.evaluate(Sampled(each), split)
    with pytest.raises(InputError, match="negatives is 0; expected a whole number, at least 1"):
        dasrec.evaluate(Sampled(model, 0), split)


def test_models_in_a_sample_are_checked_as_ever(split: Split) -> None:
    model = dasrec.Popular().fit(split.test)
    for each in (Sampled(model), Sampled(Sampled(model))):
        with pytest.raises(dasrec.MismatchError, match="it may know what is tested"):
            dasrec.evaluate(each, split)


# -- memory ----------------------------------------------------------------------------------------


def test_what_a_task_holds_does_not_grow_with_users(split: Split, tmp_path: Path) -> None:
    matrix = planted_matrix()
    plans = []
    for times in (1, 4):
        rows = np.tile(np.arange(120), times)
        store = dasrec.interactions_from_scipy(matrix[rows], tmp_path / str(times))
        with mock.patch("dasrec.memory.BLOCK_CELLS", 2**14):
            plans.append(plan_ranking(store, factors=8, n=20))
    one, four = plans
    assert four.task_bytes == one.task_bytes
    assert four.shared_bytes - one.shared_bytes == 3 * 120 * 8 * 4
    assert four.as_record()["limit_bytes"] == four.limit_bytes > four.peak_bytes


@pytest.mark.parametrize("kind", [ImplicitALS, dasrec.ALS])
def test_of_a_saved_model_a_task_reads_its_own_users(
    kind: type[Any], split: Split, tmp_path: Path
) -> None:
    model = kind(factors=8, iterations=2, rng=0).fit(split.train)
    opened = dasrec.load_model(model.save(tmp_path / "model"))
    asked: list[int] = []
    read = LazyRows.__getitem__

    def watched(rows: LazyRows, users: np.ndarray) -> np.ndarray:
        asked.append(len(users))
        return read(rows, users)

    whole = mock.patch.object(kind, "scoring_vectors", side_effect=AssertionError)
    with whole, mock.patch.object(LazyRows, "__getitem__", watched):
        found = dasrec.evaluate(opened, split)
        lists = dasrec.recommend_all(opened, split.train, n=7, out=tmp_path / "lists")
    assert 0 < max(asked) < split.train.n_users
    assert found.identical(dasrec.evaluate(model, split))
    same = dasrec.recommend_all(model, split.train, n=7, out=tmp_path / "same")
    pd.testing.assert_frame_equal(pd.read_parquet(lists), pd.read_parquet(same))


def test_what_would_not_fit_is_refused_before_it_starts(
    model: ImplicitALS, split: Split, tmp_path: Path
) -> None:
    with pytest.raises(BudgetError, match="ranking 60 items for 120 users needs"):
        plan_ranking(split.train, factors=8, memory="1MB")
    room = mock.patch("dasrec.scorers.room", return_value=(0, 1000, 2))
    with room, mock.patch("dasrec.blocks.run", side_effect=AssertionError):
        for given in (model, Function(len, 60, "f"), Vectors(*model.scoring_vectors(), "v")):
            with pytest.raises(BudgetError, match=r"0\.0 MB are available; use fewer"):
                dasrec.evaluate(given, split)
        with pytest.raises(BudgetError, match="ranking 60 items"):
            dasrec.recommend_all(model, split.train, out=tmp_path / "lists")
    assert not (tmp_path / "lists").exists()


def test_whole_rows_of_scores_take_room(model: ImplicitALS, split: Split) -> None:
    vectors = Vectors(*model.scoring_vectors(), "v")
    without, with_them = (
        check_room(vectors, split.train, 10, whole_rows=each).task_bytes for each in (False, True)
    )
    assert with_them - without == 8 * 2**22
    with mock.patch("dasrec.scorers.room", return_value=(0, 40 * 2**20, 1)):
        dasrec.evaluate(model, split, metrics=["recall"])
        with pytest.raises(BudgetError, match="ranking 60 items"):
            dasrec.evaluate(model, split, metrics=["recall", "auc"])


# -- processes -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_processes_give_the_bits_of_threads(
    model: ImplicitALS, split: Split, cluster_client: Client, tmp_path: Path
) -> None:
    scores = functools.partial(all_scores, vectors=model.scoring_vectors())
    opened = dasrec.load_model(model.save(tmp_path / "model"))
    given = (model, opened, scores, Sampled(model, 9, rng=1))
    with cluster_client.as_current(), mock.patch("dasrec.blocks.active_client", return_value=None):
        here = [metrics_of(each, split) for each in given]
        place = Path(dasrec.recommend_all(model, split.train, n=7, out=tmp_path / "here"))
    with cluster_client.as_current():
        assert [metrics_of(each, split) for each in given] == here
        other = Path(dasrec.recommend_all(model, split.train, n=7, out=tmp_path / "there"))
        assert metrics_of(str(other), split) == metrics_of(str(place), split)
    parts = sorted(path.name for path in place.iterdir())
    assert len(parts) > 4
    assert all((place / name).read_bytes() == (other / name).read_bytes() for name in parts)


def test_scorers_pickle(model: ImplicitALS) -> None:
    vectors = Vectors(*model.scoring_vectors(), "v")
    again = pickle.loads(pickle.dumps(Sampled(vectors, 3).over(vectors, 60)))
    assert (again.name, again.negatives, again.n_items) == ("v", 3, 60)
