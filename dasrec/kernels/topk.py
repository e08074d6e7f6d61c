"""The n best items of every user: scores are compared where they are computed, few are kept.

Scores of a panel of users stand side by side in the lanes of vector registers, each with the n-th
best score so far of its user. What is not below goes to the user's heap. Items come from the
longest to the shortest, so that a panel is done as soon as what is left is too short.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic
from numpy.typing import NDArray

from dasrec.kernels.csr import has
from dasrec.kernels.heaps import Keys, empty_heaps, key_of, push, unpack, worst_of
from dasrec.kernels.lanes import (
    FLOAT,
    INT,
    LANES,
    VECTOR,
    WIDE,
    WORD,
    ZEROS,
    at,
    choose,
    multiply_add,
)

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]
Longs = NDArray[np.int64]

Doubles = NDArray[np.float64]

Rows = tuple[Longs, Ints]
"""Row pointer, and items ascending within a row."""

_TINY, _LARGE = 1e-38, 1e38  # below one and above the other float32 rounds otherwise

_VECTORS = 4 if WIDE else 2
_ROWS = 6  # items at a time: with so many vectors their sums just fit into the registers

PANEL = LANES * _VECTORS
"""Users whose scores of an item are computed together."""

_FLAGS = ir.IntType(LANES)


def _sums(builder: Any, users: Any, items: Any, d: Any, n_rows: int) -> list[list[Any]]:
    """Emit the loop over factors; return the scores, for each item the vectors of its panel."""
    before = builder.block
    head, body, done = (builder.append_basic_block(f"score.{name}") for name in ("p", "b", "d"))
    row_bytes = builder.mul(d, WORD(4))
    starts = [builder.add(items, builder.mul(row_bytes, WORD(row))) for row in range(n_rows)]
    builder.branch(head)
    builder.position_at_end(head)
    p = builder.phi(WORD)
    sums = [[builder.phi(VECTOR) for _ in range(_VECTORS)] for _ in range(n_rows)]
    builder.cbranch(builder.icmp_unsigned("<", p, d), body, done)
    builder.position_at_end(body)
    panel = builder.add(users, builder.mul(p, WORD(4 * PANEL)))
    lanes = [
        builder.load(at(builder, panel, WORD(4 * LANES * v), VECTOR), align=4)
        for v in range(_VECTORS)
    ]
    nothing = ir.Constant(VECTOR, ir.Undefined)
    for start, row in zip(starts, sums, strict=True):
        value = builder.load(at(builder, start, builder.mul(p, WORD(4)), FLOAT), align=4)
        one = builder.insert_element(nothing, value, INT(0))
        spread = choose(builder, one, nothing, [0] * LANES)
        for lane, total in zip(lanes, row, strict=True):
            total.add_incoming(ZEROS, before)
            total.add_incoming(multiply_add(builder, VECTOR, (spread, lane), total), body)
    p.add_incoming(WORD(0), before)
    p.add_incoming(builder.add(p, WORD(1)), body)
    builder.branch(head)
    builder.position_at_end(done)
    return sums


def _compare(builder: Any, sums: list[list[Any]], limits: Any, scores: Any, above: Any) -> Any:
    """Emit stores of all scores and of a bit for each that is above its limit; return any bit."""
    least = [
        builder.load(at(builder, limits, WORD(4 * LANES * v), VECTOR), align=4)
        for v in range(_VECTORS)
    ]
    every = WORD(0)
    for number, row in enumerate(sums):
        bits = WORD(0)
        for v, total in enumerate(row):
            place = WORD(4 * (number * PANEL + v * LANES))
            builder.store(total, at(builder, scores, place, VECTOR), align=4)
            more = builder.fcmp_ordered(">=", total, least[v])  # which nothing is that is no number
            flags = builder.zext(builder.bitcast(more, _FLAGS), WORD)
            bits = builder.or_(bits, builder.shl(flags, WORD(v * LANES)))
        builder.store(bits, at(builder, above, WORD(8 * number), WORD), align=8)
        every = builder.or_(every, bits)
    return every


def _scorer(n_rows: int) -> Any:
    """Make the function that scores ``n_rows`` items for a panel of users; all are addresses.

    ``users`` is float32 (d, PANEL), ``items`` float32 (n_rows, d), ``limits`` float32 (PANEL,).
    It sets ``scores``, float32 (n_rows, PANEL), and ``above``, a word for each item, and returns
    whether any is above. Each score is one chain of multiply-adds from the first factor to the
    last: neither the panel, nor its other users, nor ``n_rows`` changes a bit of it.
    """

    @intrinsic
    def score(_: Any, users: Any, items: Any, d: Any, limits: Any, scores: Any, above: Any) -> Any:
        def emit(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
            users, items, d, limits, scores, above = arguments
            sums = _sums(builder, users, items, d, n_rows)
            return _compare(builder, sums, limits, scores, above)

        return types.uint64(*[types.uint64] * 6), emit

    return score


def _emit_lowest(_: Any, word: Any) -> Any:
    def emit(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.IntType(1)(1))

    return types.int64(types.uint64), emit


def _emit_add_product(_: Any, total: Any, one: Any, other: Any) -> Any:
    def emit(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        return multiply_add(builder, FLOAT, (arguments[1], arguments[2]), arguments[0])

    return types.float32(types.float32, types.float32, types.float32), emit


_score_some, _score_one = _scorer(_ROWS), _scorer(1)
_lowest: Any = intrinsic(_emit_lowest)  # the number of the lowest bit of a word that is set
_add_product: Any = intrinsic(_emit_add_product)  # total + one other, rounded as in panels


@njit(cache=True, nogil=True)
def _packed(users: Floats, who: Longs) -> Floats:
    """Return users in some order by panel, (n_panels, d, PANEL), the last filled up with zeros."""
    m, d = users.shape
    panels = np.zeros(((m + PANEL - 1) // PANEL, d, PANEL), np.float32)
    for place in range(m):
        panel, lane, user = panels[place // PANEL], place % PANEL, users[who[place]]
        for p in range(d):
            panel[p, lane] = user[p]
    return panels


@njit(cache=True, nogil=True)
def _reach(users: Floats) -> Doubles:
    """Return the length of each user, and what rounding may add to a score, for lengths of 1."""
    m, d = users.shape
    reach = np.zeros(m)
    for user in range(m):
        length = np.sqrt(np.sum(users[user].astype(np.float64) ** 2))
        reach[user] = length * (1 + 1e-6 * (d + 16))
    return reach


@njit(cache=True, nogil=True)
def _is_beyond(who: Longs, first: int, limits: Floats, reach: Doubles, longest: float) -> bool:
    """Say whether no item that is at most so long gets to the limit of any user of a panel.

    Rounding is within ``reach``, but for numbers next to zero or to the largest.
    """
    for place in range(first, min(first + PANEL, who.shape[0])):
        most = reach[who[place]] * longest + _TINY
        if not most < limits[place] or not most < _LARGE:
            return False
    return True


@njit(cache=True, nogil=True)
def _by_need(heaps: Keys, reach: Doubles) -> Longs:
    """Order users by how long an item must at least be to get into their lists."""
    need = np.empty(reach.shape[0])
    for user in range(reach.shape[0]):
        need[user] = worst_of(heaps, user) / reach[user] if reach[user] > 0 else np.inf
    return np.argsort(need)


@njit(cache=True, nogil=True)
def _offer(
    above: Keys,
    scores: NDArray[np.uint32],
    at: tuple[int, Longs],
    limits: Floats,
    seen: Rows,
    heaps: Keys,
    numbers: Ints,
) -> None:
    """Give what is not below the limits to its users, unless seen; raise their limits.

    Scores are given by their bits, as :func:`key_of` takes them.
    """
    first, who = at
    for row in range(numbers.shape[0]):
        bits, item = above[row], numbers[row]
        while bits:
            lane = _lowest(bits)
            bits &= bits - np.uint64(1)
            user, key = who[first + lane], key_of(scores[row, lane], item)
            # of the items at hand one before may have raised the limit
            if key > heaps[user, 0] and not has(seen[0], seen[1], user, item):
                push(heaps, user, key)
                limits[first + lane] = worst_of(heaps, user)


@njit(cache=True, nogil=True)
def rank_rows(
    users: Floats,
    catalogue: tuple[Floats, Ints, Doubles],
    indptr: Longs,
    indices: Ints,
    n: int,
    tile: int,
) -> tuple[Ints, Floats]:
    """Find the n best items of each user among all that the user has not seen, best first.

    Parameters
    ----------
    users : float32, shape (m, d), in one piece; as many as stay in the cache beside a tile
    catalogue : from :func:`dasrec.kernels.listing.by_length` or ``as_they_are``
    indptr, indices : int64 and int32: what each user has seen, one row a user, ascending
    n : int
    tile : int
        Items that all users go through before the next: as many as stay in the cache.

    Returns
    -------
    found : int32, shape (m, n)
        Equal scores by number; -1 where fewer are left. Scores of -inf and NaN are not listed.
    best : float32, shape (m, n): their scores, -inf where none is

    Notes
    -----
    Cost: at most m n_items d multiply-adds: with items by length, a panel of users is done as soon
    as no item that is left is long enough for any of them. Teflioudi, Gemulla and Mykytiuk, "LEMP:
    fast retrieval of large entries in a matrix product", SIGMOD 2015, doi:10.1145/2723372.2747647.
    """
    items, numbers, lengths = catalogue
    m, n_items = users.shape[0], items.shape[0]
    heaps, reach, who = empty_heaps(m, n), _reach(users), np.arange(m)
    panels = _packed(users, who)
    limits = np.full(panels.shape[0] * PANEL, np.inf, np.float32)
    limits[:m] = -np.inf
    for first in range(0, n_items, tile):
        some = slice(first, min(first + tile, n_items))
        number = first // tile
        if number > 0 and number & (number - 1) == 0 and lengths[0] < np.inf:
            who = _by_need(heaps, reach)
            panels = _packed(users, who)
            for place in range(m):
                limits[place] = worst_of(heaps, who[place])
        for panel in range(panels.shape[0]):
            at = panel * PANEL
            if not _is_beyond(who, at, limits, reach, lengths[first]):
                seen = indptr, indices
                _rank_panel(
                    panels[panel], items[some], numbers[some], (at, who), limits, seen, heaps
                )
    return unpack(heaps)


@njit(cache=True, nogil=True)
def _rank_panel(
    users: Floats,
    items: Floats,
    numbers: Ints,
    at: tuple[int, Longs],
    limits: Floats,
    seen: Rows,
    heaps: Keys,
) -> None:
    """Score a tile of items for a panel, and offer what is not below its limits."""
    d, n_items = users.shape[0], items.shape[0]
    scores, above = np.empty((_ROWS, PANEL), np.uint32), np.empty(_ROWS, np.uint64)
    at_users, at_limits = np.uint64(users.ctypes.data), np.uint64(limits.ctypes.data + 4 * at[0])
    at_scores, at_above = np.uint64(scores.ctypes.data), np.uint64(above.ctypes.data)
    item = 0
    while item < n_items:
        at_items, rows = np.uint64(items.ctypes.data + 4 * item * d), 1
        if item + _ROWS <= n_items:
            rows = _ROWS
            some = _score_some(at_users, at_items, np.uint64(d), at_limits, at_scores, at_above)
        else:
            some = _score_one(at_users, at_items, np.uint64(d), at_limits, at_scores, at_above)
        if some:
            _offer(above, scores, at, limits, seen, heaps, numbers[item : item + rows])
        item += rows


@njit(cache=True, nogil=True)
def select_rows(scores: Floats, indptr: Longs, indices: Ints, n: int) -> tuple[Ints, Floats]:
    """Find the n best of given scores, float32, (m, n_items); the rest as :func:`rank_rows`."""
    m, n_items = scores.shape
    heaps, bits = empty_heaps(m, n), scores.view(np.uint32)
    for row in range(m):
        for first in range(0, n_items, 64):
            some, worst = scores[row, first : first + 64], worst_of(heaps, row)
            n_above = 0
            for score in some:  # by vectors, since nothing else is done
                n_above += score > worst
            if n_above == 0:
                continue
            for place in range(some.shape[0]):
                key = key_of(bits[row, first + place], first + place)
                if (
                    some[place] > worst
                    and key > heaps[row, 0]
                    and not has(indptr, indices, row, first + place)
                ):
                    push(heaps, row, key)
    return unpack(heaps)


@njit(cache=True, nogil=True)
def select_cells(scores: Floats, indptr: Longs, indices: Ints, n: int) -> tuple[Ints, Floats]:
    """Find the n best of a few items of each row, ascending; the rest as :func:`rank_rows`."""
    m = indptr.shape[0] - 1
    heaps, bits = empty_heaps(m, n), scores.view(np.uint32)
    for row in range(m):
        for cell in range(indptr[row], indptr[row + 1]):
            key = key_of(bits[cell], indices[cell])
            if scores[cell] > -np.inf and key > heaps[row, 0]:  # NaN is no score
                push(heaps, row, key)
    return unpack(heaps)


@njit(cache=True, nogil=True)
def score_cells(users: Floats, items: Floats, indptr: Longs, indices: Ints) -> Floats:
    """Score some items of each user, one row a user, with the bits of :func:`rank_rows`.

    Takes float32 of shapes (m, d) and (n_items, d), returns float32 (len(indices),).
    """
    scores = np.empty(indices.shape[0], np.float32)
    for row in range(indptr.shape[0] - 1):
        for cell in range(indptr[row], indptr[row + 1]):
            item, total = indices[cell], np.float32(0)
            for p in range(users.shape[1]):
                total = _add_product(total, users[row, p], items[item, p])
            scores[cell] = total
    return scores
