"""Search parameters of a model on a validation part: trials on the store and on the cluster."""

from __future__ import annotations

import contextlib
import json
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.model_selection import ParameterGrid, ParameterSampler

from dasrec import blocks, files
from dasrec.checks import check_count, seed_of
from dasrec.errors import InputError, MismatchError
from dasrec.evaluate import holdout
from dasrec.interactions import Interactions
from dasrec.medium import plan_fit
from dasrec.memory import check_fits
from dasrec.models import Model
from dasrec.models.base import plain, view_of
from dasrec.plan import room
from dasrec.search.base import Measure, Trial, Trials
from dasrec.search.estimator import RankingEstimator, cells_of
from dasrec.search.result import SearchResult, as_dataset
from dasrec.search.sample import for_sample, sample_users
from dasrec.search.schedule import Bracket, plan_brackets, survivors
from dasrec.search.trial import Job, advance, read_record
from dasrec.split import Split
from dasrec.training import Training

__all__ = ["RankingEstimator", "SearchResult", "Trials", "cells_of", "for_sample", "search"]

_FACTS = "search.json"
Space = Mapping[str, Any]


@blocks.job("search")
def search(
    model: Model,
    *,
    space: Space,
    split: Split,
    metric: str = "ndcg@10",
    strategy: str = "halving",
    budget: int | None = None,
    trials: Trials | None = None,
) -> SearchResult:
    """Search the parameters with which a model is best on the test part of a split, eagerly.

    Parameters
    ----------
    model : Model
        What is not searched stays as it is; its ``iterations`` are what the best trials get.
    space : dict
        For each parameter a list of values, or a distribution with ``rvs`` as scipy.stats has them.
    split : Split
        A validation part, which nobody looks at to judge what was found.
    metric : str
        As :func:`dasrec.holdout` takes it.
    strategy : str
        ``grid`` trains all configurations to the end, ``random`` as many as the budget allows.
        ``halving`` begins with as many as it allows, of which one of 3 goes on at a third of the
        iterations, and so on: with 27 iterations after 1, 3 and 9. ``hyperband`` gives equal parts
        of the budget to such halvings that begin at 1, 3, 9 and 27. ``halving:4`` keeps one of 4.
    budget : int
        Iterations that all trials do together, at most; a grid needs none. Trials go on from their
        checkpoints, so that each iteration is done once. A model without iterations counts as 1.
    trials : Trials, optional
        Sample of users, place, limits, seed, and what runs side by side.

    Returns
    -------
    SearchResult
        Among the trials with most iterations, the best one's parameters are the best.

    Raises
    ------
    InputError
        The model has no such parameter or it is out of range, the strategy does not go with the
        model, the space or the budget, or nothing was measured before the time limit.
    MismatchError
        ``place`` holds another search.
    BudgetError
        The factors of one trial would not fit in memory.

    Notes
    -----
    Configurations are drawn by scikit-learn's ``ParameterSampler``, without repetition if all are
    lists. Results depend on the seed alone, not on the cluster, kills or ``parallel``; only
    ``time_limit`` depends on the clock. A trial holds factors as long as the vocabularies, on a
    sample too. Sources: :func:`dasrec.search.schedule.plan_brackets`.
    """
    trials = trials or Trials()
    trials.check()
    with blocks.ONE_BLAS_THREAD, _folder(trials) as place:
        seed = _seed(trials, place)
        model = _prepared(model, space, strategy, seed)
        brackets = _brackets(model, space, strategy, budget)
        runs = _draw(space, brackets, strategy, seed)
        models = _models(model, runs)
        part = split if trials.users is None else sample_users(split, trials.users, seed=seed)
        measured = holdout(part, metric, users=trials.tested, rng=seed)
        facts: dict[str, Any] = {
            "model": model.name,
            "split": split.spec,
            "metric": metric,
            "strategy": strategy,
            "users": trials.users,
            "tested": trials.tested,
            "seed": seed,
        }
        details = {
            "parameters": plain(model.get_params()),
            "configurations": [trial.parameters for trial in runs],
            "rungs": brackets,
            "train": view_of(part.train),
            "test": view_of(part.test),
        }
        _claim(place, {**facts, **details})
        if trials.users is not None:
            models = _scaled(models, split.train, trials.users)
        alone, memory = _side_by_side(trials, part.train, models)
        deadline = time.time() + Training(time_limit=trials.time_limit).seconds()
        job = Job(part.train, measured, place, alone, memory, deadline)
        for trial in runs:
            read_record(job, trial)
        finished = _run(job, brackets, runs, models)
        return _result(job, model, runs, {**facts, "finished": int(finished)})


