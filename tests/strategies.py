"""What is drawn: sparse matrices, dirty logs and ways to cut them; rows for the solvers."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st
from scipy import sparse

from tests.references import Event

VALUES = ("1", "2.5", "-3", "0", "0.25", "4", "1e2")
BAD_VALUES = (None, "", "nan", "inf", "-inf", "many", "1e300")
TIMES = ("0", "1", "2", "2", "3.5", "1700000000", "2024-02-29", "2024-02-29T12:30:00.5")
BAD_TIMES = (None, "", "-1", "-0.5", "yesterday", "nan", "inf", "1969-12-31", "1e300")
WHOLE_IDS = ("0", "1", "2", "10", "-7", "9007199254740993", "-123456789012345678")
TEXT_IDS = ("a", "b", "B", "007", "7", " a", "ä", "\U0001f600", "\uffff", "a b", "NaN", "null")


@st.composite
def sparse_matrices(
    draw: st.DrawFn, *, rows: int = 8, columns: int = 8, least: int = 0
) -> sparse.csr_array[np.float32]:
    """Draw a canonical CSR matrix with up to ``rows`` x ``columns``; empty rows are likely."""
    n_rows, n_columns = draw(st.integers(least, rows)), draw(st.integers(1, columns))
    held = st.sets(st.integers(0, n_columns - 1))
    found = [sorted(draw(held)) for _ in range(n_rows)]
    indices = [column for row in found for column in row]
    # quarters: sums of them are exact, so that twins can be compared bit by bit
    quarters = draw(st.lists(st.integers(-40, 40), min_size=len(indices), max_size=len(indices)))
    return sparse.csr_array(
        (
            np.array(quarters, np.float32) / 4,
            np.array(indices, np.int32),
            np.cumsum([0, *map(len, found)], dtype=np.int32),
        ),
        shape=(n_rows, n_columns),
    )


@st.composite
def dirty_logs(draw: st.DrawFn, *, whole_ids: bool, most: int = 40) -> list[Event]:
    """Draw a log with repeats, equal times, gaps and nonsense; some are clean."""
    ids = st.sampled_from(WHOLE_IDS if whole_ids else TEXT_IDS)
    clean = st.builds(Event, ids, ids, st.sampled_from(VALUES), st.sampled_from(TIMES))
    gaps = st.none() | st.just("")
    dirty = st.one_of(
        st.builds(Event, gaps, ids),
        st.builds(Event, ids, gaps),
        st.builds(Event, ids, ids, st.sampled_from(BAD_VALUES)),
        st.builds(Event, ids, ids, st.sampled_from(VALUES), st.sampled_from(BAD_TIMES)),
        st.builds(Event, gaps, gaps, st.sampled_from(BAD_VALUES), st.sampled_from(BAD_TIMES)),
    )
    # one of each kind first, so that a small log has two users and two items more often than not
    rows = draw(st.lists(clean, min_size=4, max_size=most))
    some = draw(st.lists(dirty, max_size=8))
    return draw(st.permutations(rows + some))


@st.composite
def cuts(draw: st.DrawFn, n: int, *, most: int = 5) -> list[int]:
    """Draw where ``n`` rows are cut into two to ``most`` parts; parts may be empty."""
    inner = draw(st.lists(st.integers(0, n), min_size=1, max_size=most - 1))
    return [0, *sorted(inner), n]


def draw_rows(counts: list[int], k: int, *, seed: int = 0) -> dict[str, Any]:
    """Return least squares for rows with these numbers of cells, as solvers take them."""
    draw = np.random.default_rng(seed)
    n_columns = max([*counts, 1]) + 3
    indices = [np.sort(draw.choice(n_columns, n, replace=False)) for n in counts]
    n = sum(counts)
    return {
        "indptr": np.cumsum([0, *counts], dtype=np.int64),
        "indices": np.concatenate([*indices, np.empty(0)]).astype(np.int32),
        "weights": draw.uniform(0.1, 3, n).astype(np.float32),
        "targets": draw.normal(size=n).astype(np.float32),
        "factors": draw.normal(size=(n_columns, k)).astype(np.float32),
        "base": draw.uniform(0, 2, k).astype(np.float32),
        "ridge": draw.uniform(0.5, 2, len(counts)).astype(np.float32),
    }
