"""The page on Dask's dashboard: what it keeps of events, what it says, and where it is served."""

from __future__ import annotations

import json
import logging
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import pytest
from bokeh.document import Document
from distributed import Client, LocalCluster
from hypothesis import given
from hypothesis import strategies as st

import dasrec
from dasrec import ImplicitALS, Interactions, Training, blocks
from dasrec.dashboard import PAGES, Watcher, dask_setup, plugin, show
from dasrec.dashboard.page import Page, show_page
from dasrec.dashboard.state import (
    MOST_BINS,
    MOST_ITERATIONS,
    MOST_JOBS,
    MOST_SAMPLES,
    Job,
    Run,
    State,
    Usage,
)
from dasrec.dashboard.words import describe, duration, number, size
from dasrec.report import PALETTE
from dasrec.testing import planted_matrix
from tests.snippets import run_page

USAGE = Usage(memory=300, limit=1000, read=50.0, written=20.0, received=7.0, sent=3.0)
COURSE = {"iterations": 10, "monitor": "ndcg@10", "seconds": 0.0, "memory": "2kB", "history": []}


def tell(state: State, event: str, when: float, *, job: str = "a", **facts: Any) -> None:
    state.take({"event": event, "job": job, "client": facts.pop("client", "c"), **facts}, when)


def run_blocks(state: State, name: str, when: float, *, seconds: list[float], **facts: Any) -> None:
    """Let a run of blocks begin, and each take a second until it is done."""
    n = len(seconds)
    tell(state, "run", when, name=name, label=f"{name}-{when}", blocks=n, rows=10 * n, **facts)
    for block, taken in enumerate(seconds):
        state.finish(f"{name}-{when}", block, taken, when + block + 1)


def a_fit(state: State, *, iterations: int = 3, **facts: Any) -> Job:
    """Tell of a fit whose iterations take four seconds."""
    tell(state, "begin", 100.0, name="fit als", **facts)
    tell(state, "course", 100.0, **COURSE, **facts)
    for i in range(iterations):
        run_blocks(state, "als-user-sweep", 100.0 + 4 * i, seconds=[1.0, 1.0, 4.0], **facts)
        record = {"iteration": i + 1.0, "objective": 90.0 / (i + 1), "monitor": 0.1 * (i + 1)}
        tell(state, "iteration", 104.0 + 4 * i, record=record, **facts)
        state.sample(USAGE, 104.0 + 4 * i)
    return state.jobs[facts.get("job", "a")]


# -- what it keeps ---------------------------------------------------------------------------------


def test_a_fit_is_kept_as_it_was_told() -> None:
    state = State()
    job = a_fit(state)
    assert [each["objective"] for each in job.records] == [90.0, 45.0, 30.0]
    assert (job.status, job.monitor, job.memory, job.iterations) == ("running", "ndcg@10", 2000, 10)
    assert job.rows == pytest.approx(3 * 30)
    assert [each.rows for each in job.samples] == pytest.approx([30 / 4] * 3)
    assert (job.read, job.written) == pytest.approx((12 * 50.0, 12 * 20.0))
    (stage,) = job.stages.values()
    assert (stage.done, stage.blocks, stage.balance) == (3, 3, 2.0)
    tell(state, "end", 112.0, how="done")
    assert (job.status, job.seconds(500.0), job.left(500.0)) == ("done", 12.0, None)
    state.sample(USAGE, 113.0)
    assert len(job.samples) == 3


def test_the_time_left_goes_by_the_last_iterations_and_the_limit() -> None:
    state = State()
    job = a_fit(state)
    assert job.left(113.0) == pytest.approx(7 * 4 - 1)
    assert job.left(500.0) == 0
    job.limit = 20.0
    assert job.left(113.0) == pytest.approx(100 + 20 - 113)
    job.arrived = job.arrived[:1]
    assert job.left(113.0) is None  # none of its iterations is done


def test_the_time_left_of_what_has_no_iterations_is_that_of_its_stage() -> None:
    state = State()
    tell(state, "run", 10.0, job="", name="rank-block", label="x", blocks=4, rows=0)
    (job,) = state.jobs.values()
    assert job.left(10.0) is None
    state.finish("x", 0, 2.0, 12.0)
    assert job.left(12.0) == pytest.approx(6.0)


