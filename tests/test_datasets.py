"""Public logs are found, fetched and checked; simulated ones have the truth they claim."""

from __future__ import annotations

import hashlib
import io
import time
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from scipy import sparse
from scipy.sparse.linalg import svds

from dasrec import datasets
from dasrec.datasets import planted_truth, simulate_events, simulate_log
from dasrec.errors import DataUnavailableError, DiskError, InputError
from dasrec.events import read_events

U_DATA = b"196\t242\t3\t881250949\n186\t302\t5\t891717742\n"
U_ITEM = '242|Kolya (1996)|24-Jan-1997||url|0\n302|Caf\xe9 "A|B (1997)|x||y|1\n'.encode("latin-1")


@pytest.fixture(autouse=True)
def no_data_dir(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(datasets.DATA_DIR_VARIABLE, raising=False)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty data folder that the variable names."""
    there = tmp_path / "data"
    there.mkdir()
    monkeypatch.setenv(datasets.DATA_DIR_VARIABLE, str(there))
    return there


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[bytes]:
    """Serve a small archive from this machine instead of GroupLens; yield its bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("ml-100k/u.data", U_DATA)
        file.writestr("ml-100k/u.item", U_ITEM)
    served = tmp_path / "served"
    served.mkdir()
    (served / "ml-100k.zip").write_bytes(buffer.getvalue())
    handler = partial(_Quiet, directory=str(served))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/ml-100k.zip"
        monkeypatch.setattr(datasets, "MOVIELENS_100K_URL", url)
        yield buffer.getvalue()
        server.shutdown()


def _read(log: datasets.LogFiles) -> pd.DataFrame:
    return read_events(log.paths, **log.columns).frame.compute(scheduler="synchronous")


class TestMovieLens:
    def test_typed_layout(self, folder: Path, tmp_path: Path) -> None:
        there = folder / "ml-100k"
        there.mkdir()
        (there / "ml-100k.inter").write_text(
            "user_id:token\titem_id:token\trating:float\ttimestamp:float\n1\t2\t4\t881250949\n"
        )
        (there / "ml-100k.item").write_text(
            "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
            '2\tThe "Toy\t1995\tComedy\n9\tunknown\tunknown\t\n10\tBare\t\t\n'
        )
        log = datasets.movielens_100k(cache_dir=tmp_path / "cache")
        assert log.paths == (str(there / "ml-100k.inter"),)
        assert _read(log)[["user", "item", "value"]].to_numpy().tolist() == [[1, 2, 4.0]]
        assert log.titles is not None
        assert log.titles.to_dict() == {2: 'The "Toy (1995)', 9: "unknown", 10: "Bare"}
        assert log.titles.index.dtype == np.int64
        assert not log.simulated
        assert not (tmp_path / "cache").exists()

    def test_original_layout_gets_a_header(self, folder: Path, tmp_path: Path) -> None:
        there = folder / "ml-100k"
        there.mkdir()
        (there / "u.data").write_bytes(U_DATA)
        (there / "u.item").write_bytes(U_ITEM)
        log = datasets.movielens_100k(cache_dir=tmp_path / "cache")
        events = _read(log)
        assert events[["user", "item", "value"]].to_numpy().tolist() == [
            [196, 242, 3.0],
            [186, 302, 5.0],
        ]
        assert events["timestamp"].iloc[0] == pd.Timestamp(881250949, unit="s")
        assert log.titles is not None
        assert log.titles.to_dict() == {242: "Kolya (1996)", 302: 'Caf\xe9 "A'}
        (copy,) = (tmp_path / "cache").iterdir()
        assert log.paths == (str(copy),)

    def test_the_copy_follows_the_content(self, folder: Path, tmp_path: Path) -> None:
        there = folder / "ml-100k"
        there.mkdir()
        (there / "u.item").write_bytes(U_ITEM)
        paths = []
        for content in (U_DATA, U_DATA, U_DATA.splitlines(keepends=True)[0]):
            (there / "u.data").write_bytes(content)
            paths.append(datasets.movielens_100k(cache_dir=tmp_path / "cache").paths[0])
        assert paths[0] == paths[1] != paths[2]
        assert len(pd.read_csv(paths[2])) == 1

    def test_refuses_a_folder_without_the_files(self, folder: Path, tmp_path: Path) -> None:
        (folder / "ml-100k").mkdir()
        (folder / "ml-100k" / "u.data").write_bytes(U_DATA)
        with pytest.raises(InputError, match=r"lacks ml-100k\.inter and .* or u\.data and"):
            datasets.movielens_100k(cache_dir=tmp_path)

    def test_is_fetched_once(
        self, tmp_path: Path, archive: bytes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        known = f"sha256:{hashlib.sha256(archive).hexdigest()}"
        monkeypatch.setattr(datasets, "MOVIELENS_100K_HASH", known)
        log = datasets.movielens_100k(cache_dir=tmp_path / "cache")
        assert len(_read(log)) == 2
        monkeypatch.setattr(datasets, "MOVIELENS_100K_URL", "http://127.0.0.1:9/gone")
        assert datasets.movielens_100k(cache_dir=tmp_path / "cache").paths == log.paths

    @pytest.mark.usefixtures("archive")
    def test_another_hash_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(DataUnavailableError, match="does not match the known hash"):
            datasets.movielens_100k(cache_dir=tmp_path / "cache")
        assert list((tmp_path / "cache").iterdir()) == []

    def test_without_a_network_it_says_so_soon(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(datasets, "MOVIELENS_100K_URL", "http://127.0.0.1:9/ml-100k.zip")
        begin = time.monotonic()
        with pytest.raises(DataUnavailableError, match="set DASREC_DATA_DIR to a folder that hold"):
            datasets.movielens_100k(cache_dir=tmp_path)
        assert time.monotonic() - begin < 10

    def test_the_public_file(
        self, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(datasets.DATA_DIR_VARIABLE, str(data_dir))
        log = datasets.movielens_100k(cache_dir=tmp_path)
        events = _read(log)
        assert (len(events), events["user"].nunique(), events["item"].nunique()) == (
            100_000,
            943,
            1682,
        )
        assert log.titles is not None
        assert log.titles.loc[1] == "Toy Story (1995)"
        assert set(events["item"]) == set(log.titles.index)


class TestAnime:
    def test_reads_ratings_and_unescapes_titles(self, folder: Path) -> None:
        there = folder / "anime"
        there.mkdir()
        (there / "anime_ratings.dat").write_text("User_ID\tAnime_ID\tFeedback\n1\t3\t8\n")
        (there / "anime_info.dat").write_text(
            "anime_ids\tname\tgenre\ttype\tepisodes\trating\tmembers\n"
            "3\tGintama&#039;\tComedy\tTV\t51\t9.2\t151266\n"
        )
        log = datasets.anime_ratings()
        assert _read(log).to_numpy().tolist() == [[1, 3, 8.0]]
        assert "timestamp" not in log.columns
        assert log.titles is not None
        assert log.titles.to_dict() == {3: "Gintama'"}

    def test_is_not_fetched(self, folder: Path) -> None:
        with pytest.raises(DataUnavailableError, match="expected a folder that holds anime/"):
            datasets.anime_ratings()
        (folder / "anime").mkdir()
        with pytest.raises(DataUnavailableError, match=r"anime_ratings\.dat and anime_info\.dat"):
            datasets.anime_ratings()

    def test_titles_belong_to_the_ratings(
        self, data_dir: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(datasets.DATA_DIR_VARIABLE, str(data_dir))
        log = datasets.anime_ratings()
        ratings = pd.read_csv(log.paths[0], sep="\t")
        info = pd.read_csv(data_dir / "anime" / "anime_info.dat", sep="\t", index_col="anime_ids")
        assert log.titles is not None
        assert set(ratings["Anime_ID"]) <= set(log.titles.index)
        counts = ratings["Anime_ID"].value_counts()
        assert counts.corr(info["members"].reindex(counts.index), method="spearman") > 0.9


@pytest.fixture(scope="module")
def events() -> pd.DataFrame:
    return simulate_events(100_000, n_users=1000, n_items=1700, rng=7)


class TestSimulation:
    def test_columns_types_and_ranges(self, events: pd.DataFrame) -> None:
        assert {name: str(kind) for name, kind in events.dtypes.items()} == {
            "user": "int64",
            "item": "int64",
            "value": "float32",
            "timestamp": "int64",
        }
        assert len(events) == 100_000
        assert events["user"].between(0, 999).all()
        assert events["item"].between(0, 1699).all()
        assert set(events["value"]) == {1, 2, 3, 4, 5}
        assert events["value"].mean() == pytest.approx(3.5, abs=0.2)

    def test_time_runs_through_a_year_and_activity_grows(self, events: pd.DataFrame) -> None:
        times = events["timestamp"]
        assert times.is_monotonic_increasing
        first, last = pd.to_datetime([times.iloc[0], times.iloc[-1]], unit="s")
        assert (first.year, first.month, last.year, last.month) == (2024, 1, 2024, 12)
        months = np.histogram(times, bins=12)[0]
        assert 2.4 < months[-1] / months[0] < 3.2
        assert (np.diff(months) > 0).all()

    def test_same_seed_same_log(self, events: pd.DataFrame) -> None:
        np.random.seed(0)  # must not matter
        again = simulate_events(100_000, n_users=1000, n_items=1700, rng=7)
        pd.testing.assert_frame_equal(again, events)
        other = simulate_events(100_000, n_users=1000, n_items=1700, rng=8)
        assert (other["item"] == events["item"]).mean() < 0.1

    def test_the_seed_is_recorded(self) -> None:
        for rng in (None, np.random.default_rng(1)):
            drawn = simulate_events(100, n_users=9, n_items=9, rng=rng)
            again = simulate_events(100, n_users=9, n_items=9, rng=drawn.attrs["seed"])
            pd.testing.assert_frame_equal(again, drawn)

    def test_few_have_most(self, events: pd.DataFrame) -> None:
        for column, size, least in (("user", 1000, 0.25), ("item", 1700, 0.35)):
            counts = np.sort(np.bincount(events[column], minlength=size))[::-1]
            assert counts[: size // 10].sum() / counts.sum() > least
            # a straight line where both axes are logarithmic, past the bent head
            ranks = np.arange(size // 20, size // 2)
            logs = np.log(ranks), np.log(counts[ranks])
            assert np.corrcoef(*logs)[0, 1] < -0.98
            assert np.polyfit(*logs, 1)[0] < -0.5

    @pytest.mark.parametrize(
        ("n_events", "n_users", "n_items"), [(100_000, 1000, 1700), (50_000, 5000, 5000)]
    )
    def test_some_pairs_repeat(self, n_events: int, n_users: int, n_items: int) -> None:
        log = simulate_events(n_events, n_users=n_users, n_items=n_items, rng=1)
        assert 0.01 < log.duplicated(["user", "item"]).mean() < 0.06

    def test_values_follow_the_planted_truth(self, events: pd.DataFrame) -> None:
        truth = planted_truth(n_users=1000, n_items=1700, rng=7)
        users, items = events["user"].to_numpy(), events["item"].to_numpy()
        expected = truth.expected(users, items)
        assert expected.dtype == np.float32
        assert np.corrcoef(expected, events["value"])[0, 1] > 0.75
        biases = truth.user_bias[users] + truth.item_bias[items]
        rest = events["value"] - biases
        tastes = expected - biases
        # what the factors explain is more than what the biases explain
        assert np.corrcoef(tastes, rest)[0, 1] > np.corrcoef(biases, events["value"])[0, 1]

    def test_who_likes_a_taste_uses_its_items(self, events: pd.DataFrame) -> None:
        truth = planted_truth(n_users=1000, n_items=1700, rng=7)
        liked = truth.user_factors.argmax(axis=1)[events["user"]]
        assert (truth.group[events["item"]] == liked).mean() > 0.3  # by chance: 1 / 8

    def test_factors_beat_popularity_after_a_split_by_time(self, events: pd.DataFrame) -> None:
        pairs = events.drop_duplicates(["user", "item"])
        shape, cut = (1000, 1700), len(pairs) * 4 // 5
        train, test = (
            sparse.csr_array((np.ones(len(part)), (part["user"], part["item"])), shape=shape)
            for part in (pairs[:cut], pairs[cut:])
        )
        left, strengths, right = svds(train, k=9, rng=np.random.default_rng(0))
        by_factors = self._precision((left * strengths) @ right, train, test)
        popularity = np.tile(np.asarray(train.sum(axis=0)), (1000, 1))
        by_popularity = self._precision(popularity, train, test)
        assert by_factors > 1.5 * by_popularity > 0

    @staticmethod
    def _precision(scores: np.ndarray, train: sparse.csr_array, test: sparse.csr_array) -> float:
        lists = np.argsort(np.where(train.toarray() > 0, -np.inf, scores), axis=1)[:, -10:]
        hits = np.take_along_axis(test.toarray(), lists, axis=1)
        return float(hits.mean())

    def test_tiny_and_odd_sizes(self) -> None:
        for n_events, n_users, n_items, factors in ((1, 1, 1, 1), (7, 100, 3, 3), (97, 2, 5, 2)):
            log = simulate_events(
                n_events, n_users=n_users, n_items=n_items, factors=factors, rng=0
            )
            assert len(log) == n_events
            assert log["user"].between(0, n_users - 1).all()
            assert log["item"].between(0, n_items - 1).all()

    def test_refuses_impossible_sizes(self) -> None:
        with pytest.raises(InputError, match="n_events is 0; expected a whole number, from 1"):
            simulate_events(0, n_users=1, n_items=1, factors=1)
        with pytest.raises(InputError, match="factors is 8; expected a whole number, from 1 to 5"):
            simulate_events(10, n_users=4, n_items=5)


class TestSimulateLog:
    @pytest.fixture(autouse=True)
    def small_parts(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(datasets, "PART_EVENTS", 300)

    @pytest.mark.parametrize("name", ["log.csv", "log.parquet"])
    def test_writes_what_simulate_events_gives(self, tmp_path: Path, name: str) -> None:
        log = simulate_log(tmp_path / "new" / name, 1000, n_users=50, n_items=40, rng=3)
        wanted = simulate_events(1000, n_users=50, n_items=40, rng=3)
        read = pd.read_csv if name.endswith("csv") else pd.read_parquet
        got = read(log.paths[0]).astype(wanted.dtypes.to_dict())
        pd.testing.assert_frame_equal(got, wanted)
        assert log.simulated
        assert log.name == "simulated (seed 3)"
        assert len(_read(log)) == 1000

    def test_parts_are_written_one_by_one(self, tmp_path: Path) -> None:
        log = simulate_log(tmp_path / "log.parquet", 1000, n_users=50, n_items=40, rng=3)
        with pq.ParquetFile(log.paths[0]) as file:
            sizes = [file.metadata.row_group(k).num_rows for k in range(file.num_row_groups)]
        assert sizes == [300, 300, 300, 100]

    def test_parts_do_not_repeat_each_other(self, tmp_path: Path) -> None:
        log = simulate_log(tmp_path / "log.csv", 3000, n_users=300, n_items=400, rng=3)
        table = pd.read_csv(log.paths[0])
        assert table.duplicated(["user", "item"]).mean() < 0.06
        assert table["timestamp"].is_monotonic_increasing

    @pytest.mark.parametrize("name", ["log.csv", "log.parquet"])
    def test_a_failed_write_leaves_the_old_file(
        self, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / name
        simulate_log(path, 400, n_users=50, n_items=40, rng=3)
        old = path.read_bytes()
        whole = datasets._parts

        def breaks(truth: datasets.Truth, n_events: int) -> Iterator[pd.DataFrame]:
            yield next(whole(truth, n_events))
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(datasets, "_parts", breaks)
        with pytest.raises(DiskError, match="No space left on device"):
            simulate_log(path, 400, n_users=50, n_items=40, rng=4)
        assert path.read_bytes() == old
        assert list(tmp_path.iterdir()) == [path]

    @pytest.mark.parametrize("path", ["log.txt", "log", "memory://bucket/log.csv"])
    def test_refuses_other_places(self, path: str) -> None:
        with pytest.raises(InputError, match=r"expected a local path that ends in \.csv or \.parq"):
            simulate_log(path, 10, n_users=5, n_items=9)
