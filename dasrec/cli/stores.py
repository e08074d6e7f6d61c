"""Commands about stores: ingest, and its plan; info, compact, forget, verify."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import click
import numpy as np

import dasrec
from dasrec import files, versions
from dasrec.cli.options import (
    SectionCommand,
    as_json_option,
    memory_option,
    overwrite_option,
    section_option,
)
from dasrec.console import show, show_audit, show_facts, show_plan
from dasrec.errors import InputError
from dasrec.features import known_features
from dasrec.schema import INTERACTIONS_KIND

_column = partial(section_option, "Columns of the log", metavar="COL")
_choice = partial(section_option, "Columns of the log", show_default=True)
_which = partial(section_option, "Which events", metavar="FILE")
_rule = partial(section_option, "Cleaning", show_default=True)
_secret = partial(section_option, "Pseudonyms")
_id_kinds = click.Choice(["auto", "int64", "string", "uuid"])


_LOG_OPTIONS = (
    _column("--user", required=True, help="The user's id."),
    _column("--item", required=True, help="The item's id."),
    _column("--value", help="Rating or weight, or type of event; without it each event weighs 1."),
    _choice(
        "--weight",
        "weights",
        multiple=True,
        metavar="TYPE=N",
        help="What a type of event in --value weighs; other types are bad rows. May be repeated.",
    ),
    _column("--timestamp", help="The time."),
    _choice(
        "--timestamp-unit",
        type=click.Choice(["s", "ms", "us", "ns"]),
        default="s",
        help="What numeric timestamps count since 1970.",
    ),
    _choice(
        "--ids", type=_id_kinds, default="auto", help="What ids are; auto: see the first rows."
    ),
    _choice("--user-ids", type=_id_kinds, help="The same for users alone."),
    _choice("--item-ids", type=_id_kinds, help="The same for items alone."),
    _which(
        "--since", metavar="TIME", help="Events from then on, as 2026-01-31 or 2026-01-31T12:00."
    ),
    _which("--until", metavar="TIME", help="Events before then; UTC unless it says otherwise."),
    _which("--value-range", type=float, nargs=2, metavar="LOW HIGH", help="Values, ends included."),
    _which("--keep-users", help="Events of these users alone: a file with one id a line."),
    _which("--keep-items", help="Events of these items alone."),
    _which("--drop-users", help="No events of these users."),
    _which("--drop-items", help="No events of these items."),
    _rule(
        "--bad-rows",
        type=click.Choice(["error", "drop"]),
        default="error",
        help="What to do with rows that cannot be read.",
    ),
    _rule("--max-user", type=float, help="Most events of a user; below 1, the share to keep."),
    _rule("--session-gap", metavar="TIME", help="Rows are sessions, which end with a pause."),
    _rule(
        "--dedupe",
        type=click.Choice(["last", "first", "sum", "max", "mean", "error"]),
        default="last",
        help="What to keep of several events of one user with one item.",
    ),
    _rule("--min-user", type=int, default=1, help="Least cells of a user."),
    _rule("--min-item", type=int, default=1, help="Least cells of an item."),
    _secret(
        "--key-file",
        metavar="FILE",
        help="Hash user ids with the 16 to 64 secret bytes in it.",
    ),
    _secret("--key-env", metavar="VARIABLE", help="The same with those of a variable."),
)


def _log_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command all options that say how a log is read and cleaned."""
    for option in reversed(_LOG_OPTIONS):
        command = option(command)
    return command


