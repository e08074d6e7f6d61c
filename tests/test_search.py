"""A search finds the same on any cluster, trains nothing twice, and goes on where it stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import pytest
import scipy.stats
import xarray as xr
from distributed import Client, LocalCluster
from sklearn.base import clone

import dasrec
from dasrec import (
    ALS,
    Biases,
    BudgetError,
    ImplicitALS,
    InputError,
    MismatchError,
    Popular,
    SearchResult,
    Split,
    Trials,
    blocks,
    holdout,
    load_model,
)
from dasrec.cluster import connect
from dasrec.search.base import Trial
from dasrec.search.trial import Job, advance
from dasrec.testing import planted_matrix, planted_ratings
from dasrec.training import Training
from tests import references_search as twin

search_module = sys.modules["dasrec.search"]  # the package; the name in dasrec is the function
trial_module = sys.modules["dasrec.search.trial"]

SPACE = {"regularization": [0.01, 0.1, 1.0, 10.0], "factors": [2, 4, 8]}
MODEL = ImplicitALS(iterations=9)
HALVING = {"space": SPACE, "metric": "ndcg@5", "budget": 50}


def a_split(place: Path) -> Split:
    with mock.patch("dasrec.memory.LEAST_BLOCK_CELLS", 400):
        data = dasrec.interactions_from_scipy(planted_matrix(), place)
    assert len(data.cuts("user_items")) > 3
    return dasrec.split_random(data, 0.2, rng=0)


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Split:
    return a_split(tmp_path_factory.mktemp("search") / "data")


@pytest.fixture(scope="module")
def found(split: Split) -> SearchResult:
    return dasrec.search(MODEL, split=split, trials=Trials(rng=3), **HALVING)


@pytest.fixture
def n_iterations() -> Iterator[list[int]]:
    """Count the iterations that are done."""
    done: list[int] = []
    iterate = ImplicitALS._iterate

    def count(model: Any, *arguments: Any) -> Any:
        done.append(model.iterations)
        return iterate(model, *arguments)

    with mock.patch.object(ImplicitALS, "_iterate", count):
        yield done


def same(one: SearchResult, other: SearchResult) -> bool:
    """Compare all but the times."""
    without = [each.trials.drop_vars("seconds") for each in (one, other)]
    return without[0].identical(without[1]) and one.best_params == other.best_params


# -- what is found ---------------------------------------------------------------------------------


def test_a_halving_goes_as_its_twin(split: Split, n_iterations: list[int]) -> None:
    found = dasrec.search(MODEL, split=split, trials=Trials(rng=3), **HALVING)
    metric = found.trials["metric"]
    assert metric["iteration"].values.tolist() == [1, 3, 9]
    rungs = twin.halving(
        metric["trial"].values.tolist(),
        [1, 3, 9],
        3,
        lambda trial, iterations: float(metric.sel(trial=trial, iteration=iterations)),
    )
    for iterations, trials in rungs:
        measured = np.isfinite(metric.sel(iteration=iterations).values)
        assert np.flatnonzero(measured).tolist() == trials
    assert [len(trials) for _, trials in rungs] == [12, 4, 1]
    # each goes on from its checkpoint
    assert len(n_iterations) == twin.iterations_done(rungs) == found.trials.attrs["spent"] <= 50
    assert found.trials["iterations"].values.tolist() == [
        max(iterations for iterations, trials in rungs if trial in trials) for trial in range(12)
    ]


def test_the_best_is_what_its_model_comes_to(split: Split, found: SearchResult) -> None:
    """A trial that was taken up twice has the bits of a fit in one go."""
    (winner,) = rung_of(found, 9)
    row = found.trials.sel(trial=winner)
    assert found.trials.attrs["best"] == winner
    assert bool(row["is_best"])
    assert int(found.trials["is_best"].sum()) == 1
    assert found.best_params == {
        "regularization": row["param_regularization"].item(),
        "factors": row["param_factors"].item(),
    }
    assert found.model.get_params() == {**MODEL.get_params(), **found.best_params, "rng": 3}
    fitted = found.refit(split.train)
    assert fitted is not found.model
    assert not hasattr(found.model, "trained_on_")
    assert holdout(split, "ndcg@5", rng=3)(fitted) == found.best_metric == row["metric"][-1]


def rung_of(found: SearchResult, iterations: int) -> list[int]:
    return np.flatnonzero(np.isfinite(found.trials["metric"].sel(iteration=iterations))).tolist()


def test_results_are_labelled(found: SearchResult) -> None:
    trials = found.trials
    facts = {"model": "implicit-als", "split": "random:0.2", "metric": "ndcg@5", "seed": 3}
    facts |= {"strategy": "halving", "finished": 1, "tested": 2000}
    assert facts.items() <= trials.attrs.items()
    assert sorted(
        zip(*(trials[f"param_{name}"].values.tolist() for name in SPACE), strict=True)
    ) == (sorted((r, f) for r in SPACE["regularization"] for f in SPACE["factors"]))
    assert trials["param_factors"].dtype == np.int64
    assert trials["seconds"].attrs == {"units": "s"}
    measured = np.isfinite(trials["metric"])
    assert (np.isfinite(trials["seconds"]) == measured).all()
    assert (trials["seconds"].where(measured, 1) > 0).all()
    assert (trials["seconds"].diff("iteration").fillna(1) > 0).all()


def test_the_model_given_stays_as_it_is(split: Split) -> None:
    model = ImplicitALS(factors=2, iterations=1)
    dasrec.search(model, space={"regularization": [1.0]}, split=split, budget=1, metric="ndcg@5")
    assert model.get_params() == ImplicitALS(factors=2, iterations=1).get_params()
    assert not hasattr(model, "trained_on_")


def test_distributions_are_drawn_from_by_the_seed(split: Split) -> None:
    space = {
        "regularization": scipy.stats.loguniform(0.1, 10),
        "factors": scipy.stats.randint(2, 5),
    }
    model = ImplicitALS(iterations=2)
    drawn = [
        dasrec.search(
            model,
            space=space,
            split=split,
            metric="ndcg@5",
            strategy="random",
            budget=9,
            trials=Trials(rng=seed),
        )
        for seed in (0, 0, 1)
    ]
    assert same(drawn[0], drawn[1])
    assert not same(drawn[0], drawn[2])
    trials = drawn[0].trials
    assert trials.sizes == {"trial": 4, "iteration": 1}
    assert trials["iteration"].values.tolist() == [2]
    assert trials["param_regularization"].values.min() >= 0.1
    assert len(set(trials["param_regularization"].values)) == 4
    assert set(trials["param_factors"].values) <= {2, 3, 4}
    assert type(drawn[0].best_params["factors"]) is int  # as a saved model has it


def test_a_grid_is_trained_in_its_order(split: Split, n_iterations: list[int]) -> None:
    space = {"regularization": [0.1, 1.0], "solver": ["cg", "exact"]}
    model = ImplicitALS(factors=2, iterations=2, rng=5)
    found = dasrec.search(model, space=space, split=split, metric="recall@5", strategy="grid")
    assert found.trials["param_regularization"].values.tolist() == [0.1, 0.1, 1.0, 1.0]
    assert found.trials["param_solver"].values.tolist() == ["cg", "exact"] * 2
    assert len(n_iterations) == 8
    measure = holdout(split, "recall@5", rng=found.trials.attrs["seed"])
    fresh = clone(model).set_params(regularization=1.0, solver="cg")
    assert measure(fresh.fit(split.train)) == found.trials["metric"].values[2, 0]


def test_hyperband_runs_several_halvings(split: Split) -> None:
    found = dasrec.search(
        MODEL,
        space={"regularization": scipy.stats.loguniform(0.1, 10)},
        split=split,
        metric="ndcg@5",
        strategy="hyperband",
        budget=60,
        trials=Trials(rng=0),
    )
    trials = found.trials
    assert trials["bracket"].values.tolist() == sorted(trials["bracket"].values)
    for bracket, first in enumerate([1, 3, 9]):
        rows = np.isfinite(trials["metric"].values[trials["bracket"].values == bracket])
        assert rows[:, [1, 3, 9].index(first)].all()
        assert not rows[:, : [1, 3, 9].index(first)].any()
    finished = trials["metric"].sel(iteration=9)
    assert found.best_metric == finished.max()


def test_models_without_steps_are_searched_too(tmp_path: Path) -> None:
    data = dasrec.interactions_from_scipy(planted_ratings(), tmp_path / "data")
    split = dasrec.split_random(data, 0.2, rng=0)
    space = {"item_damping": [0.0, 2.0, 500.0]}
    found = dasrec.search(Biases(), space=space, split=split, metric="rmse", strategy="grid")
    metric = found.trials["metric"].values[:, 0]
    assert found.best_metric == metric.max() < 0  # the larger the better
    assert found.best_params["item_damping"] == space["item_damping"][metric.argmax()]
    fitted = [Biases(item_damping=each).fit(split.train) for each in space["item_damping"]]
    measure = holdout(split, "rmse", rng=found.trials.attrs["seed"])
    assert [measure(model) for model in fitted] == metric.tolist()
    assert found.trials["iteration"].values.tolist() == [10]
    with pytest.raises(InputError, match="biases is not fitted step by step; take random or grid"):
        dasrec.search(Biases(), space=space, split=split, metric="rmse", budget=100)
    als = dasrec.search(
        ALS(factors=2, iterations=3),
        space={"regularization": [0.1, 100.0], "biases": [True, False]},
        split=split,
        metric="rmse",
        budget=20,
    )
    assert als.best_params["regularization"] == 0.1
    assert als.trials["param_biases"].dtype == bool


# -- the same whatever it runs on ------------------------------------------------------------------


def test_side_by_side_in_threads_the_bits_are_the_same(split: Split, found: SearchResult) -> None:
    inside: list[bool] = []
    fit = ImplicitALS.fit

    def watch(model: Any, *arguments: Any, **options: Any) -> Any:
        inside.append(blocks.n_threads() == 1)
        return fit(model, *arguments, **options)

    with mock.patch.object(ImplicitALS, "fit", watch):
        other = dasrec.search(
            MODEL, split=split, trials=Trials(rng=3, parallel="trials"), **HALVING
        )
    assert same(found, other)
    assert len(inside) == 17
    assert all(inside)


@pytest.mark.slow
def test_on_processes_the_bits_are_the_same(split: Split, found: SearchResult) -> None:
    """Trials as tasks, and trials whose blocks are tasks."""
    with connect("processes:2") as client:
        assert client is not None
        for parallel in ("auto", "blocks"):
            options = Trials(rng=3, parallel=parallel)  # type: ignore[arg-type]
            with mock.patch.object(blocks, "run", wraps=blocks.run) as run:
                assert same(found, dasrec.search(MODEL, split=split, trials=options, **HALVING))
            names = {call.kwargs["name"] for call in run.call_args_list}
            assert ("search-trial" in names) == (parallel == "auto")
            assert ("als-user-sweep" in names) == (parallel == "blocks")


@pytest.mark.slow
def test_trials_may_share_a_worker(split: Split, found: SearchResult) -> None:
    """Each by one of its threads, and none waits for a worker that waits for it."""
    with (
        LocalCluster(n_workers=1, threads_per_worker=3, dashboard_address=":0") as cluster,
        Client(cluster) as client,
        client.as_current(),
    ):
        assert same(found, dasrec.search(MODEL, split=split, trials=Trials(rng=3), **HALVING))


def test_side_by_side_trials_must_fit(split: Split) -> None:
    """Auto then takes blocks; who asks for trials is refused."""
    models = [ImplicitALS(factors=4), ImplicitALS(factors=64)]
    plan = dasrec.plan_fit(split.train, factors=64)
    limit = plan.peak_bytes + 10 * plan.factor_bytes

    def decide(threads: int, parallel: Any, client: object) -> Any:
        with (
            mock.patch.object(search_module, "room", return_value=(0, limit, threads)),
            mock.patch.object(sys.modules["dasrec.medium"], "room", return_value=(0, limit, 1)),
            mock.patch.object(blocks, "active_client", return_value=client),
        ):
            return search_module._side_by_side(Trials(parallel=parallel), split.train, models)

    steps = [dasrec.SGD(factors=8), dasrec.BPR(factors=4), dasrec.Popular()]
    planned = dasrec.plan_fit(split.train, model=steps[0])
    with (
        mock.patch.object(search_module, "room", return_value=(0, limit, 2)),
        mock.patch("dasrec.strata.room", return_value=(0, limit, 1)),
    ):
        found = search_module._side_by_side(Trials(parallel="trials"), split.train, steps)
    assert found == (True, limit - planned.factor_bytes)
    assert decide(1, "auto", None) == (False, None)
    assert decide(1, "auto", object()) == (True, limit)
    assert decide(10**6, "auto", object()) == (False, None)
    assert decide(2, "trials", None) == (True, limit - plan.factor_bytes)
    assert decide(2, "blocks", object()) == (False, None)
    with pytest.raises(BudgetError, match="64 factors beside 999999 others"):
        decide(10**6, "trials", None)


# -- stopped and taken up again --------------------------------------------------------------------


@pytest.mark.parametrize("stop", [1, 5, 13, 16])
def test_what_was_stopped_goes_on(
    split: Split, found: SearchResult, n_iterations: list[int], tmp_path: Path, stop: int
) -> None:
    """The measure before which it stops is all that is lost, and nothing is trained again."""
    place = tmp_path / "place"
    calls = []

    def interrupted(*arguments: Any, **options: Any) -> Any:
        measure = holdout(*arguments, **options)

        def call(model: Any) -> float:
            calls.append(model)
            if len(calls) == stop:
                raise KeyboardInterrupt
            return measure(model)

        return call

    with (
        mock.patch.object(search_module, "holdout", interrupted),
        pytest.raises(KeyboardInterrupt),
    ):
        dasrec.search(MODEL, split=split, trials=Trials(rng=3, place=place), **HALVING)
    assert len(list((place / "trials").glob("*.json"))) == min(stop - 1, 12)
    # without a seed it takes that of the place
    again = dasrec.search(MODEL, split=split, trials=Trials(place=place), **HALVING)
    assert same(found, again)
    assert len(n_iterations) == found.trials.attrs["spent"]
    best = f"{found.trials.attrs['best']:05}"
    assert [each.name for each in (place / "models").iterdir()] == [best]
    assert load_model(place / "models" / best).get_params() == found.model.get_params()
    # a finished one has nothing to do
    third = dasrec.search(MODEL, split=split, trials=Trials(rng=3, place=place), **HALVING)
    assert third.trials.identical(again.trials)
    assert len(n_iterations) == found.trials.attrs["spent"]


def test_records_are_whole_and_readable(split: Split, tmp_path: Path) -> None:
    place = tmp_path / "place"
    found = dasrec.search(
        ImplicitALS(iterations=3),
        space={"factors": [2, 3, 4]},
        split=split,
        metric="ndcg@5",
        budget=8,
        trials=Trials(rng=0, place=place),
    )
    assert sorted(each.name for each in place.iterdir()) == ["models", "search.json", "trials"]
    for number in range(3):
        record = json.loads((place / "trials" / f"{number:05}.json").read_text())
        row = found.trials.sel(trial=number)
        assert record["number"] == number
        assert record["parameters"] == {"factors": row["param_factors"].item()}
        for each in record["measures"]:
            at = row.sel(iteration=each["iterations"])
            assert each["metric"] == at["metric"]
            assert each["seconds"] == at["seconds"]
        assert len(record["measures"]) == (2 if bool(row["is_best"]) else 1)


SCRIPT = """
import sys
import dasrec
from dasrec import ImplicitALS, Trials
split = dasrec.split_random(dasrec.open_interactions(sys.argv[1]), 0.2, rng=0)
space = {"regularization": [0.01, 0.1, 1.0, 10.0], "factors": [2, 4, 8]}
dasrec.search(ImplicitALS(iterations=9), space=space, split=split, metric="ndcg@5", budget=50,
              trials=Trials(rng=3, place=sys.argv[2]))
