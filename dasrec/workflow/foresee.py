"""What a run would do and take, told before anything is touched."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from dasrec import blocks
from dasrec.errors import StoreError
from dasrec.interactions import Interactions, open_interactions
from dasrec.medium import plan_fit
from dasrec.plan import plan_ingest
from dasrec.scorers import plan_ranking
from dasrec.workflow.logs import events_of, new_files, sources
from dasrec.workflow.place import Place
from dasrec.workflow.runner import STEPS, found
from dasrec.workflow.spec import Workflow
from dasrec.workflow.state import Run

# Measured with benchmarks/ingest.py, als.py and evaluate.py; good for an order of magnitude.
_ROWS_A_SECOND = {"int64": 2e6, "string": 1e6, "uuid": 1e6}
_CELL_SECONDS = 2.2e-9  # of an iteration, for each cell and factor
_FLOPS = 2e10  # of ranking
_LISTED_BYTES = 10  # of a place of a list, in Parquet
_IF_BETTER = ("whole", "recommend", "promote")


@dataclass(frozen=True)
class StepPlan:
    """What a step would take; None where it is not known yet, or hardly anything.

    Attributes
    ----------
    step : str
    state : "done", "to do", "if better" or "skipped"
    n_tasks : int
    disk_bytes : int
        That it would write, for good or while it runs.
    peak_bytes : int
        Most resident memory of a process.
    seconds : float
        About how long, on the threads of this process.
    """

    step: str
    state: str
    n_tasks: int | None = None
    disk_bytes: int | None = None
    peak_bytes: int | None = None
    seconds: float | None = None

    def as_record(self) -> dict[str, Any]:
        """Return the plan as a dict for JSON."""
        return asdict(self)


def plan_workflow(workflow: Workflow) -> list[StepPlan]:
    """Foresee which steps of a workflow would be done, and what they take; nothing is touched.

    The log is looked at as by :func:`dasrec.plan_ingest`; no cluster is asked for. Where the store
    is still to be written, later steps are foreseen by the one that is there, if there is one. All
    that comes after a step to be done is told as to be done, though some of it may not change.

    Raises
    ------
    InputError
        The log is not there, or not what the workflow says.
    BudgetError
        A step would not fit in memory.
    """
    run, plans = Run(workflow, Place(workflow.place)), list[StepPlan]()
    todo = False
    for step in STEPS:
        # whether a model is better is not known before it is there
        if not (todo and step.name in _IF_BETTER) and step.skip(run):
            plans.append(StepPlan(step.name, "skipped"))
            continue
        marker = None if todo else found(run, step, step.key(run))
        if marker is not None:
            run.done[step.name] = marker
            plans.append(StepPlan(step.name, "done"))
            continue
        todo = True
        asked = _is_asked_for(step.name, workflow)
        plan = StepPlan(step.name, _state(step.name) if asked else "skipped")
        plans.append(_taking(plan, run) if asked else plan)
    return plans


def _is_asked_for(step: str, workflow: Workflow) -> bool:
    return {"whole": workflow.fit.whole, "recommend": workflow.recommend is not None}.get(
        step, True
    )


def _state(step: str) -> str:
    return "if better" if step in _IF_BETTER else "to do"


def _taking(plan: StepPlan, run: Run) -> StepPlan:
    """Add what a step takes."""
    if plan.step == "ingest":
        return _ingest(plan, run)
    try:
        store = open_interactions(run.place.store)
    except StoreError:
        return plan
    match plan.step:
        case "fit" | "whole":
            return _fit(plan, run.workflow, store)
        case "evaluate" | "compare" | "recommend":
            return _rank(plan, run.workflow, store)
    return plan


def _ingest(plan: StepPlan, run: Run) -> StepPlan:
    appends = run.workflow.log.how == "append"
    paths = list(new_files(run.workflow, run.place) if appends else sources(run.workflow))
    if not paths:
        return plan
    events = events_of(run.workflow, paths)
    foreseen = plan_ingest(events, memory=run.workflow.memory)
    rate = min(_ROWS_A_SECOND[each] for each in events.kinds.values())
    return replace(
        plan,
        n_tasks=foreseen.n_tasks,
        disk_bytes=foreseen.scratch_bytes + foreseen.store_bytes,
        peak_bytes=foreseen.peak_bytes,
        seconds=foreseen.n_rows / rate / blocks.n_threads(),
    )


def _fit(plan: StepPlan, workflow: Workflow, store: Interactions) -> StepPlan:
    parameters = workflow.fit.parameters
    if "factors" not in parameters:
        return plan
    factors = int(parameters["factors"])
    times = 1 + workflow.fit.warm if workflow.fit.warm else int(parameters["iterations"])
    foreseen = plan_fit(store, factors=factors, memory=workflow.memory, checkpoint=True)
    seconds = _CELL_SECONDS * store.n_stored * factors * times
    return replace(
        plan,
        n_tasks=times * foreseen.n_tasks,
        disk_bytes=4 * (factors + 1) * (store.n_users + store.n_items),
        peak_bytes=foreseen.peak_bytes,
        seconds=seconds / blocks.n_threads(),
    )


def _rank(plan: StepPlan, workflow: Workflow, store: Interactions) -> StepPlan:
    factors = int(workflow.fit.parameters.get("factors", 0)) + 1
    n = workflow.recommend.n if workflow.recommend else 10
    foreseen = plan_ranking(store, factors=factors, n=n, memory=workflow.memory)
    times = 2 if plan.step == "compare" else 1
    work = 2 * times * store.n_users * store.n_items * factors
    lists = _LISTED_BYTES * store.n_users * n if plan.step == "recommend" else 0
    return replace(
        plan,
        n_tasks=times * foreseen.n_tasks,
        disk_bytes=lists,
        peak_bytes=foreseen.peak_bytes,
        seconds=work / _FLOPS / blocks.n_threads(),
    )
