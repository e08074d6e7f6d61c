"""Workflows that are shipped run to their end; what kills a run does not change what it makes."""

from __future__ import annotations

import ast
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result

import dasrec
from dasrec.cli import main
from dasrec.datasets import simulate_events
from dasrec.workflow import Workflow, promoted, read_workflow
from dasrec.workflow.lock import held
from dasrec.workflow.runner import STEPS
from tests.snippets import run_page
from tests.test_docs import quoted, section, table_rows

FOLDER = Path(__file__).resolve().parents[1] / "workflows"
SMALL = ["--set", "fit.factors=8", "--set", "fit.iterations=5"]
SPACE = "search.space={regularization: [0.1, 1], factors: [4, 8]}"


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a log, and the same in four files."""
    folder = tmp_path_factory.mktemp("logs")
    events = simulate_events(20_000, n_users=300, n_items=200, rng=0)
    events = events.sort_values("timestamp", kind="stable")
    events.to_csv(folder / "log.csv", index=False)
    (folder / "logs").mkdir()
    for number in range(4):
        part = events.iloc[number * 5000 : (number + 1) * 5000]
        part.to_csv(folder / "logs" / f"{number}.csv", index=False)
    return folder


@pytest.fixture
def folder(logs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the working directory of somebody who has these logs."""
    shutil.copytree(logs, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(name: str, *options: object) -> Result:
    path = str(FOLDER / f"{name}.yaml")
    return CliRunner().invoke(main, ["run", path, *map(str, options)])


def good(name: str, *options: object) -> dict[str, Any]:
    """Return the status of a run, by step."""
    result = run(name, *options, "--json")
    assert result.exit_code == 0, result.output
    status: dict[str, Any] = json.loads(result.stdout)
    assert status == json.loads(Path(f"recommendations/runs/{name}/status.json").read_text())
    return {"promoted": status["promoted"]} | {each["step"]: each for each in status["steps"]}


def check_outcome(place: str = "recommendations") -> None:
    found = promoted(place)
    assert found is not None
    assert found.lists is not None
    model, store = found.open_model(), dasrec.open_interactions(f"{place}/store")
    model.check_belongs(store)
    assert model.trained_on_["masks"] == []
    table = pd.read_parquet(found.lists)
    assert table["user_id"].nunique() == store.n_users
    assert table["rank"].max() == 10
    assert np.isfinite(table["score"]).all()


def test_nightly_promotes_what_is_better(folder: Path) -> None:
    first = good("nightly", *SMALL)
    assert first["promoted"]
    assert first["compare"]["metrics"]["new"] > first["compare"]["metrics"]["last"]
    check_outcome()
    assert "<html" in Path(first["report"]["report"]).read_text("utf-8")
    again = run("nightly", *SMALL)
    assert "Nothing has changed; nothing was done." in again.output
    worse = good("nightly", "--set", "fit.factors=1", "--set", "fit.iterations=1")
    assert not worse["promoted"]
    check_outcome()


@pytest.mark.slow
def test_backfill_and_append_share_a_place(folder: Path) -> None:
    last = (folder / "logs" / "3.csv").rename(folder / "later.csv")
    first = good("backfill", *SMALL, "--set", "log.batch=1")
    assert (first["ingest"]["version"], first["ingest"]["n_files"]) == (3, 3)
    check_outcome()
    last.rename(folder / "logs" / "3.csv")
    second = good("append", "--set", "fit.factors=8")
    assert (second["ingest"]["version"], second["ingest"]["n_files"]) == (4, 1)
    assert second["fit"]["parameters"]["iterations"] == 3
    assert second["compare"]["last"] == first["fit"]["key"]
    check_outcome()


@pytest.mark.slow
def test_search_fits_the_best(folder: Path) -> None:
    small = ["--set", SPACE, "--set", "search.budget=20", "--set", "fit.iterations=3"]
    found = good("search", *small, "--set", "search.strategy=grid", "--set", "promote.p=1")
    assert found["search"]["n_trials"] == 4
    best = found["search"]["best_params"]
    assert best == {name: found["fit"]["parameters"][name] for name in best}
    check_outcome()
    assert not Path("recommendations/unfinished").exists()


def test_a_dry_run_prints_a_plan(folder: Path) -> None:
    result = run("nightly", "--dry-run")
    assert result.exit_code == 0
    assert "if better" in result.output
    record = json.loads(run("nightly", "--dry-run", "--json").stdout)
    assert record["steps"][0]["n_tasks"] > 0
    assert not Path("recommendations").exists()


def test_statuses_of_the_command(folder: Path) -> None:
    refused = run("nightly", "--set", "fit.factors=x", "--set", "keep=0")
    assert refused.exit_code == 2
    assert refused.stderr.count("\n") == 2
    missing = run("nightly", "--set", "log.source=no.csv")
    assert missing.exit_code == 2
    assert "no.csv is not there" in missing.stderr
    call = ["--cluster", "tcp://127.0.0.1:9", "run", str(FOLDER / "nightly.yaml")]
    with dask.config.set({"distributed.comm.timeouts.connect": "1s"}):
        away = CliRunner().invoke(main, call)
    assert away.exit_code == 75, away.output
    assert "no Dask scheduler answers" in away.stderr
    with held("recommendations", name="other"):
        busy = run("nightly", "--resume")
    assert busy.exit_code == 75
    assert "the run other (process" in busy.stderr


def test_the_page_runs_and_names_all_sections(folder: Path) -> None:
    shutil.copytree(FOLDER, folder / "workflows")
    names = run_page("workflows.md")
    assert promoted(names["workflow"].place) is not None
    rows = table_rows(section("docs/workflows.md", "The file"))
    stated = [name for row in rows if len(row) == 3 for name in quoted(row[0])]
    assert sorted(stated) == sorted(Workflow.model_fields)
    steps = table_rows(section("docs/workflows.md", "Steps"))
    assert [name for row in steps for name in quoted(row[0])] == [step.name for step in STEPS]


# -- pods ------------------------------------------------------------------------------------------


def test_the_script_runs_on_a_cluster_of_its_own(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Mapping[str, Any]] = []

    @contextlib.contextmanager
    def connect(spec: Mapping[str, Any]) -> Iterator[None]:
        asked.append(spec)
        yield

    monkeypatch.setattr("dasrec.cluster.connect", connect)
    names: dict[str, Any] = {"__name__": "script"}
    exec(compile((FOLDER / "kubernetes.py").read_text(), "kubernetes.py", "exec"), names)
    options = ["--image", "i:1", "--workers", "3", "--namespace", "n", "--volume", "c:/d", *SMALL]
    monkeypatch.setattr(sys, "argv", ["kubernetes.py", str(FOLDER / "nightly.yaml"), *options])
    assert [names["main"](), names["main"]()] == [0, 0]
    (spec,) = asked  # the second time there was nothing to do
    assert spec == {
        **{"kind": "kubernetes", "name": "dasrec", "image": "i:1"},
        **{"workers": 3, "memory": "4GiB", "namespace": "n", "volumes": {"/d": "c"}},
        "env": {"NUMBA_CACHE_DIR": "/d/.cache/numba"},
    }
    check_outcome()


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.name)
def test_only_public_names_are_used(path: Path) -> None:
    allowed = {f"dasrec.workflow.{name}" for name in dasrec.workflow.__all__}
    used = {
        f"{node.module}.{each.name}"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom)
        for each in node.names
    }
    assert {name for name in used if name.startswith("dasrec")} <= allowed
    assert "dasrec.workflow.run_workflow" in used


