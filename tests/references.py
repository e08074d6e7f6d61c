"""Slow twins of what dasrec computes: plain loops and dense float64, right at first sight."""

from __future__ import annotations

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd
from scipy import optimize, sparse

LARGEST = float(np.finfo(np.float32).max)


# -- ingest ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Event:
    """One raw row of a log, as text; None where nothing stands."""

    user: str | None
    item: str | None
    value: str | None = "1"
    timestamp: str | None = "0"


@dataclass(frozen=True)
class Cell:
    """What is kept of one user with one item."""

    value: float
    micros: int


@dataclass(frozen=True)
class Ingested:
    """What a store must hold, and its audit as (rows in, rows out) of each step."""

    user_ids: list[Hashable]
    item_ids: list[Hashable]
    cells: dict[tuple[Hashable, Hashable], Cell]
    audit: list[tuple[int, int]]

    def matrix(self) -> np.ndarray[Any, Any]:
        """Return users x items, float32, zero where nothing is stored."""
        dense = np.zeros((len(self.user_ids), len(self.item_ids)), np.float32)
        for (user, item), cell in self.cells.items():
            dense[self.user_ids.index(user), self.item_ids.index(item)] = cell.value
        return dense


def parse_value(text: str | None) -> float | None:
    """Return a number that float32 can hold, else None."""
    try:
        number = float("" if text is None else text)
    except ValueError:
        return None
    return number if abs(number) <= LARGEST else None


def parse_micros(text: str | None) -> int | None:
    """Return microseconds since 1970 of seconds or an ISO 8601 date; None if unknown or before."""
    if text is None or text == "":
        return None
    try:
        seconds = float(text)
    except ValueError:
        moment = pd.to_datetime(text, errors="coerce", utc=True)
        micros = None if pd.isna(moment) else round(moment.timestamp() * 1e6)
    else:
        micros = round(seconds * 1e6) if math.isfinite(seconds) else None
    return micros if micros is not None and 0 <= micros < 2**62 else None


def ingest(
    log: Sequence[Event],
    *,
    dedupe: str = "last",
    min_user: int = 1,
    min_item: int = 1,
    value_range: tuple[float, float] | None = None,
    max_user: int | None = None,
    whole_ids: bool = False,
) -> Ingested:
    """Clean a log row by row, dropping what is bad, and keep one cell of each user and item."""
    counts = [len(log)]
    rows = [row for row in log if row.user]
    counts.append(len(rows))
    rows = [row for row in rows if row.item]
    counts.append(len(rows))
    rows = [row for row in rows if parse_value(row.value) is not None]
    counts.append(len(rows))
    rows = [row for row in rows if parse_micros(row.timestamp) is not None]
    counts.append(len(rows))
    if value_range is not None:
        low, high = value_range
        rows = [row for row in rows if low <= float(str(row.value)) <= high]
        counts.append(len(rows))
    if max_user is not None:
        events = Counter(row.user for row in rows)
        rows = [row for row in rows if events[row.user] <= max_user]
        counts.append(len(rows))
    runs: dict[tuple[Hashable, Hashable], list[Cell]] = defaultdict(list)
    for row in rows:
        pair = (int(row.user), int(row.item)) if whole_ids else (row.user, row.item)
        cell = Cell(float(np.float32(float(str(row.value)))), parse_micros(row.timestamp) or 0)
        runs[pair].append(cell)
    cells = {pair: keep_one(run, dedupe) for pair, run in runs.items()}
    counts.append(len(cells))
    cells = k_core(cells, min_user=min_user, min_item=min_item)
    counts.append(len(cells))
    return Ingested(
        sorted({user for user, _ in cells}),
        sorted({item for _, item in cells}),
        cells,
        [(counts[0], counts[0]), *itertools.pairwise(counts)],
    )


def keep_one(run: Sequence[Cell], dedupe: str) -> Cell:
    """Make one cell of several, which come in order of arrival."""
    by_time = sorted(run, key=lambda cell: cell.micros)  # stable: ties stay as they arrived
    values = [cell.value for cell in by_time]
    value = {
        "first": values[0],
        "last": values[-1],
        "max": max(values),
        "sum": math.fsum(values),
        "mean": math.fsum(values) / len(values),
    }[dedupe]
    kept = by_time[0 if dedupe == "first" else -1]
    return Cell(float(np.float32(value)), kept.micros)


