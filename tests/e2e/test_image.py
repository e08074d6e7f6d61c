"""The image: its size, and that nothing was taken out of it that dasrec needs."""

from __future__ import annotations

import pytest

from tests.e2e.kube import Namespace

LARGEST = 600  # MB on a node, of which LLVM, Arrow, the SciPy stack and the base are 500
WHOLE_WAY = """
set -e
cd /tmp
python -c 'from dasrec.datasets import simulate_log
simulate_log("log.csv", 20_000, n_users=300, n_items=200, rng=0)'
columns="--user user --item item --value value --timestamp timestamp"
dasrec ingest log.csv my.store $columns --min-user 2
dasrec fit my.store my.model --model implicit-als --factors 8 --split time:0.2 --seed 0
dasrec evaluate my.model my.store --split time:0.2 --n 10
dasrec recommend my.model my.store my-lists.parquet --n 10
dasrec report my.store my-page.html --model my.model --split time:0.2
test "$(wc -c < my-page.html)" -gt 100000
"""
PAGE = """
import urllib.request
from dasrec.cluster import connect
from dasrec.dashboard import show
with connect("processes:1") as client:
    for place in (client.dashboard_link, show(client)):
        print(urllib.request.urlopen(place).status)
"""
BUCKET = """
import fsspec, os
os.environ |= {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
once = {"retries": {"max_attempts": 1}}
files = fsspec.filesystem("s3", endpoint_url="http://127.0.0.1:9", config_kwargs=once)
try:
    files.ls("bucket/folder")
except Exception as error:
    print(type(error).__name__, error)
"""

LEFT_OUT = """
import sys, pathlib
import dasrec.cli, dasrec.cluster, dasrec.dashboard, dasrec.doctor, dasrec.workflow, dasrec.report
import s3fs, dask_kubernetes.operator, distributed.cli.dask_worker, distributed.cli.dask_scheduler
for name, module in sorted(sys.modules.items()):
    compiled = getattr(module, "__cached__", None)
    if compiled and "/opt/dasrec" in compiled and not pathlib.Path(compiled).exists():
        print(name)
"""


def test_it_is_small(space: Namespace) -> None:
    """What pods see but the image does not hold is left out."""
    outside = "--exclude=/proc --exclude=/sys --exclude=/dev --exclude=/data --exclude=/tmp"
    count = f"du -s --apparent-size --block-size=1000000 {outside} / 2> /dev/null || true"
    size = int(space.exec("look", "sh", "-c", count).split()[0])
    print(f"the image has {size} MB")
    assert 300 < size < LARGEST


@pytest.mark.parametrize("tool", ["gcc", "cc", "make", "ld", "pip", "pip3", "apt", "perl", "su"])
def test_no_tool_that_builds_is_left(space: Namespace, tool: str) -> None:
    assert not space.exec("look", "sh", "-c", f"command -v {tool} || true")


def test_no_program_has_more_rights_than_who_calls_it(space: Namespace) -> None:
    found = "find / -xdev -perm /6000 -type f 2> /dev/null || true"
    assert not space.exec("look", "sh", "-c", found)


def test_dasrec_does_all_its_work(space: Namespace) -> None:
    space.exec("look", "dasrec", "doctor")
    space.exec("look", "sh", "-c", WHOLE_WAY)


def test_the_dashboard_has_its_page(space: Namespace) -> None:
    assert space.exec("look", "python", "-c", PAGE).split() == ["200", "200"]


def test_it_speaks_to_object_stores(space: Namespace) -> None:
    """As far as to one that does not answer, which takes the data of its service."""
    said = space.exec("look", "python", "-c", BUCKET)
    assert "Could not connect" in said


def test_what_pods_import_is_compiled(space: Namespace) -> None:
    left_out = space.exec("look", "python", "-c", LEFT_OUT).split()
    assert not left_out
