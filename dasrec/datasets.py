"""Logs to try things on: two public ones, and simulated ones of any size whose truth is known."""

from __future__ import annotations

import hashlib
import html
import io
import math
import os
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import numpy as np
import pandas as pd
import pooch
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dasrec import files
from dasrec.checks import check_count, seed_of
from dasrec.errors import DataUnavailableError, InputError
from dasrec.schema import EVENT_COLUMNS, ITEM, USER, VALUE
from dasrec.typing import Floats, Longs, Rng

DATA_DIR_VARIABLE = "DASREC_DATA_DIR"
MOVIELENS_100K_URL = "https://files.grouplens.org/datasets/movielens/ml-100k.zip"
# of the archive whose MD5 GroupLens publishes as 0e33842e24a9c977be4e0107933c0723
MOVIELENS_100K_HASH = "sha256:50d2a982c66986937beb9ffb3aa76efe955bf3d5c6b761f4e3a7cd717c6a3229"
_TIMEOUT = 5.0  # seconds to connect, and between two pieces of an answer

PART_EVENTS = 1_000_000  # that a simulation draws at a time
_START, _YEAR = 1_704_067_200, 365 * 86_400  # 2024-01-01 UTC; seconds
_GROWTH = 3.0  # activity at the end of the year, relative to its beginning
_MEAN, _NOISE = 3.3, 0.5  # stars
_SHARPNESS, _ANY_TASTE = 2.0, 0.1  # of tastes; share of events that ignore them
_AGAIN = 0.02  # share of events that repeat an earlier pair


@dataclass(frozen=True)
class LogFiles:
    """A log as files; ``read_events(log.paths, **log.columns)`` reads it.

    Attributes
    ----------
    name, license : str
    paths : tuple of str
    columns : dict
        Name in the files of ``user``, ``item`` and, where given, ``value`` and ``timestamp``.
    titles : pandas.Series of str, indexed by item id (int64), or None
    simulated : bool
    """

    name: str
    paths: tuple[str, ...]
    columns: dict[str, str]
    titles: pd.Series[str] | None
    simulated: bool
    license: str


def movielens_100k(*, cache_dir: str | os.PathLike[str] | None = None) -> LogFiles:
    """Find or fetch MovieLens 100K: 100,000 ratings of 1 to 5 stars with times (s since 1970, UTC).

    It is taken from ``ml-100k/`` in the folder that the environment variable ``DASREC_DATA_DIR``
    names (files ``ml-100k.inter`` and ``ml-100k.item``, or ``u.data`` and ``u.item``), else fetched
    from GroupLens (5 MB) and checked against a known hash.

    Parameters
    ----------
    cache_dir : path, optional
        Where the download and its CSV form are kept; by default the user's cache folder.

    Returns
    -------
    LogFiles
        943 users, 1,682 items.

    Raises
    ------
    DataUnavailableError
        It is not on this machine and cannot be fetched, or what was fetched has another hash.
    InputError
        ``ml-100k/`` is there but holds neither pair of files.
    """
    cache = Path(pooch.os_cache("dasrec") if cache_dir is None else cache_dir)
    folder = _data_folder("ml-100k")
    original = ("u.data", "u.item")
    if folder is None:
        with zipfile.ZipFile(_download(cache)) as archive:
            events, items = (archive.read(f"ml-100k/{name}") for name in original)
        return _movielens_original(events, items, cache)
    if _holds(folder, "ml-100k.inter", "ml-100k.item"):
        return _movielens_typed(folder)
    if _holds(folder, *original):
        events, items = ((folder / name).read_bytes() for name in original)
        return _movielens_original(events, items, cache)
    msg = f"{folder} lacks ml-100k.inter and ml-100k.item, or u.data and u.item; put a pair there"
    raise InputError(msg)


def _data_folder(name: str) -> Path | None:
    given = os.environ.get(DATA_DIR_VARIABLE)
    folder = Path(given) / name if given else None
    return folder if folder is not None and folder.is_dir() else None


def _holds(folder: Path, *names: str) -> bool:
    return all((folder / name).is_file() for name in names)


def _download(cache: Path) -> str:
    try:
        return str(
            pooch.retrieve(
                MOVIELENS_100K_URL,
                known_hash=MOVIELENS_100K_HASH,
                fname="ml-100k.zip",
                path=cache,
                downloader=pooch.HTTPDownloader(timeout=_TIMEOUT),
            )
        )
    except (OSError, ValueError) as error:  # no network, no room, or another hash
        msg = (
            f"MovieLens 100K did not come from {MOVIELENS_100K_URL} into {cache} ({error}); "
            f"set {DATA_DIR_VARIABLE} to a folder that holds ml-100k/, or try again with a network"
        )
        raise DataUnavailableError(msg) from error


