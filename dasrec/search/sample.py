"""Samples of users, and parameters that mean on them what they mean on the whole."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import singledispatch
from typing import Any

import numpy as np
from sklearn.base import clone

from dasrec.kernels.hashing import cell_uniform
from dasrec.models import Biases, ImplicitALS, Model
from dasrec.split import Split
from dasrec.typing import Bools, Ints, Longs


@dataclass(frozen=True)
class UserSample:
    """The interactions of a random share of the users."""

    seed: int
    share: float
    needs_timestamp = False

    def __call__(self, users: Ints, items: Ints, timestamps: Longs | None) -> Bools:
        """Mark them."""
        return np.asarray(cell_uniform(self.seed, users) < self.share)

    def describe(self) -> dict[str, Any]:
        """Return the seed and the share."""
        return {"mask": "UserSample", "seed": self.seed, "share": self.share}


def sample_users(split: Split, share: float, *, seed: int) -> Split:
    """Return the split of some users alone, lazily; the same on any cluster."""
    # a split may have been drawn with the same seed, and must say nothing of this draw
    key = int(np.random.SeedSequence([seed, 1]).generate_state(1, np.uint64)[0] >> 2)
    mask = UserSample(key, share)
    train, seen, test = (view.where(mask) for view in (split.train, split.seen, split.test))
    return replace(split, train=train, seen=seen, test=test)


def for_sample[M: Model](model: M, *, share: float, item_counts: Longs, n_users: int) -> M:
    """Return the unfitted model that is on a sample of users what ``model`` is on all of them.

    Parameters
    ----------
    model : Model
    share : float
        Of the users; the others have empty rows, the shape of the matrix stays.
    item_counts : int64, shape (n_items,)
        Interactions of each item with all users.
    n_users : int

    Notes
    -----
    Let f be the share. Sums over users, and so the loss and the penalty of the users, become f
    times as large. So that the same factors are best, the penalty of the items has to as well.

    :class:`dasrec.ImplicitALS` weighs the factors of an item that n users have by
    B(n) = (n + a n_users)^e, with a ``unobserved_weight`` and e the exponent; in the sample by
    B(f n), which is not f B(n). With strengths l for users and m for items, factors x, y and c x,
    y / c give the same scores, and the best c makes of both penalties 2 sqrt(l m P Q), P and Q
    being the sums: their product l m alone counts, and one ``regularization`` r stands for both.
    The sample needs r'^2 B(f n) = f r^2 B(n):

        r' = r sqrt(f sum_i n_i B(n_i) / sum_i n_i B(f n_i))

    where B(n) / B(f n) is not the same for all items, and their interactions weigh them. That is
    r sqrt(f) at e = 0, and nearly so where few users have an item and a is not small; r at e = 1
    and a = 0.

    :class:`dasrec.ALS` weighs an item by n, which becomes f n: nothing changes. Of
    :class:`dasrec.Biases` ``item_damping``, which is compared with n, becomes f times as large.
    Other models stay as they are; :func:`scaled_parameters` is where a class says what it needs.
    """
    changes = scaled_parameters(model, share=share, item_counts=item_counts, n_users=n_users)
    fresh: M = clone(model).set_params(**changes)
    return fresh


@singledispatch
def scaled_parameters(model: Model, **facts: Any) -> dict[str, float]:
    """Return what changes for a sample; ``scaled_parameters.register`` adds a kind of model."""
    return {}


@scaled_parameters.register
def _(model: ImplicitALS, *, share: float, item_counts: Longs, n_users: int) -> dict[str, float]:
    shift, exponent = model.unobserved_weight * n_users, model.regularization_exponent
    counts = item_counts[item_counts > 0].astype(np.float64)
    whole = counts @ (counts + shift) ** exponent
    sample = counts @ (share * counts + shift) ** exponent
    factor = share * whole / sample if len(counts) else share
    return {"regularization": model.regularization * float(np.sqrt(factor))}


@scaled_parameters.register
def _(model: Biases, *, share: float, item_counts: Longs, n_users: int) -> dict[str, float]:
    return {"item_damping": share * model.item_damping}
