"""What a cluster is asked for by: a word, an address, or a mapping that a YAML file can hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import dask.utils
import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PositiveInt,
    ValidationError,
)

from dasrec import files
from dasrec.errors import InputError

LEAST_TCP_TIMEOUT = 11
"""Seconds: below, each TCP connection of distributed fails on an assertion."""

TCP_TIMEOUT = "12s"
"""After which a silent host is given up; 30 s by default."""


def _size(value: object) -> object:
    """Return bytes of what people write; numbers and None as they are."""
    return dask.utils.parse_bytes(value) if isinstance(value, str) else value


def _address(value: str) -> str:
    if "://" not in value:
        msg = "an address is like tcp://host:8786"
        raise ValueError(msg)
    return value


Size = Annotated[PositiveInt, BeforeValidator(_size)]


class Spec(BaseModel):
    """What all kinds have in common."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Threads(Spec):
    """Threads of this process."""

    kind: Literal["threads"]


class Workers(Spec):
    """Worker processes that we start.

    Parameters
    ----------
    workers : how many; of SSH on each host
    threads : of each worker
    memory : bytes that each may hold, or text like "1GiB"; by default its share of the machine
    spill : folder of this name on each host for what does not fit in memory
    """

    workers: PositiveInt = 1
    threads: PositiveInt | None = None
    memory: Size | None = None
    spill: str | None = None


class Local(Workers):
    """Processes of this machine."""

    kind: Literal["local"]


class Scheduler(Spec):
    """A scheduler that runs already."""

    kind: Literal["scheduler"]
    address: Annotated[str, AfterValidator(_address)]


class Ssh(Workers):
    """Hosts that are reached by SSH: the scheduler on the first, workers on the others.

    Parameters
    ----------
    hosts : names or addresses; one that stands twice has both
    python : path of Python there; by default that of here
    connect : options of ``asyncssh.connect``, for instance ``{username: me}``
    """

    kind: Literal["ssh"]
    hosts: Annotated[list[str], Field(min_length=2)]
    python: str | None = None
    connect: dict[str, Any] = {}


class Kubernetes(Workers):
    """Pods that the operator of dask-kubernetes makes.

    Parameters
    ----------
    name : of the cluster; a part is appended, so that it is new
    namespace : by default that of the pod that we are in, or of the context of kubectl
    image : which holds dasrec, for scheduler and workers
    workers, threads, memory : of each pod; the memory is its limit
    resources : requests and limits of a worker pod, instead of what threads and memory say
    volumes : names of claims, by the folder where all pods see them, like {"/data": "claim"}
    env : further environment variables of all pods
    spec : a whole DaskCluster as a mapping, instead of one made of all this
    tries : how many clusters are begun while one does not come up
    patience : seconds for which one may take to come up, pulling images included
    """

    kind: Literal["kubernetes"]
    name: Annotated[str, Field(pattern=r"^[a-z]([-a-z0-9]*[a-z0-9])?$", max_length=40)] = "dasrec"
    namespace: str | None = None
    image: str | None = None
    resources: dict[Literal["requests", "limits"], dict[str, str]] | None = None
    volumes: dict[Annotated[str, Field(pattern="^/.")], str] = {}
    env: dict[str, str] = {}
    spec: dict[str, Any] | None = None
    tries: PositiveInt = 3
    patience: PositiveInt = 300


class Manager(Spec):
    """Any cluster manager; what else is given goes to its constructor.

    Parameters
    ----------
    kind : dotted name of the class, for instance "dask_jobqueue.SLURMCluster"
    workers : to how many it is scaled
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    kind: Annotated[str, Field(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)+$")]
    workers: PositiveInt | None = None


KINDS: dict[str, type[Spec]] = {
    "threads": Threads,
    "local": Local,
    "scheduler": Scheduler,
    "kubernetes": Kubernetes,
    "ssh": Ssh,
}
EXPECTED = (
    "threads, processes:N, an address like tcp://host:8786, a file that ends in .yaml, or a mapping"
)


def parse(given: str | Mapping[str, Any]) -> Spec:
    """Return what is asked for, checked.

    Raises
    ------
    InputError
        It names no kind of cluster, or a field is missing, unknown or of the wrong type.
    """
    if isinstance(given, str):
        return _from_text(given)
    mapping: object = given  # annotations do not stop a caller
    if not isinstance(mapping, Mapping):
        msg = f"cluster is {given!r}; expected {EXPECTED}"
        raise InputError(msg)
    kind = given.get("kind")
    model = KINDS.get(str(kind), Manager if "." in str(kind) else None)
    if model is None:
        msg = f"cluster has kind {kind!r}; expected one of {', '.join(KINDS)}, or a dotted name"
        raise InputError(msg)
    try:
        return model.model_validate(dict(given))
    except ValidationError as error:
        raise InputError(_told(str(kind), model, error)) from error


def _from_text(text: str) -> Spec:
    kind, _, n = text.partition(":")
    if text == "threads":
        return Threads(kind="threads")
    if kind == "processes" and n.isdecimal() and int(n) > 0:
        return Local(kind="local", workers=int(n))
    if text.endswith((".yaml", ".yml")):
        return _from_file(text)
    if "://" in text:
        return Scheduler(kind="scheduler", address=text)
    msg = f"cluster is {text!r}; expected {EXPECTED}"
    raise InputError(msg)


def _from_file(path: str) -> Spec:
    try:
        given = yaml.safe_load(files.read_bytes(path))
    except FileNotFoundError as error:
        msg = f"{path} is not there; expected a YAML file that describes a cluster"
        raise InputError(msg) from error
    except yaml.YAMLError as error:
        msg = f"{path} is no YAML: {error}"
        raise InputError(msg) from error
    if not isinstance(given, Mapping):
        msg = f"{path} holds {type(given).__name__}; expected a mapping with a kind"
        raise InputError(msg)
    return parse(given)


def _told(kind: str, model: type[Spec], error: ValidationError) -> str:
    """Say in one line what is wrong with which fields, and which there are; no values.

    Values may be credentials.
    """
    faults = "; ".join(
        f"{'.'.join(map(str, each['loc'])) or 'it'}: {each['msg']}" for each in error.errors()
    )
    return f"cluster of kind {kind} cannot be used: {faults}. It takes: {_fields(model)}"


def _fields(model: type[Spec]) -> str:
    return ", ".join(name for name in model.model_fields if name != "kind")
