"""Transforms from text retrieval: rare terms count more, repeats and long documents less."""

from __future__ import annotations

import numpy as np

from dasrec.checks import check_choice, check_number
from dasrec.errors import InputError
from dasrec.interactions import Interactions
from dasrec.normalise.base import (
    SIDE_OF,
    Cells,
    Doubles,
    Entity,
    WeightTransform,
    check_something,
    sum_rows,
)
from dasrec.schema import ITEM, USER
from dasrec.typing import Floats

_OTHER: dict[Entity, Entity] = {"user": "item", "item": "user"}


class TfIdf(WeightTransform):
    """w idf: what everyone has says less about one who has it.

    With ``by="user"`` users are the documents and items the terms:
    idf_i = ln((1 + N) / (1 + n_i)) + 1, where N users have any interaction in training and n_i of
    them have item i. Weights must be >= 0. Inverse: w' / idf.

    Parameters
    ----------
    by : {"user", "item"}
        Which side are the documents.

    Attributes
    ----------
    idf_ : float32, shape (n_terms,)

    Notes
    -----
    Salton and Buckley, "Term-weighting approaches in automatic text retrieval", Information
    Processing & Management 24, 1988, doi:10.1016/0306-4573(88)90021-0; smoothed and raised by 1 as
    in scikit-learn's ``TfidfTransformer``, so that no idf is 0.
    """

    idf_: Floats

    def __init__(self, *, by: Entity = "user") -> None:
        self.by: Entity = by

    def _check(self) -> None:
        check_choice(self.by, name="by", choices=(USER, ITEM))

    def _learn(self, interactions: Interactions) -> tuple[Entity, ...]:
        documents = interactions.counts(SIDE_OF[self.by])
        terms = interactions.counts(SIDE_OF[_OTHER[self.by]])
        n_documents = int(np.count_nonzero(documents))
        check_something(n_documents, interactions)
        self.idf_ = (np.log((1 + n_documents) / (1 + terms)) + 1).astype(np.float32)
        return (_OTHER[self.by],)

    def _idf(self, cells: Cells) -> Doubles:
        terms = cells.items if self.by == USER else cells.users
        return self.idf_[terms].astype(np.float64)

    def _forward(self, cells: Cells, weights: Doubles) -> Doubles:
        return self._nonnegative(weights) * self._idf(cells)

    def _backward(self, cells: Cells, weights: Doubles) -> Doubles:
        return weights / self._idf(cells)


class BM25(WeightTransform):
    """idf w (k1 + 1) / (w + k1 (1 - b + b L / mean L)): repeats saturate, long rows count less.

    With ``by="user"`` users are the documents and items the terms: L_u is the sum of the user's
    weights, the mean is taken over the users who have any, and
    idf_i = ln(1 + (N - n_i + 0.5) / (n_i + 0.5)) for N such users of whom n_i have item i. Users
    without training rows get the mean length. Weights must be >= 0.

    Inverse, for k1 > 0: y K / (k1 + 1 - y), with y = w' / idf and K what w is added to. The larger
    w / K is, the fewer digits of w are left; at b = 1 none are left of documents of length 0.

    Parameters
    ----------
    k1 : float, >= 0
        How late repeats saturate; at 0 only idf is left.
    b : float, 0 to 1
        How much the length matters.
    by : {"user", "item"}
        Which side are the documents.

    Attributes
    ----------
    idf_ : float32, shape (n_terms,)
    lengths_ : float32, shape (n_documents,)
        L / mean L.

    Notes
    -----
    Robertson and Zaragoza, "The probabilistic relevance framework: BM25 and beyond", 2009,
    doi:10.1561/1500000019. The idf, never negative, is that of Lucene: Kamphuis, de Vries, Boytsov
    and Lin, "Which BM25 do you mean?", ECIR 2020, doi:10.1007/978-3-030-45442-5_4.
    """

    idf_: Floats
    lengths_: Floats

    def __init__(self, *, k1: float = 1.2, b: float = 0.75, by: Entity = "user") -> None:
        self.k1 = k1
        self.b = b
        self.by: Entity = by

    def _check(self) -> None:
        check_choice(self.by, name="by", choices=(USER, ITEM))
        check_number(self.k1, name="k1", least=0)
        if check_number(self.b, name="b", least=0) > 1:
            msg = f"b is {self.b!r}; expected a number from 0 to 1"
            raise InputError(msg)

    def _learn(self, interactions: Interactions) -> tuple[Entity, ...]:
        rows = sum_rows(interactions, SIDE_OF[self.by])
        terms = interactions.counts(SIDE_OF[_OTHER[self.by]])
        n_documents, total = np.count_nonzero(rows.counts), float(rows.sums.sum())
        if total <= 0:
            msg = (
                f"the weights of {interactions.url} add up to {total:g}; expected more than 0, "
                "else documents have no length"
            )
            raise InputError(msg)
        idf = np.log1p((n_documents - terms + 0.5) / (terms + 0.5))
        lengths = np.where(rows.counts > 0, rows.sums * (n_documents / total), 1)
        self.idf_, self.lengths_ = idf.astype(np.float32), lengths.astype(np.float32)
        return "user", "item"

    def _parts(self, cells: Cells) -> tuple[Doubles, Doubles]:
        """Return idf and K of each cell."""
        documents, terms = cells.users, cells.items
        if self.by == ITEM:
            documents, terms = terms, documents
        lengths = self.lengths_[documents].astype(np.float64)
        return self.idf_[terms].astype(np.float64), self.k1 * (1 - self.b + self.b * lengths)

    def _forward(self, cells: Cells, weights: Doubles) -> Doubles:
        idf, added = self._parts(cells)
        above = self._nonnegative(weights) > 0  # 0 / 0 if nothing is added to a weight of 0
        share = np.divide(weights, weights + added, out=np.zeros_like(weights), where=above)
        return idf * (self.k1 + 1) * share

    def _backward(self, cells: Cells, weights: Doubles) -> Doubles:
        if self.k1 == 0:
            return super()._backward(cells, weights)
        idf, added = self._parts(cells)
        gain = weights / idf
        left = self.k1 + 1 - gain
        if (left <= 0).any():
            msg = (
                "some weights are not below idf (k1 + 1), which no weight reaches; clip them, or "
                "keep the interactions as they were before BM25"
            )
            raise InputError(msg)
        return gain * added / left
