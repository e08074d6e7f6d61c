"""A fit is watched, limited, stopped early, kept, and taken up again as if it had never stopped."""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import dasrec
from dasrec import (
    ALS,
    SGD,
    WARP,
    GradientDescent,
    ImplicitALS,
    InputError,
    Interactions,
    MismatchError,
    Model,
    StoreError,
    SVDpp,
    Training,
    load_model,
)
from dasrec.cluster import connect
from dasrec.testing import planted_matrix
from dasrec.training import Record

ITERATIONS = 4
Make = Callable[[], Any]

MAKES = {
    "implicit, cg": lambda: ImplicitALS(factors=4, iterations=ITERATIONS, solver="cg", rng=3),
    "implicit, exact": lambda: ImplicitALS(factors=4, iterations=ITERATIONS, solver="exact", rng=3),
    "explicit, exact": lambda: ALS(factors=4, iterations=ITERATIONS, solver="exact", rng=3),
    "explicit, cg": lambda: ALS(factors=4, iterations=ITERATIONS, solver="cg", rng=3),
    "implicit, blocks": lambda: ImplicitALS(
        factors=40, iterations=ITERATIONS, solver="subspace", rng=3
    ),
    "non-negative": lambda: ALS(factors=4, iterations=ITERATIONS, nonnegative=True, rng=3),
    "no biases": lambda: ALS(factors=4, iterations=ITERATIONS, biases=False, rng=3),
    "sgd": lambda: SGD(factors=4, iterations=ITERATIONS, rng=3),
    "svdpp": lambda: SVDpp(factors=4, iterations=ITERATIONS, rng=3),
    "warp": lambda: WARP(factors=4, iterations=ITERATIONS, schedule="bold", rng=3),
    "gd": lambda: GradientDescent(factors=4, iterations=ITERATIONS, rng=3),
}
EACH = pytest.mark.parametrize("make", MAKES.values(), ids=MAKES)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Interactions:
    with mock.patch("dasrec.memory.LEAST_BLOCK_CELLS", 400):
        made = dasrec.interactions_from_scipy(
            planted_matrix(), tmp_path_factory.mktemp("training") / "data"
        )
    assert len(made.cuts("user_items")) > 3
    return made


def implicit(**parameters: Any) -> ImplicitALS:
    return ImplicitALS(**{"factors": 3, "iterations": ITERATIONS, "rng": 0, **parameters})


def n_done(model: Model) -> int:
    return int(model.history_.sizes["iteration"])


def learned(model: Model) -> dict[str, bytes]:
    """Return the bits of all that a model has learned, but for how long it took."""
    arrays = {name: each for name, each in vars(model).items() if isinstance(each, xr.DataArray)}
    history = {str(name): each for name, each in model.history_.items() if "seconds" not in name}
    assert {"user_factors_", "item_factors_", "seed_"} <= arrays.keys()
    assert "objective" in history
    return {name: each.values.tobytes() for name, each in {**arrays, **history}.items()}


def factors(model: Model) -> list[bytes]:
    return [each.tobytes() for each in model.scoring_vectors()]


def shown(numbers: Sequence[float], *, first: int = 0) -> Callable[[Any], float]:
    """Return a monitor that tells these numbers one after the other."""
    left = iter(numbers[first:])
    return lambda _: next(left)


def interrupt_after(iteration: int) -> Callable[[Record], None]:
    def callback(record: Record) -> None:
        if record["iteration"] == iteration:
            raise KeyboardInterrupt

    return callback


def stop(model: Model, data: Interactions, training: Training) -> None:
    with pytest.raises(KeyboardInterrupt):
        model.fit(data, training=training)


# -- watching --------------------------------------------------------------------------------------


def test_callbacks_and_log_tell_what_the_history_does(data: Interactions, tmp_path: Path) -> None:
    records: list[Record] = []
    training = Training(
        monitor=shown(range(ITERATIONS)), callbacks=[records.append], log=tmp_path / "log"
    )
    history = implicit().fit(data, training=training).history_
    assert history["iteration"].values.tolist() == [1, 2, 3, 4]
    assert history["monitor"].values.tolist() == [0, 1, 2, 3]
    assert {"objective", "gap", "seconds", "monitor_seconds"} < set(history.data_vars)
    logged = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert logged == [{"model": "implicit-als", **record} for record in records]
    assert [record["iteration"] for record in records] == [1, 2, 3, 4]
    for name, column in history.items():
        assert [record[str(name)] for record in records] == column.values.tolist()


