"""Evaluation against brute force and against implicit; leaks and nonsense refused."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from distributed import Client
from implicit.cpu.als import AlternatingLeastSquares
from implicit.evaluation import ranking_metrics_at_k
from scipy import sparse

import dasrec
from dasrec import ALS, Biases, ImplicitALS, InputError, Interactions, MismatchError, Model, Popular
from dasrec.evaluate import evaluate_all
from dasrec.metrics import METRICS
from dasrec.results import as_record
from dasrec.testing import planted_matrix, planted_ratings
from tests import references
from tests import references_metrics as twins
from tests.snippets import python_blocks, run_page


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("evaluate")


@pytest.fixture(scope="module")
def data(folder: Path) -> Interactions:
    return dasrec.interactions_from_scipy(planted_matrix(), folder / "data")


@pytest.fixture(scope="module")
def cut(folder: Path) -> Interactions:
    """The same matrix in many blocks."""
    with mock.patch("dasrec.memory.LEAST_BLOCK_CELLS", 60):
        made = dasrec.interactions_from_scipy(planted_matrix(), folder / "cut")
    assert len(made.cuts("user_items")) > 20
    return made


def brute_force(
    users: Any, items: Any, split: dasrec.Split, *, lengths: tuple[int, ...]
) -> dict[str, float]:
    """Score all, sort all, walk over all."""
    scores, n_items = users @ items.T, len(items)
    seen = references.rows_as_sets(split.seen.to_scipy())
    truth = references.rows_as_sets(split.test.to_scipy())
    figures = {}
    for n in lengths:
        lists, _ = references.top_n(scores, n, seen)
        found = twins.evaluate_lists(lists, truth, n=n, n_items=n_items)
        figures |= {f"{name}@{n}": value for name, value in found.items()}
    test = split.test.to_scipy().tocoo()
    errors = test.data - scores[test.row, test.col]
    return figures | {"rmse": np.sqrt((errors**2).mean()), "mae": np.abs(errors).mean()}


@pytest.mark.parametrize("name", ["data", "cut"])
@pytest.mark.parametrize("model", [Popular(), Biases(), ALS(factors=3, iterations=2, rng=0)])
def test_evaluation_is_what_brute_force_finds(
    request: pytest.FixtureRequest, name: str, model: Model
) -> None:
    """Popular has many ties; 59 makes lists that end early."""
    split = dasrec.split_random(request.getfixturevalue(name), 0.25, rng=2)
    model.fit(split.train)
    found = as_record(dasrec.evaluate(model, split, n=[59, 4]))
    expected = brute_force(*model.scoring_vectors(), split, lengths=(4, 59))
    if not model.predicts_values:
        del expected["rmse"], expected["mae"]
    assert found["metrics"].keys() == expected.keys()
    for key, value in expected.items():
        assert found["metrics"][key] == pytest.approx(value, rel=1e-5), key
    truth = references.rows_as_sets(split.test.to_scipy())
    assert found["n_users"] == sum(map(bool, truth)) < 120
    assert found["n_test"] == sum(map(len, truth))


def test_results_do_not_depend_on_the_cut(data: Interactions, cut: Interactions) -> None:
    model = ALS(factors=3, iterations=2, rng=0).fit(data)
    splits = (dasrec.split_random(store, 0.25, rng=2) for store in (data, cut))
    whole, parts = (
        as_record(dasrec.evaluate(model, split, n=7, allow_overlap=True)) for split in splits
    )
    assert whole.pop("metrics") == pytest.approx(parts.pop("metrics"), rel=1e-12)
    assert whole == parts


def test_users_held_out_are_measured_by_folding_in(cut: Interactions) -> None:
    split = dasrec.split_users(cut, 0.3, targets=0.4, rng=0)
    assert split.folds_in
    model = ImplicitALS(factors=4, iterations=3, rng=0).fit(split.train)
    users, items = model.scoring_vectors()
    fresh = split.train.counts("user_items") == 0
    assert 20 < fresh.sum() < 60
    users = np.where(fresh[:, None], model.fold_in(split.seen), users)
    expected = brute_force(users, items, split, lengths=(5,))
    measured = evaluate_all([model, Popular().fit(split.train)], split, n=5)
    for name in ("precision", "recall", "ndcg", "map", "mrr", "hit_rate", "item_coverage"):
        ours = measured[name].sel(model="implicit-als", n=5).item()
        assert ours == pytest.approx(expected[f"{name}@5"], rel=1e-5), name
    recall = measured["recall"].sel(n=5)
    assert recall.sel(model="implicit-als").item() > 2 * recall.sel(model="popular").item()
    assert measured["model"].values.tolist() == ["implicit-als", "popular"]
    assert measured.attrs == {"split": "users:0.3:0.4"}


def test_implicit_measures_the_same_factors_as_its_convention(data: Interactions) -> None:
    split = dasrec.split_random(data, 0.25, rng=3)
    model = ImplicitALS(factors=6, iterations=4, rng=0).fit(split.train)
    theirs = AlternatingLeastSquares(num_threads=1)
    theirs.user_factors, theirs.item_factors = model.scoring_vectors()
    train, test = (
        sparse.csr_matrix(view.to_scipy(), dtype=np.float32) for view in (split.train, split.test)
    )
    found = ranking_metrics_at_k(theirs, train, test, K=5, show_progress=False, num_threads=1)
    names = ["precision", "map", "ndcg", "auc"]
    measured = dasrec.evaluate(model, split, n=5, metrics=names, compat="implicit")
    assert measured.attrs["compat"] == "implicit"
    assert found.keys() == set(names)
    for name in names:
        assert measured[name].item() == pytest.approx(found[name], rel=1e-9), name
    assert found["precision"] > 1.1 * dasrec.evaluate(model, split, n=5)["precision"].item()


def test_a_record_is_json_of_a_known_shape(data: Interactions) -> None:
    split = dasrec.split_random(data, 0.2, rng=1)
    measured = dasrec.evaluate(ALS(factors=2, iterations=1, rng=0).fit(split.train), split, n=(10,))
    record = as_record(measured)
    assert json.loads(json.dumps(record)) == record
    figures = record.pop("metrics")
    assert list(figures) == [
        "rmse",
        "mae",
        *(f"{name}@10" for name in ("precision", "recall", "ndcg", "map", "mrr", "hit_rate")),
        "item_coverage@10",
    ]
    assert all(type(value) is float for value in figures.values())
    n_test = split.test.to_scipy().nnz
    n_users = int((np.diff(split.test.to_scipy().indptr) > 0).sum())
    facts = {"model": "als", "split": "random:0.2", "seed": 1}
    assert record == {**facts, "n_users": n_users, "n_test": n_test}
    assert measured["recall"].dims == ("n",)
    assert measured["rmse"].dims == ()
    assert measured["recall"].attrs == {"formula": "|hits| / |truth|"}


def test_several_models_stand_side_by_side(data: Interactions) -> None:
    split = dasrec.split_random(data, 0.2, rng=1)
    models = [Popular().fit(split.train), ALS(factors=2, iterations=1, rng=0).fit(split.train)]
    both = evaluate_all(models, split, n=(5, 10))
    assert both["ndcg"].dims == ("model", "n")
    assert np.isnan(both["rmse"].sel(model="popular"))
    for model in models:
        alone = dasrec.evaluate(model, split, n=(5, 10))
        for name in alone.data_vars:
            assert np.array_equal(both[name].sel(model=model.name), alone[name]), name


# -- some users ------------------------------------------------------------------------------------


@pytest.mark.parametrize("users", [0, 1], ids=["known", "held-out"])
@pytest.mark.parametrize("name", [name for name in METRICS if name != "log_loss"])
def test_a_holdout_of_all_users_is_the_evaluation(cut: Interactions, name: str, users: int) -> None:
    split = dasrec.split_users(cut, 0.3, rng=0) if users else dasrec.split_random(cut, 0.3, rng=0)
    model = ALS(factors=3, iterations=2, rng=0).fit(split.train)
    of_lists = METRICS[name].kind == "ranking"
    expected = dasrec.evaluate(model, split, n=7, metrics=[name])[name].item()
    found = dasrec.holdout(split, f"{name}@7" if of_lists else name)(model)
    assert type(found) is float
    assert found == pytest.approx(-expected if METRICS[name].smaller else expected, rel=1e-6)


@pytest.mark.parametrize("how", ["random:0.3", "users:0.4"])
def test_a_holdout_ranks_for_as_many_users_as_it_is_told(
    data: Interactions, cut: Interactions, how: str
) -> None:
    """Those of one seed, whatever the blocks and the state of NumPy's own generator."""
    split = dasrec.parse_split(data, how, rng=2)
    model = ImplicitALS(factors=4, iterations=3, rng=0).fit(split.train)
    measure = dasrec.holdout(split, "recall@5", users=9, rng=3)
    users, items = model.scoring_vectors()
    if split.folds_in:
        fresh = split.train.counts("user_items") == 0
        users = np.where(fresh[:, None], model.fold_in(split.seen), users)
    truth = references.rows_as_sets(split.test.to_scipy())
    seen = references.rows_as_sets(split.seen.to_scipy())
    chosen = measure.test.numbers
    assert len(chosen) == 9
    assert all(truth[user] for user in chosen)
    lists, _ = references.top_n(users[chosen] @ items.T, 5, [seen[user] for user in chosen])
    wanted = [truth[user] for user in chosen]
    expected = twins.evaluate_lists(lists, wanted, n=5, n_items=len(items))["recall"]
    assert measure(model) == pytest.approx(expected, rel=1e-6)
    np.random.seed(1)
    again = dasrec.holdout(dasrec.parse_split(cut, how, rng=2), "recall@5", users=9, rng=3)
    assert again.test.numbers.tolist() == chosen.tolist()
    other = dasrec.holdout(split, "recall@5", users=9, rng=4)
    assert other.test.numbers.tolist() != chosen.tolist()


