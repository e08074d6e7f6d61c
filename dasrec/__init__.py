"""Recommendations from interaction logs that do not fit in memory, on Dask and Zarr."""

from dasrec.clean import by_session, clean, drop_ids, keep_ids, pseudonymise, within
from dasrec.errors import (
    BudgetError,
    DasrecError,
    DataUnavailableError,
    DiskError,
    InputError,
    MismatchError,
    StoreError,
)
from dasrec.evaluate import evaluate, holdout
from dasrec.events import Events, read_events
from dasrec.ingest import append_interactions, interactions_from_scipy, write_interactions
from dasrec.interactions import Interactions, open_interactions
from dasrec.interop import (
    interactions_from_anndata,
    interactions_from_table,
    to_anndata,
    to_binsparse,
    to_coo,
)
from dasrec.memory import share_heap
from dasrec.models import (
    ALS,
    BPR,
    SGD,
    WARP,
    Biases,
    GradientDescent,
    ImplicitALS,
    Model,
    Popular,
    SVDpp,
    load_model,
)
from dasrec.normalise import BM25, Binarise, Centre, Clip, Log1p, TfIdf, TimeDecay, ZScore
from dasrec.plan import plan_ingest
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
from dasrec.sweeps import plan_fit
from dasrec.training import Training
from dasrec.upkeep import compact, forget, verify

__version__ = "0.1.0"

share_heap()  # before threads are started that would have heaps of their own

__all__ = [
    "ALS",
    "BM25",
    "BPR",
    "SGD",
    "WARP",
    "Biases",
    "Binarise",
    "BudgetError",
    "Centre",
    "Clip",
    "DasrecError",
    "DataUnavailableError",
    "DiskError",
    "Events",
    "GradientDescent",
    "ImplicitALS",
    "InputError",
    "Interactions",
    "Log1p",
    "MismatchError",
    "Model",
    "Popular",
    "SVDpp",
    "Split",
    "StoreError",
    "TfIdf",
    "TimeDecay",
    "Training",
    "ZScore",
    "append_interactions",
    "by_session",
    "clean",
    "compact",
    "drop_ids",
    "evaluate",
    "forget",
    "holdout",
    "interactions_from_anndata",
    "interactions_from_scipy",
    "interactions_from_table",
    "keep_ids",
    "load_model",
    "open_interactions",
    "parse_split",
    "plan_fit",
    "plan_ingest",
    "pseudonymise",
    "read_events",
    "recommend_all",
    "split_by_time",
    "split_folds",
    "split_last_n",
    "split_listed",
    "split_random",
    "split_users",
    "to_anndata",
    "to_binsparse",
    "to_coo",
    "verify",
    "within",
    "write_interactions",
]
