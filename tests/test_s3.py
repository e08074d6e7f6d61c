"""The whole way on an S3 server that fails now and then, is slow, loses replies, or is dead."""

from __future__ import annotations

import contextlib
import gzip
import os
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest import mock

import fsspec
import numpy as np
import pandas as pd
import pytest
import s3fs
from click.testing import CliRunner
from distributed import Client
from fsspec.asyn import sync as fsspec_sync
from fsspec.config import set_conf_env
from zarr.core.sync import _get_loop as zarr_loop

import dasrec
from dasrec import files, store
from dasrec.cli import main
from dasrec.errors import DiskError, InputError, StoreError
from dasrec.upkeep import compact, forget, verify
from dasrec.workflow import promoted, read_workflow, run_workflow
from tests.s3_server import FaultyServer
from tests.test_files import race_to_create

# of several requests at once Zarr drops the others when one fails, and Python tells so at any time
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

COLUMNS = {"user": "who", "item": "what", "value": "stars", "timestamp": "when"}


def settings(server: FaultyServer) -> dict[str, str]:
    """Return the environment of a process that is to use the server."""
    return {
        "AWS_ENDPOINT_URL": server.url,
        "AWS_ACCESS_KEY_ID": "somebody",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
    }


def forget_connections() -> None:
    """Let the next use of S3 read the environment again."""
    for client in s3fs.S3FileSystem._cache.values():
        if client._s3 is not None:
            loop = zarr_loop() if client.asynchronous else client.loop
            fsspec_sync(loop, client._s3creator.__aexit__, None, None, None)
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture(scope="module")
def server() -> Iterator[FaultyServer]:
    """Run an S3 server that every s3:// URL of this process leads to."""
    server = FaultyServer()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings(server).items():
            patch.setenv(name, value)
        patch.delenv("AWS_PROFILE", raising=False)
        # the client waits for seconds before it tries again
        patch.setattr("botocore.retryhandler.delay_exponential", lambda *_, **__: 0.01)
        forget_connections()
        yield server
        forget_connections()
    server.stop()


@pytest.fixture
def bucket(server: FaultyServer) -> Iterator[str]:
    """Return the URL of an empty bucket."""
    server.reset()
    url = f"s3://bucket-{files.token()}"
    fs, path = files.locate(url)
    fs.mkdir(path)
    yield url
    server.reset()


@pytest.fixture(scope="module")
def template(server: FaultyServer) -> str:
    """Return a bucket with logs and a store, to be copied."""
    fs, path = files.locate(url := "s3://bucket-template")
    fs.mkdir(path)
    put_logs(url)
    ingest(url)
    return url


@pytest.fixture
def full(bucket: str, template: str) -> str:
    """Return a bucket with logs and a store of its own."""
    fs, path = files.locate(template)
    names = fs.find(path)
    fs.copy(names, [name.replace(path, files.locate(bucket)[1]) for name in names])
    return bucket


def another_client() -> s3fs.S3FileSystem:
    """Return a client that shares nothing with ours, like one on another machine."""
    return s3fs.S3FileSystem(skip_instance_cache=True)


def log(seed: int, n: int = 900) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "who": [f"u{each}" for each in rng.integers(0, 60 + 5 * seed, n)],
            "what": rng.integers(0, 40 + 3 * seed, n),
            "stars": rng.integers(1, 6, n).astype(float),
            "when": rng.integers(1_500_000_000, 1_600_000_000, n),
        }
    )


def put_logs(base: str) -> None:
    """Write logs of three kinds: the store is made of text, what is appended is Parquet."""
    text = [log(seed).to_csv(index=False).encode() for seed in (0, 1)]
    files.make_folder(files.join(base, "logs"))
    files.replace(files.join(base, "logs", "a.csv"), text[0])
    files.replace(files.join(base, "logs", "b.csv.gz"), gzip.compress(text[1]))
    files.replace(files.join(base, "more", "c.parquet"), log(2).to_parquet())


def ingest(base: str, *, overwrite: bool = False) -> dasrec.Interactions:
    events = dasrec.read_events(files.join(base, "logs"), **COLUMNS)
    cleaned = dasrec.clean(events, min_user=2)
    return dasrec.write_interactions(cleaned, files.join(base, "store"), overwrite=overwrite)


