"""How fast a log becomes a store, and in how much memory, beside DuckDB and Dask's shuffle.

    python benchmarks/ingest.py --events 10M --repeats 3 --strings

All read one simulated Parquet log: a power law of users and of items, ids that are no numbers of
rows, one event in twenty a repetition. dasrec and DuckDB do the same job: number the ids in
ascending order, keep the last event of each user and item, write both orientations sorted, with
timestamps, and both vocabularies. The shuffle of dask.dataframe does one orientation and numbers
nothing. Each runs alone in a process of its own, restricted to ``--workers`` cores.

The figures depend on the machine; ratios within one run are what counts. ``noise`` tells how many
cores other programs kept busy meanwhile: where it is not near 0, read the processor time.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import common
import numpy as np
from common import START, Outcome, Rounds, Target, run, say, short, timed
from dask.utils import parse_bytes

# Libraries are imported by the job that measures them, so that none carries those of another.

THREADS, PROCESSES, STRINGS = "dasrec, threads", "dasrec, processes", "dasrec, threads, strings"
PACKAGES = ("dasrec", "dask", "zarr", "pyarrow", "duckdb")
SIDES = ("user_items", "item_users")


# --- the jobs


def write_dasrec(
    log: str, out: str, *, cluster: str, strings: bool, memory: str | None = None
) -> dict[str, Any]:
    """Write an interaction store in threads, or on a cluster that is started beforehand."""
    import dasrec

    with common.cluster(cluster), timed() as answer:
        events = dasrec.read_events(
            log,
            user="user",
            item="item",
            value="rating",
            timestamp="timestamp",
            timestamp_unit="ms",
            ids="string" if strings else "int64",
        )
        dasrec.write_interactions(events, out, memory=memory)
    return answer


def write_duckdb(log: str, out: str, *, threads: int, memory: str) -> dict[str, Any]:
    """Do the same in SQL; of several ways tried, the one that was the fastest."""
    import duckdb

    Path(out).mkdir()
    connection = duckdb.connect()
    for option in (
        f"threads = {threads}",
        f"memory_limit = '{memory}'",
        f"temp_directory = '{out}/temporary'",
        "preserve_insertion_order = false",
        "enable_progress_bar = false",
    ):
        connection.execute(f"SET {option}")
    with timed() as answer:
        for side in ("user", "item"):
            connection.execute(
                f'CREATE TABLE {side}s AS SELECT "{side}" AS id, (row_number() OVER '
                f'(ORDER BY "{side}") - 1)::INT AS number FROM (SELECT DISTINCT "{side}" '
                f"FROM '{log}')"
            )
            connection.execute(f"COPY (FROM {side}s ORDER BY number) TO '{out}/{side}s.parquet'")
        last = (
            'SELECT "user", item, arg_max(rating, "timestamp") AS weight, max("timestamp") AS time '
            f"FROM '{log}' GROUP BY ALL"
        )
        connection.execute(
            f"COPY (SELECT users.number AS u, items.number AS i, weight, time FROM ({last}) AS log "
            'JOIN users ON log."user" = users.id JOIN items ON log.item = items.id ORDER BY u, i) '
            f"TO '{out}/user_items.parquet'"
        )
        connection.execute(
            f"COPY (FROM '{out}/user_items.parquet' ORDER BY i, u) TO '{out}/item_users.parquet'"
        )
    return answer


def write_dask(log: str, out: str, *, workers: int) -> dict[str, Any]:
    """Shuffle by user between worker processes, then sort and dedupe each partition."""
    import dask.dataframe as dd

    with common.cluster(f"processes:{workers}"), timed() as answer:
        events = dd.read_parquet(log, split_row_groups=1)
        shuffled = events.shuffle("user", shuffle_method="p2p")
        shuffled.map_partitions(_last_of_each, meta=events._meta).to_parquet(out, write_index=False)
    return answer


def _last_of_each(frame: Any) -> Any:
    ordered = frame.sort_values(["user", "item", "timestamp"])
    return ordered.drop_duplicates(["user", "item"], keep="last")


# --- what they wrote


def facts_dasrec(out: str) -> dict[str, Any]:
    """Sum up both orientations, and how many bytes each array takes for an interaction."""
    import dasrec

    found = dasrec.open_interactions(out)
    facts: dict[str, Any] = {"n_users": found.n_users, "n_items": found.n_items, "bytes": {}}
    for side in SIDES:
        sums = np.zeros(3)
        cells = times = 0
        for start, stop in pairwise(found.cuts(side).tolist()):
            block = found.read_rows(side, start, stop, timed=True)
            rows = np.repeat(np.arange(start, stop), np.diff(block.indptr))
            pair = (rows, block.indices) if side == "user_items" else (block.indices, rows)
            weights = block.data.astype(np.float64)
            sums += weights.sum(), weights @ pair[0], weights @ pair[1]
            cells += weights.size
            times += int((block.timestamps // 1000 - START).sum())
        facts[side] = [cells, *sums.tolist(), times]
        facts["bytes"][side] = {
            name: sum(each.stat().st_size for each in (Path(group) / side / name).rglob("*"))
            / found.n_stored
            for name in ("data", "indices", "timestamps")
            for group in found.group_urls
        }
    return facts


def facts_duckdb(out: str) -> dict[str, Any]:
    """Sum up both files likewise."""
    import duckdb

    def ask(query: str) -> Any:
        return duckdb.sql(query).fetchall()[0]

    facts: dict[str, Any] = {
        f"n_{side}s": ask(f"SELECT count(*) FROM '{out}/{side}s.parquet'")[0]
        for side in ("user", "item")
    }
    for side in SIDES:
        sums = f"sum(weight), sum(weight * u), sum(weight * i), sum(time - {START})"
        found = ask(f"SELECT count(*), {sums} FROM '{out}/{side}.parquet'")
        facts[side] = [*found[:4], int(found[4])]
    return facts


def facts_dask(out: str) -> dict[str, Any]:
    """Sum up what a shuffle without numbers has."""
    import duckdb

    sums = f"count(*), sum(rating), sum(timestamp - {START})"
    cells, weights, times = duckdb.sql(f"SELECT {sums} FROM '{out}/*.parquet'").fetchall()[0]
    return {"user_items": [cells, weights, None, None, int(times)]}


def agree(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Say whether two jobs found the same users, items, pairs, weights and times."""
    pairs = [
        (mine, its)
        for key, theirs in other.items()
        if key != "bytes"
        for mine, its in zip(np.atleast_1d(one[key]), np.atleast_1d(theirs), strict=True)
    ]
    return all(its is None or mine == its for mine, its in pairs)


