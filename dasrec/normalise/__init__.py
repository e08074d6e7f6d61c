"""Other weights for interactions: learned on training rows, applied to each block as it is read.

Each class is a :class:`dasrec.typing.Transform`: a pure function of the cell, so both orientations
and any cut into blocks give the same bits. ``interactions.transform(BM25().fit(interactions))``
copies no data; docs/normalise.md says which one serves what.
"""

from dasrec.normalise.base import WeightTransform
from dasrec.normalise.centring import Centre, ZScore
from dasrec.normalise.scaling import Binarise, Clip, Log1p, TimeDecay
from dasrec.normalise.text import BM25, TfIdf

__all__ = [
    "BM25",
    "Binarise",
    "Centre",
    "Clip",
    "Log1p",
    "TfIdf",
    "TimeDecay",
    "WeightTransform",
    "ZScore",
]
