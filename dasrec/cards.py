"""What objects show of themselves in a notebook: a card of facts with a sketch, one style for all.

A card is made of what is known already; it reads and computes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from html import escape
from importlib import resources
from itertools import pairwise
from typing import Any

import numpy as np
import xarray as xr
from jinja2 import Environment, Template
from numpy.typing import ArrayLike

from dasrec.errors import DasrecError
from dasrec.memory import gigabytes
from dasrec.schema import FACTOR, ITEM_USERS, USER_ITEMS

_AREA = 110  # pixels of the side of a square sketch
_LONGEST = 200
_LAST = 253_402_300_800 * 10**6  # microseconds to the year 10,000
_MOST_LINES = 24
_TINT = "#56b4e9"  # that of the palette which can be seen on white and on black
_BOX = f'fill="{_TINT}" fill-opacity="0.45" stroke="currentColor"'


@dataclass(frozen=True)
class Card:
    """What a notebook shows.

    Attributes
    ----------
    title : str
    facts : mapping of names to values
        Plain; escaped when written. What is None is left out.
    sketches : tuple of str
        Fragments of SVG that are safe already, as those below.
    tables : tuple of str
        Fragments of HTML that are safe already, as :mod:`dasrec.tables` returns them.
    more : mapping of names to fragments of HTML
        Safe already; folded away.
    """

    title: str
    facts: Mapping[str, Any]
    sketches: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()
    more: Mapping[str, str] | None = None

    def to_html(self) -> str:
        """Return a fragment of HTML that needs nothing else and takes the colours around it."""
        known = {name: value for name, value in self.facts.items() if value is not None}
        return _template().render(card=self, facts=known)


class Carded:
    """Shows itself in a notebook as the card that it makes of itself."""

    def _card(self) -> Card:
        raise NotImplementedError

    def _repr_html_(self) -> str:
        return self._card().to_html()


def card_of_matrix(view: Any) -> Card:
    """Return the card of interactions; of a store nothing is read but where its blocks begin."""
    n_users, n_items, n = view.n_users, view.n_items, view.n_stored
    try:
        cuts = {side: view.cuts(side) for side in (USER_ITEMS, ITEM_USERS)}
    except DasrecError:  # a notebook outlives its stores
        cuts = {}
    part = "at most " if view.masks else ""
    facts = {
        "store": view.url,
        "version": view.version,
        "shape": f"{n_users:,} users x {n_items:,} items",
        "interactions": f"{part}{n:,}, {part}{percent(n / max(1, n_users * n_items))} of the cells",
        "part": ", ".join(told(mask.describe()) for mask in view.masks) or None,
        "weights": ", ".join(type(each).__name__ for each in view.transforms) or None,
        "timestamps": "yes" if view.has_timestamps else "no",
        "blocks": ", ".join(f"{len(each) - 1:,} of {side}" for side, each in cuts.items()) or None,
        "decoded": f"{gigabytes(8 * (2 * n + n_users + n_items))}, both sides",
    }
    sketch = sketch_matrix((n_users, n_items), cuts.get(USER_ITEMS, ()))
    return Card("Interactions", facts, sketches=(sketch,))


def card_of_model(model: Any) -> Card:
    """Return the card of a model; of a saved one no array is read."""
    parameters = ", ".join(f"{key}={value!r}" for key, value in model.get_params().items())
    title = type(model).__name__
    if not hasattr(model, "trained_on_"):
        return Card(title, {"parameters": parameters or None, "fitted": "not yet"})
    trained = model.trained_on_
    arrays = {key: each for key, each in vars(model).items() if isinstance(each, xr.DataArray)}
    n_users, n_items = len(model.user_ids_), len(model.item_ids_)
    history = {
        str(key): each.values.tolist()
        for key, each in getattr(model, "history_", {}).items()
        if each.chunks is None  # else it would be read
    }
    ends = {f"last {key}": f"{each[-1]:.6g}" for key, each in history.items() if each}
    facts = {
        "parameters": parameters or None,
        "fitted on": trained["store"],
        "part": ", ".join(told(mask) for mask in trained["masks"]) or None,
        "weights": ", ".join(each["transform"] for each in trained["transforms"]) or None,
        "knows": f"{n_users:,} users, {n_items:,} items",
        "learned": f"{gigabytes(sum(each.nbytes for each in arrays.values()))}",
        **ends,
    }
    sizes = [size for key in arrays if (size := _width(arrays[key])) and key.endswith("factors_")]
    sketches = (sketch_factors(n_users, n_items, sizes[0]),) if sizes else ()
    steps = history.get("objective", [])
    line = sketch_line(steps, f"objective, {len(steps)} iterations")
    return Card(title, facts, sketches=(*sketches, line) if line else sketches)


def _width(array: xr.DataArray) -> int:
    return int(array.sizes.get(FACTOR, 0))


def percent(share: float) -> str:
    """Write a share as people read it."""
    return f"{100 * share:.3g} %"


def told(facts: Mapping[str, Any]) -> str:
    """Write the facts of a mask in a line, but for those that are long."""
    short = {key: each for key, each in facts.items() if isinstance(each, (str, int, float))}
    name, inside = short.pop("mask", "mask"), short.pop("inside", True)
    known = ", ".join(f"{key}={_moment(key, each)}" for key, each in short.items())
    return f"{'' if inside else 'not '}{name}({known})"


def _moment(key: str, value: Any) -> Any:
    """Write moments, which masks keep in microseconds, as people read them."""
    if key not in ("cut", "start", "stop") or not 0 <= value < _LAST:
        return value
    return np.datetime64(value, "us").astype("datetime64[s]")


@cache
def _template() -> Template:
    source = resources.files("dasrec").joinpath("templates/card.html").read_text("utf-8")
    return Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(source)


def sketch_matrix(shape: tuple[int, int], cuts: ArrayLike = ()) -> str:
    """Sketch a matrix, roughly in its proportions, cut into blocks of whole rows.

    Parameters
    ----------
    shape : (n_rows, n_columns)
    cuts : where blocks begin and end, ascending; at most some 24 of them are drawn
    """
    n_rows, n_columns = (max(1, size) for size in shape)
    # a millionfold longer side is drawn threefold longer
    stretch = float(np.clip((n_rows / n_columns) ** 0.2, 1 / 3, 3))
    height = min(_LONGEST, _AREA * math.sqrt(stretch))
    width = min(_LONGEST, _AREA / math.sqrt(stretch))
    inner = np.asarray(cuts, np.float64)[1:-1]
    ends = np.unique(np.concatenate([[0, n_rows], _thinned(inner)])) / n_rows * height
    rows = "".join(
        f'<rect x="0" y="{top:.1f}" width="{width:.1f}" height="{stop - top:.1f}" '
        f'fill="{_TINT}" fill-opacity="{0.25 if number % 2 else 0.45}"/>'
        for number, (top, stop) in enumerate(pairwise(ends))
    )
    frame = (
        f'<rect x="0" y="0" width="{width:.1f}" height="{height:.1f}" fill="none" '
        'stroke="currentColor" stroke-width="1.5"/>'
    )
    texts = _text(width / 2, height + 16, f"{n_columns:,}") + _text(
        width + 8, height / 2 + 4, f"{n_rows:,}", anchor="start"
    )
    label = f"{n_rows:,} x {n_columns:,}"
    size = (width + 20 + 7 * len(f"{n_rows:,}"), height + 24)
    return _svg(rows + frame + texts, size, label)


def sketch_factors(n_users: int, n_items: int, factors: int) -> str:
    """Sketch two factor matrices whose product is the matrix, roughly in its proportions."""
    stretch = float(np.clip((n_users / max(1, n_items)) ** 0.2, 1 / 3, 3))
    height, width = 80 * math.sqrt(stretch), 80 / math.sqrt(stretch)
    thin, gap = 16.0, 10.0
    users = f'<rect x="0" y="{thin + gap}" width="{thin}" height="{height:.1f}" {_BOX}/>'
    items = f'<rect x="{thin + gap}" y="0" width="{width:.1f}" height="{thin}" {_BOX}/>'
    scores = (
        f'<rect x="{thin + gap}" y="{thin + gap}" width="{width:.1f}" height="{height:.1f}" '
        'fill="none" stroke="currentColor" stroke-opacity="0.4" stroke-dasharray="3 3"/>'
    )
    right, bottom = thin + gap + width, thin + gap + height
    texts = _text(right + 8, thin - 3, f"{factors:,} x {n_items:,}", anchor="start") + _text(
        0, bottom + 16, f"{n_users:,} x {factors:,}", anchor="start"
    )
    size = (right + 16 + 7 * len(f"{factors:,} x {n_items:,}"), bottom + 24)
    return _svg(users + items + scores + texts, size, f"{n_users:,} x {factors:,} x {n_items:,}")


def _thinned(inner: Any) -> Any:
    if len(inner) <= _MOST_LINES:
        return inner
    return inner[np.linspace(0, len(inner) - 1, _MOST_LINES).astype(int)]


def sketch_share(part: float, whole: float, label: str) -> str:
    """Sketch how much of something is taken, as a bar with words below."""
    width, height = 190.0, 14.0
    share = min(max(part / whole, 0.0), 1.0) if whole > 0 else 0.0
    bar = (
        f'<rect x="0" y="0" width="{share * width:.1f}" height="{height}" fill="{_TINT}" '
        'fill-opacity="0.6"/>'
        f'<rect x="0" y="0" width="{width}" height="{height}" fill="none" stroke="currentColor"/>'
    )
    words = _text(0, height + 16, label, anchor="start")
    return _svg(bar + words, (width, height + 24), label)


def sketch_line(values: Sequence[float], label: str) -> str:
    """Sketch how a figure went, as a line with words below; nothing of fewer than two values."""
    known = np.asarray(values, np.float64)
    known = known[np.isfinite(known)]
    if len(known) < 2:
        return ""
    width, height, span = 190.0, 56.0, float(np.ptp(known))
    x = np.linspace(2, width - 2, len(known))
    y = height - 4 - (known - known.min()) / (span or 1.0) * (height - 8)
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
    line = (
        f'<polyline points="{points}" fill="none" stroke="{_TINT}" stroke-width="2.5" '
        'stroke-linejoin="round"/>'
        f'<line x1="0" y1="{height}" x2="{width}" y2="{height}" stroke="currentColor" '
        'stroke-opacity="0.4"/>'
    )
    words = _text(0, height + 16, label, anchor="start")
    return _svg(line + words, (width, height + 24), label)


def _text(x: float, y: float, words: str, *, anchor: str = "middle") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="12" '
        f'fill="currentColor">{escape(words)}</text>'
    )


def _svg(content: str, size: tuple[float, float], label: str) -> str:
    width, height = size[0] + 4, size[1] + 4
    return (
        f'<svg width="{width:.0f}" height="{height:.0f}" viewBox="-2 -2 {width:.1f} {height:.1f}" '
        f'role="img" aria-label="{escape(label)}" xmlns="http://www.w3.org/2000/svg">{content}</svg>'
    )