def _movielens_typed(folder: Path) -> LogFiles:
    """Describe the layout whose header also tells types."""
    table = pd.read_csv(folder / "ml-100k.item", sep="\t", quoting=3, dtype="str").fillna("")
    years = table["release_year:token"].map(lambda year: f" ({year})" if year.isdigit() else "")
    titles = _titles(table["item_id:token"], table["movie_title:token_seq"] + years)
    names = ("user_id:token", "item_id:token", "rating:float", "timestamp:float")
    return _movielens(folder / "ml-100k.inter", names, titles)


def _movielens_original(events: bytes, items: bytes, cache: Path) -> LogFiles:
    """Give GroupLens' own table, which has no header, one, in a copy that the cache keeps."""
    names = ("user_id", "item_id", "rating", "timestamp")
    # named by its content, so the copy of another table is never taken for this one's
    path = cache / f"ml-100k-{hashlib.sha256(events).hexdigest()[:12]}.csv"
    if not path.is_file():
        table = pd.read_csv(io.BytesIO(events), sep="\t", names=list(names))
        with files.writing(str(path)):
            files.replace(str(path), table.to_csv(index=False).encode())
    rows = [line.split("|", 2)[:2] for line in items.decode("latin-1").splitlines() if line]
    catalogue = pd.DataFrame(rows, columns=["id", "title"])
    return _movielens(path, names, _titles(catalogue["id"], catalogue["title"]))


def _movielens(path: Path, names: tuple[str, ...], titles: pd.Series[str]) -> LogFiles:
    rules = "research use, no redistribution; cite Harper and Konstan 2015, doi:10.1145/2827872"
    columns = dict(zip(EVENT_COLUMNS, names, strict=True))
    return LogFiles("MovieLens 100K", (str(path),), columns, titles, simulated=False, license=rules)


def _titles(ids: pd.Series[str], names: pd.Series[str]) -> pd.Series[str]:
    index = pd.Index(ids.astype("int64"), name="item_id")
    return pd.Series(names.to_numpy(), index=index, dtype="str", name="title")


def anime_ratings() -> LogFiles:
    """Find the Anime Recommendations sample: 419,943 ratings of 1 to 10, without times.

    Returns
    -------
    LogFiles
        4,714 users, 7,157 items; from ``anime/anime_ratings.dat`` and ``anime/anime_info.dat`` in
        the folder that the environment variable ``DASREC_DATA_DIR`` names.

    Raises
    ------
    DataUnavailableError
        They are not there; there is no address to fetch them from.
    """
    folder = _data_folder("anime")
    if folder is None or not _holds(folder, "anime_ratings.dat", "anime_info.dat"):
        msg = (
            f"{DATA_DIR_VARIABLE} is {os.environ.get(DATA_DIR_VARIABLE)!r}; expected a folder that "
            "holds anime/ with anime_ratings.dat and anime_info.dat, which cannot be fetched"
        )
        raise DataUnavailableError(msg)
    # The sample's README calls anime_ids the site's ids, but they are its own, 1 to 7,390, and join
    # Anime_ID directly: every rated item is found, the number of ratings follows the site's
    # `members` (rank correlation 0.95) and their mean the site's `rating` (0.67).
    table = pd.read_csv(folder / "anime_info.dat", sep="\t", usecols=["anime_ids", "name"])
    return LogFiles(
        "Anime Recommendations (sample)",
        (str(folder / "anime_ratings.dat"),),
        {USER: "User_ID", ITEM: "Anime_ID", VALUE: "Feedback"},
        _titles(table["anime_ids"], table["name"].map(html.unescape)),
        simulated=False,
        license="as stated on the page of CooperUnion's Anime Recommendations Database on Kaggle",
    )


