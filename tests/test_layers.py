"""The law of the house: modules import downwards only, and each large library has one door."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "dasrec"

# A module imports only from the rows above its own. A room may stand here before it is built.
ROWS: tuple[tuple[str, ...], ...] = (
    ("errors", "typing", "schema"),
    ("checks", "forgotten"),
    ("runs",),
    ("kernels",),
    ("files", "memory"),
    ("versions", "cards", "tables"),
    ("columns",),
    ("blocks", "buckets"),
    ("journal",),
    ("readers", "ids"),
    ("events",),
    ("clean",),
    ("vocabulary",),
    ("numbering", "encoding"),
    ("store",),
    ("segments",),
    ("plan",),
    ("scan",),
    ("cells",),
    ("sessions", "shards"),
    ("interactions",),
    ("ingest", "features"),
    ("upkeep", "interop"),
    ("split", "normalise"),
    ("factors", "medium", "training"),
    ("sweeps", "strata", "scale"),
    ("priors",),
    ("lists",),
    ("models",),
    ("metrics", "scorers"),
    ("measure", "results"),
    ("certainty",),
    ("evaluate",),
    ("compare",),
    ("search",),
    ("recommend", "explain", "rerank", "summaries"),
    ("datasets", "testing"),
    ("serve", "report"),
    ("pages", "search_report", "dashboard"),
    ("cluster",),
    ("doctor", "demo", "workflow"),
    ("console",),
    ("cli",),
)
ROW_OF = {room: number for number, row in enumerate(ROWS) for room in row}

# The modules of each folder that its siblings may import, one of these only those before it; the
# folder's __init__ may import all.
SHARED = {
    "kernels": ("csr", "hashing", "lanes", "rows", "tiles", "heaps", "rule", "unseen"),
    "readers": ("base",),
    "split": ("base",),
    "normalise": ("base",),
    "models": ("base", "stepwise", "rated", "drift", "alternating", "stratified", "ranking", "sgd"),
    "metrics": ("base",),
    "search": ("base",),
    "report": ("base",),
    "cluster": ("spec", "workers"),
    "dashboard": ("state", "words", "page", "plugin"),
    "workflow": (
        *("base", "text", "spec", "lock", "place", "status", "carry", "logs", "state"),
        *("prepare", "learn", "publish", "runner"),
    ),
    "cli": ("options",),
}

# The rooms that may import a library; every room may import those that are not listed.
DOORS: dict[str, set[str]] = {
    "anndata": {"interop"},
    "bokeh": {"report", "search_report", "dashboard"},
    "click": {"console", "cli"},
    "dask.dataframe": {"events", "interop"},
    "dask.distributed": {"cluster"},
    "dask_kubernetes": {"cluster"},
    "dask_ml": set(),
    "distributed": {"cluster", "dashboard"},
    "numba": {"kernels"},
    "pooch": {"datasets"},
    "pydantic": {"cluster", "workflow"},
    "pyarrow": {"readers", "ids", "events", "lists", "recommend", "datasets"},
    "rich": {"console"},
    "starlette": {"serve"},
    "uvicorn": {"serve"},
    "yaml": {"cluster", "workflow"},
    "zarr": {"store"},
}
NOT_IN_KERNELS = {"dask", "distributed", "pandas", "xarray", "zarr"}

MAX_FILE = 400
MAX_FUNCTION = 40


def module_name(path: Path) -> str:
    """Return the name of a file below the package: "store", "models.als", "models", or ""."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imported_names(source: str, module: str, *, is_package: bool) -> Iterator[tuple[int, str]]:
    """Yield the line and the full dotted name of everything that a module imports, anywhere."""
    package = ["dasrec", *filter(None, module.split("."))]
    if not is_package:
        package.pop()
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                yield from ((node.lineno, alias.name) for alias in names)
            case ast.ImportFrom(module=origin, names=names, level=level):
                above = package[: len(package) - level + 1] if level else []
                origin = ".".join([*above, *filter(None, [origin])])
                yield from ((node.lineno, f"{origin}.{alias.name}") for alias in names)
            case ast.Call(
                func=ast.Name(id="import_module" | "__import__")
                | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                yield node.lineno, name


def inside_fault(module: str, target: list[str]) -> str | None:
    """Say what is wrong with importing ``dasrec.<target>``, or return None."""
    room, wanted = module.split(".")[0], target[0] if target else ""
    if wanted not in ROW_OF:
        harmless = room == "cli" or wanted == "__version__"
        return None if harmless else "imports from the package itself, which imports every room"
    if not module:
        return "brings in the command line" if wanted == "cli" else None
    if wanted == room:
        shared, own = SHARED.get(room, ()), module.split(".")[-1]
        above = shared[: shared.index(own)] if own in shared else shared
        if module == room or set(target[1:2]) & set(above):
            return None
        return f"imports a sibling; in {room} only {', '.join(shared) or 'nothing'} is shared"
    if ROW_OF[wanted] >= ROW_OF[room]:
        return f"imports {wanted}, which is not in a row above"
    return None


def library_fault(module: str, target: str) -> str | None:
    """Say what is wrong with importing something from another library, or return None."""
    room = module.split(".")[0]
    if room == "kernels" and target.split(".")[0] in NOT_IN_KERNELS:
        return f"imports {target}; kernels know no framework"
    for library, doors in DOORS.items():
        if f"{target}.".startswith(f"{library}.") and room not in doors:
            return f"imports {target}; its door is {', '.join(sorted(doors)) or 'not built yet'}"
    return None


def import_faults(source: str, module: str, *, is_package: bool = False) -> list[str]:
    """List what a module imports against the law; ``module`` is its name below the package."""
    if module and module.split(".")[0] not in ROW_OF:
        return [f"{module} is in no row of ROWS"]
    faults = []
    for line, name in imported_names(source, module, is_package=is_package):
        library, *rest = name.split(".")
        fault = inside_fault(module, rest) if library == "dasrec" else library_fault(module, name)
        if fault:
            faults.append(f"line {line}: {fault}")
    return faults


def length_faults(source: str) -> list[str]:
    """List a file or functions that are too long; signature and docstring do not count."""
    n_lines = len(source.splitlines())
    faults = [f"{n_lines} lines, at most {MAX_FILE}"] if n_lines > MAX_FILE else []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        body = node.body[1:] if ast.get_docstring(node) is not None else node.body
        n_lines = (node.end_lineno or 0) - body[0].lineno + 1 if body else 0
        if n_lines > MAX_FUNCTION:
            faults.append(f"{node.name} has {n_lines} lines, at most {MAX_FUNCTION}")
    return faults


@pytest.mark.parametrize("module", FILES)
def test_a_module_keeps_to_its_row_and_doors(module: str) -> None:
    path = FILES[module]
    is_package = path.name == "__init__.py"
    assert not import_faults(path.read_text("utf-8"), module, is_package=is_package)


@pytest.mark.parametrize("module", FILES)
def test_files_and_functions_are_short(module: str) -> None:
    assert not length_faults(FILES[module].read_text("utf-8"))


def test_the_package_was_found() -> None:
    assert {"", "errors", "kernels.csr"} <= set(FILES)


def test_every_door_is_a_room() -> None:
    assert set().union(*DOORS.values()) | set(SHARED) <= set(ROW_OF)
    assert len(ROW_OF) == sum(len(row) for row in ROWS)


ALLOWED = [
    ("store", "import zarr\nfrom zarr.codecs import BloscCodec"),
    ("store", "from dasrec import files\nfrom dasrec.errors import StoreError"),
    ("store", "from . import files\nfrom .errors import StoreError"),
    ("split", "from dasrec.kernels.csr import rows_of\nfrom dasrec import __version__"),
    ("events", "import dask.dataframe as dd\nimport pyarrow.compute as pc"),
    ("blocks", "import dask\nimport dask.array as da\nfrom dask import delayed"),
    ("kernels.solve", "import numba\nimport dasrec.kernels.csr\nfrom .csr import rows_of"),
    ("models.als", "from dasrec.models.base import Model\nfrom .base import label"),
    ("models.stratified", "from dasrec.models.base import Model"),
    ("models.als", "from dasrec.models import base\nfrom dasrec.kernels.solve import solve_rows"),
    ("evaluate", "from dasrec.models import ALS\nfrom dasrec.models.base import Model"),
    ("cli.stores", "import click\nimport dasrec\nfrom dasrec.cli.options import seed_option"),
]

FORBIDDEN = [
    ("store", "from dasrec.interactions import Interactions", "imports interactions"),
    ("store", "import dasrec.interactions as i", "imports interactions"),
    ("store", "from dasrec import errors, interactions", "imports interactions"),
    ("store", "from .interactions import Interactions", "imports interactions"),
    ("store", "def f():\n    from dasrec.models.als import ALS", "line 2: imports models"),
    ("store", "if TYPE_CHECKING:\n    import dasrec.cli", "line 2: imports cli"),
    ("store", 'importlib.import_module("dasrec.models")', "imports models"),
    ("schema", "from dasrec.errors import InputError", "imports errors"),
    ("report", "from dasrec import serve", "imports serve"),
    ("store", "from dasrec import open_interactions", "the package itself"),
    ("store", "import dasrec", "the package itself"),
    ("kernels.solve", "from dasrec.kernels.topk import rank_rows", "only csr"),
    ("kernels.csr", "from dasrec.kernels.csr import rows_of", "only csr"),
    ("kernels.csr", "from dasrec.files import read_json", "imports files"),
    ("kernels.csr", "import pandas as pd", "kernels know no framework"),
    ("models.als", "from dasrec.models import popular", "only base"),
    ("models.als", "from .popular import Popular", "only base"),
    ("models.base", "from dasrec.models.alternating import Alternating", "only base"),
    ("models.base", "from dasrec.models.stratified import Stratified", "only base"),
    ("models.base", "from ..evaluate import evaluate", "imports evaluate"),
    ("blocks", "import dask.dataframe as dd", "its door is events"),
    ("blocks", "from dask import dataframe", "its door is events"),
    ("blocks", "from dask.distributed import Client", "its door is cluster"),
    ("blocks", "import numpy, distributed", "its door is cluster"),
    ("clean", "import pyarrow.parquet as pq", "its door is datasets, events"),
    ("interactions", "from zarr import open_group", "its door is store"),
    ("models.als", "from numba import njit", "its door is kernels"),
    ("split", "from dask_ml.model_selection import train_test_split", "not built yet"),
    ("demo", "import rich.console", "its door is console"),
    ("attic", "import numpy", "attic is in no row"),
    ("attic.box", "import numpy", "attic.box is in no row"),
]


@pytest.mark.parametrize(("module", "source"), ALLOWED)
def test_the_checker_lets_pass(module: str, source: str) -> None:
    assert import_faults(source, module) == []


@pytest.mark.parametrize(("module", "source", "fault"), FORBIDDEN)
def test_the_checker_finds(module: str, source: str, fault: str) -> None:
    (found,) = import_faults(source, module)
    assert fault in found


def test_the_init_of_a_folder_may_import_all_of_it() -> None:
    source = "from dasrec.models.als import ALS\nfrom .base import Model\nfrom . import popular"
    assert import_faults(source, "models", is_package=True) == []
    (found,) = import_faults("from ..cli import main", "models", is_package=True)
    assert "imports cli" in found


def test_the_package_itself_leaves_out_the_command_line() -> None:
    source = "from dasrec.models import ALS\nfrom dasrec.ingest import write_interactions"
    assert import_faults(source, "", is_package=True) == []
    assert import_faults("from dasrec.cli import main", "", is_package=True)
    assert import_faults("import zarr", "", is_package=True)


@pytest.mark.parametrize(
    "head", ["def f():", "@click.command()\ndef f(\n    a,\n):", "async def f():"]
)
def test_a_function_is_measured_without_head_and_docstring(head: str) -> None:
    docstring = '    """One.\n\n    Two.\n    """\n'
    assert length_faults(f"{head}\n{docstring}" + "    x = 1\n" * MAX_FUNCTION) == []
    long = f"{head}\n{docstring}" + "    x = 1\n" * (MAX_FUNCTION + 1)
    assert length_faults(long) == ["f has 41 lines, at most 40"]


def test_a_file_is_measured_whole() -> None:
    assert length_faults("x = 1\n" * MAX_FILE) == []
    assert length_faults("x = 1\n" * (MAX_FILE + 1)) == ["401 lines, at most 400"]
    assert length_faults('def f():\n    """Only words."""\n') == []