def test_a_log_is_appended_to(data: Interactions, tmp_path: Path) -> None:
    log = tmp_path / "log"
    for kind in (ImplicitALS, ALS):
        kind(factors=2, iterations=2).fit(data, training=Training(log=log))
    names = [json.loads(line)["model"] for line in log.read_text().splitlines()]
    assert names == ["implicit-als", "implicit-als", "als", "als"]


def test_a_callback_cannot_change_the_history(data: Interactions) -> None:
    def spoil(record: Record) -> None:
        record["objective"] = -1

    model = implicit(iterations=2).fit(data, training=Training(callbacks=[spoil]))
    assert (model.history_["objective"].values > 0).all()


@EACH
def test_watching_changes_no_bit(data: Interactions, tmp_path: Path, make: Make) -> None:
    training = Training(callbacks=[lambda _: None], log=tmp_path / "log", time_limit="1h")
    assert learned(make().fit(data, training=training)) == learned(make().fit(data))


# -- stopping --------------------------------------------------------------------------------------


def test_a_callback_stops_the_fit_by_true_alone(data: Interactions) -> None:
    seen: list[float] = []

    def callback(record: Record) -> Any:
        seen.append(record["iteration"])
        return True if record["iteration"] == 3 else 1

    model = implicit().fit(data, training=Training(callbacks=[callback, lambda _: None]))
    assert seen == [1, 2, 3]
    assert learned(model) == learned(implicit(iterations=3).fit(data))


@pytest.mark.parametrize(
    ("numbers", "patience", "done", "best"),
    [
        ([1, 3, 2, 2, 9], 2, 4, 2),
        ([1, 3, 3, 9, 9], 1, 3, 2),  # no better is not better
        ([5, 4, 3, 2, 1], 4, 5, 1),
        ([1, 2, 3, 4, 5], 1, 5, 5),
        ([-3, -2, -4, -1, -5], 2, 5, 4),
    ],
)
def test_patience_ends_and_the_best_iteration_is_kept(
    data: Interactions, numbers: list[float], patience: int, done: int, best: int
) -> None:
    training = Training(monitor=shown(numbers), patience=patience)
    model = implicit(iterations=5).fit(data, training=training)
    assert model.history_["monitor"].values.tolist() == numbers[:done]
    assert factors(model) == factors(implicit(iterations=best).fit(data))


def test_the_best_iteration_is_kept_beside_the_last(data: Interactions, tmp_path: Path) -> None:
    place = tmp_path / "model"
    training = Training(monitor=shown([1, 3, 2, 9]), patience=1, checkpoint=place)
    model = implicit().fit(data, training=training)
    assert factors(load_model(f"{place}-best")) == factors(model)
    assert factors(load_model(place)) == factors(implicit(iterations=3).fit(data))


def test_without_patience_the_last_iteration_is_kept(data: Interactions) -> None:
    model = implicit().fit(data, training=Training(monitor=shown([4, 3, 2, 1])))
    assert learned(model).items() > learned(implicit().fit(data)).items()


def fit_by_clock(data: Interactions, limit: float | str) -> int:
    """Fit while each iteration lasts 50 s and what surrounds it as long; return how many it does.

    They end at 50, 150, 250 and so on.
    """
    now = [0.0]
    ticks = itertools.count(0, 50)

    def pass_by(record: Record) -> None:
        assert record["seconds"] == 50
        now[0] += 100

    clock = SimpleNamespace(monotonic=lambda: now[0], perf_counter=time.perf_counter)
    timer = SimpleNamespace(perf_counter=lambda: next(ticks))
    with (
        mock.patch("dasrec.training.time", clock),
        mock.patch("dasrec.models.alternating.time", timer),
    ):
        training = Training(time_limit=limit, callbacks=[pass_by])
        model = implicit(iterations=5).fit(data, training=training)
    return n_done(model)


