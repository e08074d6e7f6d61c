"""Run what a page of the documentation shows."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parents[1] / "docs"


def python_blocks(page: Path) -> list[str]:
    """Return the Python blocks of a page."""
    text = page.read_text("utf-8")
    found = re.findall(r"^( *)```python\n(.*?)^ *```$", text, re.DOTALL | re.MULTILINE)
    return [textwrap.dedent(code) for _, code in found]


def run_page(name: str) -> dict[str, Any]:
    """Run the Python blocks of a page one after the other, as a reader would; return the names."""
    names: dict[str, Any] = {}
    for code in python_blocks(DOCS / name):
        exec(compile(code, name, "exec"), names)
    return names
