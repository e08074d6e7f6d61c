"""The place of a workflow: where each thing lies, what is done, and which model is promoted."""

from __future__ import annotations

import contextlib
import json
from typing import Any, NamedTuple

from dasrec import files, versions
from dasrec.errors import StoreError
from dasrec.models import Model, load_model
from dasrec.recommend import DONE
from dasrec.workflow.base import Facts

_POINTER = "promoted.json"
TESTED, WHOLE = "tested", "whole"
"""Names of the two models of a version: fitted on the training part, and on all there is."""


class Marker(NamedTuple):
    """What says that a step is done, and what came of it."""

    key: str
    finished: str
    facts: Facts


class Promoted(NamedTuple):
    """The model that is in use, and its lists; both change together.

    Attributes
    ----------
    key : str
        Of the version, as its folder in ``models`` is called.
    basis : str
        What it was fitted from, without the model that a warm start began at.
    model : place of the model, in ``models``
    lists : place of the lists, in ``lists``; None if the workflow makes none
    """

    key: str
    basis: str
    model: str
    lists: str | None

    def open_model(self) -> Model:
        """Open the model."""
        return load_model(self.model)


class Place:
    """A folder or URL that holds all of a workflow."""

    def __init__(self, url: str) -> None:
        self.url = files.absolute(url)
        self.store = self.path("store")

    def path(self, *names: str) -> str:
        """Return where something lies."""
        return files.join(self.url, *names)

    def model(self, key: str, which: str) -> str:
        """Return where a model of a version lies."""
        return self.path("models", key, which)

    def lists(self, key: str) -> str:
        """Return where lists lie."""
        return self.path("lists", key)

    def unfinished(self, key: str) -> str:
        """Return where a step keeps what it goes on from."""
        return self.path("unfinished", key)

    def is_whole(self, url: str) -> bool:
        """Say whether a whole store or model is there."""
        return bool(versions.list_versions(url))

    def has_lists(self, key: str) -> bool:
        """Say whether whole lists are there."""
        return files.exists(files.join(self.lists(key), DONE))

    def marker(self, step: str, key: str) -> Marker | None:
        """Return what is known of a step that is done, None if it is not."""
        with contextlib.suppress(FileNotFoundError):
            found = files.read_json(self._marker(step, key))
            return Marker(key, found["finished"], found["facts"])
        return None

    def mark(self, step: str, key: str, facts: Facts) -> Marker:
        """Write down that a step is done; its results must be whole by now."""
        marker = Marker(key, versions.now(), facts)
        content = {"step": step, "finished": marker.finished, "facts": facts}
        self.write(self._marker(step, key), content)
        return marker

    def _marker(self, step: str, key: str) -> str:
        return self.path("done", f"{step}-{key}.json")

    def write(self, url: str, content: Facts) -> None:
        """Put a small file in place, as a whole."""
        with files.writing(self.url):
            files.replace(url, json.dumps(content, indent=1).encode())

    def promoted(self) -> Promoted | None:
        """Return which model is in use, None if there is none yet."""
        try:
            found = files.read_json(self.path(_POINTER))
            lists = found["lists"] and self.path("lists", found["lists"])
            which = found["model"]
            return Promoted(found["key"], found["basis"], self.model(found["key"], which), lists)
        except FileNotFoundError:
            return None
        except (KeyError, ValueError) as error:
            msg = (
                f"{self.path(_POINTER)} is damaged ({error}); remove it, and run with when: always"
            )
            raise StoreError(msg) from error

    def promote(self, key: str, basis: str, which: str, lists: str | None) -> None:
        """Let all readers have another model and its lists from now on, both at once."""
        facts = {"key": key, "basis": basis, "model": which, "lists": lists}
        self.write(self.path(_POINTER), {**facts, "promoted": versions.now()})

    def prune(self, keep: int, *, but: str) -> None:
        """Remove all but the newest models and lists, those in use, and one version more."""
        files.remove(self.path("unfinished"))
        used = self.promoted()
        spared = {but} | ({used.key} if used else set())
        for folder, kept in (("models", spared), ("lists", _last(used))):
            done = {each: self._finished(folder, each) for each in files.names(self.path(folder))}
            newest = sorted(done, key=lambda each: done[each], reverse=True)
            for rank, old in enumerate(newest):
                if old not in kept and (rank >= keep or not done[old]):
                    files.remove(self.path(folder, old))

    def _finished(self, folder: str, key: str) -> str:
        """Say when something was done; what is unfinished is the oldest of all."""
        marker = self.marker("fit" if folder == "models" else "recommend", key)
        return marker.finished if marker else ""


def _last(used: Promoted | None) -> set[str]:
    return {used.lists.rsplit("/", 1)[-1]} if used and used.lists else set()


def promoted(place: str) -> Promoted | None:
    """Return the model and the lists that the workflows of a place have promoted last.

    Parameters
    ----------
    place : path or fsspec URL

    Returns
    -------
    Promoted, or None if nothing was promoted yet

    Raises
    ------
    StoreError
        The file that says it is damaged.
    """
    return Place(place).promoted()


def plain(value: Any) -> Any:
    """Return a value in the types of JSON, NaN as None."""
    if isinstance(value, dict):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and value != value else value
