"""Public conformance suites: what every model and every store of dasrec can be relied on for.

Subclass a suite in a test file of your own; pytest runs its methods. No test needs pytest itself,
but each wants an empty folder, which pytest's fixture ``tmp_path`` gives::

    class TestMine(ModelSuite):
        def make(self, *, rng):
            return Mine(rng=rng)
"""

from __future__ import annotations

import contextlib
import json
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import xarray as xr
from scipy import sparse
from sklearn.base import clone

from dasrec import files, memory, store, versions
from dasrec.errors import InputError, MismatchError, StoreError
from dasrec.evaluate import evaluate
from dasrec.ingest import interactions_from_scipy
from dasrec.interactions import Interactions, open_interactions
from dasrec.models import Biases, Model, Popular, load_model
from dasrec.schema import FACTOR, FORMAT_VERSION, ITEM_USERS, MODEL_KIND, USER_ITEMS
from dasrec.split import split_random
from dasrec.typing import Ids, Rng, Side

N_USERS, N_ITEMS, N_GROUPS = 120, 60, 4

Matrix = sparse.csr_array[np.float32]


def planted_matrix(*, rng: int = 0) -> Matrix:
    """Draw 120 users x 60 items in four groups: two in three cells within a group, few elsewhere.

    Who uses what tells the groups. Weights are 3 to 5 within a group, 1 or 2 elsewhere. The last
    user and the last item have none.
    """
    return _plant((0.66, 0.05), inside=(3, 6), outside=(1, 3), rng=rng)


def planted_ratings(*, rng: int = 0) -> Matrix:
    """Draw the same groups, told by ratings alone: 4 or 5 within one, 1 or 2 elsewhere.

    Every second cell is stored, wherever it is. The last user and the last item have none.
    """
    return _plant((0.5, 0.5), inside=(4, 6), outside=(1, 3), rng=rng)


def _plant(
    chances: tuple[float, float], *, inside: tuple[int, int], outside: tuple[int, int], rng: int
) -> Matrix:
    draw = np.random.default_rng(rng)
    same = (np.arange(N_USERS)[:, None] % N_GROUPS) == (np.arange(N_ITEMS) % N_GROUPS)
    there = draw.random(same.shape) < np.where(same, *chances)
    weights = np.where(same, *(draw.integers(*each, same.shape) for each in (inside, outside)))
    there[-1], there[:, -1] = False, False
    return sparse.csr_array((there * weights).astype(np.float32))


def random_matrix(shape: tuple[int, int], *, rng: int) -> Matrix:
    """Draw a matrix with full, thin and empty rows; one stored cell is zero, others negative."""
    draw = np.random.default_rng(rng)
    there = draw.random(shape) < draw.choice([0.0, 0.1, 0.5, 1.0], (shape[0], 1))
    rows, columns = np.nonzero(there)
    weights = draw.standard_normal(len(rows)).astype(np.float32)
    weights[:1] = 0
    return sparse.csr_array((weights, (rows, columns)), shape=shape)


def some_ids(n: int, kind: type) -> Ids:
    """Return ``n`` ids: integers, some negative, or strings, some beyond ASCII."""
    if kind is int:
        return np.arange(n) * 7 - 9
    return np.array([f"{'é' if number % 3 else 'e'} {number:04}" for number in range(n)], object)


def expect(kind: type[BaseException], words: str, call: Callable[[], object]) -> None:
    """Check that ``call`` raises ``kind`` with a message that holds ``words``."""
    try:
        call()
    except kind as error:
        if words not in str(error):
            msg = f"the message {str(error)!r} lacks {words!r}"
            raise AssertionError(msg) from error
    else:
        msg = f"expected {kind.__name__}, and nothing was raised"
        raise AssertionError(msg)


@contextlib.contextmanager
def killed_before_commit() -> Iterator[None]:
    """Stop whoever writes at the very end, and let nobody tidy up, as a kill would."""
    stop = KeyboardInterrupt("killed before commit")
    publish = mock.patch.object(store, "publish", side_effect=stop)
    with publish, mock.patch.object(store.Draft, "abandon"):
        yield


