"""Gradients of a solve. Each adjoint wraps `solve` and decides what to keep of it."""

import keras

from keras_nanode import checks
from keras_nanode.adjoints.adjoint import Adjoint
from keras_nanode.adjoints.backsolve import Backsolve
from keras_nanode.adjoints.checkpoint import Checkpoint
from keras_nanode.adjoints.direct import Direct
from keras_nanode.adjoints.reversible import ReversibleAdjoint

ALL: dict[str, Adjoint] = {
    "checkpoint": Checkpoint(),
    "reversible": ReversibleAdjoint(),
    "backsolve": Backsolve(),
    "direct": Direct(),
}
AdjointLike = str | Adjoint

# The names in other libraries, for suggestions.
_OTHER_NAMES = {
    "recursivecheckpointadjoint": "checkpoint",
    **dict.fromkeys(("continuous", "backsolveadjoint", "adjoint"), "backsolve"),
    "interpolated_adjoint": "backsolve",
    **dict.fromkeys(("reversibleadjoint", "mali"), "reversible"),
    **dict.fromkeys(("directadjoint", "backprop", "autodiff", "autograd"), "direct"),
}


def get(adjoint: AdjointLike | dict) -> Adjoint:
    """The adjoint for a name. An adjoint is returned as it is.

    Args:
        adjoint: One of the names in `ALL`, or `Checkpoint(num)`.

    Raises:
        ValueError: if the adjoint is unknown.
    """
    adjoint = checks.configured("adjoint", adjoint)
    if isinstance(adjoint, Adjoint):
        return adjoint
    name = checks.one_of(
        "adjoint", adjoint, ALL, "`keras_nanode.Checkpoint(num)`", _OTHER_NAMES
    )
    return ALL[name]


def serialize(adjoint: Adjoint) -> str | dict:
    """What `get` can read: the name if it has one, else the configuration."""
    for name, known in ALL.items():
        if adjoint == known:
            return name
    return keras.saving.serialize_keras_object(adjoint)


__all__ = ["ALL", "Adjoint", "AdjointLike", "Checkpoint", "get", "serialize"]
