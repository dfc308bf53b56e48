"""The arguments of the video model, checked."""

from keras_nanode import checks

# One for each resolution that the encoder sees before it pools.
_LEVELS = 4


def frame_shape(value) -> tuple[int, ...]:
    divisor = 2**_LEVELS
    expected = (
        "(height, width, channels), with a height and a width that are multiples of "
        f"{divisor}; resize or crop the frames"
    )
    shape = checks.integers("frame_shape", value, expected, 3)
    if shape[0] % divisor or shape[1] % divisor:
        raise checks.wrong("frame_shape", value, expected)
    return shape


def filters(value) -> tuple[int, ...]:
    expected = "four widths, from the highest resolution to the lowest"
    return checks.integers("filters", value, expected, _LEVELS)


def kl_weight(beta) -> float:
    return checks.number(
        "beta", beta, "a finite number of at least 0", lambda beta: beta >= 0
    )