"""


@pytest.mark.slow
def test_a_killed_search_goes_on(tmp_path: Path, split: Split, found: SearchResult) -> None:
    """Whenever it was killed, with what its records say."""
    place, script = tmp_path / "place", tmp_path / "script.py"
    script.write_text(textwrap.dedent(SCRIPT))
    command = [sys.executable, str(script), split.train.url, str(place)]
    for least in (1, 4, 9):
        with subprocess.Popen(
            command, env={**os.environ, "PYTHONPATH": str(Path.cwd())}
        ) as process:
            while process.poll() is None and n_records(place) < least:
                time.sleep(0.01)
            process.send_signal(signal.SIGKILL)
        assert process.returncode in (-signal.SIGKILL, 0)
        assert n_records(place) >= least
    known = {each: each.read_text() for each in (place / "trials").glob("*.json")}
    again = dasrec.search(MODEL, split=split, trials=Trials(place=place), **HALVING)
    assert same(found, again)
    for each, text in known.items():
        first = json.loads(text)["measures"]
        assert json.loads(each.read_text())["measures"][: len(first)] == first


def n_records(place: Path) -> int:
    return len(list((place / "trials").glob("0*.json")))


def test_time_ends_a_search_that_can_go_on(
    split: Split, found: SearchResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock that goes on with each trial."""
    ticks = iter(range(1000))
    clock = SimpleNamespace(time=lambda: float(next(ticks)), perf_counter=time.perf_counter)
    options = Trials(rng=3, place=tmp_path / "place", time_limit=6)
    with monkeypatch.context() as patch:
        patch.setattr(search_module, "time", clock)
        patch.setattr(trial_module, "time", clock)
        part = dasrec.search(MODEL, split=split, trials=options, **HALVING)
    assert part.trials.attrs["finished"] == 0
    assert part.trials["iterations"].values.tolist() == [1] * 5 + [0] * 7
    measured = part.trials["metric"].values[:5, 0]
    assert part.best_metric == measured.max()
    assert part.trials.attrs["best"] == measured.argmax()
    whole = dasrec.search(MODEL, split=split, trials=Trials(place=options.place), **HALVING)
    assert same(found, whole)


