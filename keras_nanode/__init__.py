"""Keras layers for neural ODEs whose weights are learned functions of time."""

try:
    import keras as _keras  # noqa: F401
except ModuleNotFoundError as error:
    if error.name not in ("tensorflow", "jax", "torch"):
        raise
    raise ImportError(
        f"Keras is set to run on {error.name}, which is not installed. Install it with "
        f'`pip install "./keras_nanode[{error.name}]"`, where ./keras_nanode is the '
        "path of a clone or an archive of it, or set the environment variable "
        'KERAS_BACKEND to "tensorflow", "jax" or "torch", whichever is. '
        f"Received: no module {error.name!r}"
    ) from error

from keras_nanode import bases, callbacks, datasets, layers, metrics, models, visualize
from keras_nanode.adjoints import Checkpoint
from keras_nanode.backend._autograph import leave_unconverted as _leave_unconverted
from keras_nanode.fields.signal import Signal
from keras_nanode.odeint import odeint
from keras_nanode.solvers import Reversible
from keras_nanode.stepping import Adaptive

__version__ = "0.1.0"

__all__ = [
    "Adaptive",
    "Checkpoint",
    "Reversible",
    "Signal",
    "bases",
    "callbacks",
    "datasets",
    "layers",
    "metrics",
    "models",
    "odeint",
    "visualize",
]

_leave_unconverted(__name__)
