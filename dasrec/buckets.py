"""What map tasks leave for reducers: sorted columns in scratch, of which a bucket is one range."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain, pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dasrec import files
from dasrec.columns import Codec, narrow, same, widen
from dasrec.kernels.csr import places, scatter
from dasrec.typing import Ints, Longs


class Pieces(NamedTuple):
    """What one map task left for the reducers: one file, in it the columns of each bucket."""

    path: str
    offsets: Longs  # of the rows of each bucket
    codecs: dict[str, Codec]

    @property
    def row_bytes(self) -> int:
        """Bytes of one row over all columns."""
        return sum(codec.row_bytes for codec in self.codecs.values())


def write_buckets(
    path: str, buckets: Ints, n_buckets: int, columns: Iterable[tuple[str, NDArray[Any]]]
) -> Pieces:
    """Sort parallel columns by bucket, stably, and write them so that a bucket is one range.

    The columns are asked for one after the other, so that none need be held with the next.
    """
    place, offsets = places(buckets, n_buckets)
    moved, codecs = [], {}
    for name, values in columns:
        kept, codecs[name] = narrow(values)
        moved += [scatter(each, place) for each in kept]
    with files.writing(path):
        files.write_column(
            path, *(each[a:b] for a, b in pairwise(offsets.tolist()) for each in moved)
        )
    return Pieces(path, offsets, codecs)


def read_bucket(pieces: Sequence[Pieces], bucket: int) -> dict[str, NDArray[Any]]:
    """Gather one bucket from all map tasks, in their order, by one range read each."""
    groups: list[list[Pieces]] = []
    for piece in pieces:  # what is kept alike is read into one array
        if not groups or not _alike(groups[-1][-1], piece):
            groups.append([])
        groups[-1].append(piece)
    parts = [_read_alike(group, bucket) for group in groups]
    if len(parts) == 1:
        return parts[0]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _alike(one: Pieces, other: Pieces) -> bool:
    return list(one.codecs) == list(other.codecs) and all(
        map(same, one.codecs.values(), other.codecs.values())
    )


def _read_alike(pieces: Sequence[Pieces], bucket: int) -> dict[str, NDArray[Any]]:
    sizes = [int(piece.offsets[bucket + 1] - piece.offsets[bucket]) for piece in pieces]
    codecs = pieces[0].codecs
    kept = {
        name: [np.empty(sum(sizes), word) for word in codec.words] for name, codec in codecs.items()
    }
    arrays = list(chain.from_iterable(kept.values()))
    start = 0
    for piece, size in zip(pieces, sizes, strict=True):
        first = int(piece.offsets[bucket]) * piece.row_bytes
        files.read_into(piece.path, first, *(each[start : start + size] for each in arrays))
        start += size
    return {
        name: widen(parts, [piece.codecs[name] for piece in pieces], sizes)
        for name, parts in kept.items()
    }