def append(base: str, name: str = "more") -> dasrec.Interactions:
    events = dasrec.read_events(files.join(base, name), **COLUMNS)
    return dasrec.append_interactions(dasrec.clean(events), files.join(base, "store"))


def contents(view: dasrec.Interactions) -> list[Any]:
    """Return everything that a reader can see of a store, to be compared bit by bit."""
    matrix = view.to_scipy()
    arrays = (matrix.indptr, matrix.indices, matrix.data, view.counts("item_users"))
    return [*(each.tobytes() for each in arrays), view.user_hash, view.item_hash, view.n_stored]


def read_lists(url: str) -> pd.DataFrame:
    fs, path = files.locate(url)
    assert fs.exists(f"{path}/_SUCCESS")
    parts = sorted(name for name in fs.find(path) if name.endswith(".parquet"))
    assert len(parts) > 1
    return pd.concat([pd.read_parquet(fs.open(name)) for name in parts], ignore_index=True)


def go_the_whole_way(base: str) -> list[Any]:
    """Do everything that a store is for, and return everything that came of it."""
    place = files.join(base, "store")
    with mock.patch("dasrec.memory.LEAST_BLOCK_CELLS", 1000):
        first = ingest(base)
        seen = [contents(first)]
        seen.append(contents(append(base)))
        assert store.list_versions(place) == [1, 2]
        assert contents(dasrec.open_interactions(place, version=1)) == seen[0]
        gone = first.user_ids.ids[[3, 5]]
        seen.append(contents(forget(place, users=gone)))
        whole = compact(place)
        assert len(whole.cuts("user_items")) > 2
    assert store.list_versions(place) == [4]
    assert len(whole.group_urls) == 1
    assert contents(whole)[:3] == seen[2][:3]
    assert verify(place) == []
    model = dasrec.ImplicitALS(factors=4, iterations=1, rng=0).fit(whole)
    loaded = dasrec.load_model(model.save(files.join(base, "model")))
    lists = dasrec.recommend_all(loaded, whole, n=5, out=files.join(base, "lists"))
    assert {name for name in files.names(base) if not name.startswith(".")} == {
        *("logs", "more", "store", "model", "lists")
    }  # no scratch is left
    vectors = [each.tobytes() for each in loaded.scoring_vectors()]
    return [*seen, contents(whole), vectors, read_lists(lists).to_csv()]


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """Return what the whole way gives on a disk."""
    base = str(tmp_path_factory.mktemp("disk"))
    put_logs(base)
    return go_the_whole_way(base)


@pytest.mark.slow
def test_a_bucket_holds_what_a_disk_holds(bucket: str, expected: list[Any]) -> None:
    put_logs(bucket)
    assert go_the_whole_way(bucket) == expected


def test_failures_lost_replies_and_slow_ones_change_nothing(
    bucket: str, server: FaultyServer, expected: list[Any]
) -> None:
    put_logs(bucket)
    with server.failing_now_and_then(0.1, seed=1):
        assert go_the_whole_way(bucket) == expected
    assert min(server.seen[fault] for fault in ("500", "503", "lost", "slow")) > 20


@pytest.mark.slow
def test_two_processes_share_a_bucket(
    bucket: str, server: FaultyServer, expected: list[Any], cluster_client: Client
) -> None:
    cluster_client.run(use_server, settings(server))
    try:
        put_logs(bucket)
        with server.failing_now_and_then(0.02, seed=2):
            assert go_the_whole_way(bucket) == expected
        assert min(server.seen[fault] for fault in ("500", "503", "lost", "slow")) > 2
    finally:
        cluster_client.run(use_server, dict.fromkeys(settings(server), ""))


def use_server(environment: dict[str, str]) -> None:
    """Change the environment of a worker."""
    os.environ.update(environment)
    for name in [name for name, value in environment.items() if not value]:
        del os.environ[name]
    forget_connections()


# -- what others do in the bucket meanwhile --------------------------------------------------------


