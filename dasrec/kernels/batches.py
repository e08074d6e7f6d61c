"""Mini-batches: gradients of any loss are added up over some cells; an optimizer moves rows."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from dasrec.kernels.hashing import below, word
from dasrec.kernels.rows import AHEAD, FAST, fetch
from dasrec.kernels.rule import (
    ADAGRAD,
    ADAM,
    HARD,
    LOGISTIC,
    MOMENTUM,
    PAIRS,
    POPULAR,
    SOFTMAX,
    SQUARED,
    TOP,
    Rule,
)
from dasrec.kernels.unseen import (
    Known,
    Marked,
    draw_hardest,
    draw_unseen,
    is_seen,
    mark_cells,
    score_of,
    shorten,
)

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]

Cells = tuple[Ints, Ints, Floats]
"""Rows, columns and values of the cells of one stratum, in the order in which they are taken."""

Slots = tuple[Ints, Ints, Floats]
"""Where in a batch the gradient of each row stands, or -1; whose each is; the gradients."""

FRICTION = np.float32(0.9)  # of what momentum keeps
FIRST, SECOND = np.float32(0.9), np.float32(0.999)  # what Adam keeps of both moments
LEAST = np.float32(1e-8)

_OTHERS = 1 << 10  # from which on the words of a cell draw its further items


def kept_width(optimizer: int, factors: int) -> int:
    """Return how many numbers an optimizer keeps of a vector of factors and a bias."""
    if optimizer == ADAM:
        return 2 * (factors + 1) + 1  # both moments, and how often the row has moved
    return factors + 1 if optimizer in (MOMENTUM, ADAGRAD) else 0


@njit(cache=True, nogil=True)
def _open_slots(n_rows: int, size: int, k: int) -> Slots:
    return (
        np.full(n_rows, -1, np.int32),
        np.empty(size, np.int32),
        np.zeros((size, k + 1), np.float32),
    )


@njit(cache=True, nogil=True)
def _slot(slots: Slots, row: int, n: int) -> Any:
    """Return where the gradient of a row stands: the next place of n if it has none yet."""
    places, rows, _ = slots
    if places[row] < 0:
        places[row], rows[n] = n, row
    return places[row]


@njit(cache=True, nogil=True)
def _log_counts(columns: Ints, n: int, rule: Rule) -> Floats:
    """Return the logarithm of how often each item is drawn, but for a constant."""
    found = np.zeros(n, np.float32)
    if rule.loss == SOFTMAX and rule.negatives == POPULAR:
        for column in columns:
            found[column] += np.float32(1)
        for column in range(n):
            found[column] = np.log(max(found[column], np.float32(1)))
    return found


@njit(cache=True, nogil=True)
def _draw(
    vectors: tuple[Floats, Floats],
    known: Marked,
    columns: Ints,
    row: int,
    picked: Ints,
    rule: Rule,
    draws: int,
) -> Any:
    """Draw items that a row has not, behind the one that it has; return how many there are."""
    n = 1
    for number in range(rule.samples):
        bits = draws if number == 0 else word(draws, _OTHERS + number)
        if rule.negatives == HARD:
            other = draw_hardest(vectors, known, columns, row, bits, rule.factors)
        else:
            other = draw_unseen(known, columns, row, bits, rule.negatives)
        if other >= 0:
            picked[n] = other
            n += 1
    return n


@njit(cache=True, nogil=True)
def _softplus(score: np.float32) -> Any:
    """Return log(1 + exp(score)) and its slope."""
    raised = np.exp(-abs(score))  # which does not overflow
    slope = (raised if score < 0 else np.float32(1)) / (np.float32(1) + raised)
    return np.log1p(raised) + max(score, np.float32(0)), slope


@njit(cache=True, nogil=True, fastmath=FAST)
def judge(scores: Floats, pushes: Floats, rule: Rule) -> Any:
    """Return the loss of the scores of a cell, the first of which should be high; fill its slopes.

    A push is minus the slope of the loss in a score.
    """
    n = scores.shape[0]
    if rule.loss == PAIRS:
        loss, push = _softplus(scores[1] - scores[0])
        pushes[0], pushes[1] = push, -push
        return loss
    if rule.loss == LOGISTIC:
        loss, push = _softplus(-scores[0])
        pushes[0] = push
        for j in range(1, n):
            more, push = _softplus(scores[j])
            pushes[j] = -push
            loss += more
        return loss
    top, total = scores.max(), np.float32(0)
    for j in range(n):
        pushes[j] = -np.exp(scores[j] - top)
    for j in range(n):  # by itself: see FAST
        total -= pushes[j]
    for j in range(n):
        pushes[j] /= total
    pushes[0] += np.float32(1)
    return np.log(total) + top - scores[0]


@njit(cache=True, nogil=True)
def _find_above(
    vectors: tuple[Floats, Floats],
    known: Marked,
    row: int,
    picked: Ints,
    pushes: Floats,
    rule: Rule,
    draws: int,
) -> Any:
    """Draw until an item comes too near to the first; return the loss, 0 if none does."""
    users, items = vectors
    own = score_of(users[row], items[picked[0]], rule.factors)
    for attempt in range(rule.tries):
        column = below(word(draws, attempt), known[2].shape[0])
        near = np.float32(1) - own + score_of(users[row], items[column], rule.factors)
        if near > 0 and not is_seen(known, row, column):
            rank = max(1, (rule.catalogue - 1) // (attempt + 1))
            weight = np.float32(np.log(rank + 0.5) + 0.577)
            picked[1], pushes[0], pushes[1] = column, weight, -weight
            return weight * near
    return np.float32(0)


@njit(cache=True, nogil=True, fastmath=FAST)
def _move(vector: Floats, gradient: Floats, rule: Rule) -> None:
    """Let the optimizer move one vector, and keep what it keeps behind it."""
    n, at, rate = gradient.shape[0], rule.kept, rule.rate
    if rule.optimizer == MOMENTUM:
        for p in range(n):
            vector[at + p] = FRICTION * vector[at + p] + gradient[p]
            vector[p] += rate * vector[at + p]
    elif rule.optimizer == ADAGRAD:
        for p in range(n):
            vector[at + p] += gradient[p] * gradient[p]
            vector[p] += rate * gradient[p] / (np.sqrt(vector[at + p]) + LEAST)
    elif rule.optimizer == ADAM:
        vector[at + 2 * n] += np.float32(1)
        steps = vector[at + 2 * n]
        rate /= np.float32(1) - FIRST**steps
        square = np.float32(1) - SECOND**steps
        for p in range(n):
            first, second = at + p, at + n + p
            vector[first] = FIRST * vector[first] + (np.float32(1) - FIRST) * gradient[p]
            vector[second] = (
                SECOND * vector[second] + (np.float32(1) - SECOND) * gradient[p] * gradient[p]
            )
            vector[p] += rate * vector[first] / (np.sqrt(vector[second] / square) + LEAST)
    else:
        for p in range(n):
            vector[p] += rate * gradient[p]


@njit(cache=True, nogil=True, fastmath=FAST)
def _step(vectors: Floats, slots: Slots, n: int, rule: Rule) -> None:
    """Move the rows that a batch has touched, and make its slots free."""
    places, rows, gradients = slots
    for slot in range(n):
        row = rows[slot]
        _move(vectors[row], gradients[slot], rule)
        if rule.most > 0:
            shorten(vectors[row], rule.factors, rule.most)
        gradients[slot] = 0
        places[row] = -1


@njit(cache=True, nogil=True, fastmath=FAST)
def _pull_user(gradient: Floats, x: Floats, push: np.float32, rule: Rule) -> None:
    """Add what draws a user to its centre, and the slope of its bias where it has one."""
    k, shrink = rule.factors, rule.regularization
    for p in range(k):
        centre = x[k + 1 + p] if rule.centred else np.float32(0)
        gradient[p] -= shrink * (x[p] - centre)
    if rule.loss == SQUARED and rule.biased:
        gradient[k] += push - shrink * x[k]


@njit(cache=True, nogil=True, fastmath=FAST)
def _pull_item(
    own: Floats, gradient: Floats, vectors: tuple[Floats, Floats], push: np.float32, rule: Rule
) -> None:
    """Add the gradient of one item, and what it adds to that of the user."""
    k, shrink = rule.factors, rule.regularization
    x, y = vectors
    for p in range(k):
        own[p] += push * y[p]
    if not rule.frozen:
        for p in range(k):
            gradient[p] += push * x[p] - shrink * y[p]
        if rule.biased:
            gradient[k] += push - shrink * y[k]


@njit(cache=True, nogil=True)
def descend_batches(
    cells: Cells, known: Known, users: Floats, items: Floats, rule: Rule, key: int
) -> float:
    """Go through cells by mini-batches: add up the gradients of ``batch`` of them, then step.

    The loss of a cell (u, i), with s the scores of u for i and for m items j that u has not, each
    b + x . y:

        squared    (r - offset - b_u - s_i)^2 / 2
        pairs      - log sigmoid(s_i - s_j)
        top        L(rank) max(0, 1 - s_i + s_j), as :func:`dasrec.kernels.pairwise.rank_top`
        logistic   - log sigmoid(s_i) - sum_j log sigmoid(-s_j)
        softmax    - log(exp(s_i - c_i) / (exp(s_i - c_i) + sum_j exp(s_j - c_j)))

    plus ``regularization`` / 2 times the squares of the vectors and biases that take part, once for
    each time that they do. c is the logarithm of how often an item is drawn: among ``POPULAR``
    ones that of its cells in the stratum, else 0. Then each row that the batch has touched moves
    by the sum g of minus its gradients:

        plain      x += rate g
        momentum   v = 0.9 v + g,  x += rate v
        adagrad    h += g^2,  x += rate g / sqrt(h)
        adam       m = 0.9 m + 0.1 g,  h = 0.999 h + 0.001 g^2,
                   x += rate m / (1 - 0.9^t) / sqrt(h / (1 - 0.999^t)), t counting the row's steps

    Rows that a batch does not touch do not move, and keep their v, m and h.

    Parameters
    ----------
    cells : rows, columns, int32; values, float32: all that the rows have among the columns
    known : what rows have
    users, items : float32, shapes (n_rows, d) and (n_columns, d)
        Factors, a bias, and from column ``kept`` on what the optimizer keeps; of items that are
        frozen, factors and a bias alone.
    rule : Rule
    key : int: cell c draws by the words of ``key`` and c

    Returns
    -------
    float
        Sum of the losses without regularisation, each before its step; squared errors are not
        halved. A cell for which no item was found has the loss of equal scores, and no step.

    Notes
    -----
    Cost: some 4 k multiply-adds a cell and 4 k more for each item that is drawn, and 2 k to 6 k for
    each row that a batch touches. Mikolov, Sutskever, Chen, Corrado and Dean, "Distributed
    representations of words and phrases and their compositionality", NIPS 2013, arXiv:1310.4546
    (logistic loss); Bengio and Senecal, "Adaptive importance sampling to accelerate training of a
    neural probabilistic language model", IEEE Transactions on Neural Networks 19(4), 2008,
    doi:10.1109/TNN.2007.912312, and Yi et al., "Sampling-bias-corrected neural modeling for large
    corpus item recommendations", RecSys 2019, doi:10.1145/3298689.3346996 (softmax); Duchi, Hazan
    and Singer, "Adaptive subgradient methods", JMLR 12, 2011; Kingma and Ba, "Adam: a method for
    stochastic optimization", ICLR 2015, arXiv:1412.6980.
    """
    rows, columns, _ = cells
    marked = mark_cells(known, rows, columns)
    n, k, size = rows.shape[0], rule.factors, min(rule.batch, rows.shape[0])
    user_slots = _open_slots(users.shape[0], size, k)
    item_slots = _open_slots(items.shape[0], size * (1 + rule.samples), k)
    logs = _log_counts(columns, items.shape[0], rule)
    picked = np.empty(1 + rule.samples, np.int32)
    slopes = np.empty((2, 1 + rule.samples), np.float32)
    scratch = (logs, picked, slopes[0], slopes[1])
    total, vectors, n_users, n_items = 0.0, (users, items), 0, 0
    for c in range(n):
        if c + AHEAD < n:
            fetch(users, rows[c + AHEAD])
            fetch(items, columns[c + AHEAD])
        picked[0] = columns[c]
        found, loss = _look(cells, c, vectors, marked, scratch, rule, key)
        total += loss
        if found:
            x = users[rows[c]]
            slot = _slot(user_slots, rows[c], n_users)
            n_users = max(n_users, slot + 1)
            own = user_slots[2][slot]
            for j in range(found):
                slot = _slot(item_slots, picked[j], n_items)
                n_items = max(n_items, slot + 1)
                _pull_item(own, item_slots[2][slot], (x, items[picked[j]]), slopes[0, j], rule)
            _pull_user(own, x, slopes[0, 0], rule)
        if (c + 1) % rule.batch == 0 or c + 1 == n:
            _step(users, user_slots, n_users, rule)
            if not rule.frozen:
                _step(items, item_slots, n_items, rule)
            else:
                item_slots[0][item_slots[1][:n_items]] = -1
            n_users = n_items = 0
    return total


@njit(cache=True, nogil=True, fastmath=FAST)
def _look(
    cells: Cells,
    c: int,
    vectors: tuple[Floats, Floats],
    known: Marked,
    scratch: tuple[Floats, Ints, Floats, Floats],
    rule: Rule,
    key: int,
) -> Any:
    """Find the items of a cell and the slopes of its loss; return how many, and the loss."""
    users, items = vectors
    logs, picked, pushes, scores = scratch
    row, k, draws = cells[0][c], rule.factors, word(key, c)
    x = users[row]
    if rule.loss == SQUARED:
        error = cells[2][c] - (rule.offset + x[k] + score_of(x, items[picked[0]], k))
        pushes[0] = error
        return 1, np.float64(error) * error
    if rule.loss == TOP:
        loss = np.float64(_find_above(vectors, known, row, picked, pushes, rule, draws))
        return (2 if loss > 0 else 0), loss
    found = _draw(vectors, known, cells[1], row, picked, rule, draws)
    if found == 1:
        return 0, np.log(1.0 + rule.samples)
    scores = scores[:found]
    for j in range(found):
        scores[j] = score_of(x, items[picked[j]], k) - logs[picked[j]]
    return found, np.float64(judge(scores, pushes, rule))
