"""What larger data on larger clusters would take, and where the same is known to be true."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

import dasrec
from dasrec import BudgetError, InputError
from dasrec.cli import main
from dasrec.scale import TASK_SECONDS, ScalePlan, Sizes, Workers, plan_scale
from dasrec.testing import planted_matrix
from tests.snippets import run_page
from tests.test_docs import section, table_rows

BILLION = Sizes(10**7, 10**6, 10**9, 10**6)

COLUMNS = (
    (BILLION, Workers(8, 4, "16GB")),
    (Sizes(10**8, 2 * 10**6, 10**10, 10**7), Workers(32, 4, "32GB")),
    (Sizes(10**8, 2 * 10**6, 10**10, 10**7), Workers(64, 4, "24GB")),
    (Sizes(5 * 10**8, 10**7, 10**11, 5 * 10**7), Workers(128, 4, "192GB")),
)


def shown(plan: ScalePlan) -> dict[str, str]:
    """Write a plan as the page does."""
    return {
        "store": f"{plan.store_bytes / 1e9:,.0f} GB",
        "tasks": f"{plan.n_tasks:,}",
        "factors are in": plan.factors_in,
        "peak of a worker": f"{plan.peak_bytes / 1e9:,.1f} GB",
        "cells that are read": f"{plan.cell_bytes / 1e9:,.0f} GB",
        "factors read and written, at most": f"{plan.factor_bytes / 1e9:,.0f} GB",
        "cores, seconds": f"{plan.compute_seconds:.0f}",
        "network, seconds": f"{plan.transfer_seconds:.0f}",
        "scheduler, seconds": f"{plan.scheduler_seconds:.0f}",
    }


@pytest.mark.parametrize("column", range(len(COLUMNS)))
def test_the_page_says_what_is_foreseen(column: int) -> None:
    rows = table_rows(section("docs/scale.md", "One, ten and a hundred billion"))
    stated = {row[0]: row[1 + column] for row in rows}
    plan = plan_scale(*COLUMNS[column])
    assert {key: stated[key] for key in shown(plan)} == shown(plan)


def test_the_snippet_of_the_page_runs(capsys: pytest.CaptureFixture[str]) -> None:
    run_page("scale.md")
    assert "19074 files 27 GB a worker" in capsys.readouterr().out


def test_bytes_are_those_of_a_fit_of_a_store(tmp_path: Path) -> None:
    """Tasks are cut as the store cuts them, and factors as ``plan_fit`` counts them."""
    store = dasrec.interactions_from_scipy(planted_matrix(), tmp_path / "data")
    fit = dasrec.plan_fit(store, factors=8)
    sizes = Sizes(store.n_users, store.n_items, store.n_stored, 10)
    plan = plan_scale(sizes, Workers(1, 1, "4GB"), factors=8)
    assert plan.n_tasks == pytest.approx(fit.n_tasks, rel=0.2)
    assert plan.cell_bytes == 0  # all blocks stay decoded
    row = 4 * 9 * (store.n_users + store.n_items)
    assert plan.factor_bytes == row + 4 * 8 * (store.n_users + store.n_items)


@given(workers=st.integers(1, 500), threads=st.integers(1, 16), factors=st.integers(1, 256))
def test_more_cores_take_less_of_each_and_read_more(
    workers: int, threads: int, factors: int
) -> None:
    one = plan_scale(BILLION, Workers(workers, threads, "64GB"), factors=factors)
    more = plan_scale(BILLION, Workers(2 * workers, threads, "64GB"), factors=factors)
    assert more.compute_seconds == pytest.approx(one.compute_seconds / 2)
    assert more.n_tasks == one.n_tasks
    assert one.scheduler_seconds == one.n_tasks * TASK_SECONDS
    assert more.factor_bytes > one.factor_bytes
    assert more.cell_bytes <= one.cell_bytes
    assert one.peak_bytes <= one.limit_bytes


def test_factors_that_do_not_fit_are_read_by_ranges() -> None:
    whole, ranges = (plan_scale(BILLION, Workers(8, 2, size)) for size in ("16GB", "2GB"))
    assert (whole.factors_in, ranges.factors_in) == ("files", "ranges")
    assert ranges.peak_bytes < 2 * 10**9 < whole.peak_bytes
    assert ranges.factor_bytes > whole.factor_bytes
    # beyond a block the longest row is read as a whole, once in each thread
    long, longer = (
        plan_scale(BILLION._replace(longest_row=2**21 + more), Workers(8, 2, "2GB"))
        for more in (0, 1)
    )
    assert longer.peak_bytes - long.peak_bytes == 2 * 4 * 65


def test_what_never_fits_is_refused_with_the_need() -> None:
    with pytest.raises(BudgetError, match=r"10,000,000 users .* needs .* GB and 1\.00 GB"):
        plan_scale(BILLION._replace(longest_row=10**7), Workers(8, 2, "1GB"))


@pytest.mark.parametrize(
    ("sizes", "workers", "says"),
    [
        (BILLION._replace(n_users=0), Workers(1), "n_users"),
        (BILLION, Workers(0), "workers"),
        (BILLION, Workers(1, 0), "threads"),
        (BILLION, Workers(1, 1, "much"), "memory is 'much'"),
        (BILLION, Workers(1, 1, "16GB", 0.0), "bandwidth"),
    ],
)
def test_nonsense_is_refused(sizes: Sizes, workers: Workers, says: str) -> None:
    with pytest.raises(InputError, match=says):
        plan_scale(sizes, workers)


def run(*options: str) -> tuple[int, str]:
    sizes = ["--users", "10M", "--items", "1M", "--interactions", "1G", "--workers", "8"]
    done = CliRunner().invoke(main, ["plan", "scale", *sizes, *options])
    return done.exit_code, done.output


def test_the_command_says_the_same() -> None:
    code, output = run("--longest", "1M", "--json")
    assert (code, json.loads(output)) == (0, plan_scale(*COLUMNS[0]).as_record())
    assert "scheduler_seconds" in run()[1]
    code, output = run("--factors", "many")
    assert (code, "'many' is not a valid integer" in output) == (2, True)
    code, output = run("--longest", "1B")
    assert (code, "'1B' is no count; expected for instance 300k" in output) == (2, True)
    code, output = run("--memory", "1GB")
    assert (code, "1.00 GB are available" in output) == (1, True)
