"""What each thing that a user has adds to a score."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]


def contributions(
    targets: NDArray[Any],
    rows: NDArray[Any],
    weights: NDArray[Any],
    goals: NDArray[Any],
    system: Doubles,
) -> Doubles:
    """Split scores t . x, where x minimises a quadratic over the rows, into what each row adds.

    x minimises sum_j c_j (g_j - v_j . x)^2 + x' S x, so x = A^-1 sum_j c_j g_j v_j with
    A = S + sum_j c_j v_j v_j', and t . x is the sum over j of (t' A^-1 v_j) c_j g_j.

    Parameters
    ----------
    targets : shape (m, k): t
    rows, weights, goals : shapes (n, k), (n,) and (n,): v, c >= 0 and g
    system : float64, shape (k, k), positive definite: S

    Returns
    -------
    float64, shape (m, n)

    Notes
    -----
    Cost: n k^2 + k^3 / 3 + m k^2 + m n k multiply-adds, in float64. Hu, Koren and Volinsky,
    "Collaborative filtering for implicit feedback datasets", ICDM 2008, section 5,
    doi:10.1109/ICDM.2008.22.
    """
    targets, rows, weights, goals = (
        np.asarray(each, np.float64) for each in (targets, rows, weights, goals)
    )
    full = system + (rows * weights[:, None]).T @ rows
    found: Doubles = np.linalg.solve(full, targets.T).T @ rows.T * (weights * goals)
    return found


def cosines(targets: Floats, rows: Floats) -> Doubles:
    """Return the cosine of the angle between each target and each row; 0 of what has no length.

    Parameters
    ----------
    targets, rows : shapes (m, k) and (n, k)

    Returns
    -------
    float64, shape (m, n)

    Notes
    -----
    Cost: m n k multiply-adds.
    """
    products = targets.astype(np.float64) @ rows.astype(np.float64).T
    lengths = np.outer(*(np.linalg.norm(each, axis=1) for each in (targets, rows)))
    return np.divide(products, lengths, out=np.zeros_like(products), where=lengths > 0)
