"""The site has a place for every page, notebook, public name and command; notebooks are clean."""

from __future__ import annotations

import importlib
import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import pytest
import yaml

import dasrec
from dasrec.cli import main
from docs import hooks

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PUBLIC = ("cluster", "datasets", "metrics", "pages", "report", "scale", "search_report", "testing")
"""The modules of which all is public, beside what ``dasrec`` itself names."""


def pages_of(nav: Any) -> Iterator[str]:
    """Yield the pages of a navigation, whose entries are names, lists, or titles of either."""
    if isinstance(nav, str):
        yield nav
        return
    for entry in nav.values() if isinstance(nav, dict) else nav:
        yield from pages_of(entry)


def shown() -> dict[str, Any]:
    """Return what the pages of the reference show, by the name that they give."""
    text = "\n".join(page.read_text("utf-8") for page in (DOCS / "reference").glob("*.md"))
    return {name: found(name) for name in re.findall(r"^::: ([\w.]+)$", text, re.M)}


def found(name: str) -> Any:
    """Return what a dotted name stands for; of a module and a function, the module."""
    parent, _, last = name.rpartition(".")
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        return getattr(importlib.import_module(parent), last)


# -- pages -----------------------------------------------------------------------------------------


def test_every_page_has_one_place_in_the_navigation() -> None:
    placed = list(pages_of(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]))
    written = [str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")]
    made = [*hooks.WRITTEN_ELSEWHERE, *(f"notebooks/{each.stem}.md" for each in NOTEBOOKS)]
    assert sorted(placed) == sorted([*written, *made])


def test_every_page_with_python_is_run_by_a_test() -> None:
    tests = "\n".join(each.read_text("utf-8") for each in (ROOT / "tests").glob("test_*.py"))
    for page in DOCS.glob("*.md"):
        if "```python" in page.read_text("utf-8"):
            assert f'"{page.name}"' in tests, page.name


def test_pages_of_the_root_link_within_the_site() -> None:
    assert "](normalise.md)" in hooks.as_page(ROOT / "README.md")
    for page, source in hooks.WRITTEN_ELSEWHERE.items():
        text = hooks.as_page(ROOT / source)
        assert "](docs/" not in text, page
        for target in re.findall(r"\]\(([\w.]+)[#)]", text):
            assert (DOCS / target).is_file() or target in hooks.WRITTEN_ELSEWHERE, target


def test_nothing_is_fetched_for_the_site() -> None:
    settings = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    assert settings["theme"]["font"] is False
    assert settings["strict"] is True
    assert not {"repo_url", "extra_javascript"} & set(settings)
    assert "url(" not in (DOCS / "site.css").read_text()


# -- reference -------------------------------------------------------------------------------------


def test_every_public_name_is_on_a_page_of_the_reference() -> None:
    """Modules hide functions of their name: those must be asked for by their whole name."""
    things = [each for each in shown().values() if not isinstance(each, ModuleType)]
    missing = [
        name
        for name in dasrec.__all__
        if not any(getattr(dasrec, name) is each for each in things)
        and getattr(dasrec, name).__module__ != "dasrec.errors"
    ]
    assert missing == []
    for module in (*PUBLIC, "errors"):
        assert isinstance(shown()[f"dasrec.{module}"], ModuleType)


@pytest.mark.parametrize("module", PUBLIC)
def test_public_modules_say_what_each_function_does(module: str) -> None:
    room = importlib.import_module(f"dasrec.{module}")
    own = [name for name, each in vars(room).items() if vars_module(each) == room.__name__]
    names = getattr(room, "__all__", own)
    public = [getattr(room, name) for name in names if not name.startswith("_")]
    told = [each for each in public if inspect.isroutine(each) or inspect.isclass(each)]
    assert told
    for each in told:
        assert inspect.getdoc(each), each


def vars_module(thing: object) -> str:
    return str(getattr(thing, "__module__", ""))


def test_no_page_shows_the_same_twice() -> None:
    text = "\n".join(page.read_text("utf-8") for page in (DOCS / "reference").glob("*.md"))
    names = re.findall(r"^::: ([\w.]+)$", text, re.M)
    assert len(names) == len(set(names))


def test_the_page_of_the_command_line_has_every_command_and_option() -> None:
    text = "\n\n".join(hooks.describe(main, "dasrec"))

    def check(command: click.Command, path: str) -> None:
        part = text.split(f"\n\n## {path}\n")[-1].split("\n## ")[0]
        assert (command.help or "").split("\n")[0] in part
        for option in command.params:
            if isinstance(option, click.Option):
                assert all(f"{name}" in part for name in option.opts), (path, option.name)
        if isinstance(command, click.Group):
            for name, each in command.commands.items():
                check(each, f"{path} {name}")

    check(main, "dasrec")
    assert "\b" not in text
    assert len(re.findall(r"^## ", text, re.M)) > len(main.commands)


# -- docstrings as they are shown ------------------------------------------------------------------


def test_roles_and_sources_become_links() -> None:
    html = hooks.on_page_content(
        "<p>:func:<code>dasrec.clean</code>, :class:<code>~Vectors</code>, "
        "doi:10.1016/0306-4573(88)90021-0).</p>"
    )
    assert '<autoref identifier="dasrec.clean.clean" optional><code>dasrec.clean</code>' in html
    assert '<autoref identifier="Vectors" optional><code>Vectors</code>' in html
    place = "https://doi.org/10.1016/0306-4573(88)90021-0"
    assert f'<a href="{place}">doi:10.1016/0306-4573(88)90021-0</a>).</p>' in html
    assert hooks.on_page_content(html) == html


def test_parameters_with_one_text_are_one_item() -> None:
    item = (
        '<li class="doc-section-item field-body">\n<b><code>{}</code></b>\n(<code>int</code>'
        '{})\n\u2013\n<div class="doc-md-description">\n{}\n</div>\n</li>\n'
    )
    texts = [("a", "", "<p>One.</p>"), ("b", ", default: <code>1</code>", "<p>One.</p>")]
    texts += [("c", "", "<p>One.</p>"), ("d", "", "<p>Two.</p>"), ("e", "", "")]
    html = hooks.on_page_content("".join(item.format(*each) for each in texts))
    assert re.findall(r"<b><code>(.*?)</code></b>", html) == ["a, b, c", "d", "e"]
    assert html.count("One.") == html.count("Two.") == 1
    assert html.count("\u2013") == 2
    assert "default" not in html


# -- notebooks -------------------------------------------------------------------------------------


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda each: each.stem)
def test_notebooks_are_kept_without_outputs(notebook: Path) -> None:
    text = notebook.read_text("utf-8")
    content = json.loads(text)
    assert set(content["metadata"]) == {"kernelspec", "language_info"}
    assert content["metadata"]["language_info"] == {"name": "python"}
    for cell in content["cells"]:
        assert not cell["metadata"]
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            assert cell["execution_count"] is None
    assert text == json.dumps(content, indent=1) + "\n"


def test_notebooks_are_numbered_in_the_order_of_reading() -> None:
    numbers = [each.stem.partition("_")[0] for each in NOTEBOOKS if each.stem[0].isdigit()]
    assert [int(number) for number in numbers] == list(range(1, 8))


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda each: each.stem)
def test_tutorials_say_and_run_what_notebooks_do(notebook: Path) -> None:
    page = hooks.as_tutorial(notebook)
    assert page.startswith("# ")
    assert notebook.name in page
    cells = json.loads(notebook.read_text("utf-8"))["cells"]
    assert page.count("```python") == sum(cell["cell_type"] == "code" for cell in cells)
    assert all("".join(cell["source"]) in page for cell in cells)
