"""One part of a log at a time: judge its rows, number its ids, keep the good ones in scratch."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dasrec import columns, files
from dasrec.clean import FAULTS, AuditStep, fault_names, row_faults, row_rules
from dasrec.columns import Codec
from dasrec.errors import InputError
from dasrec.events import CleanRules, Events, decoding_in_heap, read_pieces
from dasrec.journal import Journal
from dasrec.numbering import IdFiles, factorize, save_ids
from dasrec.schema import ITEM, TIMESTAMP, USER, VALUE
from dasrec.typing import Longs


class Scan(NamedTuple):
    """What reading one part of the log told."""

    folder: str
    n_rows: int
    faults: Longs  # rows by fault
    dropped: list[int]  # rows by rule
    example: str
    codecs: dict[str, Codec]
    users: IdFiles  # codes in scratch are places in these
    items: IdFiles


def scan_log(events: Events, journal: Journal, quarantine: str | None = None) -> list[Scan]:
    """Scan every part of a log, one task each; bad rows go to ``quarantine`` if it is named."""
    names = fault_names(events)
    arguments = [
        (source, events.rules, journal.path(f"scan-{part}"), part, quarantine, names)
        for part, source in enumerate(events.sources)
    ]
    with decoding_in_heap():
        found = journal.run(_scan_part, arguments, name="ingest-scan")
    return list(chain.from_iterable(found))


def judge(scans: Sequence[Scan], events: Events) -> list[AuditStep]:
    """Begin the audit, or refuse a log with bad rows or none."""
    rows = sum(scan.n_rows for scan in scans)
    if rows == 0:
        msg = f"{events.source} has no rows; expected at least one event below the header"
        raise InputError(msg)
    faults, names = np.sum([scan.faults for scan in scans], axis=0), fault_names(events)
    if faults.any() and events.rules.bad_rows == "error":
        reasons = "; ".join(f"{n} x {why}" for n, why in zip(faults, names, strict=True) if n)
        example = next(scan.example for scan in scans if scan.example)
        msg = (
            f"{events.source} has {faults.sum()} bad rows of {rows}: {reasons}. "
            f"The first is {example}. "
            'Mend them, or drop them with clean(events, bad_rows="drop") (--bad-rows drop)'
        )
        raise InputError(msg)
    audit = [AuditStep("read", rows, rows, events.source)]
    for number, why in zip(faults.tolist(), names, strict=True):
        audit.append(AuditStep("bad rows", rows, rows - number, why))
        rows -= number
    for number, rule in enumerate(row_rules(events.rules)):
        gone = sum(scan.dropped[number] for scan in scans)
        audit.append(AuditStep(rule.step, rows, rows - gone, rule.why))
        rows -= gone
    if rows == 0:
        msg = f"{events.source}: none of its rows is left after cleaning; loosen the rules"
        raise InputError(msg)
    return audit


def _scan_part(
    source: Any,
    rules: CleanRules,
    folder: str,
    part: int,
    quarantine: str | None,
    names: Sequence[str],
) -> list[Scan]:
    """Scan one part piece by piece, so that memory is bounded however large the part is."""
    scans: list[Scan] = []
    for frame in read_pieces(source):
        faults = row_faults(frame)
        bad = faults >= 0
        if quarantine is not None and bad.any():
            place = files.join(quarantine, f"part-{part:05}-{len(scans)}.parquet")
            reasons = np.array(names, object)[faults[bad]]
            _quarantine(frame[bad].assign(part=part, reason=reasons), place)
        first_row = sum(scan.n_rows for scan in scans)
        where = (first_row, f"of part {part + 1}")
        scans.append(_scan(frame, faults, rules, f"{folder}-{len(scans)}", where))
    return scans


def _scan(
    frame: pd.DataFrame,
    faults: NDArray[np.int8],
    rules: CleanRules,
    folder: str,
    where: tuple[int, str],
) -> Scan:
    """Judge the rows of one piece, keep the good ones in scratch, and count their ids."""
    bad = faults >= 0
    good, dropped = frame if not bad.any() else frame[~bad], []
    for rule in row_rules(rules):
        stays = rule(good)
        dropped.append(len(good) - int(stays.sum()))
        good = good[stays]
    found, ids = _numbered(good)
    codecs = columns.write_columns(folder, found)
    saved = {side: save_ids(files.join(folder, f"{side}-ids"), *ids[side]) for side in (USER, ITEM)}
    example = ""
    if bad.any():
        first = int(np.argmax(bad))
        example = f"row {where[0] + first + 1} {where[1]}: {frame.iloc[first].to_dict()}"
    counts = np.bincount(faults[bad], minlength=len(FAULTS))
    return Scan(folder, len(frame), counts, dropped, example, codecs, saved[USER], saved[ITEM])


def _quarantine(rows: pd.DataFrame, path: str) -> None:
    """Keep bad rows as they were read, each with its place and the reason."""
    content = rows.assign(row=rows.index).to_parquet(index=False)
    with files.writing(path):
        files.replace(path, content)


def _numbered(
    frame: pd.DataFrame,
) -> tuple[dict[str, NDArray[Any]], dict[str, tuple[pd.Series, Longs]]]:
    """Return the columns with ids as codes of this part alone, and each side's ids and counts."""
    found: dict[str, NDArray[Any]] = {}
    ids = {}
    for side in (USER, ITEM):
        found[side], distinct, counts = factorize(frame[side])
        ids[side] = (distinct, counts)
    if VALUE in frame:
        found[VALUE] = frame[VALUE].to_numpy(np.float32)
    if TIMESTAMP in frame:
        found[TIMESTAMP] = frame[TIMESTAMP].to_numpy("datetime64[us]").view(np.int64)
    return found, ids
