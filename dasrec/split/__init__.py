"""Splits into what a model may learn from and what it is tested on: masks on the store, no copy."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import islice

from dasrec.checks import check_count, seed_of
from dasrec.errors import InputError
from dasrec.interactions import Interactions
from dasrec.split.base import Part, Split
from dasrec.split.by_chance import (
    TARGETS,
    OfUsers,
    Sampled,
    split_folds,
    split_random,
    split_users,
)
from dasrec.split.by_time import After, Between, split_by_time, split_rolling
from dasrec.split.by_user import Drawn, Last, split_any_n, split_last_n
from dasrec.split.check import check_split
from dasrec.split.listed import Listed, split_listed
from dasrec.typing import Rng

__all__ = [
    "After",
    "Between",
    "Drawn",
    "Last",
    "Listed",
    "OfUsers",
    "Part",
    "Sampled",
    "Split",
    "check_split",
    "parse_split",
    "split_any_n",
    "split_by_time",
    "split_folds",
    "split_last_n",
    "split_listed",
    "split_random",
    "split_rolling",
    "split_users",
]


def parse_split(interactions: Interactions, text: str, *, rng: Rng = None) -> Split:
    """Make the split that a text names.

    Parameters
    ----------
    interactions : Interactions
    text : str
        ``time:0.2`` or ``time:2026-01-31``, ``random:0.2``, ``last:1``, ``any:1``, ``users:0.1`` or
        ``users:0.1:0.5`` (with the share of targets), ``fold:1/5``, ``rolling:1/4:7D`` (with
        ``:gap=1D``, ``:train=90D`` or ``:end=2026-01-31`` in this order). Two with a comma between
        them set a validation part aside: ``time:0.2,last:1`` is ``last:1`` of the training part of
        ``time:0.2``.
    rng : int, numpy.random.Generator or None
        For what is random.

    Raises
    ------
    InputError
        The text names no split, or the store does not have what it needs.
    """
    outer, comma, inner = text.partition(",")
    if not comma:
        return _parse(interactions, text, rng)
    if "," in inner:
        msg = f"split is {text!r}; expected two at most, one to test and one to validate"
        raise InputError(msg)
    seed = seed_of(rng)
    split = _parse(interactions, outer, seed)
    return split.with_validation(_parse(split.train, inner, seed))


def _parse(interactions: Interactions, text: str, rng: Rng) -> Split:
    kind, _, amount = text.partition(":")
    if kind not in _KINDS:
        forms = ", ".join(form for _, form in _KINDS.values())
        msg = f"split is {text!r}; expected one of {forms}, or two with a comma between them"
        raise InputError(msg)
    make, form = _KINDS[kind]
    try:
        return make(interactions, amount, rng)
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        msg = f"split is {text!r}; expected {form}"
        raise InputError(msg) from error


def _time(interactions: Interactions, amount: str, rng: Rng) -> Split:
    del rng
    if re.fullmatch(r"\d{4,}.*", amount):
        return split_by_time(interactions, since=amount)
    return split_by_time(interactions, float(amount))


def _users(interactions: Interactions, amount: str, rng: Rng) -> Split:
    share, _, targets = amount.partition(":")
    return split_users(
        interactions, float(share), targets=float(targets) if targets else TARGETS, rng=rng
    )


def _place(text: str) -> tuple[int, int]:
    """Return which of how many: 1/5."""
    number, of = map(int, text.split("/"))
    return check_count(number, name=f"the first number of {text}", most=of), of


def _fold(interactions: Interactions, amount: str, rng: Rng) -> Split:
    number, folds = _place(amount)
    return next(islice(split_folds(interactions, folds, rng=rng), number - 1, None))


_ROLLING = re.compile(r"(\d+/\d+):([^:=]+)(?::gap=([^:]+))?(?::train=([^:]+))?(?::end=(.+))?")


def _rolling(interactions: Interactions, amount: str, rng: Rng) -> Split:
    del rng
    found = _ROLLING.fullmatch(amount)
    if found is None:
        raise ValueError(amount)
    place, width, gap, train, end = found.groups()
    number, windows = _place(place)
    splits = split_rolling(interactions, windows, width=width, gap=gap, train=train, end=end)
    return next(islice(splits, number - 1, None))


_KINDS: dict[str, tuple[Callable[[Interactions, str, Rng], Split], str]] = {
    "time": (_time, "time:0.2 or time:2026-01-31"),
    "random": (lambda data, amount, rng: split_random(data, float(amount), rng=rng), "random:0.2"),
    "last": (lambda data, amount, _: split_last_n(data, int(amount)), "last:1"),
    "any": (lambda data, amount, rng: split_any_n(data, int(amount), rng=rng), "any:1"),
    "users": (_users, "users:0.1"),
    "fold": (_fold, "fold:1/5"),
    "rolling": (_rolling, "rolling:1/4:7D"),
}
