"""Checks of the video model's arguments and inputs, before anything is computed."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_nanode import backend, bases, checks
from keras_nanode.structures import nan_where

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


def preset(name: str) -> dict:
    """The arguments that a preset stands for."""
    return _PRESETS[checks.one_of("preset", name, _PRESETS)]


def frame_shape(value: Sequence[int]) -> tuple[int, ...]:
    divisor = 2**_LEVELS
    expected = (
        "(height, width, channels), with a height and a width that are multiples of "
        f"{divisor}; resize or crop the frames"
    )
    shape = checks.integers("frame_shape", value, expected, 3)
    if shape[0] % divisor or shape[1] % divisor:
        raise checks.wrong("frame_shape", value, expected)
    return shape


def filters(value: Sequence[int]) -> tuple[int, ...]:
    expected = "four widths, from the highest resolution to the lowest"
    return checks.integers("filters", value, expected, _LEVELS)


def kl_weight(beta: float) -> float:
    return checks.number(
        "beta", beta, "a finite number of at least 0", lambda beta: beta >= 0
    )


# Allows for rounding by resizing and low precision.
_TOLERANCE = 1e-2


def frames(name: str, x: Any, shape: tuple[int, ...], least: int) -> None:
    """Checks videos: their axes, their dtype and, if it is known, their range."""
    given = tuple(x.shape)
    if len(given) != 5 or given[2:] != shape:
        raise ValueError(
            f"`{name}` must have the shape (batch, time, height, width, channels), "
            f"with frames of shape {shape}, the model's `frame_shape`. "
            f"Received: {name} with shape {given}"
        )
    if given[1] is not None and given[1] < least:
        raise ValueError(
            f"`{name}` must have at least {least} frames. "
            f"Received: {name} with {given[1]} frames (shape {given})"
        )
    dtype = keras.backend.standardize_dtype(x.dtype)
    if not keras.backend.is_float_dtype(dtype):
        raise ValueError(
            f"`{name}` must be floating, in [0, 1]. Divide bytes by 255, for example "
            f"with `keras.ops.cast({name}, 'float32') / 255`. "
            f"Received: {name} with dtype={dtype}"
        )
    inside = in_range(x)
    if backend.is_known(inside) and not bool(inside):
        low, high = float(ops.min(x)), float(ops.max(x))
        raise ValueError(
            f"{range_message(name)} Received: {name} in [{low:g}, {high:g}]"
        )


def in_range(x):
    return ops.all(_inside(x))


def nan_for_bad(outputs, videos):
    """The outputs, (batch, ...), with NaN for each video that is out of range: a
    compiled function cannot refuse it."""
    inside = ops.all(_inside(videos), axis=tuple(range(1, len(videos.shape))))
    inside = ops.reshape(inside, (-1, *(1,) * (len(outputs.shape) - 1)))
    return outputs * nan_where(~inside, outputs.dtype)


def _inside(x):
    return (x >= -_TOLERANCE) & (x <= 1 + _TOLERANCE)


def range_message(name: str) -> str:
    return f"`{name}` must be in [0, 1]. Divide bytes by 255."


def actions(given: Any, dim: int, videos: Any, time: Any) -> Any:
    """The first `time` actions of `videos`, with size 0 for a model without actions."""
    if given is None and not dim:
        return ops.zeros((ops.shape(videos)[0], time, 0), videos.dtype)
    given = None if given is None else ops.convert_to_tensor(given)
    shape = () if given is None else tuple(given.shape)
    right = len(shape) == 3 and shape[2] == dim > 0
    if not right or (isinstance(time, int) and (shape[1] or time) < time):
        wanted = (
            f"`actions` must have the shape (batch, time, {dim}), with the model's "
            f"`action_dim`, and a time of at least {time}: one from each frame to the "
            "next."
            if dim
            else "A model with action_dim=0 takes no `actions`."
        )
        raise ValueError(f"{wanted} Received: actions with shape {shape or None}")
    return ops.cast(given[:, :time], videos.dtype)


def noise(given: Any, shape: tuple[int, ...]) -> Any:
    """The noise as a tensor, if it has the right shape."""
    given = ops.cast(ops.convert_to_tensor(given), "float32")
    if tuple(given.shape)[1:] != shape:
        raise ValueError(
            "`noise` must have the shape (batch, num_samples, num_frames, latent_dim), "
            f"here (batch, {', '.join(map(str, shape))}). "
            f"Received: noise with shape {tuple(given.shape)}"
        )
    return given
