"""Keras layers for neural ODEs whose weights are learned functions of time."""

from keras_nanode import bases, datasets, layers, models
from keras_nanode.adjoints import Checkpoint
from keras_nanode.integrate import odeint

__version__ = "0.1.0"

__all__ = ["Checkpoint", "bases", "datasets", "layers", "models", "odeint"]