def test_a_holdout_is_kept_in_memory_and_can_be_pickled(cut: Interactions) -> None:
    split = dasrec.split_users(cut, 0.5, rng=0)
    model = ImplicitALS(factors=4, iterations=3, rng=0).fit(split.train)
    measure = dasrec.holdout(split, users=30)
    copy = pickle.loads(pickle.dumps(measure))
    surprise = dasrec.holdout(split, "serendipity@5", users=30)
    with (
        mock.patch("dasrec.evaluate._TASK_USERS", 7),
        mock.patch("dasrec.store.read_rows", side_effect=AssertionError("it was read again")),
    ):
        assert surprise(model) > 0
        assert len(measure.test.cuts("user_items")) == 6
        assert measure(model) == pytest.approx(copy(model), rel=1e-12)
    assert 0.1 < copy(model) < 1
    assert "csr" not in repr(measure)


def test_a_holdout_knows_weights_as_the_split_has_them(data: Interactions) -> None:
    """Folding in must see transformed weights, and errors must be on their scale."""
    split = dasrec.split_users(data, 0.4, rng=0)
    split = split.transform(dasrec.Centre(by="global").fit(split.train))
    model = ALS(factors=3, iterations=3, rng=0).fit(split.train)
    expected = dasrec.evaluate(model, split, metrics=["rmse"])["rmse"].item()
    assert dasrec.holdout(split, "rmse")(model) == pytest.approx(-expected, rel=1e-6)