def read_blocks(out: str, *, repeats: int = 5) -> dict[str, Any]:
    """Read all row blocks, and the same arrays as if they were flat: decoded bytes a second."""
    import zarr

    import dasrec
    from dasrec.store import CHUNK_CELLS

    found = dasrec.open_interactions(out)
    rates: dict[str, list[float]] = {"flat": [], "blocks": []}
    cuts = found.cuts("user_items").tolist()
    group = Path(found.group_urls[0]) / "user_items"
    arrays = [zarr.open_array(group / name, mode="r") for name in ("data", "indices")]
    # whole chunks, about as many at a time as a block has
    step = -(-found.n_stored // (len(cuts) - 1) // CHUNK_CELLS) * CHUNK_CELLS
    for _ in range(repeats):
        start = time.perf_counter()
        for first in range(0, found.n_stored, step):
            for array in arrays:
                array[first : first + step]
        middle = time.perf_counter()
        for first, stop in pairwise(cuts):
            found.read_rows("user_items", first, stop)
        end = time.perf_counter()
        rates["flat"].append(8 * found.n_stored / (middle - start))
        rates["blocks"].append(8 * found.n_stored / (end - middle))
    return {name: statistics.median(values) for name, values in rates.items()}


# --- the comparison


def main() -> int:
    """Run what the command line asks for."""
    options = _options()
    with tempfile.TemporaryDirectory(dir=options.cache) as folder:
        log = common.simulated_log(options.cache, n=10_000, seed=options.seed)
        call = partial(run, write_dasrec, cores=options.workers, log=log, strings=False)
        call(out=f"{folder}/warm", cluster="threads")  # compiles the kernels
        results = {n: _measure(n, options, folder) for n in options.sizes}
    targets = [target for n, result in results.items() for target in _targets(n, result, options)]
    targets += _linear(results)
    same = all(result["agree"] for result in results.values())
    if options.json:
        print(json.dumps(_jsonable(results, targets), indent=1))
    else:
        print(common.machine(*PACKAGES))
        for n, result in results.items():
            print(f"\n{_report(n, result)}")
        print("", *targets, sep="\n")
        print(f"{'PASS' if same else 'FAIL'}  all jobs wrote the same")
    return int(not same or (options.strict and not all(each.passed for each in targets)))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--events", type=common.count, default=10**7, help="size of the log, as in 10M"
    )
    parser.add_argument("--sizes", help="several logs instead, as in 10M,30M,100M")
    parser.add_argument("--strings", action="store_true", help="also a log whose ids are strings")
    parser.add_argument("--peers", default="duckdb,dask", help="duckdb,dask; '' for none")
    parser.add_argument("--duckdb-memory", default="4GB", help="limits; targets are for the first")
    parser.add_argument("--memory", help="limit of dasrec in threads, as in 1GB")
    options = common.parse(parser, repeats=1)
    options.sizes = sorted(map(common.count, options.sizes.split(","))) if options.sizes else []
    options.sizes = options.sizes or [options.events]
    options.peers = [peer for peer in options.peers.split(",") if peer]
    options.duckdb_memory = options.duckdb_memory.split(",")
    if unknown := set(options.peers) - {"duckdb", "dask"}:
        parser.error(f"--peers: {', '.join(unknown)}; expected duckdb, dask or both")
    return options


