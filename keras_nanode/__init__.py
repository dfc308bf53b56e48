"""Keras layers for neural ODEs whose weights are learned functions of time."""

from keras_nanode import bases, callbacks, datasets, layers, metrics, models
from keras_nanode.adaptive import Adaptive
from keras_nanode.adjoints import Checkpoint
from keras_nanode.integrate import odeint
from keras_nanode.solvers import Reversible

__version__ = "0.1.0"

__all__ = [
    "Adaptive",
    "Checkpoint",
    "Reversible",
    "bases",
    "callbacks",
    "datasets",
    "layers",
    "metrics",
    "models",
    "odeint",
]