def test_a_fit_that_is_monitored_keeps_its_best_iteration(data: Interactions) -> None:
    split = dasrec.split_random(data, 0.3, rng=1)
    training = dasrec.Training(monitor=dasrec.holdout(split, "ndcg@5", users=40), patience=2)
    model = ImplicitALS(factors=16, regularization=0.01, iterations=60, rng=0)
    model.fit(split.train, training=training)
    found = model.history_["monitor"].values
    assert 2 < len(found) < 60
    assert found.argmax() == len(found) - 3
    assert training.monitor is not None
    assert training.monitor(model) == found.max()


def test_a_holdout_is_the_same_on_a_cluster(cut: Interactions, cluster_client: Client) -> None:
    split = dasrec.split_users(cut, 0.4, rng=0)
    model = ImplicitALS(factors=4, iterations=3, rng=0).fit(split.train)
    there = dasrec.holdout(split, users=25)
    on_cluster = there(model)
    with cluster_client.as_current(), mock.patch("dasrec.blocks.active_client", return_value=None):
        here = dasrec.holdout(split, users=25)
        assert here.test.numbers.tolist() == there.test.numbers.tolist()
        assert here(model) == on_cluster


def test_holdouts_that_make_no_sense_are_refused(data: Interactions) -> None:
    split = dasrec.split_random(data, 0.2, rng=1)
    for text in ("f7", "f7@10", "ndcg", "ndcg@", "ndcg@x", "ndcg@-1", "rmse@10", "rmse@", ""):
        known = r"expected one of: rmse, mae, precision@10, recall@10, ndcg@10, map@10, mrr@10"
        with pytest.raises(InputError, match=rf"metric '{text}' is unknown; {known}"):
            dasrec.holdout(split, text)
    with pytest.raises(InputError, match="n is 0; expected a whole number, at least 1"):
        dasrec.holdout(split, "ndcg@0")
    with pytest.raises(InputError, match="catalogue has only 60 items; choose n <= 60"):
        dasrec.holdout(split, "ndcg@61")
    with pytest.raises(InputError, match="users is 0; expected a whole number, at least 1"):
        dasrec.holdout(split, users=0)
    with pytest.raises(InputError, match="leaves nothing to test; choose a larger test part"):
        dasrec.holdout(dasrec.split_random(data, 1e-9, rng=1))
    measure = dasrec.holdout(split, "mae")
    with pytest.raises(InputError, match="mae needs predicted values, and what is measured only"):
        measure(Popular().fit(split.train))
    with pytest.raises(MismatchError, match="it may know what is tested"):
        measure(Biases().fit(data))


