"""Full-batch gradient descent on a small dense matrix, as textbooks define it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]


def squared_error(matrix: Doubles, left: Doubles, right: Doubles) -> float:
    """Return the objective J(U, V) = sum over all cells of (a_ij - u_i . v_j)^2."""
    return float(np.square(matrix - left @ right.T).sum())


def gradient_step(
    matrix: Doubles, left: Doubles, right: Doubles, learning_rate: float
) -> tuple[Doubles, Doubles]:
    """Move both factors at the same time against the gradient of :func:`squared_error`.

    Parameters
    ----------
    matrix : float64, shape (m, n)
    left, right : float64, shapes (m, k) and (n, k)
    learning_rate : step length; too long a one diverges, and nothing here guards against it

    Returns
    -------
    The new (left, right). Cost: 3 m n k multiplications.
    """
    error = matrix - left @ right.T
    # dJ/dU = -2 E V,  dJ/dV = -2 E' U
    return left + 2 * learning_rate * error @ right, right + 2 * learning_rate * error.T @ left
