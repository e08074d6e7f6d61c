"""The main job, the README, the workflow, and public data, as a new user would run them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import dasrec
from dasrec import datasets
from tests.snippets import python_blocks

ROOT = Path(__file__).parents[1]


def test_the_demo_runs_offline(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from dasrec.cli import main; main()", "demo", "--simulated"]
    done = subprocess.run(
        [*command, "--folder", "out", "--json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    record = json.loads(done.stdout)
    assert record["simulated"]
    figures = {each["model"]: each for each in record["metrics"]}
    assert figures["implicit-als"]["ndcg@10"] > figures["popular"]["ndcg@10"] > 0
    assert figures["als"]["rmse"] < figures["biases"]["rmse"]
    lists = pd.read_parquet(record["places"]["top 10"])
    store = dasrec.open_interactions(record["places"]["interactions"])
    assert lists["user_id"].nunique() == store.n_users
    page = Path(record["places"]["report"]).read_text()
    for heading in ("The log", "Long tails", "Learning", "Evaluation", "Lists of implicit-als"):
        assert heading in page


def test_the_demo_runs_on_movielens(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dasrec.demo import run_demo

    monkeypatch.setenv("DASREC_DATA_DIR", str(data_dir))
    outcome = run_demo(str(tmp_path / "out"))
    assert (outcome.interactions.n_users, outcome.interactions.n_items) == (943, 1682)
    assert outcome.interactions.n_stored == 100_000
    assert "Toy Story (1995)" in outcome.data.titles.to_list()


def test_the_same_calls_run_on_anime(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DASREC_DATA_DIR", str(data_dir))
    log = datasets.anime_ratings()
    store = dasrec.write_interactions(
        dasrec.clean(dasrec.read_events(list(log.paths), **log.columns)), tmp_path / "store"
    )
    assert store.n_stored == 419_943
    split = dasrec.split_random(store, 0.2, rng=0)
    explicit = dasrec.ALS(factors=8, iterations=5, rng=0).fit(split.train)
    rmse = float(dasrec.evaluate(explicit, split, metrics=["rmse"])["rmse"])
    biases = dasrec.Biases(iterations=3).fit(split.train)
    assert rmse < float(dasrec.evaluate(biases, split, metrics=["rmse"])["rmse"])
    implicit = dasrec.ImplicitALS(factors=16, iterations=5, rng=0).fit(split.train)
    popular = dasrec.Popular().fit(split.train)
    ours, theirs = (
        dasrec.evaluate(model, split, n=10, metrics=["ndcg"])["ndcg"].item()
        for model in (implicit, popular)
    )
    assert ours > 1.3 * theirs


def test_published_figures(data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """GroupLens' fold u1 is the first 20,000 rows; MyMediaLite publishes .322 for popularity."""
    monkeypatch.setenv("DASREC_DATA_DIR", str(data_dir))
    log = datasets.movielens_100k()
    store = dasrec.write_interactions(
        dasrec.read_events(list(log.paths), **log.columns), tmp_path / "store"
    )
    first = pd.read_csv(log.paths[0], sep=None, engine="python", nrows=20_000)
    users, items = (first[log.columns[side]] for side in ("user", "item"))
    split = dasrec.split_listed(store, user_ids=users, item_ids=items, name="u1")
    popular, implicit = (
        dasrec.evaluate(model.fit(split.train), split, n=5, metrics=["precision"])
        for model in (dasrec.Popular(), dasrec.ImplicitALS(rng=0))
    )
    assert popular.attrs["n_users"] == 459
    assert popular["precision"].item() == pytest.approx(0.322, abs=5e-4)
    assert implicit["precision"].item() >= 0.54
    fold = next(dasrec.split_folds(store, 5, rng=1))
    measured = dasrec.evaluate(dasrec.ALS(rng=0).fit(fold.train), fold, metrics=["rmse"])
    assert measured["rmse"].item() <= 0.925


@pytest.mark.parametrize("page", ["README.md", "docs/format.md"])
def test_what_the_pages_show_runs(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = python_blocks(ROOT / "README.md")
    if page != "README.md":
        blocks += python_blocks(ROOT / page)
    assert blocks
    scope: dict[str, object] = {}
    for block in blocks:
        exec(block, scope)
    assert Path("lists.parquet/_SUCCESS").is_file()


def test_links_lead_somewhere() -> None:
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            assert "://" in target or (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_workflow_runs(tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    datasets.simulate_log(log, 40_000, n_users=600, n_items=400, rng=0)
    command = [sys.executable, str(ROOT / "workflows" / "retrain.py"), str(log), "out"]
    columns = ["--user", "user", "--item", "item", "--timestamp", "timestamp", "--factors", "16"]
    done = subprocess.run([*command, *columns], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lists = pd.read_parquet(tmp_path / "out" / "lists")
    assert np.isfinite(lists["score"]).all()
    assert dasrec.load_model(tmp_path / "out" / "model").name == "implicit-als"


@pytest.mark.slow
def test_five_million_events_fit_two_processes_of_one_gigabyte(
    tmp_path: Path, cluster_client: object
) -> None:
    log = datasets.simulate_log(
        tmp_path / "log.csv", 5_000_000, n_users=100_000, n_items=20_000, rng=1
    )
    events = dasrec.read_events(list(log.paths), **log.columns)
    assert events.frame.npartitions > 2
    store = dasrec.write_interactions(dasrec.clean(events), tmp_path / "store")
    split = dasrec.split_by_time(store)
    model = dasrec.ImplicitALS(factors=32, iterations=6, rng=0).fit(split.train)
    popular = dasrec.Popular().fit(split.train)
    ours, theirs = (
        dasrec.evaluate(each, split, n=10, metrics=["ndcg"])["ndcg"].item()
        for each in (model, popular)
    )
    assert ours > theirs
    lists = dasrec.recommend_all(model, store, n=10, out=tmp_path / "lists")
    assert pd.read_parquet(lists, columns=["user_id"])["user_id"].nunique() == store.n_users
    workers = cluster_client.scheduler_info()["workers"].values()
    assert [worker["memory_limit"] for worker in workers] == [2**30] * 2