def test_the_example_of_fitting_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    dasrec.interactions_from_scipy(planted_matrix(), "my-store")
    (block,) = python_blocks(Path(__file__).parents[1] / "docs" / "conventions.md")
    assert len([line for line in block.splitlines() if line]) <= 6
    names = run_page("conventions.md")
    assert len(names["model"].history_["monitor"]) > 3
    assert dasrec.load_model("my-checkpoint").trained_on_ == names["model"].trained_on_


# -- what is refused -------------------------------------------------------------------------------


def test_a_model_that_may_know_the_test_is_refused(data: Interactions) -> None:
    split = dasrec.split_random(data, 0.2, rng=1)
    other = dasrec.split_random(data, 0.2, rng=2)
    remedy = (
        r"not on the training part of random:0\.2: it may know what is tested\. Fit it on "
        r"split\.train \(dasrec fit --split\), or pass allow_overlap=True \(--allow-overlap\)"
    )
    for view, what in ((data, "the whole store"), (other.train, "Sampled"), (split.test, "Sample")):
        model = Popular().fit(view)
        with pytest.raises(MismatchError, match=rf"fitted on .*{what}.*{remedy}"):
            dasrec.evaluate(model, split)
        measured = dasrec.evaluate(model, split, allow_overlap=True)
        assert measured["recall"].notnull().all()


def test_a_model_of_an_earlier_state_is_refused(tmp_path: Path) -> None:
    """The same split of a store that was written again is another split."""
    place = tmp_path / "data"
    first = dasrec.interactions_from_scipy(planted_matrix(), place)
    model = Popular().fit(dasrec.split_random(first, 0.2, rng=1).train)
    again = dasrec.interactions_from_scipy(planted_matrix(rng=1), place, overwrite=True)
    with pytest.raises(MismatchError, match="may know what is tested"):
        dasrec.evaluate(model, dasrec.split_random(again, 0.2, rng=1))


def test_a_saved_model_is_held_to_its_split(data: Interactions, tmp_path: Path) -> None:
    split = dasrec.split_random(data, 0.2, rng=1)
    model = Popular().fit(split.train)
    loaded = dasrec.load_model(model.save(tmp_path / "model"))
    assert dasrec.evaluate(loaded, split).equals(dasrec.evaluate(model, split))
    with pytest.raises(MismatchError, match="may know what is tested"):
        dasrec.evaluate(loaded, dasrec.split_random(data, 0.2, rng=2))


def test_a_model_of_another_store_is_refused(data: Interactions, tmp_path: Path) -> None:
    ids = np.arange(60) + 1
    other = dasrec.interactions_from_scipy(planted_matrix(), tmp_path / "other", item_ids=ids)
    model = Popular().fit(other)
    with pytest.raises(MismatchError, match="item vocabularies differ"):
        dasrec.evaluate(model, dasrec.split_random(data, 0.2, rng=1), allow_overlap=True)


