"""Runs are where ids ascend, however they lie in chunks; ids of nobody break none."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dasrec import runs
from dasrec.forgotten import nobody
from dasrec.runs import find_runs

WHOLE = np.dtype(np.int64)


def twin(ids: list[int], chunk: int) -> tuple[list[int], list[int], list[int]]:
    """Return where runs and pieces begin and the last id of each piece, by plain loops."""
    starts: list[int] = []
    bounds: list[int] = []
    ends: list[int] = []
    last = None
    for place, id_ in enumerate(ids):
        named = id_ != -(2**63) + place
        begins = named and (last is None or id_ <= last)
        if begins:
            starts.append(place)
        if begins or (starts and place % chunk == 0):
            bounds.append(place)
            ends.append(last if last is not None else id_)
        if named:
            last = id_
        if ends:
            assert last is not None
            ends[-1] = last
    return starts, bounds, ends


@given(
    st.lists(st.integers(0, 9) | st.none(), max_size=20),
    st.integers(1, 6),
)
def test_runs_are_those_of_the_twin(drawn: list[int | None], chunk: int) -> None:
    names = nobody(np.arange(len(drawn)), WHOLE).tolist()
    ids = [names[place] if id_ is None else id_ for place, id_ in enumerate(drawn)]
    array = np.array(ids, np.int64)
    found = find_runs((array[at : at + chunk] for at in range(0, len(ids), chunk)), WHOLE)
    assert found is not None
    starts, bounds, ends = twin(ids, chunk)
    assert found.starts.tolist() == starts
    assert found.ends.tolist() == ends
    assert found.bounds(len(ids), chunk).tolist() == [*bounds, len(ids)]
    assert found.ends.dtype == np.int64


def test_a_log_is_one_run() -> None:
    text: Any = np.dtypes.StringDType()
    ids = np.array(["a", "b", "\uffff", "\U0001f600"], text)  # by code point
    found = find_runs([ids[:3], ids[3:]], ids.dtype)
    assert found is not None
    assert (found.starts.tolist(), found.ends.tolist()) == ([0], ["\uffff", "\U0001f600"])
    assert found.ends.dtype == text


def test_too_many_runs_are_none() -> None:
    falling = np.arange(runs.MOST_RUNS + 1)[::-1]
    most = find_runs([falling[1:]], WHOLE)
    assert most is not None
    assert len(most.starts) == runs.MOST_RUNS
    assert find_runs([falling], WHOLE) is None
