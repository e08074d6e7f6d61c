"""Import what a file of requirements names, and what pods import of it: imports.py REQUIREMENTS.

This shows that nothing is missing.
"""

import importlib
import importlib.metadata
import re
import sys
from pathlib import Path

PARTS = """
bokeh.embed bokeh.plotting bokeh.server.server dask.dataframe dask_kubernetes.operator
distributed.cli.dask_scheduler distributed.cli.dask_spec distributed.cli.dask_worker
distributed.dashboard.scheduler distributed.dashboard.worker numba.core.caching
pyarrow.compute pyarrow.csv pyarrow.dataset pyarrow.json pyarrow.parquet
pydantic.fields pydantic.main rich.progress scipy.linalg scipy.sparse.linalg scipy.stats
sklearn.base sklearn.model_selection xarray.backends zarr.storage
""".split()


def normal(name: str) -> str:
    """Spell the name of a package as all spellings of it are compared."""
    return re.sub(r"[-_.]+", "-", name).lower()


modules = {}
for module, packages in importlib.metadata.packages_distributions().items():
    for package in packages:
        modules.setdefault(normal(package), module)
wanted = Path(sys.argv[1]).read_text("utf-8").split()
for name in wanted:
    importlib.import_module(modules[normal(re.split(r"[\[<>=~!; ]", name)[0])])
for part in PARTS:
    if part.split(".")[0] in modules.values():
        importlib.import_module(part)
