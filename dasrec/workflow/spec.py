"""What a workflow may say: each section typed, unknown keys refused."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_type_hints

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveInt,
    ValidationError,
    create_model,
    model_validator,
)

from dasrec.certainty import Test
from dasrec.errors import InputError
from dasrec.metrics import METRICS, choose_metrics
from dasrec.models import MODELS, Model
from dasrec.search.space import parse_values
from dasrec.typing import BadRows, Dedupe, IdKind, TimeUnit
from dasrec.workflow.text import Path, explain, read_document

_NAME = r"^[A-Za-z0-9][A-Za-z0-9_-]*$"


class Section(BaseModel):
    """A part of a workflow: what it does not know it refuses, and types are what they are."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, protected_namespaces=())


class Columns(Section):
    """How the log calls its columns, as :func:`dasrec.read_events` takes them."""

    user: str
    item: str
    value: str | None = None
    timestamp: str | None = None


class Log(Section):
    """Which files are read, and whether they replace or extend the store.

    Attributes
    ----------
    source : path, URL, glob or folder, or a list of them
    weights : what types of events in the value column weigh
    how : "replace" writes the store anew from all files when one of them has changed; "append" adds
        those that it has not had
    batch : so many files are appended at a time; all if not given
    compact : a store of more parts than this is rewritten as one
    """

    source: str | list[str]
    columns: Columns
    weights: dict[str, float] | None = None
    ids: IdKind | dict[str, IdKind] = "auto"
    timestamp_unit: TimeUnit = "s"
    how: Literal["replace", "append"] = "replace"
    batch: PositiveInt | None = None
    compact: PositiveInt = 16

    @model_validator(mode="after")
    def _fits(self) -> Log:
        if self.weights and not self.columns.value:
            msg = "weights are given without columns.value; expected the column of event types"
            raise InputError(msg)
        if self.batch and self.how != "append":
            msg = "batch is given for how: replace, which reads all at once; expected how: append"
            raise InputError(msg)
        return self


class Clean(Section):
    """The rules of :func:`dasrec.clean`, of ``within``, ``by_session`` and ``pseudonymise``."""

    bad_rows: BadRows = "error"
    dedupe: Dedupe = "last"
    min_user: PositiveInt = 1
    min_item: PositiveInt = 1
    value_range: Annotated[list[float], Field(min_length=2, max_length=2)] | None = None
    max_user: int | float | None = None
    since: str | None = None
    until: str | None = None
    session_gap: str | None = None
    key_env: str | None = None


class Search(Section):
    """The parameters that :func:`dasrec.search` looks for, on the validation part of the split."""

    space: dict[str, str | list[Any]] = Field(min_length=1)
    metric: str = "ndcg@10"
    strategy: str = "halving"
    budget: PositiveInt | None = None
    users: float | None = None

    @model_validator(mode="after")
    def _fits(self) -> Search:
        for values in self.space.values():
            parse_values(values)
        return self