def test_what_another_client_has_done_is_seen_at_once(full: str) -> None:
    bucket, others, place = full, another_client(), f"{full}/store"
    first = dasrec.open_interactions(place)
    assert store.list_versions(place) == [1]
    assert len(dasrec.read_events(f"{bucket}/logs/a.csv", **COLUMNS).frame) == 900
    others.copy(f"{place}/version-00000001.json", f"{place}/version-00000002.json")
    others.pipe_file(f"{bucket}/logs/a.csv", log(0, n=1000).to_csv(index=False).encode())
    assert store.list_versions(place) == [1, 2]
    assert files.exists(f"{place}/version-00000002.json")
    assert len(dasrec.read_events(f"{bucket}/logs/a.csv", **COLUMNS).frame) == 1000
    others.rm(f"{place}/version-00000002.json")
    assert contents(dasrec.open_interactions(place)) == contents(first)
    others.rm(place, recursive=True)
    assert not files.exists(place)
    with pytest.raises(StoreError, match="is not there, or not written by dasrec"):
        dasrec.open_interactions(place)


def test_of_many_writers_one_creates_a_file(bucket: str) -> None:
    url = f"{bucket}/version.json"
    won = race_to_create(url, 24)
    assert won.count(True) == 1
    assert files.read_bytes(url) == str(won.index(True)).encode()


def test_a_file_is_ours_though_the_reply_was_lost(bucket: str, server: FaultyServer) -> None:
    url = f"{bucket}/version.json"
    with server.losing_replies(lambda request: "HTTP_IF_NONE_MATCH" in request):
        files.create(url, "ours")
        assert server.seen["lost"] == 1
    assert files.read_bytes(url) == b"ours"
    with pytest.raises(FileExistsError):
        files.create(url, "theirs")
    assert files.read_bytes(url) == b"ours"


@pytest.mark.parametrize(
    "logs",
    [
        pytest.param(("c", "d"), id="other logs"),
        pytest.param(("c", "c"), id="the same log", marks=pytest.mark.slow),
    ],
)
def test_of_two_that_append_at_once_one_wins(
    full: str, monkeypatch: pytest.MonkeyPatch, logs: tuple[str, str]
) -> None:
    bucket = full
    for number, name in enumerate("cd"):
        files.replace(f"{bucket}/{name}/log.csv", log(3 + number).to_csv(index=False).encode())
    first = dasrec.open_interactions(f"{bucket}/store")
    both, publish, written = threading.Barrier(2, timeout=60), store.publish, set()

    def wait_and_publish(pointer: Any) -> None:
        written.add(pointer.groups)
        both.wait()
        publish(pointer)

    def attempt(name: str) -> Any:
        try:
            return append(bucket, name)
        except StoreError as error:
            return error

    with monkeypatch.context() as patch, ThreadPoolExecutor(2) as pool:
        patch.setattr(store, "publish", wait_and_publish)
        outcomes = list(pool.map(attempt, logs))
    ((loser, error),) = [each for each in enumerate(outcomes) if isinstance(each[1], StoreError)]
    assert "another writer has made version 2" in str(error)
    assert len(written) == 2  # neither wrote where the other did, though the job was the same
    won, place = outcomes[1 - loser], f"{bucket}/store"
    assert verify(place) == []
    assert contents(dasrec.open_interactions(place)) == contents(won)
    assert contents(dasrec.open_interactions(place, version=1)) == contents(first)
    groups = {name for name in files.names(place) if name.startswith(("state-", "scratch-"))}
    assert groups == {url.rsplit("/", 1)[-1] for url in won.group_urls}  # nothing is left over
    if logs[0] != logs[1]:
        last = append(bucket, logs[loser])
        added = [len(log(seed).drop_duplicates(["who", "what"])) for seed in (3, 4)]
        assert (last.version, last.n_stored) == (3, first.n_stored + sum(added))


