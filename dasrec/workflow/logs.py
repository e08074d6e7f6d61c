"""From the logs of a workflow to its store: written anew, or extended by what is new."""

from __future__ import annotations

import logging
import os
from itertools import batched
from typing import Any

from dasrec import files, versions
from dasrec.clean import by_session, clean, pseudonymise, within
from dasrec.errors import InputError
from dasrec.events import Events, read_events
from dasrec.ingest import append_interactions, write_interactions
from dasrec.interactions import open_interactions
from dasrec.readers import find_files
from dasrec.upkeep import compact
from dasrec.workflow.base import Facts, key_of
from dasrec.workflow.place import Place
from dasrec.workflow.spec import Clean, Workflow

logger = logging.getLogger(__name__)

_FILE, _BEGUN = "file", ("done", "begun.json")


def sources(workflow: Workflow) -> dict[str, str]:
    """Return each file of the log with what changes when it does."""
    found = {}
    for path in find_files(workflow.log.source):
        fs, inside = files.locate(path)
        with files.reaching(path):
            found[path] = key_of(path, fs.ukey(inside))
    return found


def events_of(workflow: Workflow, paths: list[str]) -> Events:
    """Describe some files of the log, cleaned by the rules of the workflow, lazily."""
    log, columns = workflow.log, workflow.log.columns
    value = (columns.value, log.weights) if columns.value and log.weights else columns.value
    events = read_events(
        paths,
        user=columns.user,
        item=columns.item,
        value=value,
        timestamp=columns.timestamp,
        ids=log.ids,
        timestamp_unit=log.timestamp_unit,
    )
    return _cleaned(events, workflow.clean)


def _cleaned(events: Events, asked: Clean) -> Events:
    if asked.since or asked.until:
        events = within(events, since=asked.since, until=asked.until)
    if asked.session_gap:
        events = by_session(events, gap=asked.session_gap)
    if asked.key_env:
        if asked.key_env not in os.environ:
            msg = f"the environment variable {asked.key_env} is not set; expected 16 to 64 bytes"
            raise InputError(msg)
        events = pseudonymise(events, key=os.fsencode(os.environ[asked.key_env]))
    known: dict[str, Any] = asked.model_dump(
        exclude={"since", "until", "session_gap", "key_env"}, exclude_none=True
    )
    if "value_range" in known:
        known["value_range"] = tuple(known["value_range"])
    return clean(events, **known)


def fill_store(workflow: Workflow, place: Place) -> Facts:
    """Bring the store up to date with the log, and say what it then holds."""
    if workflow.log.how == "replace":
        events = events_of(workflow, list(sources(workflow)))
        write_interactions(events, place.store, overwrite=True, memory=workflow.memory)
        return _facts(place)
    settle(place)
    new = new_files(workflow, place)
    for some in batched(new, workflow.log.batch or max(1, len(new))):
        paths = {path: new[path] for path in some}
        # whoever finds this and a newer version knows that they are in it, and does not add twice
        place.write(place.path(*_BEGUN), {"version": _version(place), "files": paths})
        events = events_of(workflow, list(paths))
        if _version(place):
            append_interactions(events, place.store, memory=workflow.memory)
        else:
            write_interactions(events, place.store, memory=workflow.memory)
        settle(place)
    if len(open_interactions(place.store).group_urls) > workflow.log.compact:
        compact(place.store)
    return {**_facts(place), "n_files": len(new)}


def new_files(workflow: Workflow, place: Place) -> dict[str, str]:
    """Return the files that were not appended yet; one that has changed counts as new."""
    found = sources(workflow)
    if not _version(place):
        return found
    return {path: key for path, key in found.items() if place.marker(_FILE, key) is None}


def settle(place: Place) -> None:
    """Find out whether an append that was cut off has made its version, and write that down."""
    try:
        begun = files.read_json(place.path(*_BEGUN))
    except FileNotFoundError:
        return
    if _version(place) > begun["version"]:
        for path, key in begun["files"].items():
            place.mark(_FILE, key, {"path": path})
    files.remove(place.path(*_BEGUN))


def _version(place: Place) -> int:
    return max(versions.list_versions(place.store), default=0)


def _facts(place: Place) -> Facts:
    store = open_interactions(place.store)
    audit = store.audit
    return {
        "store": store.url,
        "version": store.version,
        "rows": int(audit["rows_in"][0]),
        "n_users": store.n_users,
        "n_items": store.n_items,
        "n_interactions": store.n_stored,
    }
