"""The last steps: lists of all users, the pointer to what is in use, and a page."""

from __future__ import annotations

import pandas as pd
import xarray as xr

from dasrec import files, pages
from dasrec.recommend import recommend_all
from dasrec.report import Section, write_page
from dasrec.workflow.base import Facts, key_of
from dasrec.workflow.learn import basis_of
from dasrec.workflow.place import TESTED, Marker
from dasrec.workflow.state import Run, Step, settings, unless_better


def _lists_key(run: Run) -> str:
    return key_of(run.key("fit"), run.which, *settings(run.workflow.recommend))


def _recommend(run: Run, key: str) -> Facts:
    asked = run.workflow.recommend
    assert asked is not None  # else the step is left out
    model, out = run.candidate(run.which), run.place.lists(key)
    recommend_all(model, run.store, n=asked.n, out=out, overwrite=True)
    return {"lists": out, "rows": run.store.n_users, "n": asked.n}


def _lists_are_there(run: Run, marker: Marker) -> bool:
    return run.place.has_lists(marker.key)


def _no_lists(run: Run) -> str | None:
    return unless_better(run) if run.workflow.recommend else "not asked for"


# -- in use ----------------------------------------------------------------------------------------


def _lists_of(run: Run) -> str | None:
    return run.key("recommend") if "recommend" in run.done else None


def _promote_key(run: Run) -> str:
    return key_of(run.key("fit"), run.which, _lists_of(run))


def _promote(run: Run, key: str) -> Facts:
    del key
    run.place.promote(run.key("fit"), basis_of(run), run.which, _lists_of(run))
    return {"model": run.place.model(run.key("fit"), run.which)}


def _is_promoted(run: Run, marker: Marker) -> bool:
    del marker
    used, lists = run.place.promoted(), _lists_of(run)
    wanted = run.place.lists(lists) if lists else None
    model = run.place.model(run.key("fit"), run.which)
    return used is not None and (used.model, used.lists) == (model, wanted)


# -- the page --------------------------------------------------------------------------------------


def _report_key(run: Run) -> str:
    parts = [run.key(name) for name in ("fit", "evaluate", "compare")]
    figures = run.facts("compare").get("metrics")
    return key_of(parts, figures, run.is_better(), *settings(run.workflow.report))


def _report(run: Run, key: str) -> Facts:
    model = run.candidate(run.which if run.is_better() else TESTED)
    measured = xr.Dataset.from_dict(run.facts("evaluate")["dataset"])
    measured = measured.expand_dims(model=[model.name])
    sections = pages.describe(run.store, [model], measured)
    if "dataset" in run.facts("compare"):
        compared = xr.Dataset.from_dict(run.facts("compare")["dataset"])
        sections += pages.describe_comparison(compared)
    sections.append(pages.sample_lists(model, run.store, titles=_titles(run)))
    name = run.workflow.name
    verdict = "This model is in use." if run.is_better() else "The last model stays in use."
    sections.insert(0, Section("Verdict", text=verdict))
    place = write_page(_page(run, key), title=f"dasrec: {name}", sections=sections)
    return {"report": place}


def _page(run: Run, key: str) -> str:
    return run.place.path("reports", f"{run.workflow.name}-{key}.html")


def _titles(run: Run) -> pd.Series | None:
    place = run.workflow.report and run.workflow.report.titles
    return pages.read_titles(place) if place else None


def _page_is_there(run: Run, marker: Marker) -> bool:
    return files.exists(_page(run, marker.key))


def _no_page(run: Run) -> str | None:
    return None if run.workflow.report else "not asked for"


STEPS = (
    Step("recommend", _lists_key, _recommend, _lists_are_there, _no_lists),
    Step("promote", _promote_key, _promote, _is_promoted, unless_better),
    Step("report", _report_key, _report, _page_is_there, _no_page),
)