@pytest.mark.parametrize(
    ("limit", "done"),
    [
        (1, 1),  # there is no model without one
        (149, 1),
        (150, 2),
        (249.5, 2),
        (np.int64(250), 3),
        ("250", 3),
        ("4min", 2),
        ("4min 10s", 3),
        ("10min", 5),
    ],
)
def test_no_iteration_begins_that_would_end_later(
    data: Interactions, limit: float | str, done: int
) -> None:
    assert fit_by_clock(data, limit) == done


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"patience": 2}, "patience was given without a monitor; expected both, as monitor="),
        ({"patience": 0, "monitor": len}, "patience is 0; expected a whole number of iterations"),
        ({"patience": -1, "monitor": len}, "patience is -1; expected a whole number of iterations"),
        ({"resume": True}, "resume=True was given without a checkpoint; pass checkpoint= as befor"),
        *(
            ({"time_limit": each}, f"time_limit is {each!r}; expected seconds above 0, or text")
            for each in (0, -1, -0.5, "0", "soon", "", "NaT", float("nan"), True, [60], "-5min")
        ),
        *(
            ({"checkpoint_every": each}, f"checkpoint_every is {each!r}; expected seconds above 0")
            for each in (0, "often")
        ),
        ({"memory": "plenty"}, "memory is 'plenty'; expected bytes or a text like"),
    ],
)
def test_what_does_not_go_together_is_refused_before_anything_starts(
    data: Interactions, given: dict[str, Any], message: str
) -> None:
    with (
        mock.patch("dasrec.models.alternating.sweep", side_effect=AssertionError),
        pytest.raises(InputError, match=re.escape(message)),
    ):
        implicit().fit(data, training=Training(**given))


# -- keeping ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make", [MAKES["implicit, cg"], MAKES["explicit, exact"]], ids=["implicit", "explicit"]
)
def test_the_checkpoint_is_a_whole_model_after_each_iteration(
    data: Interactions, tmp_path: Path, make: Make
) -> None:
    place, found = tmp_path / "model", []

    def look(record: Record) -> None:
        kept = load_model(place)
        assert n_done(kept) == record["iteration"]
        assert len(kept.recommend(data.user_ids.ids[:1], n=3)["rank"]) == 3
        found.append(learned(kept))

    make().fit(data, training=Training(checkpoint=place, callbacks=[look]))
    for number, each in enumerate(found, 1):
        assert each == learned(make().set_params(iterations=number).fit(data))
    assert len(found) == ITERATIONS


def test_between_two_saves_some_time_may_pass(data: Interactions, tmp_path: Path) -> None:
    """Each iteration lasts 100 s; the last one is saved in any case, and it can be taken up."""
    place, found = tmp_path / "model", []
    clock = SimpleNamespace(monotonic=lambda: 100 * len(found), perf_counter=time.perf_counter)

    def look(record: Record) -> None:
        found.append(n_done(load_model(place)) if place.exists() else 0)

    with mock.patch("dasrec.training.time", clock):
        training = Training(checkpoint=place, checkpoint_every="250s", callbacks=[look])
        implicit(iterations=6).fit(data, training=training)
    assert found == [0, 0, 0, 4, 4, 6]
    again = Training(checkpoint=place, checkpoint_every=1e-9, resume=True)
    resumed = implicit(iterations=8).fit(data, training=again)
    assert learned(resumed) == learned(implicit(iterations=8).fit(data))


@EACH
def test_the_last_iteration_is_saved_where_a_callback_stops(
    data: Interactions, tmp_path: Path, make: Make
) -> None:
    place = tmp_path / "model"
    training = Training(
        checkpoint=place, checkpoint_every="1h", callbacks=[lambda each: each["iteration"] == 2]
    )
    model = make().fit(data, training=training)
    assert n_done(load_model(place)) == 2
    assert learned(load_model(place)) == learned(model)


def test_a_place_that_holds_a_store_is_refused_and_stays(data: Interactions) -> None:
    before = data.to_scipy().data.tobytes()
    refusals = ((False, InputError, "another place for 'model'"), (True, StoreError, "'model'"))
    for resume, kind, message in refusals:
        model = implicit(iterations=2)
        with pytest.raises(kind, match=message):
            model.fit(data, training=Training(checkpoint=data.url, resume=resume))
        assert not [name for name in vars(model) if name.endswith("_")]
        assert dasrec.open_interactions(data.url).to_scipy().data.tobytes() == before
    assert dasrec.verify(data.url) == []


