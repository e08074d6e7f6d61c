"""What one block of users gives to each metric, and the figures that come of all blocks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from dasrec.checks import check_lengths
from dasrec.errors import InputError, MismatchError
from dasrec.interactions import Interactions, read_both
from dasrec.kernels.csr import rows_of
from dasrec.kernels.ranking import find_hits, win_shares
from dasrec.memory import SCORE_CELLS, listed_users
from dasrec.metrics import (
    Doubles,
    Groups,
    Items,
    Metric,
    Predicted,
    Ranked,
    choose_metrics,
    facts_of,
    groups_of,
    metrics_of,
    tally,
    with_directions,
)
from dasrec.models.base import Model, view_of
from dasrec.schema import ITEM, USER, USER_ITEMS, N
from dasrec.scorers import Rankable, Sampled, Vectors, check_room, make_lists, model_of, scorer_of
from dasrec.split import Split
from dasrec.typing import CsrBlock, Floats, Ints, Side


class Job(NamedTuple):
    """What every block task needs, shared once a worker."""

    scorer: Any
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


def choose_for(
    given: Rankable,
    split: Split,
    metrics: Sequence[str] | None,
    *,
    compat: str | None,
    allow_overlap: bool,
) -> tuple[Metric, ...]:
    """Return the metrics to measure it by, and refuse what cannot be measured on this split."""
    predicts_values = check_measurable(given, split, allow_overlap=allow_overlap)
    return choose_metrics(metrics, predicts_values=predicts_values, compat=compat)


def plan_job(
    given: Rankable,
    split: Split,
    chosen: Sequence[Metric],
    n: int | Sequence[int],
    *,
    groups: Mapping[str, Any] | None = None,
    compat: str | None = None,
) -> Job:
    """Gather what the tasks need, eagerly; users that training did not see are folded in.

    Raises
    ------
    InputError
        What was given cannot rank, or lacks what a metric needs, ``n`` is larger than the
        catalogue, or labels of groups are not one a user or an item.
    BudgetError
        It would not fit in memory.
    """
    lengths = check_lengths(n, n_items=split.train.n_items)
    if compat is not None and ITEM in (groups or {}):
        msg = "groups of items go with our own formulas; leave out compat, or the groups"
        raise InputError(msg)
    members = groups_of(groups, split.train)
    scorer = _scorer(given, split)
    whole = [metric.name for metric in chosen if "wins" in metric.needs]
    if whole and not isinstance(scorer, Vectors):
        msg = (
            f"{', '.join(whole)} needs the scores that a model gives to the whole catalogue, and "
            f"{scorer.name} gives lists or a sample; leave it out"
        )
        raise InputError(msg)
    check_room(scorer, split.train, max(lengths), whole_rows=bool(whole))
    facts = facts_of(chosen, split.train, groups=members.get(ITEM))
    facts = with_directions(facts, chosen, factors_of(model_of(given)))
    names = tuple(metric.name for metric in chosen)
    return Job(scorer, split.seen, lengths, names, facts, compat, members)


def factors_of(model: Model | None) -> Floats | None:
    """Return the item factors of a model, None if it has none."""
    factors = getattr(model, "item_factors_", None)
    return None if factors is None else np.asarray(factors.values)


def facts_of_run(job: Job, split: Split) -> dict[str, Any]:
    """Return what was measured and how, as attributes of the result."""
    facts = {"model": job.scorer.name, **split.describe(), **getattr(job.scorer, "facts", {})}
    return facts if job.compat is None else {**facts, "compat": job.compat}


def _scorer(given: Any, split: Split) -> Any:
    """Return what ranks."""
    if isinstance(given, Sampled):
        return given.over(_scorer(given.ranked, split), split.train.n_items)
    if not isinstance(given, Model):
        return scorer_of(given, split.train)
    users, items = given.lazy_vectors()
    if split.folds_in:
        users = _fold_in(given, split, np.asarray(users))
    return Vectors.of(users, items, given.name)


def _fold_in(model: Model, split: Split, users: Floats) -> Floats:
    """Replace the vectors of users that training did not see."""
    fresh = split.train.counts(USER_ITEMS) == 0
    return np.where(fresh[:, None], model.fold_in(split.seen), users).astype(np.float32)


def rank_block(test: Interactions, side: Side, start: int, stop: int, job: Job) -> dict[str, Any]:
    """Measure one block of users; keys are metrics, and how many were measured."""
    return _added(_tallied(some, job) for some in _see(test, side, start, stop, job))


def value_block(test: Interactions, side: Side, start: int, stop: int, job: Job) -> dict[str, Any]:
    """Measure each user of one block; keys are the metrics that can, and users' numbers."""
    return _joined([_valued(some, job) for some in _see(test, side, start, stop, job)])


