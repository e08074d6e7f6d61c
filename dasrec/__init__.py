"""Recommendations from interaction logs that do not fit in memory, on Dask and Zarr."""

from dasrec.clean import clean
from dasrec.errors import (
    BudgetError,
    DasrecError,
    DataUnavailableError,
    DiskError,
    InputError,
    MismatchError,
    StoreError,
)
from dasrec.evaluate import evaluate
from dasrec.events import Events, read_events
from dasrec.ingest import append_interactions, interactions_from_scipy, write_interactions
from dasrec.interactions import Interactions, open_interactions
from dasrec.models import ALS, Biases, ImplicitALS, Model, Popular, load_model
from dasrec.recommend import recommend_all
from dasrec.split import (
    Split,
    parse_split,
    split_by_time,
    split_folds,
    split_last_n,
    split_listed,
    split_random,
    split_users,
)
from dasrec.upkeep import compact, forget, verify

__version__ = "0.1.0"

__all__ = [
    "ALS",
    "Biases",
    "BudgetError",
    "DasrecError",
    "DataUnavailableError",
    "DiskError",
    "Events",
    "ImplicitALS",
    "InputError",
    "Interactions",
    "MismatchError",
    "Model",
    "Popular",
    "Split",
    "StoreError",
    "append_interactions",
    "clean",
    "compact",
    "evaluate",
    "forget",
    "interactions_from_scipy",
    "load_model",
    "open_interactions",
    "parse_split",
    "read_events",
    "recommend_all",
    "split_by_time",
    "split_folds",
    "split_last_n",
    "split_listed",
    "split_random",
    "split_users",
    "verify",
    "write_interactions",
]
