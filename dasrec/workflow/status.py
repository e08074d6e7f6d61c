"""What a run has come to, in one small file that is replaced as a whole at each step."""

from __future__ import annotations

import contextlib
import time
from typing import Any

from dasrec import files, versions
from dasrec.workflow.base import DONE, INTERRUPTED, LATER, TERMINATED, Facts, exit_status
from dasrec.workflow.place import Place, plain

_SECONDS = 2.0
"""What goes on within a step is written no more often."""

RUNNING, FINISHED, FAILED, STOPPED = "running", "done", "failed", "stopped"


class Status:
    """The status of a run, kept in the place of its workflow.

    Parameters
    ----------
    place : Place
    name : of the workflow
    steps : names of all steps, in their order
    """

    def __init__(self, place: Place, name: str, steps: list[str]) -> None:
        self._place, self._written = place, 0.0
        self.url = place.path("runs", name, "status.json")
        self.record: Facts = {
            "name": name,
            "state": RUNNING,
            "exit_status": None,
            "promoted": None,
            "started": versions.now(),
            "finished": None,
            "error": None,
            "steps": [{"step": each, "state": "waiting"} for each in steps],
        }

    def before(self) -> Facts | None:
        """Return what the last run of this name has left."""
        with contextlib.suppress(FileNotFoundError, ValueError):
            return files.read_json(self.url)
        return None

    def step(self, name: str) -> Facts:
        """Return the record of a step."""
        found: Facts = next(each for each in self.record["steps"] if each["step"] == name)
        return found

    def note(self, name: str, **facts: Any) -> None:
        """Change the record of a step, and write the file."""
        self.step(name).update(plain(facts))
        self.write()

    def tick(self, name: str, **facts: Any) -> None:
        """Say how far a step is, if that was not said just now."""
        self.step(name)["progress"] = plain(facts)
        if time.monotonic() - self._written > _SECONDS:
            self.write()

    def close(self, error: BaseException | None) -> int:
        """Write how the run has ended, and return its exit status."""
        status, now = exit_status(error), versions.now()
        ends = {DONE: FINISHED, INTERRUPTED: STOPPED, TERMINATED: STOPPED}
        state, text = ends.get(status, FAILED), None
        if error is not None:
            text = f"stopped by {type(error).__name__}" if state == STOPPED else str(error)
            text = text or type(error).__name__
            for each in self.record["steps"]:
                if each["state"] == RUNNING:
                    each.update(state=state, finished=now, error=text)
        self.record.update(state=state, exit_status=status, finished=now, error=text)
        self.write()
        return status

    def write(self) -> None:
        """Replace the file."""
        self._place.write(self.url, self.record)
        self._written = time.monotonic()


def unfinished(record: Facts | None) -> str | None:
    """Say in which step a run was cut off that should be gone on with; None if there is none.

    A run that was refused is over: nothing of it is to be kept. One that says it is running is
    dead, since its lock is free.
    """
    if record is None or record["state"] == FINISHED:
        return None
    if record["state"] == FAILED and record["exit_status"] != LATER:
        return None
    steps = [each for each in record["steps"] if each["state"] not in (FINISHED, "skipped")]
    begun = [str(each["step"]) for each in steps if each["state"] != "waiting"]
    return (begun or ["its beginning"])[0]
