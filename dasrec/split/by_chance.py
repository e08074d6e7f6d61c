"""Splits at random: by interaction, in folds, by user."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from dasrec.checks import check_count, check_fraction, seed_of
from dasrec.interactions import Interactions
from dasrec.kernels.hashing import cell_uniform
from dasrec.split.base import Part, Split, fresh_seed, halves
from dasrec.typing import Bools, Ints, Longs, Rng

TARGETS = 0.2
"""What share of a held-out user's interactions is to be found, unless told."""


@dataclass(frozen=True)
class Sampled(Part):
    """Interactions whose keyed hash falls into [low, high)."""

    seed: int
    low: float
    high: float

    def __call__(self, users: Ints, items: Ints, timestamps: Longs | None) -> Bools:
        """Mark them."""
        draw = cell_uniform(self.seed, users, items)
        return np.equal((draw >= self.low) & (draw < self.high), self.inside)


@dataclass(frozen=True)
class OfUsers(Part):
    """Interactions of a sampled share of users; ``targets`` narrows it to a share of their rows."""

    seed: int
    share: float
    targets: float = 1.0

    def __call__(self, users: Ints, items: Ints, timestamps: Longs | None) -> Bools:
        """Mark them."""
        chosen = cell_uniform(self.seed, users) < self.share
        if self.targets < 1:
            chosen &= cell_uniform(self.seed + 1, users, items) < self.targets
        return np.equal(chosen, self.inside)


def split_random(interactions: Interactions, fraction: float = 0.2, *, rng: Rng = None) -> Split:
    """Test on a random ``fraction`` of the interactions, each drawn on its own by a keyed hash."""
    check_fraction(fraction, name="fraction")
    seed = seed_of(rng)
    mask = Sampled(inside=True, seed=fresh_seed(interactions, seed), low=0.0, high=fraction)
    return halves(interactions, f"random:{fraction}", mask, seed=seed)


def split_folds(interactions: Interactions, folds: int = 5, *, rng: Rng = None) -> Iterator[Split]:
    """Yield ``folds`` splits; each interaction is tested in exactly one."""
    check_count(folds, name="folds", least=2)
    seed = seed_of(rng)
    key = fresh_seed(interactions, seed)
    masks = (
        Sampled(inside=True, seed=key, low=fold / folds, high=(fold + 1) / folds)
        for fold in range(folds)
    )
    return (
        halves(interactions, f"fold:{number}/{folds}", mask, seed=seed)
        for number, mask in enumerate(masks, 1)
    )


def split_users(
    interactions: Interactions, fraction: float = 0.1, *, targets: float = TARGETS, rng: Rng = None
) -> Split:
    """Hold out a random ``fraction`` of users from training altogether (strong generalisation).

    A share ``targets`` of their interactions is to be found; the rest is what a model may fold in.
    """
    check_fraction(fraction, name="fraction")
    check_fraction(targets, name="targets")
    seed = seed_of(rng)
    key = fresh_seed(interactions, seed)
    goal = OfUsers(inside=True, seed=key, share=fraction, targets=targets)
    return Split(
        spec=f"users:{fraction}" if targets == TARGETS else f"users:{fraction}:{targets}",
        train=interactions.where(OfUsers(inside=False, seed=key, share=fraction)),
        seen=interactions.where(goal.rest()),
        test=interactions.where(goal),
        seed=seed,
    )