@pytest.mark.parametrize("resume", [False, True])
def test_a_place_of_other_files_is_refused_and_they_stay(
    data: Interactions, tmp_path: Path, resume: bool
) -> None:
    (tmp_path / "diary.txt").write_text("mine")
    with pytest.raises(InputError, match="is something else than a store; choose a new place"):
        implicit(iterations=2).fit(data, training=Training(checkpoint=tmp_path, resume=resume))
    assert [path.name for path in tmp_path.iterdir()] == ["diary.txt"]
    assert (tmp_path / "diary.txt").read_text() == "mine"


# -- taking up again -------------------------------------------------------------------------------


@EACH
def test_a_stopped_fit_goes_on_with_the_same_bits(
    data: Interactions, tmp_path: Path, make: Make
) -> None:
    place, iteration = tmp_path / "model", 2
    stop(make(), data, Training(checkpoint=place, callbacks=[interrupt_after(iteration)]))
    assert n_done(load_model(place)) == iteration
    records: list[Record] = []
    again = Training(checkpoint=place, resume=True, callbacks=[records.append])
    model = make().fit(data, training=again)
    assert [each["iteration"] for each in records] == [*range(iteration + 1, ITERATIONS + 1)]
    assert learned(model) == learned(make().fit(data)) == learned(load_model(place))


def test_a_fit_may_be_stopped_after_every_iteration(data: Interactions, tmp_path: Path) -> None:
    place = tmp_path / "model"
    for iteration in range(1, ITERATIONS):
        training = Training(
            checkpoint=place,
            resume=True,
            callbacks=[interrupt_after(iteration)],
            log=tmp_path / "log",
        )
        stop(implicit(), data, training)
    model = implicit().fit(data, training=Training(checkpoint=place, resume=True))
    assert learned(model) == learned(implicit().fit(data))
    lines = (tmp_path / "log").read_text().splitlines()
    assert [json.loads(line)["iteration"] for line in lines] == [1, 2, 3]


@pytest.mark.parametrize("rng", [None, "generator"])
def test_a_seed_that_was_drawn_is_taken_up(
    data: Interactions, tmp_path: Path, rng: str | None
) -> None:
    def drawn() -> ImplicitALS:
        return implicit(rng=np.random.default_rng() if rng else None)

    place = tmp_path / "model"
    stop(drawn(), data, Training(checkpoint=place, callbacks=[interrupt_after(2)]))
    model = drawn().fit(data, training=Training(checkpoint=place, resume=True))
    assert learned(model) == learned(implicit(rng=int(model.seed_)).fit(data))


@pytest.fixture(scope="module")
def timed(tmp_path_factory: pytest.TempPathFactory) -> Interactions:
    cells = planted_matrix().tocoo()
    table = pd.DataFrame({"user": cells.row, "item": cells.col, "rating": cells.data})
    place = tmp_path_factory.mktemp("timed") / "data"
    table["time"] = np.arange(len(table))
    return dasrec.interactions_from_table(table, place, timestamp="time")


@pytest.mark.filterwarnings("ignore::dasrec.LeakageWarning")
@pytest.mark.parametrize(
    "view",
    [
        lambda data: dasrec.split_random(data, 0.2, rng=1).train,
        lambda data: dasrec.split_users(data, 0.2, rng=1).train,
        lambda data: dasrec.split_last_n(data, 1).train,
        lambda data: dasrec.split_any_n(data, 1, rng=1).train,
        lambda data: next(dasrec.split_rolling(data, 1, width="5min", train="1h")).train,
        lambda data: dasrec.split_by_time(data, 0.2).train,
        lambda data: data.transform(dasrec.BM25().fit(data)),
        lambda data: data.transform(dasrec.Log1p()),
    ],
    ids=["random", "users", "last n", "any n", "rolling", "time", "bm25", "log1p"],
)
def test_views_are_known_again(timed: Interactions, tmp_path: Path, view: Any) -> None:
    """A view is compared by what it says of itself, which JSON must not change."""
    place = tmp_path / "model"
    implicit(iterations=1).fit(view(timed), training=Training(checkpoint=place))
    again = Training(checkpoint=place, resume=True)
    model = implicit(iterations=2).fit(view(timed), training=again)
    assert learned(model) == learned(implicit(iterations=2).fit(view(timed)))


NUMBERS = [1.0, 3.0, 2.0, 2.5, 9.0]