def _equal(one: Any, other: Any) -> bool:
    """Compare stored cells, zeros too, and not only what they add up to."""
    parts = ((getattr(one, name), getattr(other, name)) for name in ("indptr", "indices", "data"))
    return one.shape == other.shape and all(np.array_equal(*pair) for pair in parts)


def _distance(one: Any, other: Any) -> float:
    """Return the largest difference in terms of the largest value."""
    return float(np.abs(one - other).max() / max(np.abs(one).max(), 1e-30))


class ModelSuite:
    """What holds for every model; ``tmp_path`` is an empty folder.

    A model that predicts values is tried on :func:`planted_ratings`, others on
    :func:`planted_matrix`; each finds there what it can know.
    """

    personal: bool = True
    """Whether different users get different lists."""

    cut_tolerance: float = 1e-4
    """How much other block cuts may change scoring vectors, in terms of the largest; 0: no bit.

    On one store nothing may change: the cuts are stored in it. Where every row is solved by itself,
    no cut changes a bit; a matrix product over a block may round otherwise for another height.
    """

    def make(self, *, rng: Rng) -> Model:
        """Return an unfitted model."""
        raise NotImplementedError

    def write(
        self, place: Path, *, user_ids: Ids | None = None, item_ids: Ids | None = None
    ) -> Interactions:
        """Write planted data that suit the model."""
        plant = planted_ratings if self.make(rng=0).predicts_values else planted_matrix
        return interactions_from_scipy(plant(), place, user_ids=user_ids, item_ids=item_ids)

    def test_constructor_stores_and_fit_returns_self(self, tmp_path: Path) -> None:
        """Parameters are kept as given and set as named; nothing is learned before fit."""
        model = self.make(rng=3)
        parameters = model.get_params()
        assert type(model)(**parameters).get_params() == parameters
        assert model.set_params(**parameters) is model
        expect(ValueError, "no_such_parameter", lambda: model.set_params(no_such_parameter=1))
        assert not [name for name in vars(model) if name.endswith("_")]
        assert model.fit(self.write(tmp_path / "data")) is model
        assert model.get_params() == parameters
        fresh = clone(model)
        assert fresh.get_params() == parameters
        assert not [name for name in vars(fresh) if name.endswith("_")]

    def test_finds_planted_groups(self, tmp_path: Path) -> None:
        """Most of the recommended items are of the user's own group."""
        if not self.personal:
            return
        data = self.write(tmp_path / "data")
        users = np.arange(N_USERS - 1)
        lists = self.make(rng=0).fit(data).recommend(users, n=3, seen=data)["item_id"].values
        own = lists % N_GROUPS == users[:, None] % N_GROUPS
        assert own.mean() > 0.8

    def test_beats_its_baseline(self, tmp_path: Path) -> None:
        """On held-out cells: RMSE well below biases alone, or NDCG well above popularity."""
        if not self.personal:
            return
        split = split_random(self.write(tmp_path / "data"), 0.2, rng=1)
        model = self.make(rng=0).fit(split.train)
        metric, base = ("rmse", Biases()) if model.predicts_values else ("ndcg", Popular())
        ours, theirs = (
            evaluate(each, split, n=5, metrics=[metric])[metric].values.item()
            for each in (model, base.fit(split.train))
        )
        assert (ours < 0.8 * theirs) if model.predicts_values else (ours > 1.5 * theirs)

    def test_recommends_unseen_items_in_order(self, tmp_path: Path) -> None:
        """No item twice, none that was seen, scores descending, short lists padded."""
        data = self.write(tmp_path / "data")
        found = self.make(rng=0).fit(data).recommend(np.arange(N_USERS), n=N_ITEMS, seen=data)
        seen = data.to_scipy().toarray() != 0
        for row, (items, scores) in enumerate(
            zip(found["item_id"].values, found["score"].values, strict=True)
        ):
            listed = items[items >= 0]
            assert sorted(listed) == np.flatnonzero(~seen[row]).tolist()
            assert (np.diff(scores[: len(listed)]) <= 0).all()
            assert np.isnan(scores[len(listed) :]).all()

    def test_rows_without_interactions_are_zero_and_silent(self, tmp_path: Path) -> None:
        """Who did nothing has no factors, makes no warning and still gets a list."""
        data = self.write(tmp_path / "data")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            model = self.make(rng=0).fit(data)
            lists = model.recommend(data.user_ids.ids[-1:], n=5, seen=data)
        assert np.isfinite(lists["score"].values).all()
        for name, learned in vars(model).items():
            if isinstance(learned, xr.DataArray):
                assert np.isfinite(learned.values).all(), name
                assert FACTOR not in learned.dims or not learned.values[-1].any(), name

    def test_folding_in_leaves_the_model_alone(self, tmp_path: Path) -> None:
        """It gives every user a finite vector for the model's own items."""
        data = self.write(tmp_path / "data")
        model = self.make(rng=0).fit(data)
        users, items = (each.copy() for each in model.scoring_vectors())
        folded = model.fold_in(data)
        assert folded.shape == users.shape
        assert np.isfinite(folded).all()
        for before, after in zip((users, items), model.scoring_vectors(), strict=True):
            assert np.array_equal(before, after)

    def test_saved_and_loaded_it_is_the_same(self, tmp_path: Path) -> None:
        """Parameters, scores, lists and ids survive, whatever the ids are made of."""
        for kinds in ((int, str), (str, int)):
            place = tmp_path / kinds[0].__name__
            user_ids, item_ids = some_ids(N_USERS, kinds[0]), some_ids(N_ITEMS, kinds[1])
            data = self.write(place / "data", user_ids=user_ids, item_ids=item_ids)
            model = self.make(rng=0).fit(data)
            loaded = load_model(model.save(place / "model"))
            assert type(loaded) is type(model)
            assert loaded.get_params() == model.get_params()
            assert loaded.trained_on_ == model.trained_on_
            users, items = user_ids[[0, 5, N_USERS - 1]], item_ids[[0, N_ITEMS - 1, 7]]
            assert np.array_equal(loaded.score(users, items), model.score(users, items))
            lists = [each.recommend(users, n=9, seen=data) for each in (model, loaded)]
            assert lists[0].equals(lists[1])
            assert loaded.user_ids_.ids.tolist() == user_ids.tolist()
            assert loaded.item_ids_.ids.tolist() == item_ids.tolist()

    def test_saving_is_whole_or_not_at_all(self, tmp_path: Path) -> None:
        """Killed before its commit a model is refused; the one that was there stays."""
        model = self.make(rng=0).fit(self.write(tmp_path / "data"))
        place, scores = tmp_path / "model", model.score(np.arange(9), np.arange(9))
        expect(StoreError, "is not there", lambda: load_model(place))
        with killed_before_commit():
            expect(KeyboardInterrupt, "killed", lambda: model.save(place))
        expect(StoreError, "unfinished", lambda: load_model(place))
        model.save(place, overwrite=True)
        expect(InputError, "exists already", lambda: model.save(place))
        with killed_before_commit():
            expect(KeyboardInterrupt, "killed", lambda: model.save(place, overwrite=True))
        assert np.array_equal(load_model(place).score(np.arange(9), np.arange(9)), scores)

    def test_strangers_and_long_lists_are_refused(self, tmp_path: Path) -> None:
        """Unknown ids are named, of users and of items; n is at most the catalogue."""
        for kind in (int, str):
            ids = some_ids(N_USERS, kind), some_ids(N_ITEMS, kind)
            data = self.write(tmp_path / kind.__name__, user_ids=ids[0], item_ids=ids[1])
            model = self.make(rng=0).fit(data)
            known, stranger = ids[0][:1], np.array([4711 if kind is int else "id 4711"])
            expect(InputError, "4711", partial(model.recommend, stranger))
            expect(InputError, "4711", partial(model.score, stranger, ids[1][:1]))
            expect(InputError, "4711", partial(model.score, known, stranger))
            expect(InputError, "only 60 items", partial(model.recommend, known, n=61))
            expect(InputError, "n is 0", partial(model.recommend, known, n=0))

    def test_an_unfitted_model_says_so(self, tmp_path: Path) -> None:
        """Whatever is asked of it."""
        model, data, ids = self.make(rng=0), self.write(tmp_path / "data"), np.array([0])
        expect(InputError, "not fitted", lambda: model.recommend(ids))
        expect(InputError, "not fitted", lambda: model.score(ids, ids))
        expect(InputError, "not fitted", lambda: model.fold_in(data))
        expect(InputError, "not fitted", lambda: model.save(tmp_path / "model"))
        expect(StoreError, "is not there", lambda: load_model(tmp_path / "model"))

    def test_another_store_is_refused(self, tmp_path: Path) -> None:
        """The numbers of one vocabulary mean nothing in another."""
        model = self.make(rng=0).fit(self.write(tmp_path / "data"))
        users = self.write(tmp_path / "users", user_ids=np.arange(N_USERS) + 1)
        items = self.write(tmp_path / "items", item_ids=some_ids(N_ITEMS, str))
        for other, words in ((users, "user vocabularies"), (items, "item vocabularies")):
            expect(MismatchError, words, partial(model.recommend, np.array([0]), seen=other))
            expect(MismatchError, words, partial(model.fold_in, other))

    def test_same_seed_same_model_however_blocks_are_cut(self, tmp_path: Path) -> None:
        """Bit for bit on one store; within ``cut_tolerance`` where blocks are cut otherwise."""
        whole = self.write(tmp_path / "whole")
        with mock.patch.object(memory, "LEAST_BLOCK_CELLS", 50):
            cut = self.write(tmp_path / "cut")
        for side in (USER_ITEMS, ITEM_USERS):
            assert len(whole.cuts(side)) == 2
            assert len(cut.cuts(side)) > 10
        first = self.make(rng=7).fit(whole).scoring_vectors()
        np.random.seed(1)  # nothing may hang on the global generator
        second = self.make(rng=7).fit(whole).scoring_vectors()
        third = self.make(rng=7).fit(cut).scoring_vectors()
        for one, two, three in zip(first, second, third, strict=True):
            assert np.array_equal(one, two)
            assert _distance(one, three) <= self.cut_tolerance


