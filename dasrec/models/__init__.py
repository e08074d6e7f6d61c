"""Models, one file each; :func:`load_model` opens a saved one of any kind."""

from __future__ import annotations

import os

from dasrec import versions
from dasrec.errors import StoreError
from dasrec.models.als import ALS, ImplicitALS
from dasrec.models.base import Model
from dasrec.models.biases import Biases
from dasrec.models.descent import GradientDescent
from dasrec.models.popular import Popular
from dasrec.models.ranking import BPR, WARP
from dasrec.models.sampled import Logistic, Softmax
from dasrec.models.sgd import SGD
from dasrec.models.svdpp import SVDpp
from dasrec.schema import MODEL_KIND

MODELS: dict[str, type[Model]] = {
    model.name: model
    for model in (
        ALS,
        ImplicitALS,
        SGD,
        SVDpp,
        BPR,
        WARP,
        Logistic,
        Softmax,
        GradientDescent,
        Biases,
        Popular,
    )
}

__all__ = [
    "ALS",
    "BPR",
    "MODELS",
    "SGD",
    "WARP",
    "Biases",
    "GradientDescent",
    "ImplicitALS",
    "Logistic",
    "Model",
    "Popular",
    "SVDpp",
    "Softmax",
    "load_model",
]


def load_model(url: str | os.PathLike[str]) -> Model:
    """Open a saved model; its factors are read when they are first used.

    Raises
    ------
    StoreError
        Nothing is there, its writing was cut off, or it is of another format version or kind.
    """
    pointer = versions.read_pointer(os.fspath(url), MODEL_KIND)
    name = pointer.facts["model"]
    if name not in MODELS:
        msg = f"{url} holds a model {name!r}; this dasrec knows: {', '.join(MODELS)}"
        raise StoreError(msg)
    return MODELS[name].opened(pointer)
