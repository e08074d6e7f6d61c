"""Import each package that a file of requirements names, to see that none misses anything."""

import importlib
import importlib.metadata
import re
import sys
from pathlib import Path

modules = {}
for module, packages in importlib.metadata.packages_distributions().items():
    for package in packages:
        modules.setdefault(package.lower(), module)
for line in Path(sys.argv[1]).read_text("utf-8").split():
    importlib.import_module(modules[re.split(r"[\[<>=~!; ]", line)[0].lower()])
for module in ("dask_kubernetes.operator", "pyarrow.dataset", "pyarrow.parquet", "bokeh.plotting"):
    if module.split(".")[0] in modules.values():
        importlib.import_module(module)
