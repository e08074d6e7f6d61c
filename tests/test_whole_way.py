"""The whole way on a log of millions of events, on worker processes that are small."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd
import pytest
from distributed import Client

import dasrec
from dasrec import datasets


@pytest.mark.slow
def test_five_million_events_fit_two_processes_of_one_gigabyte(
    tmp_path: Path, cluster_client: Client
) -> None:
    processes = cluster_client.run(os.getpid)
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
    assert cluster_client.run(os.getpid) == processes  # none was killed and replaced
