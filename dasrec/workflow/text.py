"""The text of a workflow: YAML whose values keep their place, so that errors can name it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import yaml
from pydantic import ValidationError

from dasrec import files
from dasrec.errors import InputError

Path = tuple[Any, ...]


class _Loader(yaml.SafeLoader):
    """YAML without the surprises of version 1.1: `no` and `2026-01-31` are texts, 1e-5 is none."""


_Loader.yaml_implicit_resolvers = {}
for _tag, _form, _first in (
    ("bool", r"true|false", "tf"),
    ("int", r"[-+]?(0|[1-9][0-9]*)", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", "-+.0123456789"),
    ("null", r"null|~|", "n~\0"),
    ("merge", r"<<", "<"),
):
    _firsts = [None if each == "\0" else each for each in _first]
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_form})$"), [each or "" for each in _firsts]
    )


class Document(NamedTuple):
    """What a text says, and where each part of it stands.

    Attributes
    ----------
    name : str
        Of the file.
    content : dict
    keys, values : of each path in it ``file:line:column``, or the option that set it
    """

    name: str
    content: dict[str, Any]
    keys: dict[Path, str]
    values: dict[Path, str]

    def place(self, path: Path, *, key: bool = False) -> str:
        """Say where a value stands, or the nearest around it that is in the text."""
        known = self.keys if key else self.values
        while path and path not in known:
            path = path[:-1]
        return known.get(path, self.values[()])


def read_document(path: str, changes: Sequence[str] = ()) -> Document:
    """Read a YAML file, and change some values of it.

    Parameters
    ----------
    path : path or fsspec URL
    changes : texts like ``fit.factors=64``
        The value is YAML too. Sections that are not there are made.

    Raises
    ------
    InputError
        It is not there, or no YAML with a mapping at its top, or a key stands there twice.
    """
    try:
        text = files.read_bytes(path).decode("utf-8-sig")
    except (FileNotFoundError, IsADirectoryError, UnicodeDecodeError) as error:
        msg = f"{path} cannot be read ({error}); expected a workflow in YAML"
        raise InputError(msg) from error
    content, nodes = _parse(text, path)
    if not isinstance(content, dict):
        msg = f"{path}:1:1: expected a mapping with name, place, log, split and fit at its top"
        raise InputError(msg)
    document = Document(path, content, {}, {(): f"{path}:1:1"})
    _note(document, nodes, ())
    for change in changes:
        _change(document, change)
    return document


def _parse(text: str, name: str) -> tuple[Any, yaml.Node | None]:
    """Return what a text says, and its nodes."""
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        return (None if node is None else loader.construct_document(node)), node
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        at = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark else name
        msg = f"{at}: {error.problem or error.context}; expected YAML"
        raise InputError(msg) from error
    except yaml.YAMLError as error:
        msg = f"{name}: {' '.join(str(error).split())}; expected YAML"
        raise InputError(msg) from error
    finally:
        loader.dispose()


def _note(document: Document, node: yaml.Node | None, path: Path, option: str = "") -> None:
    """Write down where all below a node stands: in the text, or in an option."""
    if isinstance(node, yaml.SequenceNode):
        for number, each in enumerate(node.value):
            document.values[*path, number] = option or _at(document, each)
            _note(document, each, (*path, number), option)
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            below = (*path, key.value)
            if below in document.keys:
                at = option or _at(document, key)
                msg = f"{at}: {key.value} stands there twice; expected it once"
                raise InputError(msg)
            document.keys[below] = option or _at(document, key)
            document.values[below] = option or _at(document, value)
            _note(document, value, below, option)


def _at(document: Document, node: yaml.Node) -> str:
    return f"{document.name}:{node.start_mark.line + 1}:{node.start_mark.column + 1}"


def _change(document: Document, change: str) -> None:
    """Set one value, as ``fit.factors=64`` says."""
    name, equals, text = change.partition("=")
    path = tuple(name.split("."))
    if not equals or not all(path):
        msg = f"--set is {change!r}; expected the path of a value and the value: fit.factors=64"
        raise InputError(msg)
    option, inner = f"--set {name}", document.content
    for depth, part in enumerate(path[:-1], 1):
        document.values.setdefault(path[:depth], option)
        inner = inner.setdefault(part, {})
        if not isinstance(inner, dict):
            msg = f"{option}: {part} is {inner!r} in {document.name}; expected a section"
            raise InputError(msg)
    inner[path[-1]], node = _parse(text, option)
    for known in (document.keys, document.values):
        for old in [each for each in known if each[: len(path)] == path]:
            del known[old]
        known[path] = option
    _note(document, node, path, option)


def explain(
    document: Document, error: ValidationError, *, known: Callable[[Path], list[str]]
) -> str:
    """Say what is wrong, a line for each fault, in the order of the text.

    ``known`` returns what the section at one of pydantic's locations may have.
    """
    faults = []
    for each in error.errors():
        if each["type"] == "extra_forbidden":
            names = ", ".join(known(each["loc"][:-1]))
            each["msg"] = f"Input should be one of: {names}"
        faults.append(_explain(document, each))
    return "\n".join(dict.fromkeys(sorted(faults, key=_order)))


def _order(fault: str) -> tuple[int, ...]:
    return tuple(int(each) for each in re.findall(r":(\d+)", fault)[:2])


def _path(document: Document, fault: Any) -> Path:
    """Return pydantic's location without what is in no text: which kind of a union was tried."""
    path: Path = ()
    for part in fault["loc"]:
        if (*path, part) in document.values:
            path = (*path, part)
    return (*path, fault["loc"][-1]) if fault["type"] == "missing" else path


def _explain(document: Document, fault: Any) -> str:
    """Say in one line what is wrong with one value."""
    path = _path(document, fault)
    named = ".".join(map(str, path))
    expected = fault["msg"].removeprefix("Input should be ").removeprefix("String should ")
    match fault["type"]:
        case "extra_forbidden":
            return f"{document.place(path, key=True)}: {named} is unknown; expected {expected}"
        case "missing":
            return f"{document.place(path[:-1], key=True)}: {named} is missing; expected it there"
        case "value_error":
            message = str(fault["ctx"]["error"])
            inner: Path = (*path, message.split(maxsplit=1)[0])
            return f"{document.place(inner if inner in document.values else path)}: {message}"
        case "union_tag_not_found":
            return f"{document.place(path, key=True)}: {named}.model is missing; expected a model"
        case "union_tag_invalid":
            known = fault["ctx"]["expected_tags"]
            given = fault["ctx"]["tag"]
            at = document.place((*path, "model"))
            return f"{at}: {named}.model is {given!r}; expected one of: {known}"
    return f"{document.place(path)}: {named} is {fault['input']!r}; expected {expected}"
