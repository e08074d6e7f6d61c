"""A model as scikit-learn's tools know estimators: rows are cells of a store."""

from __future__ import annotations

from typing import Self

import numpy as np
from sklearn.base import BaseEstimator, clone

from dasrec import blocks
from dasrec.errors import InputError
from dasrec.evaluate import holdout
from dasrec.interactions import Interactions
from dasrec.kernels.csr import rows_of
from dasrec.models import Model
from dasrec.schema import USER_ITEMS
from dasrec.split import Split, split_listed
from dasrec.typing import Longs, Side


class RankingEstimator(BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Let scikit-learn and dask-ml search and cross-validate a model, as an estimator of cells.

    ``X`` are cells of a store, so that tools which take rows of it make splits. No cell is copied.

    Parameters
    ----------
    model : Model
        Its parameters are ``model__factors`` and so on.
    interactions : Interactions
        Where the cells are.
    metric : str
        What :meth:`score` returns, as :func:`dasrec.holdout` takes it.
    tested : int
        Of how many users at most.

    Attributes
    ----------
    model_ : Model
        The fitted one.

    Notes
    -----
    A fit takes one thread, so that it may itself be a task of ``dask_ml.model_selection``'s or
    joblib's. :func:`dasrec.search` needs no array of all cells and trains nothing twice.
    """

    model_: Model

    def __init__(
        self,
        model: Model,
        interactions: Interactions,
        *,
        metric: str = "ndcg@10",
        tested: int = 2000,
    ) -> None:
        self.model = model
        self.interactions = interactions
        self.metric = metric
        self.tested = tested

    def fit(self, X: Longs, y: None = None) -> Self:
        """Fit a copy of the model on some cells, eagerly.

        Parameters
        ----------
        X : int, shape (m, 2)
            Numbers of users and of items, as :func:`cells_of` returns; held in memory, 8 bytes
            each. Cells that the store lacks do nothing.
        y : None
            Ignored.
        """
        self.train_ = self._part(X)
        with blocks.alone():
            self.model_ = clone(self.model).fit(self.train_)
        return self

    def score(self, X: Longs, y: None = None) -> float:
        """Measure the model on some cells, which it is to find among those that it did not see."""
        if not hasattr(self, "model_"):
            msg = "this RankingEstimator is not fitted; call fit(X) first"
            raise InputError(msg)
        split = Split("cells", self.train_, self.train_, self._part(X))
        with blocks.alone():
            return holdout(split, self.metric, users=self.tested, rng=0)(self.model_)

    def _part(self, cells: Longs) -> Interactions:
        """Return the view of these cells."""
        given = np.asarray(cells)
        if given.ndim != 2 or given.shape[1] != 2 or given.dtype.kind not in "iu":
            msg = (
                f"X has shape {given.shape} and dtype {given.dtype}; expected whole numbers of "
                "users and items, shape (m, 2), as cells_of(interactions) returns"
            )
            raise InputError(msg)
        users, items = given.T
        view = self.interactions
        ids = {"user_ids": view.user_ids.ids_of(users), "item_ids": view.item_ids.ids_of(items)}
        return split_listed(view, **ids, name="cells").test


def cells_of(interactions: Interactions) -> Longs:
    """Return user and item of every interaction of a view, eagerly; int64, shape (m, 2).

    Users ascend, and the items of each. 16 bytes a cell, held in memory.
    """
    parts = interactions.map_blocks(_cells, USER_ITEMS, name="cells-block", progress=False)
    return np.concatenate(parts)


def _cells(view: Interactions, side: Side, start: int, stop: int) -> Longs:
    block = view.read_rows(side, start, stop)
    users = rows_of(block.indptr).astype(np.int64) + start
    return np.column_stack([users, block.indices.astype(np.int64)])