# -- damage ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["removed", "cut in two", "emptied", "changed"])
def test_a_damaged_object_is_named(full: str, how: str) -> None:
    place = f"{full}/store"
    group = dasrec.open_interactions(place).group_urls[0]
    assert verify(place) == []
    others = another_client()
    for name in ("user_items/data/c/0", "item_users/indptr/c/0", "user_ids/c/0"):
        url = f"{group}/{name}"
        good = others.cat_file(url)
        changed = good[:-9] + bytes([good[-9] ^ 1]) + good[-8:]
        bad = {"cut in two": good[: len(good) // 2], "emptied": b"", "changed": changed}
        others.rm(url) if how == "removed" else others.pipe_file(url, bad[how])
        faults = verify(place)
        array = name.partition("/c/")[0]
        assert faults, array
        assert any(f"{group}/{array.partition('/')[0]}" in fault for fault in faults)
        others.pipe_file(url, good)


# -- a server that fails for ever ------------------------------------------------------------------

UNREACHABLE = r"s3://\S+ cannot be reached: .+check the endpoint, the credentials and the network"


def test_a_dead_server_is_told_in_one_line(full: str, server: FaultyServer) -> None:
    bucket, place = full, f"{full}/store"
    first = dasrec.open_interactions(place)
    model, before = dasrec.Popular().fit(first), contents(first)
    calls = {
        "open": lambda: dasrec.open_interactions(place),
        "read": lambda: dasrec.read_events(f"{bucket}/logs", **COLUMNS),
        "append": lambda: append(bucket),
        "overwrite": lambda: ingest(bucket, overwrite=True),
        "verify": lambda: verify(place),
        "to_scipy": lambda: first.to_scipy(),
        "save": lambda: model.save(f"{bucket}/model"),
        "load": lambda: dasrec.load_model(f"{bucket}/model"),
        "recommend": lambda: dasrec.recommend_all(model, first, out=f"{bucket}/lists"),
    }
    for call in calls.values():
        with server.dead():
            with pytest.raises(DiskError, match=UNREACHABLE):
                call()
            assert server.seen["requests"] < 60
    with server.dead():
        outcome = CliRunner().invoke(main, ["info", place])
    assert outcome.exit_code == 1
    assert len(outcome.output.splitlines()) == 1
    assert outcome.output.startswith(f"Error: {place} cannot be reached")
    assert contents(dasrec.open_interactions(place)) == before
    assert verify(place) == []


def test_a_server_that_dies_midway_leaves_what_was_there(full: str, server: FaultyServer) -> None:
    place, died = f"{full}/store", 0
    before = contents(dasrec.open_interactions(place))
    events = dasrec.clean(dasrec.read_events(f"{full}/more", **COLUMNS))
    while store.list_versions(place) == [1]:
        with server.dead(after=4 + 90 * died), contextlib.suppress(DiskError):
            dasrec.append_interactions(events, place)
        died += 1
        assert contents(dasrec.open_interactions(place, version=1)) == before
    assert died > 3
    assert verify(place) == []


@pytest.mark.parametrize(
    ("name", "value"), [("AWS_ENDPOINT_URL", "http://127.0.0.1:9"), ("AWS_ACCESS_KEY_ID", None)]
)
def test_a_wrong_environment_is_told(
    bucket: str, monkeypatch: pytest.MonkeyPatch, name: str, value: str | None
) -> None:
    with monkeypatch.context() as patch:
        patch.setenv(name, value) if value else patch.delenv(name)
        forget_connections()
        with pytest.raises(DiskError, match=UNREACHABLE):
            files.replace(f"{bucket}/a", b"x")
        outcome = CliRunner().invoke(main, ["info", f"{bucket}/store"])
        assert outcome.exit_code == 1
        assert outcome.output.startswith(f"Error: {bucket}/store cannot be reached")
    forget_connections()
    assert files.names(bucket) == set()


def test_the_environment_is_as_the_page_says(
    bucket: str, server: FaultyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (Path(__file__).resolve().parents[1] / "docs" / "conventions.md").read_text("utf-8")
    text = page.split("\n## Object stores\n")[1].split("\n## ")[0]
    named = set(re.findall(r"AWS_[A-Z_]+(?==)", text))
    assert named == {name for name in settings(server) if f"{name}=" in text}
    assert "FSSPEC_S3_ENDPOINT_URL" in text
    with monkeypatch.context() as patch:
        patch.delenv("AWS_ENDPOINT_URL")
        found: dict[str, Any] = {}
        set_conf_env(found, {"FSSPEC_S3_ENDPOINT_URL": server.url})
        patch.setitem(fsspec.config.conf, "s3", found["s3"])
        forget_connections()
        files.replace(f"{bucket}/a", b"x")
        assert files.read_bytes(f"{bucket}/a") == b"x"
        forget_connections()
    assert files.read_bytes(f"{bucket}/a") == b"x"


def test_no_bucket_is_made_out_of_a_typing_error(full: str) -> None:
    wrong = f"{full}-wrong"
    events = dasrec.clean(dasrec.read_events(f"{full}/logs", **COLUMNS))
    seen = dasrec.open_interactions(f"{full}/store")
    with pytest.raises(DiskError, match=f"cannot write to {wrong}/lists.*bucket does not exist"):
        dasrec.recommend_all(dasrec.Popular().fit(seen), seen, out=f"{wrong}/lists")
    with pytest.raises(DiskError, match=f"cannot write to {wrong}/store: .*bucket does not exist"):
        dasrec.write_interactions(events, f"{wrong}/store")
    with pytest.raises(InputError, match="is not there"):
        dasrec.read_events(f"{wrong}/logs", **COLUMNS)
    with pytest.raises(StoreError, match="is not there"):
        dasrec.open_interactions(f"{wrong}/store")
    assert wrong.removeprefix("s3://") not in another_client().ls("")


def test_the_mark_of_finished_lists_comes_last(bucket: str, server: FaultyServer) -> None:
    for number in range(3):
        files.replace(f"{bucket}/draft/part-{number}", b"new")
        files.replace(f"{bucket}/lists/part-{number}", b"old")
    for name in ("draft", "lists"):
        files.replace(f"{bucket}/{name}/_SUCCESS", b"")
    died = 0
    while files.exists(f"{bucket}/draft"):
        with server.dead(after=died):
            try:
                files.move(f"{bucket}/draft", f"{bucket}/lists", last="_SUCCESS")
            except DiskError:
                died += 1
        found = files.names(f"{bucket}/lists")
        whole = {f"part-{number}" for number in range(3)} | {"_SUCCESS"}
        assert found == whole or "_SUCCESS" not in found
        if found == whole:
            read = {files.read_bytes(f"{bucket}/lists/{name}") for name in whole - {"_SUCCESS"}}
            assert len(read) == 1  # all old or all new
    assert read == {b"new"}
    assert died > 5


WORKFLOW = """\
name: far
place: {place}
log: {{source: {logs}, columns: {{user: who, item: what, value: stars, timestamp: when}}}}
clean: {{min_user: 2}}
split: time:0.2
fit: {{model: ImplicitALS, factors: 4, iterations: 3}}
promote: {{when: always}}
recommend: {{n: 5}}
report: {{}}
"""


@pytest.mark.slow
def test_a_workflow_runs_in_a_bucket_as_on_a_disk(
    bucket: str, server: FaultyServer, tmp_path: Path
) -> None:
    put_logs(bucket)
    found = []
    for place in (files.join(bucket, "out"), str(tmp_path / "out")):
        text = WORKFLOW.format(place=place, logs=files.join(bucket, "logs"))
        (tmp_path / "w.yaml").write_text(text)
        workflow = read_workflow(str(tmp_path / "w.yaml"))
        with server.failing_now_and_then(0.05, seed=1):
            assert run_workflow(workflow).promoted
        assert run_workflow(workflow).did == ()
        used = promoted(place)
        assert used is not None
        found.append((used.open_model(), str(used.lists)))
    assert np.array_equal(*(model.user_factors_ for model, _ in found))
    lists = [pd.concat(map(pd.read_parquet, _parts(place))) for _, place in found]
    pd.testing.assert_frame_equal(*(each.reset_index(drop=True) for each in lists))
    leases = [name for name in files.names(files.join(bucket, "out")) if name.startswith("lease")]
    assert len(leases) == 1


def _parts(url: str) -> list[str]:
    return sorted(files.join(url, name) for name in files.names(url) if name.endswith(".parquet"))