def a_job(split: Split, place: Path) -> Job:
    return Job(
        train=split.train,
        metric=holdout(split, "ndcg@5"),
        place=str(place),
        alone=False,
        memory=None,
        deadline=np.inf,
    )


def test_time_may_end_within_a_trial(
    split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = ImplicitALS(factors=2, iterations=4, rng=0)
    job = a_job(split, tmp_path)
    trial = Trial(0, 0, {})
    with monkeypatch.context() as patch:
        patch.setattr(Training, "seconds", lambda _: 1e-9)
        assert advance(job, trial, clone(model), 4) is None
    assert not trial.measures
    assert not (tmp_path / "trials").exists()
    begun = load_model(job.checkpoint(0))
    first = begun.history_["seconds"].values[0]
    assert begun.history_.sizes["iteration"] == 1
    got = advance(job, trial, clone(model), 4)
    assert got is not None
    assert got.metric == job.metric(clone(model).fit(split.train))
    seconds = load_model(job.checkpoint(0)).history_["seconds"].values
    assert seconds[0] == first


def test_without_time_for_anything_there_is_no_result(
    split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = Trials(time_limit=5, place=tmp_path)
    monkeypatch.setattr(search_module, "time", SimpleNamespace(time=lambda: 0.0))
    monkeypatch.setattr(trial_module, "time", SimpleNamespace(time=lambda: 5.0))
    with pytest.raises(InputError, match="no trial was measured before the time limit"):
        dasrec.search(MODEL, split=split, trials=options, **HALVING)


def test_a_checkpoint_that_is_gone_is_told(split: Split, tmp_path: Path) -> None:
    job, gone = a_job(split, tmp_path), a_job(split, tmp_path / "elsewhere")
    trial, model = Trial(7, 0, {}), ImplicitALS(factors=2, iterations=1, rng=0)
    advance(job, trial, clone(model), 1)
    with pytest.raises(InputError, match="is gone, or is not reached from every worker"):
        advance(gone, trial, model.set_params(iterations=2), 2)


# -- refused ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"space": {}}, "space is empty; expected some of: factors, feature_reg"),
        ({"space": {"depth": [1]}}, "'depth' cannot be searched for implicit-als; it has: factors"),
        ({"space": {"iterations": [1]}}, "'iterations' cannot be searched"),
        ({"space": {"factors": []}}, r"space\['factors'\] is \[\]; expected a list of values"),
        ({"space": {"factors": 3}}, r"space\['factors'\] is 3; expected a list of values"),
        ({"space": {"solver": "cg"}}, r"space\['solver'\] is 'cg'; expected a list"),
        ({"space": {"factors": [2, 0]}}, "factors is 0; expected a whole number"),
        ({"metric": "taste@5"}, "metric 'taste@5' is unknown"),
        ({"budget": None}, "budget is missing; halving needs"),
        ({"budget": 0}, "budget is 0; expected a whole number, at least 1"),
        ({"trials": Trials(users=2.0)}, "users is 2.0; expected a number between 0 and 1"),
        ({"trials": Trials(tested=0)}, "tested is 0; expected a whole number"),
        ({"trials": Trials(time_limit="soon")}, "time_limit is 'soon'"),
        ({"trials": Trials(parallel="all")}, "parallel is 'all'; expected one of: auto, trials"),
    ],
)
def test_bad_input_is_refused_before_anything_starts(
    split: Split, n_iterations: list[int], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        dasrec.search(MODEL, split=split, **{**HALVING, **options})
    assert not n_iterations


def test_the_model_itself_is_checked_first(split: Split) -> None:
    with pytest.raises(InputError, match="iterations is 0; expected a whole number, at least 1"):
        dasrec.search(ImplicitALS(iterations=0), split=split, **HALVING)


def test_a_model_without_parameters_has_nothing_to_search(split: Split) -> None:
    with pytest.raises(InputError, match="space is empty; expected some of: nothing"):
        dasrec.search(Popular(), space={}, split=split)


@pytest.mark.parametrize(
    ("model", "change", "names"),
    [
        (MODEL, {"metric": "recall@5"}, "metric"),
        (MODEL, {"budget": 20}, "configurations, rungs"),
        (MODEL, {"strategy": "random"}, "strategy, configurations, rungs"),
        (MODEL, {"trials": {"users": 0.5}}, "users, train, test"),
        (MODEL, {"trials": {"rng": 4}}, "seed, parameters"),
        (ImplicitALS(iterations=8), {}, "parameters, rungs"),
    ],
)
def test_a_place_of_another_search_is_refused(
    split: Split, tmp_path: Path, model: ImplicitALS, change: dict[str, Any], names: str
) -> None:
    """And stays as it is."""
    place = tmp_path / "place"
    with mock.patch.object(search_module, "_run", side_effect=KeyboardInterrupt):
        with pytest.raises(KeyboardInterrupt):
            dasrec.search(MODEL, split=split, trials=Trials(rng=3, place=place), **HALVING)
        before = (place / "search.json").read_text()
        options = Trials(**{"rng": 3, "place": place, **change.get("trials", {})})
        with pytest.raises(MismatchError, match=f"holds a search with other {names}; choose"):
            dasrec.search(model, split=split, **{**HALVING, **change, "trials": options})
    assert (place / "search.json").read_text() == before


def test_a_dataset_goes_to_disk(found: SearchResult, tmp_path: Path) -> None:
    found.trials.to_zarr(tmp_path / "trials.zarr", zarr_format=2)
    assert xr.open_zarr(tmp_path / "trials.zarr").identical(found.trials)
