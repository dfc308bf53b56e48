"""The arguments of the video model, checked."""

from keras_nanode import bases, checks

# One for each resolution that the encoder sees before it pools.
_LEVELS = 4

# The default basis of each block whose weights depend on time.
BASES: dict[str, bases.Basis] = {
    "trig": bases.Trigonometric(3),
    "bucket": bases.Bucket(3),
    "poly": bases.Polynomial(3),
    "cosine": bases.Cosine(3),
}

_PRESETS: dict[str, dict] = {
    "paper": {"filters": (16, 32, 64, 128), "feature_dim": 64, "rnn_units": 48},
    "original": {"layout": "original", "normalization": "batch"},
}


def preset(name) -> dict:
    """The arguments that a preset stands for."""
    return _PRESETS[checks.one_of("preset", name, _PRESETS)]


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
