"""Print what a project and some of its extras require: requirements.py PYPROJECT EXTRA,EXTRA."""

import sys
import tomllib
from pathlib import Path

project = tomllib.loads(Path(sys.argv[1]).read_text("utf-8"))["project"]
extras = [extra for extra in sys.argv[2].split(",") if extra]
for needed in project["dependencies"], *(project["optional-dependencies"][e] for e in extras):
    print("\n".join(needed))