@dataclass(frozen=True)
class Truth:
    """What a simulation planted; ids are row numbers of these arrays.

    Attributes
    ----------
    seed : int
    user_factors, item_factors : float32 arrays of shape (n_users, factors), (n_items, factors)
    user_bias, item_bias : float32 arrays of shape (n_users,), (n_items,), in stars
    activity, popularity : float64 arrays of shape (n_users,), (n_items,)
        Shares that sum to 1 and fall by power laws.
    group : int64 array of shape (n_items,)
        The factor that an item mainly serves.
    """

    seed: int
    user_factors: Floats
    item_factors: Floats
    user_bias: Floats
    item_bias: Floats
    activity: NDArray[np.float64]
    popularity: NDArray[np.float64]
    group: Longs

    def expected(self, users: Longs, items: Longs) -> Floats:
        """Return the stars of each pair before noise, rounding and clipping to 1..5; float32 (n,).

        For ids of shape (n,): ``3.3 + user_bias + item_bias + user_factors . item_factors``.
        """
        taste = np.einsum("ij,ij->i", self.user_factors[users], self.item_factors[items])
        stars: Floats = np.float32(_MEAN) + self.user_bias[users] + self.item_bias[items] + taste
        return stars


def planted_truth(*, n_users: int, n_items: int, factors: int = 8, rng: Rng = None) -> Truth:
    """Draw the truth behind :func:`simulate_events` with the same arguments; ``rng`` is its seed.

    Raises :class:`InputError` if a size is not positive or ``factors`` exceeds ``n_items``.
    """
    check_count(n_users, name="n_users")
    check_count(n_items, name="n_items")
    check_count(factors, name="factors", most=n_items)
    seed = seed_of(rng)
    draw = np.random.default_rng([seed, 0])
    group = draw.permutation(n_items) % factors
    item_factors = draw.standard_normal((n_items, factors), np.float32)
    item_factors *= np.float32(0.5 / np.sqrt(factors))
    item_factors[np.arange(n_items), group] += np.float32(0.35)
    return Truth(
        seed,
        draw.standard_normal((n_users, factors), np.float32),
        item_factors,
        np.float32(0.3) * draw.standard_normal(n_users, np.float32),
        np.float32(0.4) * draw.standard_normal(n_items, np.float32),
        _power_law(n_users, exponent=0.8, draw=draw),
        _power_law(n_items, exponent=1.0, draw=draw),
        group,
    )


def _power_law(n: int, *, exponent: float, draw: np.random.Generator) -> NDArray[np.float64]:
    weights = (draw.permutation(n) + 1 + 0.003 * n) ** -exponent
    return np.asarray(weights / weights.sum())


def simulate_events(
    n_events: int, *, n_users: int, n_items: int, factors: int = 8, rng: Rng = None
) -> pd.DataFrame:
    """Simulate a log in memory.

    Parameters
    ----------
    n_events, n_users, n_items : int
        Ids are 0 to ``n_users - 1`` and 0 to ``n_items - 1``; some may not occur.
    factors : int
        Tastes that users mix and items serve.
    rng : int, numpy.random.Generator or None
        ``frame.attrs["seed"]`` says which seed was used.

    Returns
    -------
    pandas.DataFrame
        Columns ``user``, ``item`` (int64), ``value`` (float32, whole stars 1 to 5), ``timestamp``
        (int64, seconds since 1970-01-01 UTC); ordered by time through 2024, while activity triples.
        A few per cent of the pairs repeat; more if users have seen much of the catalogue.

    Examples
    --------
    >>> simulate_events(1000, n_users=50, n_items=40, rng=1).columns.to_list()
    ['user', 'item', 'value', 'timestamp']
    """
    check_count(n_events, name="n_events", most=3 * 10**9)
    truth = planted_truth(n_users=n_users, n_items=n_items, factors=factors, rng=rng)
    events = pd.concat(list(_parts(truth, n_events)), ignore_index=True)
    events.attrs["seed"] = truth.seed
    return events


def simulate_log(
    path: str | os.PathLike[str],
    n_events: int,
    *,
    n_users: int,
    n_items: int,
    factors: int = 8,
    rng: Rng = None,
) -> LogFiles:
    """Write the log of :func:`simulate_events` at once, a million events in memory at a time.

    ``path`` is local and ends in ``.csv`` or ``.parquet``; an older file there stays until the new
    one is complete. Raises :class:`InputError` for another ending or a number out of range, and
    :class:`DiskError` if the disk refuses.
    """
    check_count(n_events, name="n_events", most=3 * 10**9)
    writer = {".csv": pa_csv.CSVWriter, ".parquet": pq.ParquetWriter}.get(Path(path).suffix)
    if writer is None or not files.is_local(os.fspath(path)):
        msg = f"path is {os.fspath(path)!r}; expected a local path that ends in .csv or .parquet"
        raise InputError(msg)
    truth = planted_truth(n_users=n_users, n_items=n_items, factors=factors, rng=rng)
    target = Path(files.absolute(path))
    draft = target.with_name(f".{target.name}.{files.token()}")
    kinds = (pa.int64(), pa.int64(), pa.float32(), pa.int64())
    schema = pa.schema(list(zip(EVENT_COLUMNS, kinds, strict=True)))
    try:
        with files.writing(str(target)):
            target.parent.mkdir(parents=True, exist_ok=True)
            with writer(str(draft), schema) as file:
                for part in _parts(truth, n_events):
                    file.write(pa.Table.from_pandas(part, schema=schema, preserve_index=False))
            draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)
    return LogFiles(
        f"simulated (seed {truth.seed})",
        (str(target),),
        {name: name for name in EVENT_COLUMNS},
        None,
        simulated=True,
        license="simulated: nobody's data",
    )