@click.command("ingest", cls=SectionCommand)
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@click.argument("store")
@_log_options
@_rule("--quarantine", metavar="FOLDER", help="Keep bad rows there, with their place and why.")
@memory_option
@overwrite_option
@click.option("--append", is_flag=True, help="Add to the store that is there: a new version.")
@as_json_option
def ingest_command(
    inputs: tuple[str, ...],
    store: str,
    quarantine: str | None,
    memory: str | None,
    overwrite: bool,
    append: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Read logs, clean them and write an interaction store.

    \b
    Example:  dasrec ingest ratings.csv my-store --user userId --item movieId \\
                --value rating --timestamp timestamp
    """
    if append and (quarantine or overwrite):
        msg = (
            "--append adds to a store; leave out --quarantine and --overwrite, which make a new one"
        )
        raise InputError(msg)
    events = _cleaned(inputs, options)
    if append:
        interactions = dasrec.append_interactions(events, store, memory=memory)
    else:
        interactions = dasrec.write_interactions(
            events, store, overwrite=overwrite, quarantine=quarantine, memory=memory
        )

    def human() -> None:
        show_audit(interactions)
        click.echo(repr(interactions))

    show(_store_record(interactions), as_json=as_json, human=human)


@click.command("ingest", cls=SectionCommand)
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@_log_options
@memory_option
@as_json_option
def plan_ingest_command(
    inputs: tuple[str, ...], memory: str | None, as_json: bool, **options: Any
) -> None:
    """Say how many tasks and bytes an ingest of these logs will take, and its peak of memory.

    \b
    Example:  dasrec plan ingest ratings.csv --user userId --item movieId --memory 2GB
    """
    show_plan(dasrec.plan_ingest(_cleaned(inputs, options), memory=memory), as_json=as_json)


def _cleaned(inputs: Sequence[str], options: dict[str, Any]) -> dasrec.Events:
    if options["max_user"] is not None and options["max_user"].is_integer():
        options["max_user"] = int(options["max_user"])  # a count, as the audit shows it
    return dasrec.clean(_chosen(_read(inputs, options), options), **options)


def _read(inputs: Sequence[str], options: dict[str, Any]) -> dasrec.Events:
    """Take the options that say how a log is read, and read it."""
    names = ("user", "item", "value", "timestamp", "timestamp_unit")
    columns = {name: options.pop(name) for name in names}
    weights = _weights(options.pop("weights"))
    if weights:
        if columns["value"] is None:
            msg = "--weight is given without --value; expected --value with the column of the types"
            raise InputError(msg)
        columns["value"] = (columns["value"], weights)
    both = options.pop("ids")
    ids = {side: options.pop(f"{side}_ids") or both for side in ("user", "item")}
    return dasrec.read_events(list(inputs), ids=ids, **columns)


def _weights(texts: Sequence[str]) -> dict[str, float]:
    weights = {}
    for text in texts:
        kind, _, number = text.rpartition("=")
        try:
            weights[kind] = float(number)
        except ValueError:
            weights[kind] = math.nan
        if not kind or not math.isfinite(weights[kind]):
            msg = f"--weight is {text!r}; expected a type of event and a number, like click=1"
            raise InputError(msg)
    return weights


def _chosen(events: dasrec.Events, options: dict[str, Any]) -> dasrec.Events:
    """Take the options that say which events are meant, and hide the users if that is asked for."""
    since, until = options.pop("since"), options.pop("until")
    if since or until:
        events = dasrec.within(events, since=since, until=until)
    for word, choose in (("keep", dasrec.keep_ids), ("drop", dasrec.drop_ids)):
        for side in ("users", "items"):
            if (path := options.pop(f"{word}_{side}")) is not None:
                events = choose(events, **{side: _listed(path)})
    if gap := options.pop("session_gap"):
        events = dasrec.by_session(events, gap=gap)
    key = _key(options.pop("key_file"), options.pop("key_env"))
    return events if key is None else dasrec.pseudonymise(events, key=key)


def _listed(path: str) -> list[str]:
    try:
        text = files.read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        msg = f"{path} is no text in UTF-8; expected one id a line"
        raise InputError(msg) from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def _key(path: str | None, variable: str | None) -> bytes | None:
    if path and variable:
        msg = "--key-file and --key-env are both given; expected one of them"
        raise InputError(msg)
    if variable:
        if variable not in os.environ:
            msg = f"the environment variable {variable} is not set; expected 16 to 64 secret bytes"
            raise InputError(msg)
        return os.fsencode(os.environ[variable])
    # an editor ends a file with a line break, which is not meant
    return files.read_bytes(path).removesuffix(b"\n").removesuffix(b"\r") if path else None


def _store_record(interactions: dasrec.Interactions) -> dict[str, Any]:
    audit = interactions.audit.to_dataframe().reset_index()
    known = known_features(interactions)
    return {
        "store": interactions.url,
        "version": interactions.version,
        "n_users": interactions.n_users,
        "n_items": interactions.n_items,
        "n_interactions": interactions.n_stored,
        "has_timestamps": interactions.has_timestamps,
        "features": {side: each.n_features for side, each in known.items()},
        "audit": audit.to_dict("records"),
    }


@click.command("info")
@click.argument("place", metavar="STORE|MODEL")
@as_json_option
def info_command(place: str, as_json: bool) -> None:
    """Say what a store or a saved model holds.

    \b
    Example:  dasrec info my-store
    """
    if versions.read_pointer(place, None).kind == INTERACTIONS_KIND:
        record = _store_record(dasrec.open_interactions(place))
    else:
        model = dasrec.load_model(place)
        record = {
            "model": model.name,
            "parameters": model.get_params(),
            "trained_on": model.trained_on_,
            "n_users": len(model.user_ids_),
            "n_items": len(model.item_ids_),
        }

    def human() -> None:
        show_facts(place, {key: value for key, value in record.items() if key != "audit"})
        if "audit" in record:
            show_audit(dasrec.open_interactions(place))

    show(record, as_json=as_json, human=human)


@click.command("compact")
@click.argument("store")
@as_json_option
def compact_command(store: str, as_json: bool) -> None:
    """Write what a store holds now as one group and remove all older versions.

    \b
    Example:  dasrec compact my-store
    """
    interactions = dasrec.compact(store)
    show(_store_record(interactions), as_json=as_json, human=lambda: click.echo(repr(interactions)))


@click.command("forget")
@click.argument("store")
@click.option("--user", "users", multiple=True, required=True, help="Whom; may be repeated.")
@as_json_option
def forget_command(store: str, users: tuple[str, ...], as_json: bool) -> None:
    """Forget people: at once for every reader, for good with the next compact.

    \b
    Example:  dasrec forget my-store --user 4711 && dasrec compact my-store
    """
    known = dasrec.open_interactions(store).user_ids.ids
    try:
        ids = np.array(users).astype(known.dtype)
    except (OverflowError, ValueError) as error:
        msg = f"{store} has integers for user ids; given: {', '.join(users)}"
        raise InputError(msg) from error
    interactions = dasrec.forget(store, users=ids)
    show(_store_record(interactions), as_json=as_json, human=lambda: click.echo(repr(interactions)))


@click.command("verify")
@click.argument("store")
@as_json_option
@click.pass_context
def verify_command(ctx: click.Context, store: str, as_json: bool) -> None:
    """Read every byte of a store; exit status 1 and the places if something is wrong.

    \b
    Example:  dasrec verify my-store
    """
    faults = dasrec.verify(store)
    show(
        {"store": store, "faults": faults},
        as_json=as_json,
        human=lambda: click.echo("\n".join(faults) or "All is well."),
    )
    if faults:
        ctx.exit(1)
