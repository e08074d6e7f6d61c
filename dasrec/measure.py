"""What one block of users gives to each metric, and the figures that come of all blocks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from dasrec.interactions import Interactions
from dasrec.kernels.csr import rows_of
from dasrec.kernels.ranking import find_hits, win_shares
from dasrec.memory import SCORE_CELLS
from dasrec.metrics import (
    Doubles,
    Groups,
    Items,
    Metric,
    Predicted,
    Ranked,
    facts_of,
    metrics_of,
    tally,
    with_directions,
)
from dasrec.models.base import Model, rank_items
from dasrec.schema import ITEM, USER, N
from dasrec.split import Split
from dasrec.typing import CsrBlock, Floats, Side


class Job(NamedTuple):
    """What every block task needs, shared once a worker."""

    users: Floats
    items: Floats
    seen: Interactions
    lengths: tuple[int, ...]
    metrics: tuple[str, ...]
    facts: Items
    compat: str | None = None
    groups: Mapping[str, Groups] = {}

    @property
    def chosen(self) -> list[Metric]:
        """The metrics by their names, since a record has functions that do not pickle."""
        return [metrics_of(self.compat)[name] for name in self.metrics]


def plan_job(
    model: Model,
    split: Split,
    chosen: Sequence[Metric],
    lengths: tuple[int, ...],
    *,
    groups: Mapping[str, Groups] = {},
    compat: str | None = None,
) -> Job:
    """Gather what the tasks need, eagerly; users that training did not see are folded in."""
    users, items = model.scoring_vectors()
    if split.folds_in:
        users = _fold_in(model, split, users)
    facts = facts_of(chosen, split.train, groups=groups.get(ITEM))
    facts = with_directions(facts, chosen, factors_of(model))
    names = tuple(metric.name for metric in chosen)
    return Job(users, items, split.seen, lengths, names, facts, compat, groups)


def factors_of(model: Model) -> Floats | None:
    """Return the item factors of a model, None if it has none."""
    factors = getattr(model, "item_factors_", None)
    return None if factors is None else np.asarray(factors.values)


def facts_of_run(model: Model, split: Split, compat: str | None) -> dict[str, Any]:
    """Return what was measured and how, as attributes of the result."""
    known = {"model": model.name, **split.describe()}
    return known if compat is None else {**known, "compat": compat}


def _fold_in(model: Model, split: Split, users: Floats) -> Floats:
    """Replace the vectors of users that training did not see."""
    fresh = split.train.counts("user_items") == 0
    return np.where(fresh[:, None], model.fold_in(split.seen), users).astype(np.float32)


def rank_block(
    test: Interactions, side: Side, start: int, stop: int, job: Job
) -> dict[str, Doubles]:
    """Measure one block of users; keys are metrics."""
    truth = test.read_rows(side, start, stop)
    tested = np.flatnonzero(np.diff(truth.indptr))
    sums = {"users": np.array([len(tested)]), "test": np.array([len(truth.data)])}
    users = job.groups[USER].members(start + tested) if USER in job.groups else ()
    items = job.groups[ITEM].members() if ITEM in job.groups else ()
    for metric, block in _see(truth, start, tested, job):
        sums[metric.name] = tally(metric, block, job.lengths, users=users, items=items)
    return sums


def value_block(test: Interactions, side: Side, start: int, stop: int, job: Job) -> dict[str, Any]:
    """Measure each user of one block; keys are metrics, and their numbers."""
    truth = test.read_rows(side, start, stop)
    tested = np.flatnonzero(np.diff(truth.indptr))
    found: dict[str, Any] = {USER: (start + tested).astype(np.int32)}
    for metric, block in _see(truth, start, tested, job):
        assert metric.values is not None
        assert isinstance(block, Ranked)
        if metric.kind == "ranking":
            each = [metric.values(block.cut(n)) for n in job.lengths]
            found[metric.name] = np.stack(each, axis=1)
        else:
            found[metric.name] = metric.values(block)
    return found


def _see(
    truth: CsrBlock, start: int, tested: Any, job: Job
) -> Iterator[tuple[Metric, Ranked | Predicted]]:
    """Yield each metric with what it measures."""
    ranked = None
    for metric in job.chosen:
        if metric.kind == "values":
            yield metric, _predict(truth, start, tested, job)
        else:
            ranked = ranked or _rank(truth, start, tested, job)
            yield metric, ranked


def _rank(truth: CsrBlock, start: int, tested: Any, job: Job) -> Ranked:
    known = job.seen.read_rows("user_items", start, start + truth.n_rows)
    seen, wanted = (_take_rows(block, tested) for block in (known, truth))
    users = job.users[start + tested]
    longest = max(job.lengths, default=1)
    lists, _ = rank_items(users, job.items, longest, (seen.indptr, seen.indices))
    hits = find_hits(lists, wanted.indptr, wanted.indices)
    ranked = Ranked(lists, hits, wanted, seen, job.facts)
    if not any("wins" in metric.needs for metric in job.chosen):
        return ranked
    return ranked._replace(wins=_win_shares(users, job.items, seen, wanted))


def _win_shares(users: Floats, items: Floats, seen: CsrBlock, truth: CsrBlock) -> Doubles:
    """Score as many users at a time as fit beside each other, each over the whole catalogue."""
    height = max(1, SCORE_CELLS // len(items))
    wins = [np.empty(0)]
    for top in range(0, len(users), height):
        rows = np.arange(top, min(top + height, len(users)))
        known, wanted = (_take_rows(block, rows) for block in (seen, truth))
        pairs = ((each.indptr, each.indices) for each in (known, wanted))
        wins.append(win_shares(users[rows] @ items.T, *pairs))
    return np.concatenate(wins)


def _take_rows(block: CsrBlock, rows: Any) -> CsrBlock:
    taken = block.to_scipy()[rows]
    indptr = taken.indptr.astype(np.int64)
    return CsrBlock(indptr, taken.indices, taken.data, block.n_columns)


def _predict(truth: CsrBlock, start: int, tested: Any, job: Job) -> Predicted:
    rows = rows_of(truth.indptr)
    predictions = np.einsum("ij,ij->i", job.users[rows + start], job.items[truth.indices])
    users = np.searchsorted(tested, rows).astype(np.int32)
    return Predicted(truth.data, predictions, users, truth.indices)


def label(
    metric: Metric, parts: Sequence[dict[str, Doubles]], groups: Sequence[str] = ()
) -> tuple[tuple[str, ...], Doubles, dict[str, str]]:
    """Make the figures of all blocks, with their dims and what the metric says of itself.

    ``groups`` are the dims of groups, users' first.
    """
    # added in block order, so the bits do not depend on who was ready first
    total = np.sum([part[metric.name] for part in parts], axis=0)
    dims = [dim for dim in groups if not (metric.whole and dim == "item_group")]
    dims += [N] if metric.kind == "ranking" else []
    figures = np.apply_along_axis(metric.finalize, -1, total)
    return tuple(dims), figures, {"formula": metric.formula}