class Fit(Section):
    """How a model is fitted; each kind of model adds the parameters that it has.

    Attributes
    ----------
    model : one of :data:`dasrec.models.MODELS`, or its class
    whole : whether the model that is promoted is fitted once more, on the whole log
    warm : iterations from the promoted model on, instead of ``iterations`` from nothing
    checkpoint_every : as :class:`dasrec.Training`
    """

    model: str
    whole: bool = True
    warm: PositiveInt | None = None
    checkpoint_every: float | str | None = None

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters of the model."""
        return self.model_dump(exclude=set(Fit.model_fields))

    def make(self, seed: int, **best: Any) -> Model:
        """Return the model, not fitted."""
        kind = MODELS[_KIND_OF[self.model]]
        seeded = {"rng": seed} if "rng" in kind().get_params() else {}
        return kind(**{**self.parameters, **best}, **seeded)

    @model_validator(mode="after")
    def _in_range(self) -> Fit:
        model = self.make(0)
        model._check()
        if self.warm and not model.stepwise:
            msg = f"warm is given for {model.name}, which has no iterations; leave it out"
            raise InputError(msg)
        return self


class Evaluate(Section):
    """What is measured on the test part, as by :func:`dasrec.evaluate`."""

    n: PositiveInt | list[PositiveInt] = 10
    metrics: list[str] | None = None


class Promote(Section):
    """When a model takes the place of the last one, by :func:`dasrec.compare`.

    Attributes
    ----------
    when : "better", or "always"
    metric : a mean over users
    gain : the difference in it must be larger
    p : the difference must be as unlikely by chance; not asked for if not given
    test : as :func:`dasrec.compare`
    """

    when: Literal["better", "always"] = "better"
    metric: str = "ndcg@10"
    gain: float = 0.0
    p: Annotated[float, Field(gt=0, le=1)] | None = None
    test: Test = "randomisation"

    @property
    def measure(self) -> tuple[str, int]:
        """The metric and the length of its lists."""
        name, _, n = self.metric.partition("@")
        return name, int(n or 10)

    @model_validator(mode="after")
    def _fits(self) -> Promote:
        name, _, n = self.metric.partition("@")
        means = {key for key, each in METRICS.items() if each.values and each.kind == "ranking"}
        if name not in means or not n.isdecimal() or not int(n):
            known = ", ".join(f"{key}@10" for key in sorted(means))
            msg = f"metric {self.metric!r} is no mean over users; expected one of: {known}"
            raise InputError(msg)
        return self


class Recommend(Section):
    """How long the lists of all users are."""

    n: PositiveInt = 10


class Report(Section):
    """The page; ``titles`` is a table with the columns item_id and title."""

    titles: str | None = None


def _fit_of(name: str) -> type[Fit]:
    """Make the section of a kind of model from the signature of its constructor."""
    kind = MODELS[name]
    hints = get_type_hints(kind.__init__)
    fields: dict[str, Any] = {
        each.name: (hints[each.name], each.default)
        for each in inspect.signature(kind).parameters.values()
        if each.name != "rng"  # seed is for the whole workflow
    }
    fields["model"] = (Literal[name, kind.__name__], ...)
    made: type[Fit] = create_model(f"{kind.__name__}Fit", __base__=Fit, **fields)
    return made


_KIND_OF = {spelling: name for name, kind in MODELS.items() for spelling in (name, kind.__name__)}
_FITS = {name: _fit_of(name) for name in MODELS}
if TYPE_CHECKING:
    AnyFit = Fit
else:
    AnyFit = Annotated[reduce(or_, _FITS.values()), Field(discriminator="model")]


class Workflow(Section):
    """A workflow: what ``dasrec run`` does from a log to lists. docs/workflows.md explains it."""

    name: Annotated[str, Field(pattern=_NAME)]
    place: str
    cluster: str | dict[str, Any] = "threads"
    seed: Annotated[int, Field(ge=0)] = 0
    memory: str | int | None = None
    keep: PositiveInt = 2
    log: Log
    clean: Clean = Clean()
    split: str
    search: Search | None = None
    fit: AnyFit
    evaluate: Evaluate = Evaluate()
    promote: Promote = Promote()
    recommend: Recommend | None = None
    report: Report | None = None

    @model_validator(mode="after")
    def _fits(self) -> Workflow:
        if self.search and "," not in self.split:
            msg = (
                f"split is {self.split!r} and there is a search; expected a validation part for it "
                "too: time:0.2,time:0.2"
            )
            raise InputError(msg)
        if self.evaluate.metrics is not None:
            scaled = MODELS[_KIND_OF[self.fit.model]].predicts_values
            choose_metrics(self.evaluate.metrics, predicts_values=scaled)
        return self


def read_workflow(path: str, changes: Sequence[str] = ()) -> Workflow:
    """Read a workflow from a YAML file and check it.

    Parameters
    ----------
    path : path or fsspec URL
    changes : texts like ``fit.factors=64``
        They are checked like the text.

    Raises
    ------
    InputError
        A line for each fault, with line and column: what is given and what is expected.
    """
    document = read_document(path, changes)
    try:
        return Workflow.model_validate(document.content)
    except ValidationError as error:
        msg = explain(document, error, known=_names)
        raise InputError(msg) from error


def _names(path: Path) -> list[str]:
    """Return what the section at one of pydantic's locations may have."""
    section: Any = Workflow
    for part in path:
        if part in _KIND_OF:
            section = _FITS[_KIND_OF[part]]
        elif part in section.model_fields:
            given = section.model_fields[part].annotation
            kinds = [each for each in (given, *get_args(given)) if inspect.isclass(each)]
            section = next((each for each in kinds if issubclass(each, Section)), section)
    return list(section.model_fields)
