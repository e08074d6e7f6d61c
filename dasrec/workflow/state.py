"""A workflow on its way: what its steps have in common, and what a step is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from dasrec.interactions import Interactions, open_interactions
from dasrec.models import Model, load_model
from dasrec.split import Split, parse_split
from dasrec.workflow.base import Facts, key_of
from dasrec.workflow.place import TESTED, WHOLE, Marker, Place
from dasrec.workflow.spec import Workflow


@dataclass
class Run:
    """A workflow, its place, and the steps that are done.

    Attributes
    ----------
    workflow : Workflow
    place : Place
    tick : told how far a step is; raises when the run is to end
    done : markers, by the name of the step
    """

    workflow: Workflow
    place: Place
    tick: Callable[..., None] = lambda *_, **__: None
    done: dict[str, Marker] = field(default_factory=dict)

    @cached_property
    def store(self) -> Interactions:
        """The store, as the first step has left it."""
        return open_interactions(self.place.store)

    @cached_property
    def split(self) -> Split:
        """The split of it."""
        return parse_split(self.store, self.workflow.split, rng=self.workflow.seed)

    def identity(self) -> list[str]:
        """Return what names the state of the store."""
        return [self.store.state, self.store.user_hash, self.store.item_hash]

    def key(self, step: str) -> str:
        """Return the key of a step that is done."""
        return self.done[step].key

    def facts(self, step: str) -> Facts:
        """Return what came of a step; nothing of one that was left out."""
        return self.done[step].facts if step in self.done else {}

    @property
    def which(self) -> str:
        """Name the model of a version that is put to use."""
        return WHOLE if self.workflow.fit.whole else TESTED

    def candidate(self, which: str = TESTED) -> Model:
        """Open the model of this run."""
        return load_model(self.place.model(self.key("fit"), which))

    def is_better(self) -> bool:
        """Say whether the model of this run is to be used."""
        return bool(self.facts("compare").get("better"))


def always(run: Run, marker: Marker) -> bool:
    """Say of a result that is in its marker alone that it holds."""
    del run, marker
    return True


def never(run: Run) -> str | None:
    """Leave a step out in no case."""
    del run
    return None


def unless_better(run: Run) -> str | None:
    """Leave a step out if the last model stays."""
    return None if run.is_better() else "the last model stays"


class Step(NamedTuple):
    """One step.

    Attributes
    ----------
    name : str
    key : names all that its result depends on
    do : makes the result, and returns what is to be known of it
    holds : says whether the result of a marker is still there and still stands
    skip : says why the step is left out; None if it is not
    """

    name: str
    key: Callable[[Run], str]
    do: Callable[[Run, str], Facts]
    holds: Callable[[Run, Marker], bool] = always
    skip: Callable[[Run], str | None] = never


def settings(*sections: Any) -> list[Any]:
    """Return sections of a workflow as a key takes them."""
    return [each.model_dump() if hasattr(each, "model_dump") else each for each in sections]


def step_key(run: Run, *details: Any) -> str:
    """Name what depends on the state of the store and on the split."""
    return key_of(run.identity(), run.workflow.split, run.workflow.seed, *settings(*details))
