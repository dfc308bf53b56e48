"""Checks of the video model's arguments and inputs, before anything is computed."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
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
    given = tuple(x.shape) if hasattr(x, "shape") else None
    if given is None or len(given) != 5 or given[2:] != shape:
        found = checks.shown(name, x) if given is None else f"{name} with shape {given}"
        raise ValueError(
            f"`{name}` must have the shape (batch, time, height, width, channels), "
            f"with frames of shape {shape}, the model's `frame_shape`. "
            f"Received: {found}"
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


def keys(inputs: dict) -> None:
    if "frames" not in inputs or set(inputs) - {"frames", "actions"}:
        raise ValueError(
            "The inputs must be frames, or a dict of 'frames' and, for a model with "
            f"actions, 'actions'. Received: a dict of {tuple(inputs)}"
        )


def in_range(x):
    if isinstance(x, np.ndarray):  # as large as a data set: take no memory for it
        return bool(_inside(x.min(initial=0)) & _inside(x.max(initial=0)))
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
    given = None if given is None else checks.tensor("actions", given)
    shape = () if given is None else tuple(given.shape)
    right = len(shape) == 3 and shape[2] == dim > 0 and _agree(shape, videos.shape)
    if not right or (isinstance(time, int) and (shape[1] or time) < time):
        wanted = (
            f"`actions` must have the shape (batch, time, {dim}), with the videos' "
            "batch, the model's "
            f"`action_dim`, and a time of at least {time}: one from each frame to the "
            "next."
            if dim
            else "A model with action_dim=0 takes no `actions`."
        )
        raise ValueError(f"{wanted} Received: actions with shape {shape or None}")
    checks.no_complex("actions", given)
    return ops.cast(given[:, :time], videos.dtype)


def _agree(shape: tuple[int | None, ...], other: tuple[int | None, ...]) -> bool:
    """Whether two batches may have as many entries. Either may be unknown."""
    return None in (shape[0], other[0]) or shape[0] == other[0]


def noise(given: Any, batch: int | None, shape: tuple[int, ...]) -> Any:
    """The noise as a tensor, if it has the right shape, and finite numbers."""
    given = checks.tensor("noise", given)
    found, expected = tuple(given.shape), (batch, *shape)
    if found[1:] != shape or not _agree(found, expected):
        raise ValueError(
            "`noise` must have the shape (batch, num_samples, num_frames, latent_dim), "
            f"here ({batch or 'batch'}, {', '.join(map(str, shape))}). "
            f"Received: noise with shape {found}"
        )
    dtype = keras.backend.standardize_dtype(given.dtype)
    finite = keras.backend.is_float_dtype(dtype) and ops.all(ops.isfinite(given))
    if finite is False or (backend.is_known(finite) and not bool(finite)):
        raise ValueError(
            "`noise` must be finite floating numbers, as of a standard normal "
            f"distribution. Received: noise with dtype={dtype}"
            f"{'' if finite is False else ', with NaN or infinity'}"
        )
    return ops.cast(given, "float32")
