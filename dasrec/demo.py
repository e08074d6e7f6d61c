"""The main job from end to end: a log becomes a store, models, figures, lists and a page."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xarray as xr

from dasrec import files
from dasrec.clean import clean
from dasrec.datasets import LogFiles, movielens_100k, simulate_log
from dasrec.errors import DataUnavailableError
from dasrec.evaluate import evaluate_all
from dasrec.events import read_events
from dasrec.ingest import write_interactions
from dasrec.interactions import Interactions
from dasrec.models import ALS, Biases, ImplicitALS, Model, Popular
from dasrec.pages import describe, sample_lists
from dasrec.recommend import recommend_all
from dasrec.report import write_page
from dasrec.split import Split, split_by_time

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """What the demo made: the figures, and where everything lies."""

    data: LogFiles
    interactions: Interactions
    evaluation: xr.Dataset
    places: dict[str, str]
    seconds: float


def run_demo(
    folder: str,
    *,
    simulated: bool = False,
    rng: int = 0,
    say: Callable[[str], object] = logger.info,
) -> Outcome:
    """Run the whole way into ``folder``, eagerly.

    Parameters
    ----------
    folder : path
        Made if need be; what an earlier demo left there is replaced.
    simulated : bool
        Whether to simulate a log even if MovieLens 100K can be had.
    rng : int
        Seed of the models and of a simulated log.
    say : callable
        Told in one line what comes next.
    """
    start = time.perf_counter()
    place = files.absolute(folder)
    files.make_folder(place)
    data = _find_data(place, simulated=simulated, rng=rng, say=say)
    say("Cleaning the log and writing the store")
    columns: Any = data.columns
    events = clean(read_events(list(data.paths), **columns), bad_rows="drop", dedupe="last")
    interactions = write_interactions(events, files.join(place, "interactions"), overwrite=True)
    say("Splitting by time: the latest 20 % are to be predicted")
    split = split_by_time(interactions, 0.2)
    models = _fit_all(split, rng=rng, say=say)
    say("Evaluating every model on all users and the full catalogue")
    evaluation = evaluate_all(models, split, n=(10, 20))
    places = {"interactions": interactions.url}
    for model in models:
        places[model.name] = model.save(files.join(place, f"model-{model.name}"), overwrite=True)
    say("Writing the top 10 for every user")
    final = ImplicitALS(rng=rng).fit(interactions)
    places["final model"] = final.save(files.join(place, "model"), overwrite=True)
    lists = files.join(place, "top10.parquet")
    places["top 10"] = recommend_all(final, interactions, n=10, out=lists, overwrite=True)
    say("Drawing the report")
    sections = describe(interactions, models, evaluation)
    sections.append(sample_lists(final, interactions, titles=data.titles))
    places["report"] = write_page(
        files.join(place, "report.html"), title=f"dasrec on {data.name}", sections=sections
    )
    return Outcome(data, interactions, evaluation, places, time.perf_counter() - start)


def _find_data(place: str, *, simulated: bool, rng: int, say: Callable[[str], object]) -> LogFiles:
    if not simulated:
        say("Looking for MovieLens 100K")
        try:
            return movielens_100k()
        except DataUnavailableError as error:
            say(f"{error}. Simulating a log with known truth instead")
    path = Path(place) / "simulated.csv"
    return simulate_log(path, 100_000, n_users=1_000, n_items=1_500, rng=rng)


def _fit_all(split: Split, *, rng: int, say: Callable[[str], object]) -> list[Model]:
    models: list[Model] = [Popular(), Biases(), ALS(rng=rng), ImplicitALS(rng=rng)]
    for model in models:
        say(f"Fitting {model.name}")
        model.fit(split.train)
    return models
