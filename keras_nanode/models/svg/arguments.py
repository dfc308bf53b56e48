"""The arguments of the video model, checked."""

import math

from keras_nanode import checks

# One for each resolution that the encoder sees before it pools.
_LEVELS = 4


def frame_shape(value) -> tuple[int, ...]:
    divisor = 2**_LEVELS
    shape = tuple(checks.integer("frame_shape", n) for n in value)
    if len(shape) != 3 or shape[0] % divisor or shape[1] % divisor:
        raise ValueError(
            "`frame_shape` must be (height, width, channels), with a height and a "
            f"width that are multiples of {divisor}. Resize or crop the frames. "
            f"Received: frame_shape={value!r}"
        )
    return shape


def filters(value) -> tuple[int, ...]:
    widths = tuple(checks.integer("filters", n) for n in value)
    if len(widths) != _LEVELS:
        raise ValueError(
            "`filters` must be four widths, from the highest resolution to the lowest. "
            f"Received: filters={value!r}"
        )
    return widths


def kl_weight(beta) -> float:
    if not 0 <= beta < math.inf:
        raise ValueError(
            f"`beta` must be a finite number of at least 0. Received: beta={beta!r}"
        )
    return float(beta)