def test_what_cannot_be_measured_is_refused(data: Interactions) -> None:
    split = dasrec.split_random(data, 0.2, rng=1)
    model = Popular().fit(split.train)
    with pytest.raises(InputError, match="catalogue has only 60 items; choose n <= 60"):
        dasrec.evaluate(model, split, n=[5, 61])
    with pytest.raises(InputError, match="n is empty; expected one list length or more"):
        dasrec.evaluate(model, split, n=[])
    with pytest.raises(InputError, match="metric 'f7' is unknown; expected some of: rmse, mae"):
        dasrec.evaluate(model, split, metrics=["f7"])
    implicit = ImplicitALS(factors=2, iterations=1, rng=0).fit(split.train)
    with pytest.raises(InputError, match="rmse needs predicted values, and what is measured only"):
        dasrec.evaluate(implicit, split, metrics=["rmse"])
    with pytest.raises(InputError, match="not fitted"):
        dasrec.evaluate(Popular(), split)
    nothing = dasrec.split_random(data, 1e-9, rng=1)
    with pytest.raises(InputError, match="leaves nothing to test; choose a larger test part"):
        dasrec.evaluate(model.fit(nothing.train), nothing)


def test_values_of_users_without_training_are_predicted_too(tmp_path: Path) -> None:
    """RMSE is over all test interactions, of users whom training did not see as well."""
    data = dasrec.interactions_from_scipy(planted_ratings(), tmp_path / "data")
    split = dasrec.split_listed(
        data,
        user_ids=np.repeat(5, data.n_items),
        item_ids=data.item_ids.ids,
        name="all of one user",
    )
    model = ALS(factors=3, iterations=3, rng=0).fit(split.train)
    measured = dasrec.evaluate(model, split, metrics=["rmse"])
    known = split.test.to_scipy()[[5]].tocoo()
    guesses = float(model.mean_) + model.item_biases_.values[known.col]
    expected = np.sqrt(((known.data - guesses) ** 2).mean())
    assert measured["rmse"].item() == pytest.approx(expected, rel=1e-5)
    assert measured.attrs["n_test"] == known.nnz > 20


def test_values_on_another_scale_than_was_learned_are_refused(tmp_path: Path) -> None:
    """RMSE of centred predictions against raw ratings would be a number without a meaning."""
    data = dasrec.interactions_from_scipy(planted_matrix(), tmp_path / "scale")
    split = dasrec.split_random(data, 0.2, rng=1)
    centre = dasrec.Centre(by="global").fit(split.train)
    centred = split.transform(centre)
    model = dasrec.ALS(factors=3, iterations=3, rng=0).fit(centred.train)
    for options in ({}, {"allow_overlap": True}):
        with pytest.raises(MismatchError, match=r"transformed by Centre.*by nothing"):
            dasrec.evaluate(model, split, **options)
    plain = dasrec.ALS(factors=3, iterations=3, rng=0).fit(split.train)
    with pytest.raises(MismatchError, match=r"transformed by nothing.*by Centre"):
        dasrec.evaluate(plain, centred)
    there, here = (
        float(dasrec.evaluate(fitted, part, metrics=["rmse"])["rmse"])
        for fitted, part in ((model, centred), (plain, split))
    )
    assert there == pytest.approx(here, rel=0.05)


def test_rankings_may_be_learned_from_other_weights(tmp_path: Path) -> None:
    data = dasrec.interactions_from_scipy(planted_matrix(), tmp_path / "scale")
    split = dasrec.split_random(data, 0.2, rng=1)
    train = split.train.transform(dasrec.Log1p())
    model = dasrec.ImplicitALS(factors=3, iterations=3, rng=0).fit(train)
    assert dasrec.evaluate(model, split)["recall"].notnull().all()
    folded = dasrec.split_users(data, 0.3, rng=0)
    model.fit(folded.train.transform(dasrec.Log1p()))
    with pytest.raises(MismatchError, match="transformed by Log1p"):
        dasrec.evaluate(model, folded)
    assert dasrec.evaluate(model, folded.transform(dasrec.Log1p()))["recall"].notnull().all()
