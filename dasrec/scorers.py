"""Whatever ranks items for users: vectors of a model, lists in Parquet, functions; and samples."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from dasrec import blocks
from dasrec.checks import check_count, seed_of
from dasrec.errors import InputError
from dasrec.factors import LazyRows
from dasrec.interactions import Interactions
from dasrec.kernels.csr import indptr_of, rows_of
from dasrec.kernels.hashing import draw_others, seed_word
from dasrec.kernels.listing import Catalogue, by_length
from dasrec.kernels.topk import score_cells, select_cells, select_rows
from dasrec.lists import Rows, read_lists, unseen
from dasrec.memory import LISTED_CELLS, SCORE_CELLS, block_cells, check_fits, listed_users
from dasrec.models.base import Model, rank_items
from dasrec.plan import Plan, room
from dasrec.schema import USER_ITEMS
from dasrec.typing import Floats, Ints, Rng

SAMPLED_BIAS = (
    "ranks are among a sample of the items: figures are higher than over the whole catalogue, and "
    "models may come in another order (Krichene and Rendle, KDD 2020, doi:10.1145/3394486.3403226)"
)

_CELL_BYTES = 64  # of a block that is being read, tested and seen
_LISTED_BYTES = 40  # of a place of a list, with what metrics make of it


@runtime_checkable
class Scorer(Protocol):
    """What can be evaluated. On a cluster of processes it must pickle."""

    @property
    def name(self) -> str:
        """How results call it."""
        ...

    def rank(self, users: Ints, n: int, seen: Rows) -> Ints:
        """Return the n best items of each user that are not seen, best first.

        Parameters
        ----------
        users : int32, shape (m,): numbers
        n : int
        seen : (indptr, indices), int64 and int32: one row a user, ascending

        Returns
        -------
        int32, shape (m, n), -1 where fewer are left
        """
        ...


@dataclass(frozen=True, eq=False)
class Vectors:
    """Scores that are products of two vectors.

    Attributes
    ----------
    users, items : float32, shapes (n_users, d) and (n_items, d)
        Those of users may be :class:`dasrec.factors.LazyRows`: a task reads its own.
    name : str
    """

    users: Floats | LazyRows = field(repr=False)
    items: Floats = field(repr=False)
    name: str

    @classmethod
    def of(cls, users: Any, items: Floats, name: str) -> Self:
        """Make them of what :meth:`dasrec.Model.lazy_vectors` returns."""
        return cls(users if isinstance(users, np.ndarray) else LazyRows(users), items, name)

    @cached_property
    def catalogue(self) -> Catalogue:
        """The items from the longest to the shortest, once in each process."""
        return by_length(self.items)

    def best(self, users: Ints, n: int, seen: Rows) -> tuple[Ints, Floats]:
        """Return lists over the whole catalogue and their scores, as :func:`rank_items`."""
        return rank_items(self.users[users], self.catalogue, n, seen)

    def rank(self, users: Ints, n: int, seen: Rows) -> Ints:
        """Return lists over the whole catalogue."""
        return self.best(users, n, seen)[0]

    def score(self, users: Ints, cells: Rows) -> Floats:
        """Return the score of each of a few items of each user, float32."""
        some = np.ascontiguousarray(self.users[users])
        return np.asarray(score_cells(some, self.items, *cells))


@dataclass(frozen=True, eq=False)
class Function:
    """A function of users' numbers that gives all scores, or lists.

    Attributes
    ----------
    function : callable
        Takes int32, shape (m,), and returns float (m, n_items), the larger the better, or integer
        (m, any length): items best first, -1 for none.
    n_items : int
    name : str
    """

    function: Callable[[Ints], NDArray[Any]]
    n_items: int
    name: str

    def rank(self, users: Ints, n: int, seen: Rows) -> Ints:
        """Return what the function gives, without what is seen."""
        lists = [np.empty((0, n), np.int32)]
        for rows, found in self._ask(users):
            known = seen[0][rows.start : rows.stop + 1], seen[1]
            if found.dtype.kind == "f":
                lists.append(select_rows(found.astype(np.float32, copy=False), *known, n)[0])
            else:
                ends = np.arange(len(found) + 1) * found.shape[1]
                flat = found.astype(np.int32).ravel()
                lists.append(unseen(flat, (ends[:-1], ends[1:]), known, n, users[rows]))
        return np.concatenate(lists)

    def score(self, users: Ints, cells: Rows) -> Floats:
        """Return the score of each of a few items of each user, float32."""
        scores = np.empty(len(cells[1]), np.float32)
        for rows, found in self._ask(users):
            if found.dtype.kind != "f":
                raise InputError(_no_scores(self.name))
            part = cells[0][rows.start : rows.stop + 1]
            items = cells[1][part[0] : part[-1]]
            scores[part[0] : part[-1]] = found[rows_of(part - part[0]), items]
        return scores

    def _ask(self, users: Ints) -> Iterator[tuple[slice, NDArray[Any]]]:
        """Yield some rows, and what the function gives for them."""
        height = max(1, SCORE_CELLS // self.n_items)
        for top in range(0, len(users), height):
            rows = slice(top, min(top + height, len(users)))
            found = np.asarray(self.function(users[rows]))
            n = rows.stop - top
            scores = found.dtype.kind == "f" and found.shape == (n, self.n_items)
            lists = found.dtype.kind in "iu" and found.ndim == 2 and len(found) == n
            if not scores and not lists:
                msg = (
                    f"{self.name} returned {found.dtype} of shape {found.shape} for {n} users; "
                    f"expected scores, float of shape {(n, self.n_items)}, or lists of item "
                    f"numbers, integers of shape ({n}, length)"
                )
                raise InputError(msg)
            if lists and found.size and not -1 <= found.min() <= found.max() < self.n_items:
                msg = (
                    f"{self.name} listed items from {found.min()} to {found.max()}; expected "
                    f"numbers from 0 to {self.n_items - 1}, or -1 for none"
                )
                raise InputError(msg)
            yield rows, found


@dataclass(frozen=True, eq=False)
class Among:
    """A scorer whose lists rank what is to be found and a sample of other items.

    Attributes
    ----------
    scorer : Scorer with a method ``score``
    n_items, negatives, seed : int
    """

    scorer: Any
    n_items: int
    negatives: int
    seed: int

    @property
    def name(self) -> str:
        """That of the scorer."""
        return str(self.scorer.name)

    @property
    def facts(self) -> dict[str, Any]:
        """What results say of it."""
        return {"sampled": self.negatives, "sampled_seed": self.seed, "sampled_bias": SAMPLED_BIAS}

    def score(self, users: Ints, cells: Rows) -> Floats:
        """Return the score of each of a few items of each user, float32."""
        return np.asarray(self.scorer.score(users, cells))

    def rank_among(self, users: Ints, n: int, seen: Rows, truth: Rows) -> Ints:
        """Return the lists, int32, shape (m, n)."""
        key = seed_word(self.seed)
        indptr, others = draw_others(key, users, seen, truth, self.n_items, self.negatives)
        rows = np.concatenate([rows_of(truth[0]), rows_of(indptr)])
        items = np.concatenate([truth[1], others])
        order = np.lexsort((items, rows))
        cells = indptr_of(np.bincount(rows, minlength=len(users))), items[order]
        return np.asarray(select_cells(self.score(users, cells), *cells, n)[0])


@dataclass(frozen=True, eq=False)
class Sampled:
    """Something to be evaluated among a few items of each user, not over the whole catalogue.

    Each list ranks what is to be found and ``negatives`` other items that the user has not seen,
    drawn by seed and user alone. Figures are biased, and results say so in their attributes: where
    the whole catalogue can be ranked, rank it.

    Parameters
    ----------
    ranked : Model, function, or Scorer that has a method ``score`` too
    negatives : int
    rng : int, numpy.random.Generator or None

    Notes
    -----
    Cost: some (negatives + truth) d multiply-adds a user. Krichene and Rendle, "On sampled metrics
    for item recommendation", KDD 2020, doi:10.1145/3394486.3403226.
    """

    ranked: Any
    negatives: int = 100
    rng: Rng = 0

    def over(self, scorer: Any, n_items: int) -> Among:
        """Return the scorer that ranks samples of a catalogue by the scores of another.

        Raises
        ------
        InputError
            It gives none, or ``negatives`` is no number of items.
        """
        if not hasattr(scorer, "score"):
            raise InputError(_no_scores(scorer.name))
        n = check_count(self.negatives, name="negatives")
        return Among(scorer, n_items, n, seed_of(self.rng))


Rankable = Model | Scorer | Sampled | Callable[[Ints], NDArray[Any]] | str | os.PathLike[str]
"""What :func:`dasrec.evaluate` takes."""


def model_of(given: Rankable) -> Model | None:
    """Return the model that ranks, also in a sample; None if it is something else."""
    while isinstance(given, Sampled):
        given = given.ranked
    return given if isinstance(given, Model) else None


def scorer_of(given: Any, interactions: Interactions) -> Any:
    """Return a :class:`Scorer` of what is neither a model nor :class:`Sampled`.

    Raises
    ------
    InputError
        It cannot rank, or is no place of lists.
    """
    if isinstance(given, (str, os.PathLike)):
        return read_lists(given, interactions)
    if isinstance(given, Scorer):
        return given
    if callable(given):
        name = getattr(given, "__name__", type(given).__name__)
        return Function(given, interactions.n_items, name)
    msg = (
        f"{type(given).__name__} cannot be evaluated; expected a model, a folder of lists, a "
        "function of users' numbers, or an object with a name and a method rank(users, n, seen)"
    )
    raise InputError(msg)


@dataclass(frozen=True, repr=False)
class RankPlan(Plan):
    """What :func:`plan_ranking` foresees.

    Attributes
    ----------
    n_tasks : int
        Blocks of users.
    shared_bytes : int
        Vectors or lists, once in each process.
    task_bytes : int
        What a task holds beside them: it does not grow with the number of users.
    peak_bytes, limit_bytes : int
        Most resident memory of this process, or of each worker, and what ``memory`` allows, or
        what there is.
    """

    n_tasks: int
    shared_bytes: int
    task_bytes: int
    peak_bytes: int
    limit_bytes: int


def plan_ranking(
    interactions: Interactions, *, factors: int, n: int = 10, memory: str | int | None = None
) -> RankPlan:
    """Foresee tasks and memory of evaluating a model, or of writing all its lists; nothing is read.

    Parameters
    ----------
    interactions : Interactions
    factors : int
        Length of the model's vectors.
    n : int
        Length of lists.
    memory : bytes or text like "2GB", optional
        Without it, what the machine has, or the smallest worker.

    Raises
    ------
    BudgetError
        Vectors and one block a thread need more; the message says how much.
    """
    vectors = 4 * factors * (interactions.n_users + 2 * interactions.n_items)
    return _plan(interactions, vectors, 4 * factors * listed_users(n), n, memory)


def check_room(
    scorer: Any, interactions: Interactions, n: int, *, whole_rows: bool = False
) -> RankPlan:
    """Foresee ranking by a scorer, and refuse as :func:`plan_ranking` does.

    ``whole_rows``: whether a metric looks at the scores of the whole catalogue.
    """
    inner = scorer.scorer if isinstance(scorer, Among) else scorer
    arrays = [
        each for each in getattr(inner, "__dict__", {}).values() if isinstance(each, np.ndarray)
    ]
    own, shared = 0, sum(each.nbytes for each in arrays)
    if isinstance(inner, Vectors):
        shared += inner.items.nbytes  # once more, by length
        own = 4 * inner.users.shape[1] * listed_users(n)
    if whole_rows or isinstance(inner, Function):
        own += 8 * max(SCORE_CELLS, interactions.n_items)
    return _plan(interactions, shared, own, n, None)


def _plan(
    interactions: Interactions, shared: int, own: int, n: int, memory: str | int | None
) -> RankPlan:
    base, limit, threads = room(memory)
    if blocks.active_client() is not None:
        base = 0  # what this process holds says nothing of a worker, whose limit is the least
    task = own + _CELL_BYTES * block_cells(interactions.n_stored) + _LISTED_BYTES * LISTED_CELLS
    task += 4 * (interactions.n_items + n)
    need = base + shared + threads * task
    check_fits(
        need,
        limit=limit,
        what=f"ranking {interactions.n_items:,} items for {interactions.n_users:,} users",
        remedy="use fewer threads or factors, or workers with more memory",
    )
    n_tasks = len(interactions.cuts(USER_ITEMS)) - 1
    return RankPlan(n_tasks, shared, task, need, limit)


def make_lists(scorer: Any, users: Ints, n: int, *, seen: Rows, truth: Rows) -> Ints:
    """Return the list of each user, int32, shape (m, n): over the catalogue, or among a sample."""
    if isinstance(scorer, Among):
        return scorer.rank_among(users, n, seen, truth)
    lists = np.asarray(scorer.rank(users, n, seen))
    if lists.shape != (len(users), n) or lists.dtype != np.int32:
        msg = (
            f"{scorer.name} returned {lists.dtype} of shape {lists.shape} for {len(users)} users; "
            f"expected lists of item numbers, int32 of shape {(len(users), n)}"
        )
        raise InputError(msg)
    return lists


def _no_scores(name: str) -> str:
    return (
        f"{name} gives lists, and a sample is ranked by scores of all items; evaluate it without "
        "Sampled, over the whole catalogue"
    )