@contextlib.contextmanager
def _folder(trials: Trials) -> Iterator[str]:
    """Give the folder of the search, which stays if somebody has named it."""
    if trials.place is not None:
        yield files.absolute(trials.place)
        return
    with tempfile.TemporaryDirectory(prefix="dasrec-search-") as folder:
        yield folder


def _seed(trials: Trials, place: str) -> int:
    """Return the seed; if none is given, that of the search which is there already."""
    if trials.rng is None:
        with contextlib.suppress(FileNotFoundError, KeyError):
            return int(files.read_json(files.join(place, _FACTS))["seed"])
    return seed_of(trials.rng)


def _prepared(model: Model, space: Space, strategy: str, seed: int) -> Model:
    """Check what is searched, and return a copy of the model that has a seed."""
    known = model.get_params()
    open_to = [name for name in known if name not in ("iterations", "rng")]
    if not space:
        msg = f"space is empty; expected some of: {', '.join(open_to) or 'nothing'}"
        raise InputError(msg)
    for name, values in space.items():
        if name not in open_to:
            msg = f"{name!r} cannot be searched for {model.name}; it has: {', '.join(open_to)}"
            raise InputError(msg)
        listed = isinstance(values, Sequence | np.ndarray) and not isinstance(values, str)
        if not (hasattr(values, "rvs") or (listed and len(values))):
            msg = (
                f"space[{name!r}] is {values!r}; expected a list of values, or a distribution with "
                "rvs, as scipy.stats.loguniform(0.01, 10)"
            )
            raise InputError(msg)
    if strategy.startswith(("halving", "hyperband")) and not model.stepwise:
        msg = f"{model.name} is not fitted step by step; take random or grid instead of {strategy}"
        raise InputError(msg)
    fixed = {"rng": seed} if "rng" in known and not isinstance(known["rng"], int) else {}
    prepared: Model = clone(model).set_params(**fixed)
    prepared._check()
    return prepared


def _brackets(model: Model, space: Space, strategy: str, budget: int | None) -> list[Bracket]:
    if budget is not None:
        check_count(budget, name="budget")
    drawn = any(hasattr(values, "rvs") for values in space.values())
    return plan_brackets(
        strategy,
        most=model.get_params().get("iterations", 1),
        budget=budget,
        n_grid=None if drawn else len(ParameterGrid(_lists(space))),
    )


def _lists(space: Space) -> dict[str, Any]:
    return {name: each if hasattr(each, "rvs") else list(each) for name, each in space.items()}


def _draw(space: Space, brackets: Sequence[Bracket], strategy: str, seed: int) -> list[Trial]:
    """Return the trials of all brackets with their configurations, in Python's own types."""
    places = [place for place, bracket in enumerate(brackets) for _ in range(bracket[0].n)]
    words = np.random.MT19937(np.random.SeedSequence([seed, 2]))
    draw = np.random.RandomState(words)
    found: Any = (
        ParameterGrid(_lists(space))
        if strategy == "grid"
        else ParameterSampler(_lists(space), n_iter=len(places), random_state=draw)
    )
    return [
        Trial(number, place, {name: _own(value) for name, value in parameters.items()})
        for number, (place, parameters) in enumerate(zip(places, found, strict=True))
    ]