def patient(place: Path | None, *, first: int = 0, **options: Any) -> Training:
    """Return a training that ends after four iterations of five, of which the second is best."""
    return Training(monitor=shown(NUMBERS, first=first), patience=2, checkpoint=place, **options)


@pytest.mark.parametrize("kind", [ImplicitALS, ALS])
@pytest.mark.parametrize("iteration", [2, 3, 4])
def test_patience_goes_on_too(
    data: Interactions, tmp_path: Path, kind: Any, iteration: int
) -> None:
    """Stopped after the iteration that would have been the last, there is nothing left to do."""
    place = tmp_path / "model"

    def make() -> Any:
        return kind(factors=3, iterations=len(NUMBERS), rng=0)

    wanted = make().fit(data, training=patient(None))
    assert n_done(wanted) == 4
    assert factors(wanted) == factors(make().set_params(iterations=2).fit(data))
    stop(make(), data, patient(place, callbacks=[interrupt_after(iteration)]))
    model = make().fit(data, training=patient(place, first=iteration, resume=True))
    assert learned(model) == learned(wanted)


@pytest.mark.parametrize("number", range(5))
def test_between_any_two_writes_a_fit_may_be_stopped(
    data: Interactions, tmp_path: Path, number: int
) -> None:
    """With patience there are two places; no order of events makes them disagree for good."""
    place, save, saved = tmp_path / "model", Model.save, []

    def count(model: Model, url: Any, **options: Any) -> str:
        if len(saved) == number:
            raise KeyboardInterrupt
        saved.append(url)
        return save(model, url, **options)

    with mock.patch.object(Model, "save", count):
        stop(implicit(iterations=5), data, patient(place))
    done = n_done(load_model(place)) if place.exists() else 0
    model = implicit(iterations=5).fit(data, training=patient(place, first=done, resume=True))
    assert learned(model) == learned(implicit(iterations=5).fit(data, training=patient(None)))


def test_a_monitor_may_come_and_go(data: Interactions, tmp_path: Path) -> None:
    place = tmp_path / "model"
    implicit(iterations=2).fit(data, training=Training(checkpoint=place))
    watched = Training(checkpoint=place, resume=True, monitor=shown([7, 8]), patience=2)
    history = implicit(iterations=4).fit(data, training=watched).history_
    np.testing.assert_array_equal(history["monitor"], [np.nan, np.nan, 7, 8])
    unwatched = Training(checkpoint=place, resume=True)
    model = implicit(iterations=5).fit(data, training=unwatched)
    np.testing.assert_array_equal(model.history_["monitor"], [np.nan, np.nan, 7, 8, np.nan])
    assert factors(model) == factors(implicit(iterations=5).fit(data))


@pytest.mark.parametrize(
    "make", [MAKES["implicit, cg"], MAKES["explicit, exact"]], ids=["implicit", "explicit"]
)
def test_more_iterations_than_before_go_on(data: Interactions, tmp_path: Path, make: Make) -> None:
    training = Training(checkpoint=tmp_path / "model", resume=True)
    make().set_params(iterations=2).fit(data, training=training)
    model = make().fit(data, training=training)
    assert learned(model) == learned(make().fit(data))
    with mock.patch("dasrec.models.alternating.sweep", side_effect=AssertionError):
        assert learned(make().fit(data, training=training)) == learned(model)


def test_where_nothing_is_there_a_fit_begins_anew(data: Interactions, tmp_path: Path) -> None:
    training = Training(checkpoint=tmp_path / "model", resume=True)
    assert learned(implicit().fit(data, training=training)) == learned(implicit().fit(data))


def test_without_resume_a_fit_begins_anew(data: Interactions, tmp_path: Path) -> None:
    place = tmp_path / "model"
    implicit(rng=5).fit(data, training=Training(checkpoint=place))
    model = implicit(iterations=2).fit(data, training=Training(checkpoint=place))
    assert learned(load_model(place)) == learned(model) == learned(implicit(iterations=2).fit(data))


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"factors": 4}, "was fitted with other factors; choose another place, or resume=False"),
        ({"rng": 1}, "was fitted with other rng; choose"),
        (
            {"regularization": 0.2, "tolerance": 1e-3},
            "was fitted with other regularization, tolerance; choose",
        ),
    ],
)
def test_other_parameters_are_named_and_refused(
    data: Interactions, tmp_path: Path, other: dict[str, Any], message: str
) -> None:
    place = tmp_path / "model"
    kept = learned(implicit(iterations=2).fit(data, training=Training(checkpoint=place)))
    with pytest.raises(MismatchError, match=re.escape(f"{place} {message}")):
        implicit(**other).fit(data, training=Training(checkpoint=place, resume=True))
    assert learned(load_model(place)) == kept