def both_block(
    test: Interactions, side: Side, start: int, stop: int, job: Job
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what :func:`rank_block` and :func:`value_block` do, of lists that are made once."""
    found = [
        (_tallied(some, job), _valued(some, job)) for some in _see(test, side, start, stop, job)
    ]
    sums, values = zip(*found, strict=True)
    return _added(sums), _joined(values)


def _added(parts: Iterable[dict[str, Any]]) -> dict[str, Any]:
    sums: dict[str, Any] = {}
    for part in parts:
        sums = {name: sums.get(name, 0) + each for name, each in part.items()}
    return sums


def _joined(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _tallied(some: _Some, job: Job) -> dict[str, Any]:
    """Add up what some users give to each metric."""
    items = job.groups[ITEM].members() if ITEM in job.groups else ()
    users = job.groups[USER].members(some.users) if USER in job.groups else ()
    found: dict[str, Any] = {
        "n_users": len(some.users),
        "n_test": len(some.truth.data),
        "n_unlisted": 0 if some.ranked is None else int((some.ranked.n_listed == 0).sum()),
    }
    for metric in job.chosen:
        block = some.what(metric)
        found[metric.name] = tally(metric, block, job.lengths, users=users, items=items)
    return found


def _valued(some: _Some, job: Job) -> dict[str, Any]:
    """Return what each of some users gives to the metrics that are means over users."""
    found: dict[str, Any] = {USER: some.users}
    for metric in [metric for metric in job.chosen if metric.values is not None]:
        block = some.what(metric)
        assert metric.values is not None
        assert isinstance(block, Ranked)
        if metric.kind == "ranking":
            each = [metric.values(block.cut(n)) for n in job.lengths]
            found[metric.name] = np.stack(each, axis=1)
        else:
            found[metric.name] = metric.values(block)
    return found


class _Some(NamedTuple):
    """Some users of a block who have something to find, and what metrics see of them."""

    users: Ints
    truth: CsrBlock
    ranked: Ranked | None
    predicted: Predicted | None

    def what(self, metric: Metric) -> Ranked | Predicted:
        """Return what a metric measures."""
        found = self.predicted if metric.kind == "values" else self.ranked
        assert found is not None  # one of the chosen asked for it
        return found


def _see(test: Interactions, side: Side, start: int, stop: int, job: Job) -> Iterator[_Some]:
    """Yield some users of a block at a time, so that their lists need no more memory."""
    predicts = {metric.kind == "values" for metric in job.chosen}
    known: CsrBlock | None = None
    if False in predicts:
        truth, known = read_both((test, job.seen), side, start, stop)
    else:
        truth = test.read_rows(side, start, stop)
    tested = np.flatnonzero(np.diff(truth.indptr))
    height = listed_users(max(job.lengths, default=1))
    for top in range(0, max(1, len(tested)), height):
        rows = tested[top : top + height]
        users, wanted = (start + rows).astype(np.int32), _take_rows(truth, rows)
        ranked = None if known is None else _rank(users, _take_rows(known, rows), wanted, job)
        predicted = _predict(users, wanted, job) if True in predicts else None
        yield _Some(users, wanted, ranked, predicted)


def _rank(users: Ints, seen: CsrBlock, truth: CsrBlock, job: Job) -> Ranked:
    known, wanted = ((each.indptr, each.indices) for each in (seen, truth))
    lists = make_lists(job.scorer, users, max(job.lengths, default=1), seen=known, truth=wanted)
    ranked = Ranked(lists, find_hits(lists, *wanted), truth, seen, job.facts)
    if not any("wins" in metric.needs for metric in job.chosen):
        return ranked
    wins = _win_shares(job.scorer.users[users], job.scorer.items, seen, truth)
    return ranked._replace(wins=wins)


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
    indptr, indices = taken.indptr.astype(np.int64), taken.indices.astype(np.int32, copy=False)
    return CsrBlock(indptr, indices, taken.data, block.n_columns)


def _predict(users: Ints, truth: CsrBlock, job: Job) -> Predicted:
    predictions = job.scorer.score(users, (truth.indptr, truth.indices))
    return Predicted(truth.data, predictions, rows_of(truth.indptr), truth.indices)


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


def nothing_to_test(split: Split) -> str:
    """Return what to say of a split without a test part."""
    return f"the split {split.spec} leaves nothing to test; choose a larger test part"


def check_scale(model: Model, split: Split) -> None:
    """Refuse weights on another scale than the model learned, wherever they are looked at.

    Ranking only asks what was used, so there a model may have learned from other weights.
    """
    learned, given = model.trained_on_["transforms"], view_of(split.train)["transforms"]
    if learned != given and (model.predicts_values or split.folds_in):
        msg = (
            f"the model learned from weights transformed by {_names(learned)}, and those of "
            f"{split.spec} are transformed by {_names(given)}; evaluate it on "
            "split.transform(...), the split that it was fitted on"
        )
        raise MismatchError(msg)


def _names(transforms: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(str(each.get("transform")) for each in transforms) or "nothing"


def check_trained_on(model: Model, split: Split) -> None:
    """Refuse a model that may know what is tested."""
    trained, wanted = model.trained_on_, view_of(split.train)
    # more masks let less through: a part of the training part knows nothing of what is tested
    is_part = trained["masks"][: len(wanted["masks"])] == wanted["masks"]
    if trained["state"] != wanted["state"] or not is_part:
        msg = (
            f"the model was fitted on {trained['masks'] or 'the whole store'} of "
            f"{trained['state']}, not on the training part of {split.spec}: it may know what "
            "is tested. Fit it on split.train (dasrec fit --split), or pass allow_overlap=True "
            "(--allow-overlap)"
        )
        raise MismatchError(msg)


def check_measurable(given: Rankable, split: Split, *, allow_overlap: bool = False) -> bool:
    """Refuse a model of something else; say whether scores are on the scale of the values."""
    model = model_of(given)
    if model is None:
        return False
    model.check_belongs(split.train)
    check_scale(model, split)
    if not allow_overlap:
        check_trained_on(model, split)
    return model.predicts_values
