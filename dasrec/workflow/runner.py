"""Run a workflow: step by step, each unless it is done, under a lock, with its status written."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dasrec import cluster, files, versions
from dasrec.errors import BusyError, InputError
from dasrec.workflow import learn, prepare, publish
from dasrec.workflow.base import Facts, terminable
from dasrec.workflow.lock import Check, held
from dasrec.workflow.place import Marker, Place
from dasrec.workflow.spec import Workflow
from dasrec.workflow.state import Run, Step
from dasrec.workflow.status import FINISHED, RUNNING, Status, unfinished

logger = logging.getLogger(__name__)

STEPS = (*prepare.STEPS, *learn.STEPS, *publish.STEPS)
_LARGE = ("dataset",)  # what markers know beside what a status says

Say = Callable[[str], object]


@dataclass(frozen=True)
class Outcome:
    """What a run has come to.

    Attributes
    ----------
    status : what ``status.json`` says
    did : names of the steps that this run has done; none if there was nothing to do
    promoted : whether the model of this run is the one in use
    """

    status: Facts
    did: tuple[str, ...]
    promoted: bool


def run_workflow(
    workflow: Workflow,
    *,
    resume: bool = False,
    anew: bool = False,
    wait: bool = False,
    on: str | dict[str, Any] | None = None,
    say: Say = logger.info,
) -> Outcome:
    """Run a workflow, eagerly: each step unless its marker says that it is done.

    Parameters
    ----------
    workflow : Workflow
        From :func:`read_workflow`.
    resume : bool
        Go on with a run of this name that was cut off, in the middle of its step too.
    anew : bool
        Do the step that was cut off from its beginning. What is done stays done.
    wait : bool
        Wait until another run in the same place ends.
    on : as :func:`dasrec.cluster.connect` takes it, optional
        In place of the workflow's ``cluster``. It is asked for with the first step that is to be
        done.
    say : callable
        Told in one line what comes next.

    Raises
    ------
    InputError
        A run of this name was cut off, and it was not said what is to become of it.
    BusyError
        Another run is at work in the same place.

    And whatever the steps raise; :func:`dasrec.workflow.exit_status` tells what may work later.
    """
    place = Place(workflow.place)
    with terminable(), held(place.url, name=workflow.name, wait=wait) as check:
        status = Status(place, workflow.name, [step.name for step in STEPS])
        before = unfinished(status.before())
        if before and not (resume or anew):
            msg = (
                f"the last run of {workflow.name} was cut off in {before}; pass resume=True "
                "(--resume) to go on, or anew=True (--anew) to do that step from its beginning"
            )
            raise InputError(msg)
        if anew:
            files.remove(place.path("unfinished"))
        status.write()
        try:
            did = _run(Run(workflow, place), status, check, on=on, say=say)
        except BusyError:
            raise  # the status is by now that of whoever has taken over
        except BaseException as error:
            status.close(error)
            raise
        status.close(None)
        return Outcome(status.record, did, bool(status.record["promoted"]))


def _run(
    run: Run, status: Status, check: Check, *, on: str | dict[str, Any] | None, say: Say
) -> tuple[str, ...]:
    """Go through the steps; return the names of those that were not done yet."""
    did = list[str]()
    spec: Any = on or run.workflow.cluster
    with contextlib.ExitStack() as stack:
        for step in STEPS:
            check()
            if why := step.skip(run):
                status.note(step.name, state="skipped", why=why)
                continue
            key = step.key(run)
            marker = found(run, step, key)
            if marker is None:
                if not did:
                    stack.enter_context(cluster.connect(spec))
                did.append(step.name)
                say(step.name)
                marker = _do(run, step, key, status, check)
            else:
                say(f"{step.name}: done already")
            run.done[step.name] = marker
            facts = {name: value for name, value in marker.facts.items() if name not in _LARGE}
            status.note(step.name, state=FINISHED, key=key, finished=marker.finished, **facts)
        status.record["promoted"] = run.is_better()
        if did:
            run.place.prune(run.workflow.keep, but=run.key("fit"))
    return tuple(did)


def found(run: Run, step: Step, key: str) -> Marker | None:
    """Return the marker of a step, if what it says still holds."""
    marker = run.place.marker(step.name, key)
    return marker if marker is not None and step.holds(run, marker) else None


def _do(run: Run, step: Step, key: str, status: Status, check: Check) -> Marker:
    """Do one step and mark it."""

    def tick(**facts: Any) -> None:
        check()
        status.tick(step.name, **facts)

    run.tick = tick
    status.note(step.name, state=RUNNING, key=key, started=versions.now())
    facts = step.do(run, key)
    check()
    return run.place.mark(step.name, key, facts)