def _measure(n: int, options: argparse.Namespace, folder: str) -> dict[str, Any]:
    cores = options.workers
    outs: dict[str, tuple[str, Callable[..., dict[str, Any]]]] = {}
    jobs: dict[str, Callable[[], Outcome]] = {}

    def add(
        name: str, job: Callable[..., Any], facts: Callable[..., Any], **arguments: Any
    ) -> None:
        out = f"{folder}/{len(jobs)}"
        outs[name] = (out, facts)

        def start() -> Outcome:
            shutil.rmtree(out, ignore_errors=True)
            return run(job, cores=cores, out=out, **arguments)

        jobs[name] = start

    for strings in (False, True) if options.strings else (False,):
        log = common.simulated_log(options.cache, n=n, seed=options.seed, strings=strings)
        tail = ", strings" if strings else ""
        dasrec = partial(add, job=write_dasrec, facts=facts_dasrec, log=log, strings=strings)
        dasrec(THREADS + tail, cluster="threads", memory=options.memory)
        if not strings:
            dasrec(PROCESSES, cluster=f"processes:{cores}")
        for memory in options.duckdb_memory if "duckdb" in options.peers else ():
            name = f"DuckDB, limit {memory}{tail}"
            add(name, write_duckdb, facts_duckdb, log=log, threads=cores, memory=memory)
        if "dask" in options.peers and not strings:
            add("Dask, shuffle of one side", write_dask, facts_dask, log=log, workers=cores)
    rounds = common.alternate(jobs, repeats=options.repeats)
    found = {name: run(facts, cores=cores, out=out).answer for name, (out, facts) in outs.items()}
    reads = run(read_blocks, cores=cores, out=outs[THREADS][0]).answer
    bases = {name: STRINGS if name.endswith("strings") else THREADS for name in found}
    odd = [name for name, base in bases.items() if not agree(found[base], found[name])]
    for name in odd:
        say(f"{name} differs from {bases[name]}: {found[name]} against {found[bases[name]]}")
    for out, _ in outs.values():
        shutil.rmtree(out)
    return {"rounds": rounds, "facts": found, "reads": reads, "agree": not odd}


