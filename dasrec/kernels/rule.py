"""What stochastic gradient descent does at a cell: one record for all of its kernels."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

UNIFORM, POPULAR, HARD = 0, 1, 2
"""How items not seen are drawn: each alike, as often as they are used, the best of a few."""

SQUARED, PAIRS, TOP, LOGISTIC, SOFTMAX = 0, 1, 2, 3, 4
"""Losses, all of them functions of the scores of one user for a few items."""

PLAIN, MOMENTUM, ADAGRAD, ADAM = 0, 1, 2, 3
"""What becomes of a gradient."""


class Rule(NamedTuple):
    """What a cell does to the vectors of its user and of some items.

    Attributes
    ----------
    factors : int, k; a vector has k factors and then a bias, which users may not use
    rate : float32: length of a step
    regularization : float32: of all vectors that take part, at each cell
    frozen : bool: whether items stay as they are
    offset : float32: what is predicted without any vector
    biased : bool: whether biases of ratings are learned
    centred : bool: whether users are drawn towards k numbers that follow their biases, not to zero
    negatives : int: UNIFORM, POPULAR or HARD
    samples : int: items not seen that are drawn for a cell
    tries : int: items that are drawn, at most, to find one that is ranked too high
    catalogue : int: items of all strata together
    most : float32: length that factors may have; 0 for any
    loss, optimizer : int: as :mod:`dasrec.kernels.batches` takes them
    batch : int: cells whose gradients are added up before a step
    kept : int: column of a vector where what the optimizer keeps begins
    """

    factors: int
    rate: np.float32
    regularization: np.float32
    frozen: bool = False
    offset: np.float32 = np.float32(0)
    biased: bool = True
    centred: bool = False
    negatives: int = UNIFORM
    samples: int = 1
    tries: int = 0
    catalogue: int = 0
    most: np.float32 = np.float32(0)
    loss: int = SQUARED
    optimizer: int = PLAIN
    batch: int = 1
    kept: int = 0
