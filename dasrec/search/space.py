"""How a text spells the values of a parameter: some of them, or a distribution."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import scipy.stats

from dasrec.errors import InputError

_DRAWN = {"uniform": scipy.stats.uniform, "loguniform": scipy.stats.loguniform}


def parse_value(text: str) -> Any:
    """Return a number, a truth value or a text."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def parse_values(text: str | Sequence[Any]) -> Any:
    """Return a list of values, or a distribution that draws some.

    Parameters
    ----------
    text : ``0.1,0.3,1``, ``loguniform:0.01:10`` or ``uniform:0:1``; or the values themselves

    Raises
    ------
    InputError
        It is no distribution.
    """
    if not isinstance(text, str):
        return list(text)
    kind, *ends = text.split(":")
    if kind not in _DRAWN:
        return [parse_value(part) for part in text.split(",")]
    try:
        low, high = map(float, ends)
    except ValueError:
        low, high = 1.0, 0.0
    if not low < high or (kind == "loguniform" and low <= 0):
        msg = f"{text!r} is no distribution; expected two ends, like {kind}:0.01:10"
        raise InputError(msg)
    return _DRAWN[kind](low, high if kind == "loguniform" else high - low)