@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=3 * MOST_BINS))
def test_a_strip_shows_the_slowest_block_of_each_part(seconds: list[float]) -> None:
    run = Run("name", len(seconds), len(seconds), 0.0)
    rows = sum(run.add(number, taken, 1.0) for number, taken in enumerate(seconds))
    bins = min(len(seconds), MOST_BINS)
    places = [number * bins // len(seconds) for number in range(len(seconds))]
    expected = [
        max(taken for taken, place in zip(seconds, places, strict=True) if place == each)
        for each in range(bins)
    ]
    assert run.slowest == expected
    assert rows == pytest.approx(len(seconds))
    assert run.balance == pytest.approx(max(seconds) / np.mean(seconds))


def test_blocks_that_are_done_again_count_once_each() -> None:
    state = State()
    tell(state, "begin", 0.0, name="fit als")
    tell(state, "run", 0.0, name="sweep", label="x", blocks=2, rows=8)
    for block in (0, 1, 1, 0, 7):
        state.finish("x", block, 1.0, 1.0)
    state.finish("unknown", 0, 1.0, 1.0)
    assert (state.jobs["a"].rows, state.jobs["a"].stages["sweep"].done) == (8, 2)


@given(st.integers(1, 6 * MOST_SAMPLES), st.integers(0, 10**6))
def test_samples_stay_few_and_keep_mean_and_peak(n: int, seed: int) -> None:
    job, draw = Job("a", "fit", "c", 0.0), np.random.default_rng(seed)
    reads, memory = draw.random(n), draw.integers(1, 1000, n)
    for i in range(n):
        job.add_sample(i + 1.0, USAGE._replace(read=reads[i], memory=int(memory[i])))
    assert len(job.samples) < MOST_SAMPLES
    covered = len(job.samples) * job._step
    assert n - covered < job._step
    assert np.mean([each.read for each in job.samples]) == pytest.approx(np.mean(reads[:covered]))
    assert max(each.memory for each in job.samples) == max(memory[:covered])
    assert job.samples[-1].seconds == covered
    assert job.read == pytest.approx(reads.sum())


def test_whatever_is_told_memory_is_bounded() -> None:
    state = State()
    for key in range(3 * MOST_JOBS):
        tell(state, "begin", key, job=str(key), name="fit als")
        for stage in range(20):
            tell(state, "run", key, job=str(key), name=f"s{stage}", label=f"{key}-{stage}",
                 blocks=10**6, rows=1)  # fmt: skip
    assert list(state.jobs) == [str(key) for key in range(2 * MOST_JOBS, 3 * MOST_JOBS)]
    assert {label.partition("-")[0] for label in state._runs} == set(state.jobs)
    job = state.jobs[str(3 * MOST_JOBS - 1)]
    assert sum(len(run.slowest) for run in job.stages.values()) < 1000
    for i in range(5 * MOST_ITERATIONS):
        job.add_record({"iteration": i + 1.0, "objective": 1.0}, float(i))
    assert len(job.records) <= MOST_ITERATIONS
    assert (job.records[0]["iteration"], job.records[-1]["iteration"]) == (1, 5 * MOST_ITERATIONS)


def test_fits_of_several_clients_at_once_stay_apart() -> None:
    state = State()
    one = a_fit(state, iterations=1, job="one", client="c1")
    other = a_fit(state, iterations=2, job="other", client="c2")
    assert (len(one.records), len(other.records)) == (1, 2)
    assert state.find() is other
    assert state.find("one") is one
    state.lose("c2", 200.0)
    assert (one.status, other.status, other.ended) == ("running", "lost", 200.0)
    assert state.find() is one
    tell(state, "end", 201.0, job="one", how="stopped")
    assert state.find() is other
    assert state.find("forgotten") is other


def test_runs_outside_a_job_are_one_if_they_follow_each_other() -> None:
    state = State()
    run_blocks(state, "rank-block", 0.0, seconds=[1.0], job="")
    run_blocks(state, "rank-pairs", 10.0, seconds=[1.0], job="")
    run_blocks(state, "verify-block", 11.0, seconds=[1.0], job="")
    run_blocks(state, "rank-block", 300.0, seconds=[1.0], job="")
    run_blocks(state, "rank-block", 301.0, seconds=[1.0], job="", client="another")
    assert [job.name for job in state.jobs.values()] == ["rank", "verify", "rank", "rank"]
    assert list(next(iter(state.jobs.values())).stages) == ["rank-block", "rank-pairs"]
    assert {job.status for job in state.jobs.values()} == {"done"}


def test_what_is_no_event_of_ours_changes_nothing() -> None:
    state = State()
    for message in (None, "text", {}, {"event": "later"}, {"event": "iteration", "job": "unknown"}):
        state.take(message, 0.0)
    assert not state.jobs
    tell(state, "run", 0.0, job="", name="rank-block", label="x", blocks=0, rows=0)
    tell(state, "broken", 0.0, label="unknown")
    assert next(iter(state.jobs.values())).stage is None


def test_a_run_that_breaks_ends_what_is_no_more_than_its_runs() -> None:
    state = State()
    tell(state, "run", 0.0, job="", name="rank-block", label="x", blocks=3, rows=0)
    tell(state, "broken", 2.0, job="", label="x")
    (job,) = state.jobs.values()
    assert (job.status, job.ended) == ("failed", 2.0)


# -- what it says ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.0123, "0.01"), (9.994, "9.99"), (99.96, "100.0"), (123.4, "123"),
     (999.6, "1.00 k"), (12_345, "12.3 k"), (999_960, "1.00 M"), (7.25e9, "7.25 G")],
)  # fmt: skip
def test_numbers_have_three_digits(value: float, text: str) -> None:
    assert number(value) == text
    assert size(value) == (f"{text}B" if text[-1].isalpha() else f"{text} B")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.0 s"), (9.94, "9.9 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (130, "2 min 10 s"),
     (3599.6, "1 h 0 min"), (7380, "2 h 3 min")],
)  # fmt: skip
def test_durations_read_as_people_say_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_the_words_name_the_job_and_its_figures() -> None:
    text = describe(a_fit(State()), 113.0)
    for part in ("running", "fit als", "Iteration 3 of 10", "als-user-sweep, block 3 of 3",
                 "0.3000", "best 0.3000 at 3", "\N{MINUS SIGN}33 % an iteration", "90.0 so far",
                 "600 B", "15 % of 2.00 kB", "27 s", "13 s so far"):  # fmt: skip
        assert part in text