def k_core(
    cells: dict[tuple[Hashable, Hashable], Cell], *, min_user: int, min_item: int
) -> dict[tuple[Hashable, Hashable], Cell]:
    """Remove rare users and items, one at a time, until none is left."""
    cells = dict(cells)
    while True:
        users, items = defaultdict(int), defaultdict(int)
        for user, item in cells:
            users[user] += 1
            items[item] += 1
        rare = [
            (user, item) for user, item in cells if users[user] < min_user or items[item] < min_item
        ]
        if not rare:
            return cells
        gone = rare[0]
        by_user = users[gone[0]] < min_user
        cells = {
            pair: cell
            for pair, cell in cells.items()
            if not (pair[0] == gone[0] if by_user else pair[1] == gone[1])
        }


# -- kernels ---------------------------------------------------------------------------------------


def counting_sort(keys: Sequence[int], n_keys: int) -> tuple[list[int], list[int]]:
    """Sort stably; say where each key begins."""
    order = sorted(range(len(keys)), key=lambda place: keys[place])
    return order, [sum(key < j for key in keys) for j in range(n_keys + 1)]


def cut_rows(counts: Sequence[int], target: int) -> list[int]:
    """Fill blocks with whole rows while they hold at most ``target`` cells, one row at least."""
    cuts, held, rows = [0], 0, 0
    for row, count in enumerate(counts):
        if rows and held + count > target:
            cuts.append(row)
            held, rows = 0, 0
        held, rows = held + count, rows + 1
    return [*cuts, len(counts)] if len(counts) else cuts


def solve_row(
    factors: np.ndarray[Any, Any],
    weights: np.ndarray[Any, Any],
    targets: np.ndarray[Any, Any],
    base: np.ndarray[Any, Any],
    ridge: float,
    mean: Any = 0.0,
) -> tuple[np.ndarray[Any, Any], float]:
    """Solve (V'CV + diag(base) + ridge I) x = V'Ct + ridge mean in float64.

    Return x and sum c (t - v.x)^2.
    """
    v, c, t = (np.asarray(each, np.float64) for each in (factors, weights, targets))
    system = v.T @ (c[:, None] * v) + np.diag(base.astype(np.float64) + ridge)
    x = np.linalg.solve(system, v.T @ (c * t) + ridge * np.asarray(mean, np.float64))
    return x, float((c * (t - v @ x) ** 2).sum())


def narrow_row(row: Any) -> tuple[list[int], float]:
    """Return integers of 16 bits, and the power of two that they are to be multiplied by."""
    _, exponent = math.frexp(max(map(abs, row.tolist())))
    unit = 2.0 ** max(exponent - 15, -126)
    return [max(-32767, min(32767, round(value / unit))) for value in row.tolist()], unit


def round_rows(rows: Any) -> np.ndarray[Any, Any]:
    """Return rows as :func:`narrow_row` tells them."""
    found = [(np.array(numbers), unit) for numbers, unit in map(narrow_row, rows)]
    return np.array([numbers * unit for numbers, unit in found], np.float32)


def nonnegative_row(
    factors: np.ndarray[Any, Any],
    weights: np.ndarray[Any, Any],
    targets: np.ndarray[Any, Any],
    form: np.ndarray[Any, Any],
    n_bounded: int,
) -> np.ndarray[Any, Any]:
    """Minimise sum c (t - v.x)^2 + x' form x, the first entries of x at least 0, in float64.

    By Lawson and Hanson, on the least squares stacked above a root of the form; a free entry is the
    difference of two that are bounded.
    """
    root = np.sqrt(weights.astype(np.float64))
    k = factors.shape[1]
    above = root[:, None] * factors.astype(np.float64)
    stacked = np.vstack([above, np.linalg.cholesky(form.astype(np.float64)).T])
    goal = np.concatenate([root * targets, np.zeros(k)])
    found, _ = optimize.nnls(np.hstack([stacked, -stacked[:, n_bounded:]]), goal)
    found[n_bounded:k] -= found[k:]
    return np.asarray(found[:k])


def sweep_row(
    factors: np.ndarray[Any, Any],
    weights: np.ndarray[Any, Any],
    targets: np.ndarray[Any, Any],
    diagonal: np.ndarray[Any, Any],
    start: np.ndarray[Any, Any],
    cuts: Sequence[int],
) -> np.ndarray[Any, Any]:
    """Solve (V'CV + diag) x = V'Ct for one block of entries after the other, the others fixed."""
    v, c = factors.astype(np.float64), weights.astype(np.float64)
    system = v.T @ (c[:, None] * v) + np.diag(diagonal.astype(np.float64))
    right, x = v.T @ (c * targets), start.astype(np.float64)
    for first, stop in itertools.pairwise(cuts):
        block = slice(first, stop)
        rest = right[block] - system[block] @ x + system[block, block] @ x[block]
        x[block] = np.linalg.solve(system[block, block], rest)
    return x


