"""The coefficients that time-varying weights start with."""

import keras
import numpy as np

from keras_nanode.bases.basis import Basis
from keras_nanode.bases.samples import combination_of_one, sample
from keras_nanode.fields.stateless import split_variables
from keras_nanode.layers.nested import Held, built_copy

STARTS = ("layer", "constant", "independent")
# Each builds a copy of the layer.
_MOST_DRAWS = 1024


def first_coefficients(
    held: Held, basis: Basis, start: str, input_shape: tuple[int | None, ...]
) -> list[np.ndarray]:
    """Of each weight of a layer, (K, *w.shape).

    Args:
        held: The layer, built, as `TimeVarying` has it.
        basis, start: As in `TimeVarying`.
        input_shape: Of the layer.
    """
    z = sample(basis)
    ones = combination_of_one(basis, z)
    if start != "independent":
        weights = held.weights
        if start == "constant" and held.is_given:
            weights, _ = split_variables(built_copy(held.layer, input_shape))
        own = map(keras.ops.convert_to_numpy, weights)
        return [np.multiply.outer(ones, w) for w in own]
    if basis.size > _MOST_DRAWS:
        raise ValueError(
            "`start='independent'` builds the layer once for each function of "
            f"`basis`, at most {_MOST_DRAWS} times. Use `start='layer'`, or "
            "fewer functions. "
            f"Received: start={start!r}, size={basis.size}"
        )
    copies = [
        built_copy(held.layer, input_shape, seed_offset=k) for k in range(basis.size)
    ]
    drawn = [split_variables(copy)[0] for copy in copies]
    draws = [map(keras.ops.convert_to_numpy, weights) for weights in drawn]
    scale = 1 / np.sqrt(np.mean(np.sum(z**2, axis=1)))
    stacked = [np.stack(slices) for slices in zip(*draws, strict=True)]
    return [
        scale * w if np.ptp(w, axis=0).any() else np.multiply.outer(ones, w[0])
        for w in stacked
    ]
