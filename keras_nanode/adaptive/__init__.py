"""Adaptive steps: an embedded pair's error estimate chooses the length of each.

Time runs as the distance from the first time, so that a step is never too small for
the rounding of a large t0.
"""

from keras_nanode.adaptive import bdf
from keras_nanode.adaptive.argument import get_steps, serialize_steps
from keras_nanode.adaptive.control import Adaptive, Status
from keras_nanode.adaptive.keep import Doubling, Squares
from keras_nanode.adaptive.march import integrals, march
from keras_nanode.adaptive.record import nan_where, outcome, record, spoil

__all__ = [
    "Adaptive",
    "Doubling",
    "Squares",
    "Status",
    "bdf",
    "get_steps",
    "integrals",
    "march",
    "nan_where",
    "outcome",
    "record",
    "serialize_steps",
    "spoil",
]
