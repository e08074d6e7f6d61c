"""Recommendations from interaction logs that do not fit in memory, on Dask and Zarr.

The public names stand in ``__init__.pyi``; what each needs is imported when it is first used.
"""

import copyreg
import importlib
import sys

import lazy_loader

from dasrec.memory import share_heap

__version__ = "0.1.0"

share_heap()  # before threads are started that would have heaps of their own

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

# lazy_loader gives the package a class of its own, and functions that travel to workers take along
# what they name: it goes as any module does, by its name
copyreg.pickle(type(sys.modules[__name__]), lambda it: (importlib.import_module, (it.__name__,)))