def _own(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _models(model: Model, runs: Sequence[Trial]) -> list[Model]:
    """Return the model of each trial, checked."""
    models = []
    for trial in runs:
        each = clone(model).set_params(**trial.parameters)
        each._check()
        models.append(each)
    return models


def _scaled(models: Sequence[Model], whole: Interactions, share: float) -> list[Model]:
    counts, n_users = whole.counts("item_users"), whole.n_users
    return [for_sample(each, share=share, item_counts=counts, n_users=n_users) for each in models]


def _claim(place: str, facts: Mapping[str, Any]) -> None:
    """Write down what the search is, or refuse a place that has another."""
    mine = json.loads(json.dumps(facts))
    target = files.join(place, _FACTS)
    try:
        theirs = files.read_json(target)
    except FileNotFoundError:
        with files.writing(target):
            files.replace(target, json.dumps(mine, indent=1).encode())
        return
    odd = [name for name in mine if mine[name] != theirs.get(name)]
    if odd:
        msg = f"{place} holds a search with other {', '.join(odd)}; choose another place"
        raise MismatchError(msg)


def _side_by_side(
    trials: Trials, train: Interactions, models: Sequence[Model]
) -> tuple[bool, int | str | None]:
    """Say whether trials run side by side, and what each process may hold then."""
    on_client = blocks.active_client() is not None
    wanted = trials.parallel == "trials" or (trials.parallel == "auto" and on_client)
    planned = [each for each in models if each.stepwise]
    if not wanted or not planned:
        return wanted, trials.memory
    plans = [plan_fit(train, model=each, memory=trials.memory) for each in planned]
    plan = max(plans, key=lambda each: each.peak_bytes - each.cache_bytes)
    base, _, threads = room(trials.memory)
    # a plan for a client leaves out what a worker holds before it begins
    need = plan.peak_bytes - plan.cache_bytes + (base if on_client else 0)
    each = plan.limit_bytes - (threads - 1) * plan.factor_bytes
    if trials.parallel == "auto" and need > each:
        return False, trials.memory
    check_fits(
        need,
        limit=each,
        what=f"a trial of {plan.factors} factors beside {threads - 1} others",
        remedy='take parallel="blocks", which runs one trial at a time, or fewer factors',
    )
    return True, each


def _run(
    job: Job, brackets: Sequence[Bracket], runs: Sequence[Trial], models: Sequence[Model]
) -> bool:
    """Take all brackets from rung to rung together; False if time is up before the end."""
    alive = [[run for run in runs if run.bracket == place] for place in range(len(brackets))]
    for step in range(max(map(len, brackets))):
        at = {place: each[step] for place, each in enumerate(brackets) if step < len(each)}
        todo = [(run, rung.iterations) for place, rung in at.items() for run in alive[place]]
        _advance(job, [each for each in todo if each[1] not in each[0].measures], models)
        if any(iterations not in run.measures for run, iterations in todo):
            return False
        for place, rung in at.items():
            last = step + 1 == len(brackets[place])
            n = 1 if last else brackets[place][step + 1].n
            kept = survivors(alive[place], rung.iterations, n)
            for run in alive[place]:
                if run not in kept:
                    files.remove(job.checkpoint(run.number))
            alive[place] = kept
    return True


def _advance(job: Job, todo: Sequence[tuple[Trial, int]], models: Sequence[Model]) -> None:
    """Take trials to their next rung, side by side or one after the other."""
    steps = []
    for run, iterations in todo:
        model = models[run.number]
        if model.stepwise:
            model = clone(model).set_params(iterations=iterations)
        steps.append((run, model, iterations))
    if job.alone:
        shared = blocks.share(job)
        found = blocks.run(advance, [(shared, *step) for step in steps], name="search-trial")
    else:
        found = [advance(job, *steps[i]) for i in blocks.track(len(steps), name="search")]
    for (run, _, iterations), measure in zip(steps, found, strict=True):
        if measure is not None:
            run.measures[iterations] = Measure(*measure)


def _result(
    job: Job, model: Model, runs: Sequence[Trial], facts: Mapping[str, Any]
) -> SearchResult:
    """Label what the trials have come to, and keep the checkpoint of the best alone."""
    furthest = max(run.iterations for run in runs)
    if not furthest:
        msg = "no trial was measured before the time limit; give more time, or fewer iterations"
        raise InputError(msg)
    (best,) = survivors([run for run in runs if run.iterations == furthest], furthest, 1)
    if facts["finished"]:
        for run in runs:
            if run is not best:
                files.remove(job.checkpoint(run.number))
    known = {key: value for key, value in facts.items() if value is not None}
    fresh: Model = clone(model).set_params(**best.parameters)
    return SearchResult(as_dataset(runs, best=best.number, facts=known), fresh)
