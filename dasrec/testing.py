"""Public conformance suites: what every model and every store of dasrec can be relied on for.

Subclass a suite in a test file of your own; pytest runs its methods::

    class TestMine(ModelSuite):
        def make(self, rng=None):
            return Mine(rng=rng)
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from scipy import sparse
from sklearn.base import clone

from dasrec import memory, store
from dasrec.errors import DasrecError, InputError, MismatchError, StoreError
from dasrec.evaluate import evaluate
from dasrec.ingest import interactions_from_scipy
from dasrec.interactions import Interactions, open_interactions
from dasrec.models import Model, Popular, load_model
from dasrec.schema import INTERACTIONS_KIND, MODEL_KIND
from dasrec.split import split_random
from dasrec.typing import Ids, Rng

N_USERS, N_ITEMS, N_GROUPS = 120, 60, 4


def planted_matrix(*, rng: int = 0) -> sparse.csr_array[Any]:
    """Draw 120 users x 60 items in four groups: two in three cells within a group, few elsewhere.

    Weights are 3 to 5 within a group, 1 or 2 elsewhere. The last user and the last item have none.
    """
    draw = np.random.default_rng(rng)
    same = (np.arange(N_USERS)[:, None] % N_GROUPS) == (np.arange(N_ITEMS)[None, :] % N_GROUPS)
    there = draw.random(same.shape) < np.where(same, 0.66, 0.05)
    weights = np.where(same, draw.integers(3, 6, same.shape), draw.integers(1, 3, same.shape))
    there[-1], there[:, -1] = False, False
    return sparse.csr_array((there * weights).astype(np.float32))


def expect(kind: type[DasrecError], words: str, call: Callable[[], object]) -> None:
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


def _same(one: Any, other: Any) -> bool:
    return bool((one != other).nnz == 0)


class ModelSuite:
    """What holds for every model; ``tmp_path`` is pytest's fixture."""

    personal = True
    """Whether different users get different lists."""
    ranks = True
    """Whether lists are what the model is for."""

    def make(self, rng: Rng = None) -> Model:
        """Return an unfitted model."""
        raise NotImplementedError

    def _data(self, folder: Path, **options: Any) -> Interactions:
        return interactions_from_scipy(planted_matrix(), folder / "data", **options)

    def test_constructor_stores_and_fit_returns_self(self, tmp_path: Path) -> None:
        """Parameters are kept as given, a clone has the same, and fit returns the model."""
        model = self.make(rng=3)
        assert clone(model).get_params() == model.get_params()
        assert not [name for name in vars(model) if name.endswith("_")]
        assert model.fit(self._data(tmp_path)) is model
        assert clone(model).get_params() == model.get_params()

    def test_finds_planted_groups(self, tmp_path: Path) -> None:
        """Most of the recommended items are of the user's own group."""
        if not (self.personal and self.ranks):
            return
        data = self._data(tmp_path)
        users = np.arange(N_USERS - 1)
        lists = self.make(rng=0).fit(data).recommend(users, n=3, seen=data)["item_id"].values
        own = lists % N_GROUPS == users[:, None] % N_GROUPS
        assert own.mean() > 0.8

    def test_beats_popularity(self, tmp_path: Path) -> None:
        """NDCG on held-out cells is above that of the baseline."""
        if not (self.personal and self.ranks):
            return
        split = split_random(self._data(tmp_path), 0.2, rng=1)
        ours, theirs = (
            float(evaluate(model.fit(split.train), split, n=5, metrics=["ndcg"])["ndcg"][0])
            for model in (self.make(rng=0), Popular())
        )
        assert ours > theirs

    def test_recommends_unseen_items_in_order(self, tmp_path: Path) -> None:
        """No item twice, none that was seen, scores descending, short lists padded."""
        data = self._data(tmp_path)
        found = self.make(rng=0).fit(data).recommend(np.arange(N_USERS), n=N_ITEMS, seen=data)
        seen = data.to_scipy().toarray() != 0
        for row, (items, scores) in enumerate(
            zip(found["item_id"].values, found["score"].values, strict=True)
        ):
            listed = items[items >= 0]
            assert sorted(listed) == np.flatnonzero(~seen[row]).tolist()
            assert (np.diff(scores[: len(listed)]) <= 0).all()
            assert np.isnan(scores[len(listed) :]).all()

    def test_saved_and_loaded_it_is_the_same(self, tmp_path: Path) -> None:
        """Parameters, scores, ids and history survive, for string ids too."""
        names = np.array([f"u{n:03}" for n in range(N_USERS)], object)
        data = self._data(tmp_path, user_ids=names)
        model = self.make(rng=0).fit(data)
        loaded = load_model(model.save(tmp_path / "model"))
        assert type(loaded) is type(model)
        assert loaded.get_params() == model.get_params()
        users, items = names[[0, 5, 119]], np.array([0, 59, 7])
        assert np.array_equal(loaded.score(users, items), model.score(users, items))
        assert loaded.user_ids_.ids.tolist() == names.tolist()
        expect(InputError, "exists already", lambda: model.save(tmp_path / "model"))
        model.save(tmp_path / "model", overwrite=True)

    def test_an_unfinished_model_is_refused(self, tmp_path: Path) -> None:
        """What was written before a commit is no model."""
        store.Draft(tmp_path / "model", MODEL_KIND)
        expect(StoreError, "unfinished", lambda: load_model(tmp_path / "model"))
        expect(StoreError, "is not there", lambda: load_model(tmp_path / "nothing"))

    def test_strangers_and_long_lists_are_refused(self, tmp_path: Path) -> None:
        """Unknown ids are named; n is at most the catalogue; an unfitted model says so."""
        data = self._data(tmp_path)
        expect(InputError, "not fitted", lambda: self.make().recommend(np.array([0])))
        model = self.make(rng=0).fit(data)
        expect(InputError, "4711", lambda: model.recommend(np.array([0, 4711])))
        expect(InputError, "only 60 items", lambda: model.recommend(np.array([0]), n=61))

    def test_another_store_is_refused(self, tmp_path: Path) -> None:
        """The numbers of one vocabulary mean nothing in another."""
        model = self.make(rng=0).fit(self._data(tmp_path))
        other = interactions_from_scipy(
            planted_matrix(), tmp_path / "other", item_ids=np.arange(N_ITEMS) + 1
        )
        expect(MismatchError, "item vocabularies", lambda: model.check_belongs(other))

    def test_same_seed_same_scores_however_blocks_are_cut(self, tmp_path: Path) -> None:
        """Bit for bit on one store; to rounding where blocks are cut otherwise."""
        whole = self._data(tmp_path)
        with mock.patch.object(memory, "LEAST_BLOCK_CELLS", 50):
            cut = interactions_from_scipy(planted_matrix(), tmp_path / "cut")
        assert len(cut.cuts("user_items")) > len(whole.cuts("user_items"))
        first, second, third = (
            self.make(rng=7).fit(data).scoring_vectors() for data in (whole, whole, cut)
        )
        for one, two, three in zip(first, second, third, strict=True):
            assert np.array_equal(one, two)
            assert np.allclose(one, three, rtol=1e-4, atol=1e-5)