class StoreSuite:
    """What holds for every store; a subclass may write elsewhere by overriding :meth:`place`."""

    def place(self, tmp_path: Path) -> str:
        """Return a path or URL where nothing is yet."""
        return str(tmp_path / "store")

    def write(
        self,
        url: str,
        matrix: Matrix,
        *,
        user_ids: Ids | None = None,
        item_ids: Ids | None = None,
        overwrite: bool = False,
    ) -> Interactions:
        """Write a matrix."""
        return interactions_from_scipy(
            matrix, url, user_ids=user_ids, item_ids=item_ids, overwrite=overwrite
        )

    def test_both_orientations_hold_what_was_written(self, tmp_path: Path) -> None:
        """Every stored cell, zeros too, in both orientations, as a whole and block by block."""
        for number, shape in enumerate(((2, 2), (50, 9), (7, 80))):
            url, matrix = f"{self.place(tmp_path)}-{number}", random_matrix(shape, rng=number)
            with mock.patch.object(memory, "LEAST_BLOCK_CELLS", 20):
                self.write(url, matrix)
            read = open_interactions(url)
            assert _equal(read.to_scipy(), matrix)
            sides: list[tuple[Side, Any]] = [(USER_ITEMS, matrix), (ITEM_USERS, matrix.T.tocsr())]
            for side, turned in sides:
                cuts = read.cuts(side).tolist()
                parts = [read.read_rows(side, a, b).to_scipy() for a, b in pairwise(cuts)]
                assert (len(parts) > 2) == (matrix.nnz > 60)
                assert _equal(sparse.vstack(parts, "csr"), turned)

    def test_ids_come_out_as_they_went_in(self, tmp_path: Path) -> None:
        """Whole numbers as int64, strings as str; unknown ones are named, double ones refused."""
        matrix = random_matrix((11, 13), rng=0)
        for kinds in ((int, str), (str, int)):
            url = f"{self.place(tmp_path)}-{kinds[0].__name__}"
            given = some_ids(11, kinds[0]), some_ids(13, kinds[1])
            self.write(url, matrix, user_ids=given[0], item_ids=given[1])
            read = open_interactions(url)
            for ids, vocabulary in zip(given, (read.user_ids, read.item_ids), strict=True):
                assert vocabulary.ids.dtype == ids.dtype
                assert vocabulary.ids.tolist() == ids.tolist()
                assert vocabulary.numbers(ids[[3, 1]]).tolist() == [3, 1]
        expect(InputError, "4711", lambda: read.item_ids.numbers(np.array([4711])))
        twice = np.append(np.arange(10), 3)
        expect(InputError, "twice", lambda: self.write(f"{url}-twice", matrix, user_ids=twice))

    def test_a_taken_place_is_refused_and_stays(self, tmp_path: Path) -> None:
        """Overwriting must be asked for."""
        url, old, new = self.place(tmp_path), planted_matrix(rng=1), planted_matrix(rng=2)
        self.write(url, old)
        expect(InputError, "overwrite=True", lambda: self.write(url, new))
        assert _equal(open_interactions(url).to_scipy(), old)
        self.write(url, new, overwrite=True)
        assert _equal(open_interactions(url).to_scipy(), new)

    def test_unfinished_writing_is_no_store(self, tmp_path: Path) -> None:
        """Killed before its commit there is nothing to read; failed, nothing is left."""
        url, matrix = self.place(tmp_path), planted_matrix()
        expect(StoreError, "is not there", lambda: open_interactions(url))
        with mock.patch.object(store, "publish", side_effect=OSError("failed")):
            expect(OSError, "failed", lambda: self.write(url, matrix))
        expect(StoreError, "is not there", lambda: open_interactions(url))
        with killed_before_commit():
            expect(KeyboardInterrupt, "killed", lambda: self.write(url, matrix))
        expect(StoreError, "unfinished", lambda: open_interactions(url))
        self.write(url, matrix, overwrite=True)
        assert _equal(open_interactions(url).to_scipy(), matrix)

    def test_a_failed_overwrite_leaves_the_state_before(self, tmp_path: Path) -> None:
        """What was readable stays so, to those who open it and to those who have."""
        url, old, new = self.place(tmp_path), planted_matrix(rng=1), planted_matrix(rng=2)
        held = self.write(url, old)
        again = partial(self.write, url, new, overwrite=True)
        with mock.patch.object(store, "publish", side_effect=OSError("failed")):
            expect(OSError, "failed", again)
        with killed_before_commit():
            expect(KeyboardInterrupt, "killed", again)
        assert _equal(held.to_scipy(), old)
        assert _equal(open_interactions(url).to_scipy(), old)
        again()
        assert _equal(open_interactions(url).to_scipy(), new)

    def test_other_formats_and_kinds_are_refused(self, tmp_path: Path) -> None:
        """A reader does not guess."""
        url = self.place(tmp_path)
        self.write(url, planted_matrix())
        expect(StoreError, f"expected {MODEL_KIND!r}", lambda: load_model(url))
        pointer = files.join(url, versions.pointer_name(1))
        content = files.read_json(pointer) | {"format_version": FORMAT_VERSION + 1}
        files.replace(pointer, json.dumps(content).encode())
        expect(StoreError, "is of format version", lambda: open_interactions(url))