def test_names_that_others_gave_are_escaped() -> None:
    state = State()
    tell(state, "begin", 0.0, name="<script>alert(1)</script>")
    tell(state, "run", 0.0, name="<b>", label="x", blocks=1, rows=0)
    text = describe(state.jobs["a"], 1.0)
    assert "<script>" not in text
    assert "&lt;b&gt;" in text


# -- how it looks ----------------------------------------------------------------------------------


def test_the_page_follows_the_state() -> None:
    state = State()
    page = Page(state)
    assert "Nothing has run yet" in page.words.text
    a_fit(state, iterations=2)
    page.update()
    assert page.sources["curve"].data["objective"] == [90.0, 45.0]
    assert page.sources["strip"].data["ratio"] == [0.5, 0.5, 2.0]
    assert page.stages.factors == ["als-user-sweep\nmax / mean 2.00"]
    assert page.sources["samples"].data["budget"] == [0.002, 0.002]
    assert "Iteration 2 of 10" in page.words.text
    a_fit(state, iterations=1, job="b")
    page.update()
    assert page.sources["curve"].data["objective"] == [90.0]
    page.choice.value = "a"
    assert page.sources["curve"].data["objective"] == [90.0, 45.0]
    assert [key for key, _ in page.choice.options] == ["", "a", "b"]


def test_figures_have_units_and_colours_of_the_house() -> None:
    page = Page(State())
    figures = [page.roots[name] for name in ("objective", "monitor", "rows", "flows", "memory")]
    for each in figures:
        assert "(" in each.yaxis.axis_label
        assert "(" in each.xaxis.axis_label
    lines = [line.glyph.line_color for each in figures for line in each.renderers
             if hasattr(line.glyph, "line_dash")]  # fmt: skip
    assert set(lines) <= set(PALETTE)


@pytest.mark.parametrize("alone", [False, True])
def test_the_document_renders(alone: bool, caplog: pytest.LogCaptureFixture) -> None:
    doc = Document()
    show_page(State(), None, {"pages": ["status", "dasrec"], "plots": []}, doc, alone=alone)
    assert [root.name for root in doc.roots] == list(Page(State()).roots)
    assert doc.session_callbacks
    doc.validate()
    assert not caplog.records


# -- where it is -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Interactions:
    with mock.patch("dasrec.memory.LEAST_BLOCK_CELLS", 400):
        return dasrec.interactions_from_scipy(
            planted_matrix(), tmp_path_factory.mktemp("dashboard") / "data"
        )


@pytest.fixture
def client() -> Iterator[Client]:
    """Yield a client of a cluster in this process, which has a dashboard."""
    options: dict[str, Any] = {"processes": False, "dashboard_address": ":0"}
    with LocalCluster(n_workers=1, threads_per_worker=2, **options) as cluster:
        with Client(cluster) as client:
            yield client


def state_of(client: Client) -> State:
    found: State = client.cluster.scheduler.plugins["dasrec"].state
    return found


def get(client: Client, path: str) -> str:
    address = client.dashboard_link.rpartition("/")[0]
    with urllib.request.urlopen(address + path, timeout=20) as answer:
        return str(answer.read().decode())