class StoreSuite:
    """What holds for every store; a subclass may write elsewhere by overriding :meth:`place`."""

    def place(self, tmp_path: Path) -> str:
        """Return a place that is not there yet."""
        return str(tmp_path / "store")

    def write(self, url: str, matrix: Any, **options: Any) -> Interactions:
        """Write a matrix."""
        return interactions_from_scipy(matrix, url, **options)

    def test_both_orientations_hold_what_was_written(self, tmp_path: Path) -> None:
        """Cells, shape and both kinds of ids come out as they went in."""
        matrix = planted_matrix(rng=5)
        kinds: list[Ids] = [np.arange(N_ITEMS) * 7 - 9, np.array([f"i{n}" for n in range(60)])]
        for number, ids in enumerate(kinds):
            url = f"{self.place(tmp_path)}-{number}"
            self.write(url, matrix, item_ids=ids)
            read = open_interactions(url)
            assert _same(read.to_scipy(), matrix)
            turned = read.read_rows("item_users", 0, N_ITEMS).to_scipy()
            assert _same(turned, matrix.T)
            assert read.item_ids.ids.tolist() == ids.tolist()

    def test_a_taken_place_is_refused_and_stays(self, tmp_path: Path) -> None:
        """Overwriting must be asked for."""
        url = self.place(tmp_path)
        first = self.write(url, planted_matrix(rng=1))
        expect(InputError, "overwrite=True", lambda: self.write(url, planted_matrix(rng=2)))
        assert _same(open_interactions(url).to_scipy(), first.to_scipy())
        self.write(url, planted_matrix(rng=2), overwrite=True)
        assert _same(open_interactions(url).to_scipy(), planted_matrix(rng=2))

    def test_unfinished_writing_is_no_store(self, tmp_path: Path) -> None:
        """Before a commit there is nothing to read; abandoned, nothing is left."""
        url = self.place(tmp_path)
        draft = store.Draft(url, INTERACTIONS_KIND)
        expect(StoreError, "unfinished", lambda: open_interactions(url))
        draft.abandon()
        expect(StoreError, "is not there", lambda: open_interactions(url))

    def test_a_failed_overwrite_leaves_the_state_before(self, tmp_path: Path) -> None:
        """What was readable stays so until the new version is whole."""
        url = self.place(tmp_path)
        self.write(url, planted_matrix(rng=1))
        draft = store.Draft(url, INTERACTIONS_KIND, overwrite=True)
        assert _same(open_interactions(url).to_scipy(), planted_matrix(rng=1))
        draft.abandon()
        assert _same(open_interactions(url).to_scipy(), planted_matrix(rng=1))