def test_other_data_and_other_models_are_refused(data: Interactions, tmp_path: Path) -> None:
    place, part = tmp_path / "model", dasrec.split_random(data, 0.2, rng=1).train
    training = Training(checkpoint=place, resume=True)
    kept = learned(implicit(iterations=2).fit(part, training=training))
    other = dasrec.interactions_from_scipy(planted_matrix(), tmp_path / "other")
    transformed = part.transform(dasrec.Log1p())
    views = (data, dasrec.split_random(data, 0.2, rng=2).train, other, transformed)
    for view in views:
        with pytest.raises(MismatchError, match="was fitted on another store, version or part"):
            implicit().fit(view, training=training)
    with pytest.raises(MismatchError, match="holds a model 'implicit-als'; expected 'als'"):
        ALS(factors=3).fit(part, training=training)
    assert learned(load_model(place)) == kept


# -- processes that die ----------------------------------------------------------------------------

SCRIPT = """
    import sys

    import dasrec
    from dasrec.cluster import connect

    data = dasrec.open_interactions(sys.argv[1])
    training = dasrec.Training(checkpoint=sys.argv[2], resume=True)
    with connect("processes:2"):
        dasrec.ImplicitALS(factors=20, iterations=30, solver=sys.argv[3], rng=0).fit(
            data, training=training
        )
"""


def n_saved(place: Path) -> int:
    """Return how many iterations have been kept: each makes a version."""
    names = [path.name for path in place.glob("version-*.json")]
    return max((int(name[8:16]) for name in names), default=0)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("solver", ["cg", "exact"])
def test_a_fit_on_two_processes_is_killed_at_five_random_moments(
    data: Interactions, tmp_path: Path, solver: Any
) -> None:
    place, draw, killed = tmp_path / "model", np.random.default_rng(5), 0
    command = [sys.executable, "-c", textwrap.dedent(SCRIPT), data.url, str(place), solver]
    environment = {**os.environ, "DASK_TEMPORARY_DIRECTORY": str(tmp_path / "workers")}
    for _ in range(5):
        goal, pause = n_saved(place) + int(draw.integers(1, 5)), draw.uniform(0, 0.1)
        with subprocess.Popen(command, start_new_session=True, env=environment) as process:
            deadline = time.monotonic() + 60
            while n_saved(place) < goal and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.002)
            time.sleep(pause)
            killed += process.poll() is None
            os.killpg(process.pid, signal.SIGKILL)
        assert goal <= n_saved(place) == n_done(load_model(place))
    assert killed == 5
    subprocess.run(command, check=True, timeout=120, env=environment)
    wanted = ImplicitALS(factors=20, iterations=30, solver=solver, rng=0).fit(data)
    assert learned(load_model(place)) == learned(wanted)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [ImplicitALS, ALS, SGD])
def test_a_fit_survives_the_death_of_a_worker_at_three_random_moments(
    data: Interactions, kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = np.random.default_rng(6)
    monkeypatch.setattr("dasrec.strata.TASK_CELLS", 300)  # tasks wait for many others

    def make() -> Any:
        return kind(factors=20, iterations=12, rng=0)

    wanted = learned(make().fit(data))
    for number in range(3):
        moment, pause = int(draw.integers(2, 9)), draw.uniform(0, 0.1)
        reached = threading.Event()
        # a cluster of its own for each: nannies that lose many workers may give up on one
        with connect("processes:2") as client:
            assert client is not None
            pid = list(client.run(os.getpid).values())[number % 2]

            def kill(reached: threading.Event = reached, pause: float = pause, pid: int = pid):
                reached.wait(60)
                time.sleep(pause)
                os.kill(pid, signal.SIGKILL)

            def tell(record: Record, reached: Any = reached, moment: int = moment) -> None:
                if record["iteration"] == moment:
                    reached.set()

            killer = threading.Thread(target=kill)
            killer.start()
            model = make().fit(data, training=Training(callbacks=[tell]))
            killer.join()
            assert pid not in client.run(os.getpid).values()
        assert learned(model) == wanted
