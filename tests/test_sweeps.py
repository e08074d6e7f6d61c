"""Wherever the factors of a fit are, its bits are the same, and no more is held than planned."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import dask
import numpy as np
import pytest

import dasrec
from dasrec import ALS, BudgetError, ImplicitALS, InputError, Interactions, Training, load_model
from dasrec import medium as module
from dasrec.cluster import connect
from dasrec.factors import Generation
from dasrec.medium import Medium
from dasrec.schema import USER_ITEMS
from dasrec.sweeps import sweep_block
from dasrec.testing import planted_matrix
from dasrec.typing import Floats

MB = 10**6


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Interactions:
    with mock.patch("dasrec.memory.LEAST_BLOCK_CELLS", 200):
        made = dasrec.interactions_from_scipy(
            planted_matrix(), tmp_path_factory.mktemp("sweeps") / "data"
        )
    assert len(made.cuts(USER_ITEMS)) > 4
    return made


@pytest.fixture
def small() -> Iterator[None]:
    """Plan for a machine of a megabyte, on which some factors fit and some do not."""
    with (
        mock.patch.object(module, "room", lambda memory: (0, MB if memory is None else memory, 2)),
        mock.patch.object(module, "TASK_BYTES", 0),
        mock.patch.object(module, "CELL_BYTES", 0),
        mock.patch.object(module, "LEAST_CELLS", 10),
    ):
        yield


def bits(model: Any) -> list[bytes]:
    return [each.tobytes() for each in model.scoring_vectors()]


def budget(data: Interactions, factors: int, kind: str) -> int:
    """Return the least memory in which factors are where they are wanted."""
    for size in range(0, MB, 200):
        try:
            plan = dasrec.plan_fit(data, factors=factors, memory=size, checkpoint=True)
        except BudgetError:
            continue
        if plan.factors_in == kind:
            return size
    raise AssertionError(kind)


@pytest.mark.usefixtures("small")
def test_the_less_memory_the_less_is_held_of_factors(data: Interactions) -> None:
    sizes = [budget(data, 8, kind) for kind in ("ranges", "files", "memory")]
    assert sizes == sorted(sizes)
    plans = [dasrec.plan_fit(data, factors=8, memory=size, checkpoint=True) for size in sizes]
    held = [plan.factor_bytes for plan in plans]
    assert held == sorted(held)
    assert plans[0].cells_at_once < plans[1].cells_at_once == plans[2].cells_at_once
    for plan, size in zip(plans, sizes, strict=True):
        assert plan.peak_bytes <= plan.limit_bytes == size
    with pytest.raises(BudgetError, match=r"needs .*; use fewer factors"):
        dasrec.plan_fit(data, factors=8, memory=sizes[0] - 200, checkpoint=True)
    with pytest.raises(BudgetError, match="pass checkpoint="):
        dasrec.plan_fit(data, factors=8, memory=sizes[1])


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("kind", ["files", "ranges"])
@pytest.mark.parametrize("solver", ["cg", "exact"])
@pytest.mark.parametrize("model", [ALS, ImplicitALS])
def test_in_files_a_fit_has_the_bits_of_one_in_memory(
    data: Interactions, tmp_path: Path, model: Any, solver: Any, kind: str
) -> None:
    made = model(factors=8, iterations=4, solver=solver, rng=0)
    taken: list[int] = []
    take = Generation.take

    def counted(self: Generation, rows: Any) -> Floats:
        taken.append(len(rows))
        return take(self, rows)

    training = Training(checkpoint=tmp_path / "model", memory=budget(data, 8, kind))
    with mock.patch.object(Generation, "take", counted):
        made.fit(data, training=training)
    assert bool(taken) == (kind == "ranges")
    if taken:  # less than a side, else it would be no test of ranges
        assert max(taken) < data.n_items
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]
    wanted = model(factors=8, iterations=4, solver=solver, rng=0).fit(data)
    assert bits(made) == bits(wanted) == bits(load_model(tmp_path / "model"))
    assert made.history_.drop_vars("seconds").equals(wanted.history_.drop_vars("seconds"))


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("model", [ALS, ImplicitALS])
def test_in_files_a_fit_is_taken_up_again(data: Interactions, tmp_path: Path, model: Any) -> None:
    memory = budget(data, 8, "ranges")
    wanted = model(factors=8, iterations=5, rng=0).fit(data)

    def stop(record: Any) -> None:
        if record["iteration"] == 2:
            raise KeyboardInterrupt

    place, made = tmp_path / "model", model(factors=8, iterations=5, rng=0)
    with pytest.raises(KeyboardInterrupt):
        made.fit(data, training=Training(checkpoint=place, callbacks=[stop], memory=memory))
    assert not list(tmp_path.glob("model-factors/*/factors"))
    made.fit(data, training=Training(checkpoint=place, resume=True, memory=memory))
    assert bits(made) == bits(wanted)
    # and again, with nothing left to do
    made.fit(data, training=Training(checkpoint=place, resume=True, memory=memory))
    assert bits(made) == bits(wanted)


def test_what_a_block_has_written_is_not_kept_by_its_answer(data: Interactions) -> None:
    """A view of no rows would keep the solutions of all blocks until the half-sweep ends."""
    model, (start, stop) = ImplicitALS(factors=8, rng=0), data.cuts(USER_ITEMS)[:2].tolist()
    items = np.ones((data.n_items, 8), np.float32)
    half = model._half(items, None, data.n_items)
    target = np.zeros((data.n_users, 8), np.float32)
    swept = sweep_block(data, USER_ITEMS, start, stop, half, target, Medium())
    assert target[start:stop].any(axis=1).all()
    assert swept.vectors.shape == (0, 8)
    assert swept.vectors.base is None


@pytest.mark.usefixtures("small")
def test_a_monitor_needs_factors_in_memory(data: Interactions, tmp_path: Path) -> None:
    training = Training(
        monitor=lambda _: 0.0, checkpoint=tmp_path / "model", memory=budget(data, 8, "files")
    )
    with pytest.raises(BudgetError, match="a monitor needs all factors in memory"):
        ImplicitALS(factors=8).fit(data, training=training)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def far() -> Iterator[None]:
    """Take the workers for those of other hosts."""
    with mock.patch.object(dasrec.blocks, "are_near", return_value=False):
        yield


@contextlib.contextmanager
def noted() -> Iterator[set[Path]]:
    """Note where generations are begun by the caller."""
    places: set[Path] = set()
    begin = Generation.begin

    def counted(place: str, *rest: Any) -> Generation:
        places.add(Path(place))
        return begin(place, *rest)

    with mock.patch.object(Generation, "begin", counted):
        yield places


@pytest.mark.usefixtures("far")
@pytest.mark.parametrize("patience", [None, 1])
@pytest.mark.parametrize("model", [ALS, ImplicitALS])
def test_on_several_hosts_factors_go_through_files_beside_the_checkpoint(
    data: Interactions, tmp_path: Path, cluster_client: Any, model: Any, patience: Any
) -> None:
    measures = iter([1.0, 3.0, 2.0, 0.0])
    training = Training(
        checkpoint=tmp_path / "model",
        monitor=lambda _: next(measures) if patience else 0.0,
        patience=patience,
    )
    assert dasrec.blocks.active_client() is cluster_client
    with noted() as places:
        made = model(factors=8, iterations=4, rng=0).fit(data, training=training)
    assert {place.parent.parent for place in places} == {tmp_path / "model-factors"}
    assert not (tmp_path / "model-factors").exists()
    with dasrec.cluster.connect("threads"):
        wanted = model(factors=8, iterations=2 if patience else 4, rng=0).fit(data)
    assert bits(made) == bits(wanted)


@pytest.mark.parametrize("patience", [None, 1])
@pytest.mark.parametrize("checkpoint", [False, True])
@pytest.mark.parametrize("model", [ALS, ImplicitALS])
def test_on_a_cluster_of_this_host_factors_go_through_files_that_are_gone_then(
    data: Interactions,
    tmp_path: Path,
    cluster_client: Any,
    model: Any,
    checkpoint: bool,
    patience: Any,
) -> None:
    measures, shown = iter([1.0, 3.0, 2.0, 0.0]), []

    def measure(seen: Any) -> float:
        shown.append(seen.item_factors_)
        return next(measures)

    training = Training(
        checkpoint=tmp_path / "model" if checkpoint else None,
        monitor=measure if patience else None,
        patience=patience,
    )
    spill = tmp_path / "not" / "there" / "yet"
    killed = spill / f"dasrec-factors-{os.getuid()}" / "scratch-killed"
    killed.mkdir(parents=True)
    with dask.config.set({"temporary-directory": str(spill)}), noted() as places:
        made = model(factors=8, iterations=4, rng=0).fit(data, training=training)
    assert {place.parent.parent for place in places} == {killed.parent}
    assert not list(killed.parent.iterdir())  # what a fit that was killed left is gone too
    with connect("threads"):
        wanted = model(factors=8, iterations=2 if patience else 4, rng=0).fit(data)
    assert bits(made) == bits(wanted)
    for each in shown:  # a monitor may keep what it was shown
        assert np.isfinite(each.values).all()
    del cluster_client


@pytest.mark.usefixtures("cluster_client")
def test_where_the_disk_has_too_little_room_factors_are_sent(data: Interactions) -> None:
    full = mock.patch.object(module, "disk_usage", return_value=mock.Mock(free=1000))
    with full, noted() as places:
        made = ImplicitALS(factors=8, iterations=2, rng=0).fit(data)
    assert not places
    with connect("threads"):
        assert bits(made) == bits(ImplicitALS(factors=8, iterations=2, rng=0).fit(data))


@pytest.mark.usefixtures("far")
def test_where_workers_see_other_files_factors_are_sent(
    data: Interactions, tmp_path: Path, cluster_client: Any
) -> None:
    training = Training(checkpoint=tmp_path / "model")
    with mock.patch.object(dasrec.blocks, "reaches", return_value=False):
        made = ImplicitALS(factors=4, iterations=2, rng=0).fit(data, training=training)
        with (
            mock.patch.object(module, "plan_fit", return_value=mock.Mock(factors_in="files")),
            pytest.raises(InputError, match=r"not all workers reach .*; choose a checkpoint"),
        ):
            ImplicitALS(factors=4).fit(data, training=training)
    wanted = ImplicitALS(factors=4, iterations=2, rng=0).fit(data)
    np.testing.assert_array_equal(made.user_factors_, wanted.user_factors_)
    del cluster_client


@pytest.mark.slow
@pytest.mark.parametrize("near", [False, True])
def test_the_death_of_all_workers_loses_nothing_that_lies_in_files(
    data: Interactions, tmp_path: Path, near: bool
) -> None:
    def restart(record: Any) -> None:
        if record["iteration"] in {1, 2}:
            client.restart()

    with connect("processes:2") as client:
        assert client is not None
        training = Training(checkpoint=None if near else tmp_path / "model", callbacks=[restart])
        with mock.patch.object(dasrec.blocks, "are_near", return_value=near):
            made = ImplicitALS(factors=4, iterations=3, rng=0).fit(data, training=training)
    assert bits(made) == bits(ImplicitALS(factors=4, iterations=3, rng=0).fit(data))


# -- rounded ---------------------------------------------------------------------------------------


@pytest.fixture
def few() -> Iterator[None]:
    """Let models of more than four factors be rounded."""
    with mock.patch("dasrec.sweeps.MANY_FACTORS", 4):
        yield


def fitted(data: Interactions, **training: Any) -> Any:
    model = ImplicitALS(factors=8, iterations=4, solver="cg", rng=0)
    return model.fit(data, training=Training(**training))


@pytest.mark.usefixtures("few")
def test_a_rounded_fit_comes_to_the_same_objective(data: Interactions) -> None:
    made = fitted(data)
    with mock.patch("dasrec.sweeps.MANY_FACTORS", 8):
        wanted = fitted(data)
    assert bits(made) != bits(wanted)
    mine, its = (each.history_["objective"].values for each in (made, wanted))
    np.testing.assert_allclose(mine, its, rtol=1e-4)
    assert (np.diff(mine) < 0).all()


@pytest.mark.usefixtures("small", "few")
@pytest.mark.parametrize("kind", ["files", "ranges"])
def test_in_files_a_rounded_fit_has_the_bits_of_one_in_memory(
    data: Interactions, tmp_path: Path, kind: str
) -> None:
    made = fitted(data, checkpoint=tmp_path / "model", memory=budget(data, 8, kind))
    wanted = fitted(data)
    assert bits(made) == bits(wanted)
    assert made.history_.drop_vars("seconds").equals(wanted.history_.drop_vars("seconds"))


@pytest.mark.usefixtures("cluster_client", "few")
@pytest.mark.parametrize("near", [False, True])
def test_on_a_cluster_a_rounded_fit_has_the_bits_of_one_in_threads(
    data: Interactions, near: bool
) -> None:
    with mock.patch.object(dasrec.blocks, "are_near", return_value=near):
        made = fitted(data)
    with connect("threads"):
        assert bits(made) == bits(fitted(data))
