"""What every model can do: fit, recommend, score, save, load."""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from sklearn.base import BaseEstimator

from dasrec import blocks, files, store, versions
from dasrec.cards import card_of_model
from dasrec.checks import check_lengths
from dasrec.errors import InputError, MismatchError
from dasrec.factors import ROWS
from dasrec.interactions import Interactions
from dasrec.kernels.listing import Catalogue, as_they_are, by_length
from dasrec.kernels.topk import PANEL, rank_rows
from dasrec.lists import rows_of_users
from dasrec.memory import TILE_CELLS
from dasrec.schema import FACTOR, ITEM, ITEM_ID, MODEL_KIND, RANK, USER, USER_ID
from dasrec.sweeps import Half
from dasrec.training import Training
from dasrec.typing import Floats, Ids, Ints, Longs
from dasrec.vocabulary import Vocabulary


class Model(BaseEstimator, ABC):  # type: ignore[misc]  # scikit-learn has no types
    """Base of all models; the score of a user and an item is a dot product of two vectors.

    A subclass sets ``name`` and ``predicts_values``, learns arrays whose names end in ``_`` in
    :meth:`_learn`, and says in :meth:`lazy_vectors` how scores come of them.

    Attributes
    ----------
    user_ids_, item_ids_ : Vocabulary
        Whom and what the model knows.
    trained_on_ : dict
        The store, its state, and the masks and transforms of the view that the model was fitted on.
    """

    name: ClassVar[str]
    predicts_values: ClassVar[bool] = False
    """Whether scores are on the scale of the stored values, so that RMSE means something."""
    stepwise: ClassVar[bool] = False
    """Whether a fit goes in iterations that :class:`dasrec.Training` can watch and resume: the
    models of :mod:`dasrec.models.stepwise`."""

    user_ids_: Vocabulary
    item_ids_: Vocabulary
    trained_on_: dict[str, Any]

    def fit(
        self, interactions: Interactions, y: None = None, *, training: Training | None = None
    ) -> Self:
        """Learn from the interactions, eagerly, and return the model itself.

        Interrupted or refused, it leaves the model as it was.

        Parameters
        ----------
        interactions : Interactions
            A whole store or the ``train`` part of a split.
        y : None
            Ignored; there for scikit-learn's sake.
        training : Training, optional
            How to watch, limit, stop and keep a fit that goes in iterations; ignored by others.

        Raises
        ------
        InputError
            A parameter of the constructor is out of its range, or there is nothing to learn from.
        BudgetError
            The factors would not fit in memory; nothing was started.
        """
        self._check()
        training = training or Training()
        training.check()
        before = dict(vars(self))
        try:
            self.user_ids_ = interactions.user_ids.load()  # a model outlives its store
            self.item_ids_ = interactions.item_ids.load()
            self.trained_on_ = view_of(interactions)
            with blocks.job(f"fit {self.name}"):
                self._learn(interactions, training)
        except BaseException:
            # half of a new fit does not go with the rest of the one before
            self.__dict__ = before
            raise
        return self

    def _html_repr(self) -> str:
        # where scikit-learn's base looks for what a notebook shows
        return card_of_model(self).to_html()

    @abstractmethod
    def _check(self) -> None:
        """Refuse parameters that are out of range."""

    @abstractmethod
    def _learn(self, interactions: Interactions, training: Training) -> None:
        """Set the learned attributes."""

    @abstractmethod
    def lazy_vectors(self) -> tuple[Any, Floats]:
        """Return :meth:`scoring_vectors`, those of users as a Dask array where they are lazy."""

    def scoring_vectors(self) -> tuple[Floats, Floats]:
        """Return float32 (n_users, d) and (n_items, d) whose products are the scores."""
        users, items = self.lazy_vectors()
        return np.asarray(users), items

    def fold_in(self, interactions: Interactions) -> Floats:
        """Return scoring vectors, float32 (n_users, d), for users that training did not see."""
        self.check_belongs(interactions)
        return self.scoring_vectors()[0]

    def folding(self, interactions: Interactions) -> Half | None:
        """Describe how :meth:`fold_in` solves users, if it does so by least squares; else None."""
        del interactions
        return None

    def check_fitted(self) -> None:
        """Refuse to go on with a model that has not learned yet."""
        if not hasattr(self, "trained_on_"):
            msg = f"this {type(self).__name__} is not fitted; call fit(interactions) first"
            raise InputError(msg)

    def check_belongs(self, interactions: Interactions) -> None:
        """Refuse interactions whose ids stand for other numbers than those of the model."""
        self.check_fitted()
        for side in (USER, ITEM):
            ours, theirs = self.trained_on_[f"{side}_hash"], getattr(interactions, f"{side}_hash")
            if ours != theirs:
                msg = (
                    f"the model does not belong to {interactions.url}: their {side} vocabularies "
                    f"differ ({ours[:8]} and {theirs[:8]}); fit a model on this store"
                )
                raise MismatchError(msg)

    def recommend(
        self, user_ids: Ids, *, n: int = 10, seen: Interactions | None = None
    ) -> xr.Dataset:
        """Rank the best ``n`` items for each of some users, eagerly.

        Parameters
        ----------
        user_ids : array of ids, shape (m,)
        n : int
            Length of each list, at most the size of the catalogue.
        seen : Interactions, optional
            What is not to be recommended again.

        Returns
        -------
        xarray.Dataset
            ``item_id`` and ``score`` (float32, NaN past the end of a short list; ``item_id`` is
            then None, or -1 for integer ids), dims (user, rank), with ``user_id`` along ``user``.

        Raises
        ------
        InputError
            An id is unknown, or ``n`` is larger than the catalogue.
        """
        self.check_fitted()
        (length,) = check_lengths(n, n_items=len(self.item_ids_))
        numbers = self.user_ids_.numbers(user_ids)
        users, items = self.scoring_vectors()
        hidden = None
        if seen is not None:
            self.check_belongs(seen)
            hidden = rows_of_users(seen, numbers)
        best, scores = rank_items(users[numbers], items, length, hidden)
        none: Any = -1 if self.item_ids_.dtype == np.int64 else None
        names = np.where(best >= 0, self.item_ids_.ids[best], none)
        return xr.Dataset(
            {
                ITEM_ID: ((USER, RANK), names),
                "score": ((USER, RANK), np.where(best >= 0, scores, np.nan).astype(np.float32)),
            },
            coords={
                USER_ID: (USER, self.user_ids_.ids_of(numbers)),
                RANK: np.arange(1, length + 1),
            },
            attrs={"model": self.name},
        )

    def score(self, user_ids: Ids, item_ids: Ids) -> Floats:
        """Score pairs of a user and an item, eagerly; float32, shape (m,).

        Raises
        ------
        InputError
            An id is unknown, or there are not as many users as items.
        """
        self.check_fitted()
        rows, columns = self.user_ids_.numbers(user_ids), self.item_ids_.numbers(item_ids)
        if len(rows) != len(columns):
            msg = f"{len(rows)} users and {len(columns)} items were given; expected pairs"
            raise InputError(msg)
        users, items = self.scoring_vectors()
        return np.asarray(np.einsum("ij,ij->i", users[rows], items[columns]))

    def save(self, url: str | os.PathLike[str], *, overwrite: bool = False) -> str:
        """Write the model to a path or fsspec URL as one Zarr group, and return where.

        Raises
        ------
        InputError
            Something is there already and ``overwrite`` is False.
        DiskError
            The disk is full or may not be written; a model that was there stays readable.
        """
        self.check_fitted()
        draft = store.Draft(url, MODEL_KIND, overwrite=overwrite)
        try:
            draft.write_dataset(self._dataset())
            draft.commit(
                {
                    "model": self.name,
                    "parameters": plain(self.get_params()),
                    "trained_on": self.trained_on_,
                }
            )
        except BaseException:
            draft.abandon()
            raise
        return draft.url

    def open_saved(self, url: str | os.PathLike[str]) -> Self | None:
        """Open a model of this class where :meth:`save` has written one; None if nothing is there.

        Raises
        ------
        MismatchError
            It is a model of another class.
        """
        if not versions.list_versions(files.absolute(url)):
            return None
        pointer = versions.read_pointer(os.fspath(url), MODEL_KIND)
        if pointer.facts["model"] != self.name:
            msg = f"{url} holds a model {pointer.facts['model']!r}; expected {self.name!r}"
            raise MismatchError(msg)
        return self.opened(pointer)

    @classmethod
    def opened(cls, pointer: versions.Pointer) -> Self:
        """Open a version of a saved model; its arrays are read when they are first used."""
        model = cls(**pointer.facts["parameters"])
        with files.reaching(pointer.url):
            model._restore(store.read_dataset(pointer), pointer.facts["trained_on"])
        return model

    def _dataset(self) -> xr.Dataset:
        """Gather the learned arrays; history's variables are prefixed, its dimension is its own."""
        learned = {key: value for key, value in vars(self).items() if key.endswith("_")}
        arrays = {key: value for key, value in learned.items() if isinstance(value, xr.DataArray)}
        dataset = xr.Dataset(arrays).reset_coords(drop=True)
        for key, value in getattr(self, "history_", xr.Dataset()).items():
            dataset[f"history_{key}"] = value
        return dataset.assign_coords(
            {
                USER_ID: (USER, storable(self.user_ids_.ids)),
                ITEM_ID: (ITEM, storable(self.item_ids_.ids)),
            }
        )

    def _restore(self, dataset: xr.Dataset, trained_on: Mapping[str, Any]) -> None:
        """Set the learned attributes from what :meth:`_dataset` gave."""
        self.user_ids_ = Vocabulary(loaded(dataset[USER_ID]), USER)
        self.item_ids_ = Vocabulary(loaded(dataset[ITEM_ID]), ITEM)
        self.trained_on_ = dict(trained_on)
        history = {}
        for key, value in dataset.data_vars.items():
            if str(key).startswith("history_"):
                history[str(key).removeprefix("history_")] = value.reset_coords(drop=True)
            else:
                setattr(self, str(key), value)
        if history:
            self.history_ = xr.Dataset(history)