def test_a_fit_before_the_page_was_there_is_on_it(client: Client, data: Interactions) -> None:
    model = ImplicitALS(factors=2, iterations=3, rng=0).fit(data)
    place = show(client)
    assert place is not None
    assert place.endswith("/dasrec")
    (job,) = state_of(client).jobs.values()
    assert (job.name, job.status) == ("fit implicit-als", "done")
    assert [each["objective"] for each in job.records] == model.history_[
        "objective"
    ].values.tolist()
    assert show(client) == place
    assert len(state_of(client).jobs) == 1
    assert get(client, "/status").count('<a href="dasrec">Dasrec</a>') == 1
    assert '<a href="dasrec">Dasrec</a>' in get(client, PAGES[0])
    assert 'id="myTopnav"' not in get(client, PAGES[1])
    plots = json.loads(get(client, "/individual-plots.json"))
    assert plots["Individual Dasrec"] == PAGES[1]
    assert plots["Individual Task Stream"] == "/individual-task-stream"


def test_every_iteration_and_block_of_a_fit_arrives(client: Client, data: Interactions) -> None:
    show(client)
    split = dasrec.split_random(data, 0.3, rng=0)
    best = dasrec.holdout(split, "recall@5", rng=0)
    model = ImplicitALS(factors=2, iterations=4, rng=0)
    model.fit(split.train, training=Training(monitor=best, memory="1GB", time_limit=600))
    with pytest.raises(ZeroDivisionError):
        model.fit(split.train, training=Training(callbacks=[lambda _: 1 / 0]))
    ours = [job for job in state_of(client).jobs.values() if job.name.startswith("fit")]
    assert [job.status for job in ours] == ["done", "failed"]
    job = ours[0]
    assert [each["monitor"] for each in job.records] == model.history_["monitor"].values.tolist()
    assert (job.monitor, job.memory, job.limit) == ("recall@5", 10**9, 600)
    sweep = job.stages["als-user-sweep"]
    assert sweep.done == sweep.blocks == len(split.train.cuts("user_items")) - 1 > 1
    assert job.rows > 4 * (data.n_users + data.n_items)
    assert client.get_events("dasrec")


def test_the_page_of_the_documentation_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    dasrec.interactions_from_scipy(planted_matrix(), "my-store")
    run_page("dashboard.md")
    assert capsys.readouterr().out.endswith(f"{PAGES[0]}\n")


def test_a_scheduler_without_a_dashboard_does_its_work(data: Interactions) -> None:
    options: dict[str, Any] = {"processes": False, "dashboard_address": None}
    with LocalCluster(n_workers=1, **options) as cluster, Client(cluster) as client:
        assert show(client) is None
        ImplicitALS(factors=2, iterations=2, rng=0).fit(data)
        assert [len(job.records) for job in state_of(client).jobs.values()] == [2]


def test_a_scheduler_without_bokeh_gets_no_page(caplog: pytest.LogCaptureFixture) -> None:
    with mock.patch.dict(sys.modules, {"bokeh.server.tornado": None}):
        assert not plugin.add_pages(SimpleNamespace(), State())
    assert "this scheduler has no dashboard" in caplog.text


def test_a_scheduler_that_cannot_import_dasrec_is_named_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    client = mock.Mock()
    client.register_plugin.side_effect = ModuleNotFoundError("No module named 'dasrec'")
    assert show(client) is None
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "No module named 'dasrec'" in record.getMessage()


def test_nothing_is_told_without_a_client() -> None:
    with mock.patch("asyncio.run_coroutine_threadsafe") as sent, blocks.job("name"):
        blocks.tell("iteration", record={})
        assert blocks.run(divmod, [(7, 2)], name="test") == [(3, 1)]
    sent.assert_not_called()


def test_workers_that_share_a_process_are_counted_once() -> None:
    worker = SimpleNamespace(
        metrics={"dasrec": {"process": "p", "read": 0, "written": 0}, "memory": 5},
        memory_limit=10,
        host="h",
    )
    watcher = Watcher()
    watcher.scheduler = SimpleNamespace(workers={"a": worker, "b": worker})
    watcher.state, watcher._counts, watcher._counted = mock.Mock(), {"p": (0, 0)}, 100.0
    worker.metrics["dasrec"] |= {"read": 40, "written": 20}
    with mock.patch("time.time", return_value=110.0):
        watcher.sample()
    expected = Usage(memory=5, limit=10, read=4.0, written=2.0, received=0.0, sent=0.0)
    watcher.state.sample.assert_called_once_with(expected, 110.0)


def test_preloading_leaves_workers_alone() -> None:
    dask_setup(SimpleNamespace())
    scheduler = mock.Mock()
    dask_setup(scheduler)
    scheduler.add_plugin.assert_called_once()