def top_n(
    scores: np.ndarray[Any, Any], n: int, seen: Sequence[set[int]]
) -> tuple[list[list[int]], list[list[float]]]:
    """Sort every row in full: score descending, item ascending; seen items and -inf left out."""
    lists, values = [], []
    for row, known in zip(scores.tolist(), seen, strict=True):
        left = [
            (-score, item)
            for item, score in enumerate(row)
            if item not in known and score > -math.inf
        ]
        best = sorted(left)[:n]
        lists.append([item for _, item in best])
        values.append([-score for score, _ in best])
    return lists, values


def hits(lists: Sequence[Sequence[int]], truth: Sequence[set[int]]) -> list[list[bool]]:
    """Say for each place of each list whether its item was to be found; -1 never was."""
    return [
        [item >= 0 and item in wanted for item in row]
        for row, wanted in zip(lists, truth, strict=True)
    ]


STEP = 0x9E3779B97F4A7C15


def mix(state: int) -> int:
    """Finalise one word of SplitMix64 in whole numbers."""
    state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    state = (state ^ (state >> 27)) * 0x94D049BB133111EB % 2**64
    return state ^ (state >> 31)


def cell_uniform(seed: int, row: int, column: int | None = None) -> float:
    """Hash one cell to [0, 1) with 53 bits."""
    state = mix((mix((seed + STEP) % 2**64) + (row + 1) * STEP) % 2**64)
    if column is not None:
        state = mix((state + (column + 1) * STEP) % 2**64)
    return (state >> 11) / 2**53


def draw_others(seed: int, user: int, taken: set[int], *, n_items: int, n: int) -> list[int]:
    """Draw items that are not taken, one hash after the other, until there are n."""
    state = mix((mix((seed + STEP) % 2**64) + (user + 1) * STEP) % 2**64)
    drawn: list[int] = []
    for draw in itertools.count(1):
        if len(drawn) == min(n, n_items - len(taken)):
            return drawn
        item = (mix((state + draw * STEP) % 2**64) >> 32) * n_items >> 32
        if item not in taken and item not in drawn:
            drawn.append(item)
    raise AssertionError


# -- splits ----------------------------------------------------------------------------------------


def last_n(table: pd.DataFrame, n: int) -> pd.Series:
    """Mark the last ``n`` rows of each user who has more, by (time, item)."""
    ordered = table.sort_values(["user", "time", "item"])
    place = ordered.groupby("user").cumcount(ascending=False)
    size = ordered.groupby("user")["item"].transform("size")
    return ((place < n) & (size > n)).reindex(table.index)


def time_cut(times: np.ndarray[Any, Any], fraction: float) -> int:
    """Return the least moment up to which a share of 1 - fraction of the events happened.

    If that is the very last moment, the one microsecond before it, so that something is tested.
    """
    ordered = sorted(times.tolist())
    goal = (1 - Fraction(str(fraction))) * len(ordered)
    cut = next(time for rank, time in enumerate(ordered, 1) if rank >= goal)
    return min(cut, ordered[-1] - 1)


# -- comparing -------------------------------------------------------------------------------------


def rows_as_sets(matrix: sparse.csr_array[Any]) -> list[set[int]]:
    """Return the stored columns of each row."""
    return [
        set(matrix.indices[a:b].tolist())
        for a, b in zip(matrix.indptr[:-1], matrix.indptr[1:], strict=True)
    ]


# -- features --------------------------------------------------------------------------------------


def marks(texts: Sequence[Sequence[str] | None]) -> tuple[list[str], list[list[int]]]:
    """Return the texts that occur, ascending, and which of them each row has."""
    rows = [{each.strip() for each in row or ()} - {""} for row in texts]
    names = sorted(set().union(*rows))
    return names, [[int(name in row) for name in names] for row in rows]


def multiply(tile: Any, x: Any, c: Any, d: Any, out: Any) -> tuple[list[float], list[float]]:
    """Return V x, and ``out`` plus V' c (d - V x), cell by cell."""
    dots, found = [], [float(value) for value in out]
    for i, row in enumerate(tile):
        dots.append(sum(float(v) * float(w) for v, w in zip(row, x, strict=True)))
        weight = float(c[i]) * (float(d[i]) - dots[i])
        found = [total + weight * float(v) for total, v in zip(found, row, strict=True)]
    return dots, found
