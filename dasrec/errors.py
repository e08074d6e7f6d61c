"""Every exception that dasrec raises on purpose, and what it warns of.

A message says what was given, what is expected and what to do about it.
"""

from __future__ import annotations


class DasrecError(Exception):
    """Base of all errors of dasrec; the command line turns it into one line and exit status 1."""


class InputError(DasrecError, ValueError):
    """An argument, a file or a row of a log is not what is expected."""


class StoreError(DasrecError):
    """A store or a saved model is missing, unfinished, damaged or of another format version."""


class MismatchError(DasrecError):
    """Two things that must belong together do not: a model and a store, a model and a split."""


class BudgetError(DasrecError):
    """The memory that a step needs is above its limit; nothing was started."""


class DiskError(DasrecError, OSError):
    """A disk is full or a server cannot be reached; what was there before is still there."""


class BusyError(DasrecError):
    """Another run is at work in the same place; the same call will do later."""


class DataUnavailableError(DasrecError):
    """A public data set is neither on this machine nor to be had from the network."""


class LeakageWarning(UserWarning):
    """What is asked for lets training know something of what is tested, as no service could."""