def rank_items(
    users: Floats, items: Floats | Catalogue, n: int, seen: tuple[Longs, Ints] | None = None
) -> tuple[Ints, Floats]:
    """Find the n best items of each user over the whole catalogue, without a users x items matrix.

    Parameters
    ----------
    users, items : float32, shapes (m, d) and (n_items, d)
        Items may be sorted already, by :func:`dasrec.kernels.listing.by_length`.
    n : int
    seen : (indptr, indices), optional
        Items to leave out, one row a user, ascending.

    Returns
    -------
    items : int32, shape (m, n), best first, equal scores by number; -1 where fewer are left
    scores : float32, shape (m, n)

    Raises
    ------
    InputError
        Vectors of users are not as long as those of items.

    Notes
    -----
    Cost: at most m n_items d multiply-adds, as :func:`dasrec.kernels.topk.rank_rows` says; 384 KiB
    of working memory, and a copy of items that are not sorted. The list of a user is the same, bit
    for bit, whoever else is ranked beside.
    """
    if isinstance(items, tuple):
        catalogue = items
    else:  # for a few users to sort takes longer
        items = np.asarray(items, np.float32)
        catalogue = by_length(items) if len(users) > PANEL else as_they_are(items)
    if users.shape[1] != (d := catalogue[0].shape[1]):
        msg = f"users have {users.shape[1]} factors and items {d}; expected as many"
        raise InputError(msg)
    nothing = np.zeros(len(users) + 1, np.int64), np.empty(0, np.int32)
    indptr, indices = nothing if seen is None else seen
    users = np.ascontiguousarray(users, np.float32)
    best, found = np.empty((len(users), n), np.float32), np.empty((len(users), n), np.int32)
    tile = max(1, TILE_CELLS // max(1, d))
    for top in range(0, len(users), 2 * tile):
        rows = slice(top, top + 2 * tile)
        known = indptr[top : top + 2 * tile + 1]
        found[rows], best[rows] = rank_rows(users[rows], catalogue, known, indices, n, tile)
    return found, best


def view_of(interactions: Interactions) -> dict[str, Any]:
    """Return JSON-able facts that identify a store's state and a view of it."""
    return {
        "store": interactions.url,
        "state": interactions.state,
        "user_hash": interactions.user_hash,
        "item_hash": interactions.item_hash,
        "masks": [mask.describe() for mask in interactions.masks],
        "transforms": [transform.describe() for transform in interactions.transforms],
    }


def label(values: NDArray[Any], *dims: str) -> xr.DataArray:
    """Name the dimensions of a learned array."""
    return xr.DataArray(values, dims=dims)


def label_factors(values: Any, side: str, vocabulary: Vocabulary) -> xr.DataArray:
    """Label a factor matrix: dims (side, factor), ids along the side."""
    name = USER_ID if side == USER else ITEM_ID
    array = xr.DataArray(values, dims=(side, FACTOR), coords={name: (side, vocabulary.ids)})
    array.encoding["chunks"] = min(ROWS, len(array)), array.shape[1]  # rows are read alone
    return array


def storable(ids: Ids) -> Ids:
    """Return ids in a type that Zarr stores: int64, or NumPy's variable-width strings."""
    return ids if ids.dtype == np.int64 else ids.astype(np.dtypes.StringDType())


def loaded(ids: xr.DataArray) -> Ids:
    """Return stored ids in memory as int64 or str objects."""
    return ids.values if ids.dtype.kind == "i" else ids.values.astype(object)


def plain(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters in JSON's types; a generator is none, its seed is learned."""
    return {
        key: None if isinstance(value, np.random.Generator) else json.loads(json.dumps(value))
        for key, value in parameters.items()
    }