def test_each_workflow_is_valid_as_it_stands() -> None:
    names = [path.stem for path in sorted(FOLDER.glob("*.yaml"))]
    assert names == ["append", "backfill", "nightly", "search"]
    assert [read_workflow(str(FOLDER / f"{name}.yaml")).name for name in names] == names


# -- processes, and kills --------------------------------------------------------------------------


def start(*options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", "from dasrec.cli import main; main()", *options]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.Popen(command, text=True, start_new_session=True, **pipes)


@pytest.mark.slow
def test_it_runs_on_processes(folder: Path) -> None:
    path = str(FOLDER / "nightly.yaml")
    with start("--cluster", "processes:2", "run", path, *SMALL) as process:
        output = process.communicate()[0]
    assert process.returncode == 0, output
    check_outcome()
    run("nightly", *SMALL, "--set", "place=here")
    check_same("recommendations", "here")


def check_same(one: str, other: str) -> None:
    """Two places have the same models, bit for bit, and the same lists."""
    found = [promoted(place) for place in (one, other)]
    models = [each.open_model() for each in found if each]
    for name in ("user_factors_", "item_factors_"):
        assert np.array_equal(*(getattr(each, name) for each in models)), name
    tables = [pd.read_parquet(each.lists) for each in found if each]
    ordered = [each.sort_values(["user_id", "rank"], ignore_index=True) for each in tables]
    pd.testing.assert_frame_equal(*ordered)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["nightly", "backfill"])
def test_a_run_that_is_killed_at_any_moment_comes_to_the_same(folder: Path, name: str) -> None:
    options = [*SMALL, "--set", "fit.iterations=40", "--set", "fit.checkpoint_every=null"]
    options += ["--set", "log.batch=1"] if name == "backfill" else []
    assert run(name, *options, "--set", "place=straight").exit_code == 0
    draw, killed = random.Random(name), 0
    for _ in range(6):
        with start("run", str(FOLDER / f"{name}.yaml"), *options, "--resume") as process:
            assert process.stdout is not None
            for line in process.stdout:
                if not line.endswith("done already\n"):
                    break  # the first step that this run does
            time.sleep(draw.uniform(0, 1))
            killed += process.poll() is None
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    assert killed >= 2
    assert run(name, *options, "--resume").exit_code == 0
    check_same("recommendations", "straight")


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_a_run_with_its_status_written(
    folder: Path, number: signal.Signals, status: int
) -> None:
    place = Path("recommendations/runs/nightly/status.json")
    options = [str(FOLDER / "nightly.yaml"), "--set", "fit.iterations=100000"]
    with start("run", *options) as process:
        while not place.exists() or '"iteration"' not in place.read_text():
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(number)
        output = process.communicate(timeout=60)[0]
    assert process.returncode == status, output
    assert "Traceback" not in output
    assert "Stopped; pass --resume to go on." in output
    record = json.loads(place.read_text())
    assert (record["state"], record["exit_status"]) == ("stopped", status)
    assert not Path("recommendations/promoted.json").exists()
