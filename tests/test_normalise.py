"""Transforms against slow twins: values, orientations, cuts, what they learn from, inverses."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import pandas as pd
import pytest
from dask.base import tokenize
from distributed import Client
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.base import clone

import dasrec
from dasrec import (
    BM25,
    Binarise,
    Centre,
    Clip,
    ImplicitALS,
    InputError,
    Interactions,
    Log1p,
    MismatchError,
    TfIdf,
    TimeDecay,
    ZScore,
    memory,
)
from dasrec.normalise import WeightTransform
from tests import references_normalise as slow
from tests.snippets import run_page
from tests.strategies import cuts

EPOCH = 1_700_000_000  # seconds; a time of the log is so much later
NOW = "2023-11-24T22:13:20"  # ten days after it
COLUMNS = {"user": "user", "item": "item", "value": "value", "timestamp": "time"}


class Case(NamedTuple):
    """A transform and its twin, of (train, values, times of train, times of values)."""

    transform: WeightTransform
    twin: Callable[..., np.ndarray[Any, Any]]
    exact: bool = True  # whether there is an inverse


def plain(function: Any, **parameters: Any) -> Any:
    return lambda train, values, train_times, times: function(train, values, **parameters)


def decayed(**parameters: Any) -> Any:
    return lambda train, values, train_times, times: slow.time_decay(
        train_times, times, values, **parameters
    )


CASES = {
    "log1p": Case(Log1p(), plain(slow.log1p)),
    "log1p-epsilon": Case(Log1p(epsilon=0.25), plain(slow.log1p, epsilon=0.25)),
    "binarise": Case(Binarise(threshold=2), plain(slow.binarise, threshold=2), exact=False),
    "clip": Case(Clip(low=1, high=3), plain(slow.clip, low=1, high=3), exact=False),
    "clip-high": Case(Clip(high=2.5), plain(slow.clip, low=-np.inf, high=2.5), exact=False),
    "tf-idf": Case(TfIdf(), plain(slow.tf_idf)),
    "tf-idf-item": Case(TfIdf(by="item"), plain(slow.tf_idf, by="item")),
    "bm25": Case(BM25(), plain(slow.bm25)),
    "bm25-item": Case(BM25(k1=2, b=0, by="item"), plain(slow.bm25, k1=2, b=0, by="item")),
    "bm25-b09": Case(BM25(k1=3, b=0.9), plain(slow.bm25, k1=3, b=0.9)),
    # nothing is added to the weights of a user whose training weights are all 0
    "bm25-b1": Case(BM25(k1=3, b=1), plain(slow.bm25, k1=3, b=1), exact=False),
    "bm25-k0": Case(BM25(k1=0), plain(slow.bm25, k1=0), exact=False),
    "decay": Case(TimeDecay(half_life=3), decayed(half_life=3, now=None)),
    "decay-now": Case(
        TimeDecay(half_life=0.5, now=NOW), decayed(half_life=0.5, now=EPOCH + 10 * 86_400)
    ),
    **{
        f"{name}-{by}": Case(kind(by=by), plain(twin, by=by))
        for by in ("user", "item", "global")
        for name, kind, twin in (("centre", Centre, slow.centre), ("z", ZScore, slow.z_score))
    },
}


@st.composite
def logs(draw: st.DrawFn) -> pd.DataFrame:
    """Draw a log with distinct pairs, weights in quarters and times in hours."""
    pair = st.tuples(st.integers(0, 7), st.integers(0, 7))
    pairs = draw(st.sets(pair, min_size=6, max_size=40))
    n = len(pairs)
    weights = draw(st.lists(st.integers(0, 40), min_size=n, max_size=n))
    hours = draw(st.lists(st.integers(0, 400), min_size=n, max_size=n))
    log = pd.DataFrame(sorted(pairs), columns=["user", "item"])
    return log.assign(value=np.array(weights) / 4, time=EPOCH + 3600 * np.array(hours))


def write(log: pd.DataFrame, place: Path, *, block_cells: int | None = None) -> Interactions:
    events = dasrec.read_events(log, **COLUMNS)
    if block_cells is None:
        return dasrec.write_interactions(events, place)
    with mock.patch.object(memory, "block_cells", return_value=block_cells):
        return dasrec.write_interactions(events, place)


def dense(view: Interactions) -> np.ndarray[Any, Any]:
    """Return the weights of a view, NaN where nothing is stored."""
    block = view.read_rows("user_items", 0, view.n_users)
    out = np.full((view.n_users, view.n_items), np.nan)
    out[np.repeat(np.arange(view.n_users), np.diff(block.indptr)), block.indices] = block.data
    return out


def dense_times(view: Interactions) -> np.ndarray[Any, Any]:
    """Return the seconds of a view, NaN where nothing is stored."""
    block = view.read_rows("user_items", 0, view.n_users, timed=True)
    assert block.timestamps is not None
    out = np.full((view.n_users, view.n_items), np.nan)
    users = np.repeat(np.arange(view.n_users), np.diff(block.indptr))
    out[users, block.indices] = block.timestamps / 1e6
    return out


def cells(view: Interactions) -> tuple[Any, Any, Any, Any]:
    """Return users, items, weights and timestamps of a view."""
    block = view.read_rows("user_items", 0, view.n_users, timed=view.has_timestamps)
    users = np.repeat(np.arange(view.n_users, dtype=np.int32), np.diff(block.indptr))
    return users, block.indices, block.data, block.timestamps


def state(transform: WeightTransform) -> dict[str, bytes]:
    """Return the bits of what a transform has learned."""
    arrays = {k: v for k, v in vars(transform).items() if isinstance(v, np.ndarray)}
    return {name: array.tobytes() for name, array in arrays.items()}


@settings(max_examples=8)
@given(log=logs(), seed=st.integers(0, 99), size=st.integers(1, 5), data=st.data())
def test_transforms_give_what_their_twins_give(
    tmp_path_factory: pytest.TempPathFactory,
    log: pd.DataFrame,
    seed: int,
    size: int,
    data: st.DataObject,
) -> None:
    assume(log["user"].nunique() > 1 and log["item"].nunique() > 1)
    folder = tmp_path_factory.mktemp("normalise")
    whole, cut = write(log, folder / "whole"), write(log, folder / "cut", block_cells=size)
    assert len(whole.cuts("user_items")) == 2
    assert len(cut.cuts("user_items")) > 2
    split = dasrec.split_random(whole, 0.4, rng=seed)
    same = dasrec.split_random(cut, 0.4, rng=seed)
    train, times = dense(split.train), dense_times(split.train)
    assume(np.nansum(train) > 0)
    edges = data.draw(cuts(whole.n_items))
    for name, case in CASES.items():
        fitted = clone(case.transform).fit(split.train)
        again = clone(case.transform).fit(same.train)
        assert state(fitted) == state(again), name
        assert fitted == again, name
        for part, other in ((split.train, same.train), (split.test, same.test)):
            view = part.transform(fitted)
            wanted = case.twin(train, dense(part), times, dense_times(part))
            found = dense(view)
            np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=2e-6, err_msg=name)
            np.testing.assert_array_equal(dense(other.transform(again)), found, err_msg=name)
            pieces = [view.read_rows("item_users", a, b).data for a, b in itertools.pairwise(edges)]
            turned = found.T[~np.isnan(found.T)]
            np.testing.assert_array_equal(np.concatenate(pieces), turned, err_msg=name)
            if case.exact:
                users, items, weights, stamps = cells(part)
                back = fitted.inverse(users, items, cells(view)[2], stamps)
                assert back.dtype == np.float32
                np.testing.assert_allclose(back, weights, rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.fixture
def log() -> pd.DataFrame:
    rng = np.random.default_rng(3)
    pairs = rng.permutation([(u, i) for u in range(40) for i in range(25)])[:400]
    return pd.DataFrame(pairs, columns=["user", "item"]).assign(
        value=rng.integers(1, 20, 400) / 4, time=EPOCH + rng.integers(0, 10**6, 400)
    )


@pytest.fixture
def whole(log: pd.DataFrame, tmp_path: Path) -> Interactions:
    return write(log, tmp_path / "store", block_cells=60)


@pytest.mark.parametrize("name", CASES)
def test_tested_rows_do_not_change_what_is_learned(
    log: pd.DataFrame, whole: Interactions, tmp_path: Path, name: str
) -> None:
    split = dasrec.split_random(whole, 0.3, rng=0)
    users, items, _, _ = cells(split.test)
    tested = log.set_index(["user", "item"]).index.isin(
        list(zip(whole.user_ids.ids[users], whole.item_ids.ids[items], strict=True))
    )
    assert tested.sum() == len(users) > 50
    changed = log.assign(value=log["value"] + 100 * tested)
    other = dasrec.split_random(write(changed, tmp_path / "other"), 0.3, rng=0)
    transform = CASES[name].transform
    learned = state(clone(transform).fit(split.train))
    assert bool(learned) == transform.learns
    assert state(clone(transform).fit(other.train)) == learned


@pytest.mark.parametrize("name", ["binarise", "clip", "clip-high", "bm25-k0"])
def test_what_cannot_be_inverted_says_so(whole: Interactions, name: str) -> None:
    fitted = clone(CASES[name].transform).fit(whole)
    users, items, _, stamps = cells(whole)
    with pytest.raises(InputError, match="has no inverse: it makes one of several weights"):
        fitted.inverse(users, items, cells(whole.transform(fitted))[2], stamps)


def test_weights_that_no_weight_gives_are_refused(whole: Interactions) -> None:
    bm25 = BM25().fit(whole)
    users, items, _, _ = cells(whole)
    limit = bm25.idf_[items] * np.float32(2.2)
    with pytest.raises(InputError, match=r"not below idf \(k1 \+ 1\), which no weight reaches"):
        bm25.inverse(users, items, limit)
    decay = TimeDecay(half_life=1, now="2024-12-31").fit(whole)
    with pytest.raises(InputError, match="more than 126 half-lives old"):
        decay.inverse(users, items, bm25.idf_[items], cells(whole)[3])
    with pytest.raises(InputError, match="Log1p makes numbers that float32 cannot hold"):
        Log1p().inverse(users, items, np.full(len(users), 800, np.float32))


def test_transforming_is_lazy(
    whole: Interactions, raising_scheduler: Callable[[], AbstractContextManager[Any]]
) -> None:
    train = dasrec.split_random(whole, 0.3, rng=0).train
    bm25, decay = BM25().fit(train), TimeDecay(half_life=1).fit(train)
    with raising_scheduler(), mock.patch.object(Interactions, "read_rows", side_effect=OSError):
        view = train.transform(Log1p()).transform(bm25).transform(decay)
        lazy = view.user_items
    assert "Log1p, BM25, TimeDecay" in repr(view)
    assert (lazy.compute() != view.to_scipy()).nnz == 0
    assert (view.item_users.compute().T != view.to_scipy()).nnz == 0
    assert tokenize(view) == tokenize(train.transform(Log1p()).transform(bm25).transform(decay))
    assert tokenize(view) != tokenize(train.transform(Log1p()).transform(bm25))


def test_transforms_come_in_order_and_learn_from_those_before(whole: Interactions) -> None:
    logged = whole.transform(Log1p())
    z_score = ZScore(by="item").fit(logged)
    raw = dense(whole)
    wanted = slow.z_score(slow.log1p(raw, raw), slow.log1p(raw, raw), by="item")
    np.testing.assert_allclose(dense(logged.transform(z_score)), wanted, rtol=1e-5, atol=1e-6)
    assert ZScore(by="item").fit(whole) != z_score


def test_fitting_again_does_not_change_a_view(whole: Interactions) -> None:
    split = dasrec.split_random(whole, 0.5, rng=0)
    centre = Centre().fit(split.train)
    view = split.train.transform(centre)
    before = view.to_scipy()
    centre.fit(split.test)
    assert (view.to_scipy() != before).nnz == 0
    assert (split.train.transform(centre).to_scipy() != before).nnz > 0


def test_a_split_is_transformed_as_a_whole(whole: Interactions) -> None:
    split = dasrec.split_users(whole, 0.3, rng=0)
    centre = Centre(by="item").fit(split.train)
    other = split.transform(centre)
    for part in ("train", "seen", "test"):
        view = getattr(split, part).transform(centre)
        assert getattr(other, part) == view
        assert (getattr(other, part).to_scipy() != view.to_scipy()).nnz == 0
    assert other.folds_in
    assert other.spec == split.spec


def test_a_model_learns_from_transformed_weights(whole: Interactions, tmp_path: Path) -> None:
    bm25 = BM25().fit(whole)
    view = whole.transform(bm25)
    model = ImplicitALS(factors=4, iterations=2, rng=0).fit(view)
    copied = dasrec.interactions_from_scipy(view.to_scipy(), tmp_path / "copy")
    twin = ImplicitALS(factors=4, iterations=2, rng=0).fit(copied)
    np.testing.assert_allclose(model.item_factors_, twin.item_factors_, rtol=1e-3, atol=1e-5)
    raw = ImplicitALS(factors=4, iterations=2, rng=0).fit(whole)
    assert not np.allclose(model.item_factors_, raw.item_factors_, rtol=1e-3, atol=1e-3)
    saved = dasrec.load_model(model.save(tmp_path / "model"))
    assert saved.trained_on_["transforms"] == [bm25.describe()]
    assert json.loads(json.dumps(bm25.describe())) == bm25.describe()
    assert raw.trained_on_["transforms"] == []


def test_the_check_for_leaks_looks_at_rows_not_at_weights(whole: Interactions) -> None:
    split = dasrec.split_random(whole, 0.3, rng=0)
    model = ImplicitALS(factors=4, iterations=1, rng=0)
    model.fit(split.train.transform(BM25().fit(split.train)))
    assert dasrec.evaluate(model, split).attrs["n_test"] > 0
    model.fit(whole.transform(BM25().fit(whole)))
    with pytest.raises(MismatchError, match="it may know what is tested"):
        dasrec.evaluate(model, split)


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        (Log1p(epsilon=0), "epsilon is 0; expected a finite number greater than 0"),
        (Binarise(threshold=np.nan), "threshold is nan; expected a finite number"),
        (Clip(), "low is None and high is None; expected at least one of them"),
        (Clip(low=2, high=1), "low is 2 and high is 1; expected at least one of them, and low"),
        (TfIdf(by="global"), "by is 'global'; expected one of: user, item"),
        (BM25(by="row"), "by is 'row'; expected one of: user, item"),
        (BM25(k1=-1), "k1 is -1; expected a finite number of at least 0"),
        (BM25(b=1.5), "b is 1.5; expected a number from 0 to 1"),
        (TimeDecay(half_life=0), "half_life is 0; expected a finite number greater than 0"),
        (TimeDecay(half_life=1, now="soon"), "now is 'soon'; expected a date or time like"),
        (Centre(by="all"), "by is 'all'; expected one of: user, item, global"),
    ],
)
def test_parameters_out_of_range_are_refused(
    whole: Interactions, transform: WeightTransform, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        transform.fit(whole)
    with pytest.raises(InputError, match=message):
        whole.transform(transform)


def test_unfitted_or_changed_transforms_are_refused(whole: Interactions) -> None:
    with pytest.raises(InputError, match=r"this BM25 is not fitted; call fit\(split.train\) first"):
        whole.transform(BM25())
    bm25 = BM25().fit(whole).set_params(by="item")
    with pytest.raises(InputError, match="other parameters than when it was fitted"):
        whole.transform(bm25)
    assert whole.transform(Clip(high=1)).transforms == (Clip(high=1),)


def test_negative_weights_are_refused_where_they_mean_nothing(whole: Interactions) -> None:
    centred = whole.transform(Centre(by="global").fit(whole))
    for transform in (Log1p(), TfIdf().fit(centred), BM25().fit(whole)):
        view = centred.transform(transform)
        with pytest.raises(InputError, match="needs weights of at least 0, and there is -"):
            view.to_scipy()
    with pytest.raises(InputError, match=r"add up to .*; expected more than 0"):
        BM25().fit(whole.transform(Clip(high=-1)))


def test_transforms_of_another_store_are_refused(whole: Interactions, tmp_path: Path) -> None:
    log = pd.DataFrame({"user": [1, 2, 3], "item": [1, 2, 2], "value": 1.0, "time": EPOCH})
    other = write(log, tmp_path / "small")
    for transform, side in ((Centre(by="user"), "user"), (TfIdf(), "item"), (BM25(), "user")):
        with pytest.raises(MismatchError, match=f"their {side} vocabularies differ; fit it on"):
            whole.transform(transform.fit(other))
    assert whole.transform(Centre(by="global").fit(other)).transforms


def test_without_timestamps_nothing_decays(whole: Interactions, tmp_path: Path) -> None:
    bare = dasrec.interactions_from_scipy(whole.to_scipy(), tmp_path / "bare")
    with pytest.raises(InputError, match="has no timestamps and TimeDecay needs them"):
        TimeDecay(half_life=1).fit(bare)
    with pytest.raises(InputError, match="has no timestamps and TimeDecay needs them"):
        bare.transform(TimeDecay(half_life=1).fit(whole))
    users, items, weights, _ = cells(whole)
    with pytest.raises(InputError, match="needs the timestamps of the cells, and none were given"):
        TimeDecay(half_life=1).fit(whole)(users, items, weights)


def test_nothing_can_be_learned_from_nothing(whole: Interactions) -> None:
    nothing = dasrec.split_random(whole, 1e-9, rng=0).test
    for transform in (BM25(), TfIdf(), Centre(), ZScore(by="global"), TimeDecay(half_life=1)):
        with pytest.raises(InputError, match=r"there are no interactions of .* to learn from"):
            transform.fit(nothing)


def test_workers_give_the_same(cluster_client: Client, log: pd.DataFrame, tmp_path: Path) -> None:
    whole = write(log, tmp_path / "there", block_cells=60)
    z_score = ZScore(by="user").fit(whole)
    view = whole.transform(z_score)
    found = view.map_blocks(read_weights, "item_users", name="test-block")
    wanted = view.read_rows("item_users", 0, view.n_items).data
    np.testing.assert_array_equal(np.concatenate(found), wanted)
    assert (view.user_items.compute() != view.to_scipy()).nnz == 0


def read_weights(view: Interactions, side: Any, start: int, stop: int) -> Any:
    return view.read_rows(side, start, stop).data


def test_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = run_page("normalise.md")
    assert [type(each) for each in names["train"].transforms] == [Log1p, BM25]
