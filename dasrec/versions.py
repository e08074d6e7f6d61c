"""Which versions of a place there are, and what each is made of; docs/format.md states the files.

A place (a path or URL) holds groups that never change once written, and one small file a version
that names the groups it is made of. A version exists when its file does; that appears as a whole.
"""

from __future__ import annotations

import datetime
import json
import re
from typing import Any, NamedTuple

from dasrec import files
from dasrec.errors import InputError, StoreError
from dasrec.schema import FEATURES, FORMAT_VERSION

_POINTER = re.compile(r"version-(\d{8})\.json")


class Pointer(NamedTuple):
    """One version of a place: which groups make it up, since when, and what is known of it."""

    url: str
    kind: str
    version: int
    created: str
    groups: tuple[str, ...]
    facts: dict[str, Any]

    @property
    def group_urls(self) -> tuple[str, ...]:
        """Where the groups lie, oldest first."""
        return tuple(files.join(self.url, group) for group in self.groups)

    def names_group(self, group: str) -> bool:
        """Say whether the version needs a group, for interactions or for features."""
        beside = [each["group"] for each in self.facts.get(FEATURES, {}).values()]
        return group in self.groups or group in beside


def pointer_name(version: int) -> str:
    """Return the file whose being there makes a version exist."""
    return f"version-{version:08}.json"


def list_versions(url: str) -> list[int]:
    """Return the versions of a place, ascending; none if nothing finished is there."""
    return sorted(int(found[1]) for name in files.names(url) if (found := _POINTER.fullmatch(name)))


def read_pointer(url: str, kind: str | None, version: int | None = None) -> Pointer:
    """Find a version of ``url``, the latest if none is named, of whatever kind if none is.

    Raises
    ------
    StoreError
        Nothing is there, the writing was cut off before it was complete, it is of another format
        version, or it is something else than ``kind``.
    """
    place = files.absolute(url)
    versions = list_versions(place)
    if not versions:
        if files.exists(files.join(place, "zarr.json")):
            msg = f"{url} is unfinished: its writing was cut off; run the same call again"
        else:
            msg = (
                f"{url} is not there, or not written by dasrec; expected a folder with "
                f"{pointer_name(1)}"
            )
        raise StoreError(msg)
    if version is not None and version not in versions:
        msg = f"{url} has no version {version}; it has: {', '.join(map(str, versions))}"
        raise StoreError(msg)
    return _parse_pointer(place, kind, versions[-1] if version is None else version)


def _parse_pointer(place: str, kind: str | None, version: int) -> Pointer:
    name = pointer_name(version)
    try:
        content = files.read_json(files.join(place, name))
    except (ValueError, InputError) as error:
        msg = f"{place}: {name} is damaged ({error}); write the store again"
        raise StoreError(msg) from error
    found = content.get("format_version")
    if found != FORMAT_VERSION:
        msg = (
            f"{place} is of format version {found}; this dasrec reads version {FORMAT_VERSION}. "
            "Write it again with this version, or read it with the dasrec that wrote it"
        )
        raise StoreError(msg)
    if kind is not None and content.get("kind") != kind:
        msg = f"{place} holds {content.get('kind')!r}; expected {kind!r}"
        raise StoreError(msg)
    try:
        groups, facts = tuple(map(str, content["groups"])), dict(content["facts"])
        return Pointer(place, str(content["kind"]), version, str(content["created"]), groups, facts)
    except (KeyError, TypeError, ValueError) as error:
        msg = f"{place}: {name} is damaged, it lacks {error}; write the store again"
        raise StoreError(msg) from error


def now() -> str:
    """Return the moment as versions record it: ISO 8601, UTC."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="microseconds")


def publish(pointer: Pointer) -> None:
    """Make a version exist: one small file appears, whole or not at all.

    Raises
    ------
    StoreError
        The version is there already: another writer was quicker.
    """
    content = {"format_version": FORMAT_VERSION, **pointer._asdict()}
    del content["url"]
    place = files.join(pointer.url, pointer_name(pointer.version))
    try:
        with files.writing(pointer.url):
            files.create(place, json.dumps(content, indent=1))
    except FileExistsError as error:
        msg = (
            f"another writer has made version {pointer.version} of {pointer.url} meanwhile; theirs "
            "is kept, run this again to build on it"
        )
        raise StoreError(msg) from error
