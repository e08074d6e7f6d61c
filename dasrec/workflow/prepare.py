"""The first steps: from logs to a store, its split, and the best parameters."""

from __future__ import annotations

from typing import Any

from dasrec.errors import InputError
from dasrec.search import Trials, search
from dasrec.search.space import parse_values
from dasrec.split import check_split
from dasrec.workflow.base import Facts, key_of
from dasrec.workflow.logs import fill_store, new_files, sources
from dasrec.workflow.place import Marker, plain
from dasrec.workflow.state import Run, Step, settings, step_key


def _ingest_key(run: Run) -> str:
    log = run.workflow.log
    how = (log.columns, log.weights, log.ids, log.timestamp_unit, log.how, run.workflow.clean)
    return key_of(sources(run.workflow), *settings(*how))


def _ingest(run: Run, key: str) -> Facts:
    del key
    return fill_store(run.workflow, run.place)


def _is_filled(run: Run, marker: Marker) -> bool:
    del marker
    if not run.place.is_whole(run.place.store):
        return False
    return run.workflow.log.how == "replace" or not new_files(run.workflow, run.place)


def _split(run: Run, key: str) -> Facts:
    del key
    found = check_split(run.split)
    if found["overlap"].any():
        msg = f"split is {run.workflow.split!r}, which tests what is trained on; choose another"
        raise InputError(msg)
    names = ("n_train", "n_test", "n_users", "n_items", "leakage")
    return {name: plain(found[name].values[0]) for name in names}


def _search_key(run: Run) -> str:
    return step_key(run, run.workflow.search, run.workflow.fit.model, run.workflow.fit.parameters)


def _search(run: Run, key: str) -> Facts:
    asked, workflow = run.workflow.search, run.workflow
    assert asked is not None  # else the step is left out
    assert run.split.validation is not None  # the workflow was checked
    found = search(
        workflow.fit.make(workflow.seed),
        space={name: parse_values(values) for name, values in asked.space.items()},
        split=run.split.validation,
        metric=asked.metric,
        strategy=asked.strategy,
        budget=asked.budget,
        trials=Trials(
            users=asked.users,
            place=run.place.unfinished(key),
            memory=workflow.memory,
            rng=workflow.seed,
        ),
    )
    attributes: dict[str, Any] = plain(found.trials.attrs)
    figures = {name: attributes[name] for name in ("metric", "strategy", "spent")}
    best = {"best_params": plain(found.best_params), "best_metric": found.best_metric}
    return {**best, "n_trials": found.trials.sizes["trial"], **figures}


def _no_search(run: Run) -> str | None:
    return None if run.workflow.search else "not asked for"


STEPS = (
    Step("ingest", _ingest_key, _ingest, _is_filled),
    Step("split", step_key, _split),
    Step("search", _search_key, _search, skip=_no_search),
)
