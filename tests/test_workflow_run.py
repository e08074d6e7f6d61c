"""Runs of workflows: what is done is not done again, what was cut off goes on, the better stays."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import dasrec
from dasrec.datasets import simulate_events
from dasrec.errors import BusyError, DiskError, InputError
from dasrec.workflow import (
    Outcome,
    Workflow,
    exit_status,
    plan_workflow,
    promoted,
    read_workflow,
    run_workflow,
)
from dasrec.workflow import logs as log_steps
from dasrec.workflow.base import Terminated
from dasrec.workflow.carry import carry_over
from dasrec.workflow.lock import held
from dasrec.workflow.runner import STEPS

TEXT = """\
name: w
place: {folder}/out
log:
  source: {logs}/*.csv
  columns: {{user: user, item: item, value: value, timestamp: timestamp}}
split: time:0.2
fit: {{model: ImplicitALS, factors: 4, iterations: 4}}
promote: {{metric: ndcg@5, test: t}}
recommend: {{n: 3}}
"""
ALL = [step.name for step in STEPS]
DONE = [name for name in ALL if name not in ("search", "report")]


@pytest.fixture(scope="module")
def events() -> pd.DataFrame:
    found = simulate_events(10_000, n_users=300, n_items=150, rng=1)
    return found.sort_values("timestamp", kind="stable").reset_index(drop=True)


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory, events: pd.DataFrame) -> Path:
    """Return a folder with three quarters of the events, in three files."""
    folder = tmp_path_factory.mktemp("logs")
    for number in range(3):
        add_log(folder, events, number)
    return folder


def add_log(folder: Path, events: pd.DataFrame, number: int) -> Path:
    path = folder / f"{number}.csv"
    events.iloc[number * 2500 : (number + 1) * 2500].to_csv(path, index=False)
    return path


def write_workflow(folder: Path, logs: Path) -> Path:
    (folder / "w.yaml").write_text(TEXT.format(folder=folder, logs=logs))
    return folder


@pytest.fixture
def folder(tmp_path: Path, logs: Path) -> Path:
    """Return a folder with a workflow that was not run."""
    return write_workflow(tmp_path, logs)


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory, logs: Path) -> Path:
    """Return a folder with a workflow that was run; nobody changes it."""
    folder = write_workflow(tmp_path_factory.mktemp("straight"), logs)
    assert run(folder).did == tuple(DONE)
    return folder


@pytest.fixture
def done(folder: Path, straight: Path) -> Path:
    """Return a folder with a workflow that was run."""
    shutil.copytree(straight / "out", folder / "out")
    return folder


def workflow(folder: Path, *changes: str) -> Workflow:
    return read_workflow(str(folder / "w.yaml"), changes)


def run(folder: Path, *changes: str, **options: Any) -> Outcome:
    return run_workflow(workflow(folder, *changes), **options)


def status_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "out/runs/w/status.json").read_text())
    return found


def states(folder: Path) -> dict[str, str]:
    return {each["step"]: each["state"] for each in status_of(folder)["steps"]}


def snapshot(folder: Path) -> dict[str, Any]:
    """Return all files of the place with their times, but for what each run writes."""
    files = [path for path in (folder / "out").rglob("*") if path.is_file()]
    spared = ("status.json", "run.lock")
    return {str(path): path.stat().st_mtime_ns for path in files if path.name not in spared}


def lists_of(folder: Path) -> pd.DataFrame:
    found = promoted(str(folder / "out"))
    assert found is not None
    assert found.lists is not None
    table = pd.read_parquet(found.lists)
    return table.sort_values(["user_id", "rank"]).reset_index(drop=True)


def model_of(folder: Path) -> dasrec.Model:
    found = promoted(str(folder / "out"))
    assert found is not None
    return found.open_model()


def check_same(one: Path, other: Path) -> None:
    """Two places have the same model, bit for bit, and the same lists."""
    ours, theirs = model_of(one), model_of(other)
    assert np.array_equal(ours.user_factors_, theirs.user_factors_)
    assert np.array_equal(ours.item_factors_, theirs.item_factors_)
    pd.testing.assert_frame_equal(lists_of(one), lists_of(other))


# -- once, and not again ---------------------------------------------------------------------------


def test_a_second_run_does_nothing(done: Path, folder: Path) -> None:
    said: list[str] = []
    before = snapshot(done)
    second = run(done, say=said.append)
    assert (second.did, second.promoted) == ((), True)
    assert snapshot(done) == before
    assert said == [f"{name}: done already" for name in DONE]


def test_the_results_are_those_of_the_functions(done: Path, logs: Path) -> None:
    folder = done
    assert run(folder, "report={}").did == ("report",)
    paths = sorted(map(str, logs.glob("*.csv")))
    log = dasrec.read_events(paths, user="user", item="item", value="value", timestamp="timestamp")
    store = dasrec.write_interactions(log, folder / "store")
    split = dasrec.split_by_time(store, 0.2)
    model = dasrec.ImplicitALS(factors=4, iterations=4, rng=0)
    measured = dasrec.evaluate(model.fit(split.train), split)
    popular = dasrec.evaluate(dasrec.Popular().fit(split.train), split, n=5, metrics=["ndcg"])
    status = status_of(folder)
    facts = {each["step"]: each for each in status["steps"]}
    assert (status["state"], status["exit_status"], status["promoted"]) == ("done", 0, True)
    assert facts["ingest"]["rows"] == 7500
    assert facts["evaluate"]["metrics"]["ndcg@10"] == measured["ndcg"].item()
    assert facts["compare"]["metrics"]["last"] == pytest.approx(popular["ndcg"].item(), rel=1e-12)
    model.fit(store)
    assert np.array_equal(model_of(folder).user_factors_, model.user_factors_)
    dasrec.recommend_all(model, store, n=3, out=folder / "lists")
    ours = pd.read_parquet(folder / "lists").sort_values(["user_id", "rank"])
    pd.testing.assert_frame_equal(lists_of(folder), ours.reset_index(drop=True))
    page = Path(facts["report"]["report"]).read_text("utf-8")
    assert "This model is in use." in page
    assert "ndcg" in page


def test_what_has_changed_is_done_again_with_all_after_it(done: Path, logs: Path) -> None:
    assert run(done, "recommend.n=4").did == ("recommend", "promote")
    assert lists_of(done)["rank"].max() == 4
    assert run(done, "recommend.n=4", "evaluate.n=7").did == ("evaluate",)
    fewer = run(done, f"log.source=[{logs}/0.csv, {logs}/1.csv]", "recommend=null")
    assert fewer.did[:4] == ("ingest", "split", "fit", "evaluate")


def test_what_was_removed_is_made_again(done: Path, straight: Path) -> None:
    shutil.rmtree(done / "out" / "lists")
    assert run(done).did == ("recommend",)
    shutil.rmtree(done / "out" / "models")
    assert run(done).did == ("fit", "whole")
    check_same(done, straight)


# -- the better stays ------------------------------------------------------------------------------


def test_a_model_that_is_not_better_leaves_all_as_it_was(done: Path) -> None:
    pointer, lists = (done / "out/promoted.json").read_bytes(), lists_of(done)
    worse = run(done, "fit={model: popular}")
    assert not worse.promoted
    assert (states(done)["recommend"], states(done)["promote"]) == ("skipped", "skipped")
    assert (done / "out/promoted.json").read_bytes() == pointer
    pd.testing.assert_frame_equal(lists_of(done), lists)
    assert status_of(done)["exit_status"] == 0
    assert run(done, "fit={model: popular}").did == ()
    assert run(done, "fit={model: popular}", "promote.when=always").promoted
    assert model_of(done).name == "popular"


@pytest.mark.parametrize("change", ["promote.gain=0.9", "promote.p=1e-30"])
def test_better_is_what_the_workflow_says(done: Path, change: str) -> None:
    (done / "out" / "promoted.json").unlink()
    assert not run(done, change).promoted
    assert promoted(str(done / "out")) is None


def test_old_models_and_lists_are_removed_but_for_those_in_use(done: Path) -> None:
    used = promoted(str(done / "out"))
    assert used is not None
    for factors in (1, 2):
        change = f"fit={{model: ImplicitALS, factors: {factors}, iterations: 1}}"
        run(done, change, "promote.gain=1", "keep=1")
    left = {path.name for path in (done / "out" / "models").iterdir()}
    assert len(left) == 2
    assert used.key in left
    assert promoted(str(done / "out")) == used
    assert lists_of(done)["rank"].max() == 3


# -- cut off ---------------------------------------------------------------------------------------


def cut(monkeypatch: pytest.MonkeyPatch, error: BaseException, *, after: int) -> None:
    """Let fits end by an error after some iterations, once."""
    seen = []
    finish = dasrec.training.Course.finish

    def finishing(course: Any, model: Any) -> None:
        finish(course, model)
        seen.append(1)
        if len(seen) == after:
            raise error

    monkeypatch.setattr("dasrec.training.Course.finish", finishing)


@pytest.mark.parametrize(
    ("error", "state", "status"),
    [
        (KeyboardInterrupt(), "stopped", 130),
        (OSError("the link is cut"), "failed", 75),
    ],
)
def test_what_was_cut_off_goes_on_and_comes_to_the_same(
    folder: Path,
    straight: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    state: str,
    status: int,
) -> None:
    with monkeypatch.context() as patch:
        cut(patch, error, after=2)
        with pytest.raises(type(error)):
            run(folder)
    record = status_of(folder)
    assert (record["state"], record["exit_status"]) == (state, status)
    assert states(folder) == dict.fromkeys(ALL, "waiting") | {
        **{"ingest": "done", "split": "done", "search": "skipped", "fit": state}
    }
    with pytest.raises(InputError, match=r"the last run of w was cut off in fit; pass resume=True"):
        run(folder)
    iterations: list[int] = []
    monkeypatch.setattr(
        "dasrec.workflow.status.Status.tick",
        lambda self, name, **facts: iterations.append(facts["iteration"]),
    )
    resumed = run(folder, resume=True)
    assert resumed.did == tuple(DONE[2:])
    assert iterations == [3, 4, 1, 2, 3, 4]
    check_same(folder, straight)
    assert not (folder / "out" / "unfinished").exists()


def test_anew_does_the_step_from_its_beginning(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        cut(patch, KeyboardInterrupt(), after=2)
        with pytest.raises(KeyboardInterrupt):
            run(folder)
    iterations: list[int] = []
    monkeypatch.setattr(
        "dasrec.workflow.status.Status.tick",
        lambda self, name, **facts: iterations.append(facts["iteration"]),
    )
    assert run(folder, "fit.whole=false", anew=True).did[0] == "fit"
    assert iterations == [1, 2, 3, 4]


def test_a_run_that_was_refused_is_over(done: Path) -> None:
    with pytest.raises(InputError, match="has no column 'who'"):
        run(done, "log.columns.user=who")
    assert (status_of(done)["state"], status_of(done)["exit_status"]) == ("failed", 2)
    assert run(done).did == ()


def test_a_run_that_died_is_gone_on_with(done: Path) -> None:
    """What says that it is running cannot be, since its lock is free."""
    place = done / "out/runs/w/status.json"
    record = json.loads(place.read_text())
    record["state"] = record["steps"][3]["state"] = "running"
    place.write_text(json.dumps(record))
    with pytest.raises(InputError, match="cut off in fit"):
        run(done)
    assert run(done, resume=True).did == ()


def test_a_second_run_at_the_same_time_is_refused(folder: Path) -> None:
    with held(str(folder / "out"), name="other"), pytest.raises(BusyError, match="the run other"):
        run(folder)
    assert not (folder / "out" / "runs").exists()


# -- appending -------------------------------------------------------------------------------------

APPEND = ("log.how=append", "clean={dedupe: sum}", "promote.when=always", "recommend=null")


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory, logs: Path) -> Path:
    """Return a folder whose workflow has appended three files in two versions."""
    folder = write_workflow(tmp_path_factory.mktemp("grown"), logs)
    facts = run(folder, *APPEND, "log.batch=2").status["steps"][0]
    assert (facts["version"], facts["n_files"]) == (2, 3)
    return folder


@pytest.fixture
def appended(folder: Path, grown: Path, events: pd.DataFrame) -> tuple[str, ...]:
    """Copy that place, and return changes of a workflow that finds one file more."""
    shutil.copytree(grown / "out", folder / "out")
    logs = workflow(folder).log.source
    return (*APPEND, f"log.source=[{logs}, {add_log(folder, events, 3)}]")


def test_only_new_files_are_appended(
    folder: Path, appended: tuple[str, ...], events: pd.DataFrame
) -> None:
    facts = run(folder, *appended, "log.compact=2").status["steps"][0]
    n_cells = len(events.drop_duplicates(["user", "item"]))
    assert (facts["n_files"], facts["n_interactions"]) == (1, n_cells)
    store = dasrec.open_interactions(folder / "out" / "store")
    assert len(store.group_urls) == 1  # the third part was one too many
    assert store.to_scipy().sum() == pytest.approx(events["value"].sum())
    assert run(folder, *appended, "log.compact=2").did == ()


@pytest.mark.parametrize("moment", ["before", "after"])
def test_an_append_that_was_cut_off_adds_each_file_once(
    folder: Path,
    appended: tuple[str, ...],
    events: pd.DataFrame,
    monkeypatch: pytest.MonkeyPatch,
    moment: str,
) -> None:
    append = log_steps.append_interactions

    def cut_off(*arguments: Any, **options: Any) -> None:
        if moment == "after":
            append(*arguments, **options)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(log_steps, "append_interactions", cut_off)
        with pytest.raises(KeyboardInterrupt):
            run(folder, *appended)
    run(folder, *appended, resume=True)
    store = dasrec.open_interactions(folder / "out" / "store")
    assert store.version == 3
    assert store.to_scipy().sum() == pytest.approx(events["value"].sum())


def test_a_warm_start_goes_on_from_the_model_in_use(
    folder: Path, appended: tuple[str, ...]
) -> None:
    before = model_of(folder)
    warm = (*appended, "fit={model: ImplicitALS, factors: 4, warm: 1}")
    assert run(folder, *warm).promoted
    store = dasrec.open_interactions(folder / "out" / "store")
    kept = folder / "kept"
    carry_over(before, store).save(kept)
    expected = dasrec.ImplicitALS(factors=4, iterations=2, rng=0)
    expected.fit(store, training=dasrec.Training(checkpoint=kept, resume=True))
    found = model_of(folder)
    assert np.array_equal(found.user_factors_, expected.user_factors_)
    assert found.history_.sizes["iteration"] == 2
    assert run(folder, *warm).did == ()


@pytest.mark.parametrize("kind", ["implicit-als", "als", "popular"])
def test_a_model_is_carried_over_by_ids(tmp_path: Path, kind: str) -> None:
    draw = np.random.default_rng(0)
    old = pd.DataFrame({"u": draw.integers(5, 30, 300), "i": draw.integers(3, 20, 300)})
    new = pd.concat([old, pd.DataFrame({"u": [1, 40, 1, 40], "i": [1, 1, 90, 7]})])
    stores = [
        dasrec.write_interactions(dasrec.read_events(log, user="u", item="i"), tmp_path / name)
        for log, name in ((old, "old"), (new, "new"))
    ]
    small = {} if kind == "popular" else {"factors": 3, "iterations": 2, "rng": 1}
    model = dasrec.models.MODELS[kind](**small).fit(stores[0])
    moved = carry_over(model, stores[1])
    moved.check_belongs(stores[1])
    assert len(moved.user_ids_) == len(model.user_ids_) + 2
    users, items = np.unique(old["u"]), np.unique(old["i"])
    pairs = np.repeat(users, len(items)), np.tile(items, len(users))
    assert np.array_equal(moved.score(*pairs), model.score(*pairs))
    for name, values in vars(moved).items():
        if name.startswith("user_") and name.endswith("factors_"):
            rows = moved.user_ids_.numbers(np.array([1, 40]))
            assert not values.values[rows].any()


# -- plans and statuses ----------------------------------------------------------------------------


def test_a_plan_says_what_would_be_done_and_touches_nothing(folder: Path, straight: Path) -> None:
    plan = {each.step: each for each in plan_workflow(workflow(folder))}
    assert not (folder / "out").exists()
    assert list(plan) == ALL
    found = [plan[name].state for name in ("ingest", "whole", "report")]
    assert found == ["to do", "if better", "skipped"]
    assert plan["ingest"].disk_bytes > 24 * 7500
    assert plan["ingest"].seconds > 0
    before = snapshot(straight)
    assert {each.state for each in plan_workflow(workflow(straight))} == {"done", "skipped"}
    plan = {each.step: each for each in plan_workflow(workflow(straight, "fit.factors=8"))}
    assert (plan["ingest"].state, plan["fit"].state) == ("done", "to do")
    store = dasrec.open_interactions(straight / "out" / "store")
    assert plan["fit"].n_tasks == 4 * dasrec.plan_fit(store, factors=8).n_tasks
    assert plan["recommend"].n_tasks == dasrec.plan_ranking(store, factors=9).n_tasks
    assert snapshot(straight) == before


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (None, 0),
        (InputError("odd"), 2),
        (FileNotFoundError("log"), 2),
        (DiskError("full"), 75),
        (BusyError("busy"), 75),
        (TimeoutError(), 75),
        (ConnectionResetError(), 75),
        (KeyboardInterrupt(), 130),
        (Terminated(), 143),
        (ZeroDivisionError(), 1),
    ],
)
def test_statuses_tell_what_may_work_later(error: BaseException | None, status: int) -> None:
    assert exit_status(error) == status


def test_a_status_looks_at_the_cause() -> None:
    error = InputError("no scheduler answers")
    error.__cause__ = OSError("timed out")
    assert exit_status(error) == 75
    error.__cause__ = FileNotFoundError("log.csv")
    assert exit_status(error) == 2
    full, closed = DiskError("cannot write"), DiskError("cannot write")
    full.__cause__, closed.__cause__ = OSError(28, "No space"), PermissionError(13, "Denied")
    assert [exit_status(full), exit_status(closed)] == [75, 2]