def _parts(truth: Truth, n_events: int) -> Iterator[pd.DataFrame]:
    """Yield the log in order of time; a part depends on nothing but the arguments and its number.

    Every event is one slot (user, visit). A user's visits walk evenly over what the user likes;
    steps near the golden ratio spread them over time.
    """
    cap = max(truth.group.size / 4 / n_events, 2 / truth.activity.size)  # a user's share of events
    activity = (1 / (1 / truth.activity + 1 / cap)).cumsum()
    first = np.rint(np.append(0.0, activity / activity[-1]) * n_events).astype(np.int64)
    golden = next(k for k in count(int(0.618034 * n_events)) if math.gcd(k, n_events) == 1)
    step = pow(golden, -1, n_events)
    for number, start in enumerate(range(0, n_events, PART_EVENTS)):
        stop = min(start + PART_EVENTS, n_events)
        draw = np.random.default_rng([truth.seed, 1 + number])
        slots = draw.permutation(np.arange(start, stop)) * step % n_events
        users = np.searchsorted(first, slots, side="right") - 1
        items = _choose(truth, users, (slots - first[users], np.diff(first)[users]), draw)
        noise = np.float32(_NOISE) * draw.standard_normal(users.size, np.float32)
        stars = np.rint(np.clip(truth.expected(users, items) + noise, 1, 5))
        elapsed = (start + (stop - start) * np.sort(draw.random(users.size))) / n_events
        # the inverse of a distribution whose density grows linearly, _GROWTH-fold
        time = (np.sqrt(1 + elapsed * (_GROWTH**2 - 1)) - 1) / (_GROWTH - 1)
        columns = (users, items, stars, _START + (_YEAR * time).astype(np.int64))
        yield pd.DataFrame(dict(zip(EVENT_COLUMNS, columns, strict=True)))


def _choose(
    truth: Truth, users: Longs, visits: tuple[Longs, Longs], draw: np.random.Generator
) -> Longs:
    """Return the item of each slot; ``visits`` are the visit's number and the user's total."""
    visit, total = visits
    order = np.argsort(truth.group, kind="stable")
    edges = np.searchsorted(truth.group[order], np.arange(truth.user_factors.shape[1] + 1))
    mass = np.append(0.0, truth.popularity[order].cumsum())
    tastes = np.exp(_SHARPNESS * truth.user_factors[users]) * np.diff(mass[edges])
    tastes *= (1 - _ANY_TASTE) / tastes.sum(axis=1, keepdims=True)
    tastes += _ANY_TASTE * np.diff(mass[edges])
    bounds = np.pad(tastes.cumsum(axis=1), ((0, 0), (1, 0)))
    rows = np.arange(users.size)

    def place(where: NDArray[np.float64]) -> Longs:
        """Map [0, 1) to the catalogue: each taste takes its share, and each item in it."""
        taste = (where[:, None] >= bounds[:, 1:-1]).sum(axis=1)
        within = (where - bounds[rows, taste]) / tastes[rows, taste]
        low, high = mass[edges[taste]], mass[edges[taste + 1]]
        found = np.searchsorted(mass, low + within * (high - low), side="right") - 1
        return np.asarray(found.clip(edges[taste], edges[taste + 1] - 1))

    where = (visit + users * 0.618034 % 1) / total
    now, before = place(where), place(np.where(visit > 0, where - 1 / total, 0))
    again = (visit > 0) & (draw.random(users.size) < _AGAIN)
    # who has seen this hit already explores, so that people repeat themselves by plan only
    seen = (visit > 0) & (now == before)
    other = draw.integers(order.size, size=users.size)
    return order[np.where(again, before, np.where(seen, other, now))]
