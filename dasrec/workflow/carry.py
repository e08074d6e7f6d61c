"""A model of an older store among the users and items of a newer one."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import xarray as xr

from dasrec.interactions import Interactions
from dasrec.models import Model
from dasrec.models.base import view_of
from dasrec.schema import ITEM, ITERATION, USER


def carry_over(model: Model, interactions: Interactions) -> Model:
    """Return a copy of a model whose rows stand for the users and items of other interactions.

    Rows go by id; those of ids that the model does not know are zeros, as of somebody of whom
    nothing is known. Its history is the last iteration alone. A fit that resumes from such a model
    solves each user, new ones too, with the items held fixed, then each item with the users.

    Parameters
    ----------
    model : Model, fitted
    interactions : Interactions
        What it says that it was fitted on, from then on.

    Notes
    -----
    Cost: both vocabularies and all that the model has learned, in memory.
    """
    model.check_fitted()
    carried = copy.copy(model)
    sides = (
        (USER, model.user_ids_, interactions.user_ids),
        (ITEM, model.item_ids_, interactions.item_ids),
    )
    for side, ours, theirs in sides:
        numbers = ours.find(theirs.ids)
        for name, values in list(vars(carried).items()):
            if isinstance(values, xr.DataArray) and side in values.dims:
                setattr(carried, name, _moved(values, side, numbers))
    carried.user_ids_, carried.item_ids_ = (
        interactions.user_ids.load(),
        interactions.item_ids.load(),
    )
    carried.trained_on_ = view_of(interactions)
    history: xr.Dataset | None = getattr(model, "history_", None)
    if history is not None:
        carried.history_ = history.isel({ITERATION: slice(-1, None)}).assign_coords(
            {ITERATION: [1]}
        )
    return carried


def _moved(values: xr.DataArray, side: str, numbers: Any) -> xr.DataArray:
    """Return an array whose rows along one side are those of these numbers, zeros for -1."""
    axis = values.get_axis_num(side)
    known = numbers >= 0
    taken = np.take(values.values, np.where(known, numbers, 0), axis=axis)
    shape = [-1 if place == axis else 1 for place in range(taken.ndim)]
    return xr.DataArray(
        np.where(known.reshape(shape), taken, taken.dtype.type(0)), dims=values.dims
    )
