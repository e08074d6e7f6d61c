"""The middle steps: fit a model, measure it, and compare it with the one in use."""

from __future__ import annotations

import logging
from typing import Any

import xarray as xr

from dasrec import files
from dasrec.compare import compare
from dasrec.evaluate import evaluate
from dasrec.interactions import Interactions
from dasrec.metrics import METRICS
from dasrec.models import Model, Popular, load_model
from dasrec.results import as_record
from dasrec.scorers import Rankable, Vectors
from dasrec.training import Training
from dasrec.workflow.base import Facts, key_of
from dasrec.workflow.carry import carry_over
from dasrec.workflow.place import TESTED, WHOLE, Marker
from dasrec.workflow.state import Run, Step, settings, step_key, unless_better

logger = logging.getLogger(__name__)

LAST, NEW = "last", "new"


def basis_of(run: Run) -> str:
    """Name all that a fit depends on beside the model that it may start from."""
    fit = run.workflow.fit
    return step_key(
        run, fit.model, fit.parameters, fit.warm, run.facts("search").get("best_params")
    )


def _fit_key(run: Run) -> str:
    basis, used = basis_of(run), run.place.promoted()
    if run.workflow.fit.warm is None or used is None:
        return basis
    # what has begun at a model, and was promoted in its place, is not to begin at itself
    return used.key if used.basis == basis else key_of(basis, used.key)


def _fit(run: Run, key: str) -> Facts:
    return fit_into(run, run.split.train, key, TESTED)


def _fit_whole(run: Run, key: str) -> Facts:
    del key
    return fit_into(run, run.store, run.key("fit"), WHOLE)


def fit_into(run: Run, interactions: Interactions, key: str, which: str) -> Facts:
    """Fit the model of this run on some interactions and save it; go on where it was cut off."""
    fit, best = run.workflow.fit, run.facts("search").get("best_params", {})
    model = fit.make(run.workflow.seed, **best)
    checkpoint = run.place.unfinished(f"{key}-{which}")
    if fit.warm and _begin_warm(run, model, interactions, checkpoint, which):
        model.set_params(iterations=1 + fit.warm)
    iterations = model.get_params().get("iterations")
    training = Training(
        memory=run.workflow.memory,
        checkpoint=checkpoint if model.stepwise else None,
        checkpoint_every=fit.checkpoint_every if model.stepwise else None,
        resume=model.stepwise,
        callbacks=[lambda record: run.tick(iteration=record["iteration"], of=iterations)],
    )
    model.fit(interactions, training=training)
    saved = model.save(run.place.model(key, which), overwrite=True)
    files.remove(checkpoint)
    facts = {"model": saved, "kind": model.name, "parameters": model.get_params()}
    history: xr.Dataset = getattr(model, "history_", xr.Dataset())
    if "objective" in history:
        facts["objective"] = float(history["objective"].values[-1])
    return facts


def _begin_warm(
    run: Run, model: Model, interactions: Interactions, checkpoint: str, which: str
) -> bool:
    """Put what is in use where the fit resumes from; False if a fit must begin from nothing."""
    used = run.place.promoted()
    if used is None:
        return False
    if run.place.is_whole(checkpoint):
        return True
    place = run.place.model(used.key, which)
    before = load_model(place if run.place.is_whole(place) else run.place.model(used.key, TESTED))
    theirs, mine = (
        {name: value for name, value in each.get_params().items() if name != "iterations"}
        for each in (before, model)
    )
    if before.name != model.name or theirs != mine:
        logger.warning("the model in use has other parameters; this one begins from nothing")
        return False
    carry_over(before, interactions).save(checkpoint, overwrite=True)
    return True


def _is_there(run: Run, marker: Marker) -> bool:
    return run.place.is_whole(run.place.model(marker.key, TESTED))


def _whole_is_there(run: Run, marker: Marker) -> bool:
    del marker
    return run.place.is_whole(run.place.model(run.key("fit"), WHOLE))


def _no_whole(run: Run) -> str | None:
    return unless_better(run) if run.workflow.fit.whole else "not asked for"


# -- figures ---------------------------------------------------------------------------------------


def _evaluate_key(run: Run) -> str:
    return key_of(run.key("fit"), *settings(run.workflow.evaluate))


def _evaluate(run: Run, key: str) -> Facts:
    del key
    asked = run.workflow.evaluate
    measured = evaluate(run.candidate(), run.split, n=asked.n, metrics=asked.metrics)
    record = as_record(measured)
    return {"metrics": record["metrics"], "dataset": measured.to_dict()}


def _compare_key(run: Run) -> str:
    return key_of(run.key("fit"), *settings(run.workflow.promote))


def _compare(run: Run, key: str) -> Facts:
    del key
    asked, used = run.workflow.promote, run.place.promoted()
    if used is not None and used.key == run.key("fit"):
        return {"last": used.key, "better": True, "why": "it is the model in use"}
    metric, n = asked.measure
    models: dict[str, Rankable] = {LAST: _last_model(run), NEW: run.candidate()}
    options: dict[str, Any] = {"test": asked.test, "rng": run.workflow.seed}
    compared = compare(models, run.split, n=n, metrics=[metric], **options)
    found = compared.sel(model=NEW, metric=metric, n=n)
    gain = float(found["difference"]) * (-1 if METRICS[metric].smaller else 1)
    p = float(found["p"])
    better = gain > asked.gain and (asked.p is None or p < asked.p)
    return {
        "last": used.key if used else "popular",
        "better": better or asked.when == "always",
        "metrics": {name: float(compared.sel(model=name)["value"].item()) for name in models},
        "gain": gain,
        "p": p,
        "dataset": compared.to_dict(),
    }


def _last_model(run: Run) -> Rankable:
    """Return what the new model has to beat: the one in use, else popularity.

    It is the version that was fitted on the training part of its day: what is later in the log than
    that it does not know, so it is not asked for what it has seen.
    """
    used = run.place.promoted()
    if used is None:
        return Popular().fit(run.split.train)
    last = carry_over(load_model(run.place.model(used.key, TESTED)), run.split.train)
    return Vectors(*last.scoring_vectors(), LAST)


def _still_stands(run: Run, marker: Marker) -> bool:
    """Say whether a comparison is with the model in use, or has put the new one to use."""
    used = run.place.promoted()
    in_use = used.key if used else "popular"
    promoted = bool(marker.facts["better"]) and in_use == run.key("fit")
    return promoted or bool(marker.facts["last"] == in_use)


STEPS = (
    Step("fit", _fit_key, _fit, _is_there),
    Step("evaluate", _evaluate_key, _evaluate),
    Step("compare", _compare_key, _compare, _still_stands),
    Step(
        "whole", lambda run: key_of(run.key("fit"), WHOLE), _fit_whole, _whole_is_there, _no_whole
    ),
)
