"""Block sizes depend on the data alone; a step that does not fit is refused with a remedy."""

from __future__ import annotations

import re

import numpy as np
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dasrec import memory
from dasrec.errors import BudgetError


@given(st.integers(0, 10**12))
def test_blocks_are_neither_tiny_nor_huge(n_stored: int) -> None:
    cells = memory.block_cells(n_stored)
    assert memory.LEAST_BLOCK_CELLS <= cells <= memory.BLOCK_CELLS


@given(st.integers(32 * memory.LEAST_BLOCK_CELLS, 10**12))
def test_data_that_allow_it_have_32_blocks_or_more(n_stored: int) -> None:
    assert n_stored / memory.block_cells(n_stored) > 31


def test_blocks_past_two_to_the_31_cells_have_the_usual_size() -> None:
    assert memory.block_cells(2**40) == memory.BLOCK_CELLS


def test_what_fits_passes_to_the_last_byte() -> None:
    memory.check_fits(100, limit=100, what="a step", remedy="wait")


def test_what_does_not_fit_is_refused_with_need_limit_and_remedy() -> None:
    message = "fit needs 2.50 GB and 1.5 MB are available; use fewer factors"
    with pytest.raises(BudgetError, match=f"^{re.escape(message)}$"):
        memory.check_fits(2_500_000_000, limit=1_500_000, what="fit", remedy="use fewer factors")


def test_the_machine_has_memory_left() -> None:
    assert memory.limit() > 0


@pytest.mark.parametrize("given", [None, *memory._TUNING])
def test_the_allocator_is_tuned_unless_the_environment_does(
    given: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in memory._TUNING:
        monkeypatch.delenv(name, raising=False)
    if given:
        monkeypatch.setenv(given, "1")
    calls: list[tuple[int, int]] = []
    monkeypatch.setattr(memory, "_tune", lambda *option: calls.append(option))
    memory.share_heap()
    assert calls == ([] if given else list(memory._TUNING.values()))


@pytest.mark.parametrize("given", [None, "65536"])
def test_large_arrays_come_from_the_heap_for_a_while_unless_the_environment_says_so(
    given: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MALLOC_MMAP_MAX_", raising=False)
    if given:
        monkeypatch.setenv("MALLOC_MMAP_MAX_", given)
    calls: list[tuple[int, int]] = []
    monkeypatch.setattr(memory, "_tune", lambda *option: calls.append(option))
    with memory.from_heap():
        assert calls == ([] if given else [(-4, 0)])
    assert calls == ([] if given else [(-4, 0), (-4, 2**16)])


@pytest.mark.skipif(memory._tune is None, reason="glibc alone can be told")
def test_memory_of_large_arrays_is_used_again_and_given_back() -> None:
    with memory.from_heap():
        first = np.ones(2 * memory.LARGEST_KEPT, np.uint8)
        place = first.ctypes.data
        del first
        assert np.ones(2 * memory.LARGEST_KEPT, np.uint8).ctypes.data == place
    before = psutil.Process().memory_info().rss
    large = np.ones(4 * memory.LARGEST_KEPT, np.uint8)
    del large
    assert psutil.Process().memory_info().rss < before + memory.LARGEST_KEPT
