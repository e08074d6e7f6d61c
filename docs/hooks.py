"""What the site has beyond the pages in this folder: the README, notebooks, the command line."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path
from typing import Any

import click
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

import dasrec
from dasrec.cli import main

ROOT = Path(__file__).resolve().parents[1]
WRITTEN_ELSEWHERE = {
    "index.md": "README.md",
    "contributing.md": "CONTRIBUTING.md",
    "changes.md": "CHANGELOG.md",
}
ROLE = re.compile(r":(?:attr|class|data|exc|func|meth|mod):<code>~?([\w.]+)</code>")
DOI = re.compile(r"(?<!>)\bdoi:(10\.\d{4,}/(?:[\w./-]|\(\w+\))*\w)")
NOTHING_SAID = re.compile(r'\s*\u2013\s*<div class="doc-md-description">\s*</div>')
# two neighbours in a list of parameters that stand before one text in the docstring
NEIGHBOURS = re.compile(
    r"<b><code>(?P<one>[^<]+)</code></b>(?P<type>(?:(?!</li>).)*?)"
    r'(?P<text><div class="doc-md-description">(?:(?!</li>).)+?</div>)\s*</li>\s*'
    r'<li class="doc-section-item field-body">\s*'
    r"<b><code>(?P<other>[^<]+)</code></b>(?:(?!</li>).)*?(?P=text)",
    re.DOTALL,
)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made of what lies elsewhere in the repository."""
    pages = {page: as_page(ROOT / source) for page, source in WRITTEN_ELSEWHERE.items()}
    pages["index.md"] = "---\nhide: [navigation]\n---\n\n" + pages["index.md"]
    for notebook in sorted((ROOT / "notebooks").glob("*.ipynb")):
        pages[f"notebooks/{notebook.stem}.md"] = as_tutorial(notebook)
    for page, text in pages.items():
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Write the commands below what the page of the command line says."""
    if page.file.src_uri == "reference/cli.md":
        return "\n\n".join([markdown, *describe(main, "dasrec")])
    return markdown


def on_page_content(html: str, **_: Any) -> str:
    """Show docstrings as they were written, and make links of their roles and sources."""
    html = NOTHING_SAID.sub("", html).replace("``", "")
    while (joined := NEIGHBOURS.sub(join, html)) != html:
        html = joined
    return ROLE.sub(link, DOI.sub(r'<a href="https://doi.org/\1">doi:\1</a>', html))


def join(found: re.Match[str]) -> str:
    """Return one item of a list for two; their defaults, which may differ, are in the signature."""
    kind = re.sub(r",\s*default:\s*<code>.*?</code>\s*", "", found["type"], flags=re.DOTALL)
    return f"<b><code>{found['one']}, {found['other']}</code></b>{kind}{found['text']}"


def link(role: re.Match[str]) -> str:
    """Return a link that stays plain if there is nothing to link to."""
    name = role[1]
    public = name.removeprefix("dasrec.")
    target = f"{getattr(dasrec, public).__module__}.{public}" if public in dasrec.__all__ else name
    return f'<autoref identifier="{target}" optional><code>{name}</code></autoref>'


def as_page(source: Path) -> str:
    """Return a page of the root as one of docs/, its links included."""
    text = source.read_text("utf-8").replace("](docs/", "](")
    for page, name in WRITTEN_ELSEWHERE.items():
        text = text.replace(f"]({name}", f"]({page}")
    return text


def as_tutorial(notebook: Path) -> str:
    """Return what a notebook says and runs; its outputs come when it is run."""
    cells = json.loads(notebook.read_text("utf-8"))["cells"]
    parts = []
    for cell in cells:
        text = "".join(cell["source"])
        parts.append(text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```")
    note = f"*To run it, open `notebooks/{notebook.name}` in Jupyter.*"
    return "\n\n".join([parts[0], note, *parts[1:]])


def describe(command: click.Command, path: str) -> list[str]:
    """Return the help of a command and of those below it as Markdown."""
    context = click.Context(command, info_name=path)
    usage = " ".join([path, *command.collect_usage_pieces(context)])
    parts = [f"## {path}", f"```\n{usage}\n```", *told(command.help or path)]
    options = [each for each in command.params if isinstance(each, click.Option)]
    if options:
        rows = [row(option, context) for option in options]
        parts.append("\n".join(["| option | |", "|---|---|", *rows]))
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            parts += describe(command.commands[name], f"{path} {name}")
    return parts


def told(text: str) -> list[str]:
    """Return the paragraphs of a help text; those that click must not wrap stay as they are."""
    paragraphs = re.split(r"\n\s*\n|\n(?=\x08)", inspect.cleandoc(text))
    return [f"```\n{each[1:].strip()}\n```" if each[0] == "\b" else each for each in paragraphs]


def row(option: click.Option, context: click.Context) -> str:
    """Return the row of a table that tells of an option."""
    names, text = option.get_help_record(context) or (option.opts[0], "")
    return f"| `{names}` | {text.replace('|', chr(92) + '|')} |"
