"""Ids that name nobody say their place, and no other id is taken for one of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dasrec.forgotten import names_somebody, nobody, places_of

PLACES = np.array([0, 1, 7, 10, 2**31 - 1])
TEXT = np.dtypes.StringDType()


@pytest.mark.parametrize("kind", [np.dtype(np.int64), np.dtype(object)])
def test_they_say_their_place(kind: np.dtype[Any]) -> None:
    names = nobody(PLACES, kind)
    assert names.dtype == kind
    stored = names if kind == np.int64 else names.astype(TEXT)
    assert places_of(stored).tolist() == PLACES.tolist()
    assert names_somebody(stored[2:3], 7).tolist() == [False]
    assert names_somebody(stored[:3], 1).tolist() == [True, True, True]
    assert names_somebody(stored[:3], 0).tolist() == [False, False, True]


def test_other_ids_say_none() -> None:
    others = ["", "\x00", "\x00forgotten-", "forgotten-1", "\x00forgotten--1", "\x00forgotten-1.0"]
    others += ["\x00forgotten-\u0661", f"\x00forgotten-{'9' * 30}", "a\x00forgotten-1"]
    assert places_of(np.array(others, TEXT)).tolist() == [-1] * len(others)
    assert places_of(np.array([0, 1, 2**63 - 1])).tolist() == [-1, -1, -1]
    # far from the least number an id says a place that no vocabulary has
    assert places_of(np.array([-1, -(2**40)])).min() > 2**31
