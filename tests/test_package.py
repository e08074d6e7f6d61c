"""The package itself: all public names are there, and each brings only what it needs."""

from __future__ import annotations

import importlib
import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import cloudpickle
import pytest

import dasrec

HEAVY = ("bokeh", "dask", "distributed", "numba", "pandas", "pyarrow", "sklearn", "xarray", "zarr")


def loaded_by(source: str) -> set[str]:
    """Return the names of the modules that a fresh process has after running some lines."""
    tail = "\nimport json, sys\nprint(json.dumps(list(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", source + tail], check=True, capture_output=True, text=True
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("name", dasrec.__all__)
def test_every_public_name_is_what_its_module_defines(name: str) -> None:
    thing = getattr(dasrec, name)
    assert name in dir(dasrec)
    assert not isinstance(thing, ModuleType)
    assert getattr(importlib.import_module(thing.__module__), name) is thing


def test_names_that_are_not_there_are_refused_as_usual() -> None:
    with pytest.raises(AttributeError, match="nonesuch"):
        dasrec.nonesuch  # noqa: B018


def test_the_package_alone_loads_none_of_the_large_libraries() -> None:
    assert not loaded_by("import dasrec").intersection(HEAVY)


def test_to_write_a_store_needs_neither_models_nor_a_scheduler(tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    log.write_text("user,item\n1,1\n1,2\n2,1\n")
    found = loaded_by(
        f"import dasrec\nevents = dasrec.read_events({str(log)!r}, user='user', item='item')\n"
        f"dasrec.write_interactions(events, {str(tmp_path / 'a.store')!r})"
    )
    assert "zarr" in found
    assert not found.intersection({"bokeh", "distributed", "scipy.stats", "sklearn"})


@pytest.mark.parametrize("name", ["clean", "compare", "evaluate", "explain", "search"])
def test_a_function_is_not_hidden_by_the_module_of_its_name(name: str) -> None:
    lines = f"import dasrec.{name}\nimport dasrec\nassert dasrec.{name}.__name__ == {name!r}"
    assert f"dasrec.{name}" in loaded_by(f"{lines}\nassert callable(dasrec.{name})")


@pytest.mark.parametrize("dumps", [pickle.dumps, cloudpickle.dumps])
def test_the_package_travels_by_its_name(dumps: Callable[[object], bytes]) -> None:
    assert pickle.loads(dumps(dasrec)) is dasrec
