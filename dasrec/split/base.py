"""What splits have in common: three views of one store, and the masks that cut them out."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Self

import numpy as np

from dasrec.cards import Card, Carded
from dasrec.errors import InputError, MismatchError
from dasrec.interactions import Interactions
from dasrec.kernels.hashing import mix
from dasrec.typing import Bools, Ints, Longs, Transform

_LIMITS = np.iinfo(np.int64)
ALWAYS = (int(_LIMITS.min), int(_LIMITS.max))


@dataclass(frozen=True)
class Part:
    """Base of the masks: ``inside`` picks the part itself or the rest of the store."""

    inside: bool
    needs_timestamp = False

    def __call__(self, users: Ints, items: Ints, timestamps: Longs | None) -> Bools:
        """Mark the interactions that are let through."""
        raise NotImplementedError

    @property
    def span(self) -> tuple[int, int]:
        """Return between which moments, both included, whatever is let through must lie."""
        return ALWAYS

    def rest(self) -> Self:
        """Return the mask of everything else."""
        return replace(self, inside=not self.inside)

    def describe(self) -> dict[str, Any]:
        """Return the mask's name and its fields."""
        return {"mask": type(self).__name__} | asdict(self)


@dataclass(frozen=True, repr=False)
class Split(Carded):
    """A division of one store.

    Attributes
    ----------
    spec : str
        What was asked for, for instance ``time:0.2``.
    train : Interactions
        What a model may be fitted on.
    seen : Interactions
        What is known of each user when lists are made: ``train``, and for users held out from
        training the part of their rows that a model may fold in.
    test : Interactions
        What is to be found.
    seed : int or None
        What a random split was drawn with; None where nothing is random.
    validation : Split or None
        A split of ``train``, to choose models by: fit on ``validation.train``, compare on
        ``validation``, then measure the one that was chosen on the split itself.
    """

    spec: str
    train: Interactions
    seen: Interactions
    test: Interactions
    seed: int | None = None
    validation: Split | None = None

    def __repr__(self) -> str:
        shape = f"{self.train.n_users:,} users x {self.train.n_items:,} items"
        return f"<Split {self.spec} of {shape}, {self.train.url}>"

    def _card(self) -> Card:
        matrix = self.train._card()
        knows = {True: "perhaps later moments than some tested", False: "nothing later", None: None}
        facts = {
            "store": self.train.url,
            "shape": matrix.facts["shape"],
            "trained on": matrix.facts["part"],
            "tested on": self.test._card().facts["part"],
            "validation": None if self.validation is None else self.validation.spec,
            "seed": self.seed,
            "training knows": knows[self.leaks_time],
            "held-out users": "folded in" if self.folds_in else None,
        }
        return Card(f"Split {self.spec}", facts, sketches=matrix.sketches)

    @property
    def folds_in(self) -> bool:
        """Whether users are tested that no model was trained on."""
        return self.seen != self.train

    @property
    def leaks_time(self) -> bool | None:
        """Whether training may know later moments than some that are tested; None without times.

        The masks tell, nothing is read: False is certain. How much it is, :func:`check_split` says.
        """
        if not self.train.has_timestamps:
            return None
        return _span(self.train)[1] >= _span(self.test)[0]

    def with_validation(self, inner: Split) -> Split:
        """Return the split with a part of its training part set aside to choose models by.

        Parameters
        ----------
        inner : Split
            Any split of ``train``. It may be drawn with the same seed.

        Raises
        ------
        MismatchError
            ``inner`` is a split of something else.
        InputError
            One of both has a validation part already.
        """
        if self.validation is not None or inner.validation is not None:
            msg = f"{self.spec} or {inner.spec} has a validation part already; expected neither"
            raise InputError(msg)
        views = (inner.train, inner.seen, inner.test)
        if not all(_is_part(view, self.train) for view in views):
            msg = f"{inner.spec} is no split of the training part of {self.spec}; split its train"
            raise MismatchError(msg)
        spec = f"{self.spec},{inner.spec}"
        return replace(self, spec=spec, validation=replace(inner, spec=f"{spec} (validation)"))

    def transform(self, transform: Transform) -> Split:
        """Return the split whose views have other weights when read, lazily.

        Parameters
        ----------
        transform : Transform
            Fitted on ``train``, and on nothing else; for the validation part, which is transformed
            too, better on ``validation.train``.
        """
        return replace(
            self,
            train=self.train.transform(transform),
            seen=self.seen.transform(transform),
            test=self.test.transform(transform),
            validation=self.validation and self.validation.transform(transform),
        )

    def describe(self) -> dict[str, Any]:
        """Return JSON-able facts for results: ``split``, ``seed`` if random, ``leaks_time``."""
        facts = {"split": self.spec, "seed": self.seed, "leaks_time": self.leaks_time}
        return {name: fact for name, fact in facts.items() if fact is not None}


def halves(interactions: Interactions, spec: str, mask: Part, *, seed: int | None = None) -> Split:
    """Return the split that tests on what ``mask`` marks and trains on the rest."""
    train = interactions.where(mask.rest())
    return Split(spec=spec, train=train, seen=train, test=interactions.where(mask), seed=seed)


def check_timed(interactions: Interactions) -> Interactions:
    """Return the interactions if they have timestamps."""
    if not interactions.has_timestamps:
        msg = (
            f"{interactions.url} has no timestamps; write it again from a log with a timestamp "
            "column, or split at random"
        )
        raise InputError(msg)
    return interactions


def fresh_seed(interactions: Interactions, seed: int) -> int:
    """Return the seed to draw with: ``seed``, or one that follows from it if it has been used.

    A part that was drawn with a seed and is split again with it would give all or nothing.
    """
    used = {mask.describe().get("seed") for mask in interactions.masks}
    while seed in used:
        seed = int(mix(np.array([seed + 1], np.uint64))[0] >> np.uint64(2))
    return seed


def _is_part(view: Interactions, whole: Interactions) -> bool:
    return view.state == whole.state and view.masks[: len(whole.masks)] == whole.masks


def _span(view: Interactions) -> tuple[int, int]:
    spans = [mask.span for mask in view.masks if isinstance(mask, Part)] or [ALWAYS]
    return max(span[0] for span in spans), min(span[1] for span in spans)
