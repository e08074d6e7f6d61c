"""Recommendations from interaction logs that do not fit in memory, on Dask and Zarr."""

from dasrec.certainty import intervals
from dasrec.clean import by_session, clean, drop_ids, keep_ids, pseudonymise, within
from dasrec.compare import compare
from dasrec.errors import (
    BudgetError,
    BusyError,
    ClusterError,
    DasrecError,
    DataUnavailableError,
    DiskError,
    InputError,
    LeakageWarning,
    MismatchError,
    StoreError,
)
from dasrec.evaluate import evaluate, evaluate_users, holdout
from dasrec.events import Events, read_events
from dasrec.explain import explain
from dasrec.features import Features, open_features, write_features
from dasrec.ingest import append_interactions, interactions_from_scipy, write_interactions
from dasrec.interactions import Interactions, open_interactions
from dasrec.interop import (
    interactions_from_anndata,
    interactions_from_table,
    to_anndata,
    to_binsparse,
    to_coo,
)
from dasrec.medium import plan_fit
from dasrec.memory import share_heap
from dasrec.models import (
    ALS,
    BPR,
    SGD,
    WARP,
    Biases,
    GradientDescent,
    ImplicitALS,
    Logistic,
    Model,
    Popular,
    Softmax,
    SVDpp,
    load_model,
)
from dasrec.normalise import BM25, Binarise, Centre, Clip, Log1p, TfIdf, TimeDecay, ZScore
from dasrec.plan import plan_ingest
from dasrec.recommend import recommend_all
from dasrec.scorers import Sampled, Scorer, plan_ranking
from dasrec.search import (
    RankingEstimator,
    SearchResult,
    Trials,
    cells_of,
    for_sample,
    search,
)
from dasrec.split import (
    Split,
    check_split,
    parse_split,
    split_any_n,
    split_by_time,
    split_folds,
    split_last_n,
    split_listed,
    split_random,
    split_rolling,
    split_users,
)
from dasrec.summaries import count_in_time, count_on_grid, count_tails, place_items
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
    "BusyError",
    "Centre",
    "Clip",
    "ClusterError",
    "DasrecError",
    "DataUnavailableError",
    "DiskError",
    "Events",
    "Features",
    "GradientDescent",
    "ImplicitALS",
    "InputError",
    "Interactions",
    "LeakageWarning",
    "Log1p",
    "Logistic",
    "MismatchError",
    "Model",
    "Popular",
    "RankingEstimator",
    "SVDpp",
    "Sampled",
    "Scorer",
    "SearchResult",
    "Softmax",
    "Split",
    "StoreError",
    "TfIdf",
    "TimeDecay",
    "Training",
    "Trials",
    "ZScore",
    "append_interactions",
    "by_session",
    "cells_of",
    "check_split",
    "clean",
    "compact",
    "compare",
    "count_in_time",
    "count_on_grid",
    "count_tails",
    "drop_ids",
    "evaluate",
    "evaluate_users",
    "explain",
    "for_sample",
    "forget",
    "holdout",
    "interactions_from_anndata",
    "interactions_from_scipy",
    "interactions_from_table",
    "intervals",
    "keep_ids",
    "load_model",
    "open_features",
    "open_interactions",
    "parse_split",
    "place_items",
    "plan_fit",
    "plan_ingest",
    "plan_ranking",
    "pseudonymise",
    "read_events",
    "recommend_all",
    "search",
    "split_any_n",
    "split_by_time",
    "split_folds",
    "split_last_n",
    "split_listed",
    "split_random",
    "split_rolling",
    "split_users",
    "to_anndata",
    "to_binsparse",
    "to_coo",
    "verify",
    "within",
    "write_features",
    "write_interactions",
]