def _targets(n: int, result: dict[str, Any], options: argparse.Namespace) -> list[Target]:
    rounds: Rounds = result["rounds"]
    targets = []
    if "duckdb" in options.peers and n == max(options.sizes):
        peer = f"DuckDB, limit {options.duckdb_memory[0]}"
        faster, less = (rounds.ratio(key, peer, THREADS) for key in ("seconds", "peak_bytes"))
        targets.append(Target(f"{short(n)}: times as fast as {peer}", faster, 2.5, at_least=True))
        targets.append(Target(f"{short(n)}: times less memory than {peer}", less, 4, at_least=True))
    if STRINGS in rounds.outcomes:
        slower = rounds.ratio("seconds", STRINGS, THREADS)
        targets.append(Target(f"{short(n)}: time of strings by that of integers", slower, 2.5))
    slower = rounds.ratio("seconds", PROCESSES, THREADS)
    targets.append(Target(f"{short(n)}: time of processes by that of threads", slower, 1.4))
    if options.memory:
        most = rounds.median("peak_bytes", THREADS) / parse_bytes(options.memory)
        targets.append(Target(f"{short(n)}: peak by --memory {options.memory}", most, 1.15))
    stored = result["facts"][THREADS]["bytes"].values()
    worst = max(each["data"] + each["indices"] for each in stored)
    targets.append(Target(f"{short(n)}: bytes an interaction and side, no times", worst, 3))
    rate = result["reads"]["blocks"] / result["reads"]["flat"]
    targets.append(Target(f"{short(n)}: block reads by flat reads", rate, 0.7, at_least=True))
    return targets


def _linear(results: dict[int, dict[str, Any]]) -> list[Target]:
    """Compare the time an event takes in the largest log with that in the smallest."""
    first, last = min(results), max(results)
    if first == last:
        return []
    each = [results[n]["rounds"].median("seconds", THREADS) / n for n in (first, last)]
    name = f"time an event at {short(last)} by that at {short(first)}"
    return [Target(name, each[1] / each[0], 1.15)]


def _report(n: int, result: dict[str, Any]) -> str:
    rounds: Rounds = result["rounds"]
    rows = []
    for name, outcomes in rounds.outcomes.items():
        seconds = rounds.median("seconds", name)
        rows.append(
            [
                name,
                f"{seconds:.2f}",
                f"{rounds.median('cpu_seconds', name):.2f}",
                f"{n / seconds / 1e6:.2f}",
                f"{rounds.median('peak_bytes', name) / 1e6:.0f}",
                f"{outcomes[0].answer['start_bytes'] / 1e6:.0f}",
                f"{statistics.median(each.answer['noise'] for each in outcomes):.2f}",
                *(
                    f"{rounds.ratio(key, name, THREADS):.2f}"
                    for key in ("seconds", "cpu_seconds", "peak_bytes")
                ),
            ]
        )
    header = "s,CPU s,M events/s,peak MB,at start,noise,time x,CPU x,peak x".split(",")
    parts = [common.table([f"{short(n)} events, {len(outcomes)} round(s)", *header], rows)]
    stored = result["facts"][THREADS]["bytes"]
    sizes = [[side, *(f"{size:.2f}" for size in stored[side].values())] for side in SIDES]
    parts.append(common.table(["stored bytes an interaction", *stored[SIDES[0]]], sizes))
    rates = [[name, f"{rate / 1e6:.0f}"] for name, rate in result["reads"].items()]
    parts.append(common.table(["reading data and indices, by", "MB/s decoded"], rates))
    return "\n\n".join(parts)


def _jsonable(results: dict[int, dict[str, Any]], targets: list[Target]) -> dict[str, Any]:
    sizes = {}
    for n, result in results.items():
        rounds = {
            name: [vars(each) for each in outcomes]
            for name, outcomes in result["rounds"].outcomes.items()
        }
        sizes[n] = {**result, "rounds": rounds}
    verdicts = [{**vars(each), "passed": each.passed} for each in targets]
    return {"machine": common.machine(*PACKAGES), "events": sizes, "targets": verdicts}


if __name__ == "__main__":
    sys.exit(main())
