"""Metrics of predicted videos: PSNR, SSIM, best of n samples, Frechet distance."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_nanode import backend, checks

# Wang et al. 2004, for values in [0, 1].
_WINDOW, _SIGMA = 11, 1.5
_C1, _C2 = 0.01**2, 0.03**2


def psnr(a: Any, b: Any) -> Any:
    """The peak signal-to-noise ratio of frames in dB, -10 log10 of the squared error.

    The squared error is averaged over height and width, then the ratio over channels,
    as in SRVP's protocol. For colour frames, `tf.image.psnr` gives another value.

    Args:
        a, b: Frames with values in [0, 1], (..., height, width, channels). Leading
            axes are broadcast.

    Returns:
        A float32 tensor (...), infinite for equal frames.

    Raises:
        ValueError: if the frames differ in shape, or are not floating.

    Example:

    >>> import numpy as np
    >>> from keras_nanode import metrics
    >>> black, grey = np.zeros((4, 4, 1)), np.full((4, 4, 1), 0.1)
    >>> round(float(metrics.psnr(black, grey)), 3)
    20.0
    """
    a, b = _frames(a, b)
    error = ops.mean((a - b) ** 2, axis=(-3, -2))
    return ops.mean(-10 * ops.log10(error), axis=-1)


def ssim(a: Any, b: Any) -> Any:
    """The structural similarity of frames, 1 for equal ones.

    The window is Gaussian, of 11x11 pixels with a standard deviation of 1.5, without
    padding. The result is the mean over all places and channels, and equals that of
    `tf.image.ssim` with `max_val=1`.

    Args:
        a, b: Frames with values in [0, 1], (..., height, width, channels), of at
            least 11x11 pixels. Leading axes are broadcast.

    Returns:
        A float32 tensor (...).

    Raises:
        ValueError: if the frames differ in shape, are not floating, or are too small.

    Example:

    >>> import numpy as np
    >>> from keras_nanode import metrics
    >>> frame = np.eye(16)[:, :, None]
    >>> round(float(metrics.ssim(frame, frame)), 4)
    1.0

    References:
        - [Wang et al., 2004](https://doi.org/10.1109/TIP.2003.819861)
    """
    a, b = _frames(a, b)
    height, width, _ = a.shape[-3:]
    if min(height, width) < _WINDOW:
        raise ValueError(
            f"SSIM's window has {_WINDOW}x{_WINDOW} pixels, and the frames must have "
            f"as many. Received: frames of {height}x{width}"
        )
    rows, columns = (ops.convert_to_tensor(_blur(n)) for n in (height, width))

    def mean(x):
        # The shape is (..., channels, rows, columns). Do not use `@` with broadcasting:
        # on TensorFlow 2.21 it corrupted the heap at this rank.
        return ops.tensordot(ops.tensordot(x, rows, [[-3], [1]]), columns, [[-3], [1]])

    mean_a, mean_b = mean(a), mean(b)
    products, squares = mean_a * mean_b, mean_a**2 + mean_b**2
    covariance = mean(a * b) - products
    variances = mean(a**2 + b**2) - squares
    luminance = (2 * products + _C1) / (squares + _C1)
    structure = (2 * covariance + _C2) / (variances + _C2)
    return ops.mean(luminance * structure, axis=(-3, -2, -1))


def _blur(size):
    """The matrix that computes the windows' means of a row of `size` pixels."""
    window = np.exp(-0.5 * ((np.arange(_WINDOW) - _WINDOW // 2) / _SIGMA) ** 2)
    window /= window.sum()
    rows = [np.pad(window, (i, size - _WINDOW - i)) for i in range(size - _WINDOW + 1)]
    return np.stack(rows).astype("float32")


def _frames(a, b):
    a, b = checks.tensor("a", a), checks.tensor("b", b)
    few = min(len(a.shape), len(b.shape)) < 3
    if few or a.shape[-3:] != b.shape[-3:] or not _go_together(a.shape, b.shape):
        raise ValueError(
            "`a` and `b` must be frames of one shape (..., height, width, channels), "
            "with leading axes that can be broadcast. "
            f"Received: a with shape {tuple(a.shape)}, b with shape {tuple(b.shape)}"
        )
    dtypes = [keras.backend.standardize_dtype(x.dtype) for x in (a, b)]
    if not all(map(keras.backend.is_float_dtype, dtypes)):
        raise ValueError(
            "`a` and `b` must be floating frames, in [0, 1]. Divide bytes by 255. "
            f"Received: a with dtype={dtypes[0]}, b with dtype={dtypes[1]}"
        )
    for name, x in (("a", a), ("b", b)):
        _check_range(name, x)
    return ops.cast(a, "float32"), ops.cast(b, "float32")


def _go_together(shape, other):
    """Whether two shapes can be broadcast and no axis is empty. Unknown axes may."""
    pairs = zip(reversed(shape), reversed(other), strict=False)
    equal = all(m == n or None in (m, n) or 1 in (m, n) for m, n in pairs)
    return equal and 0 not in (*shape, *other)


# A prediction may pass the ends of [0, 1]. Frames in [-1, 1] and bytes pass by far.
_BEYOND = 0.5


def _check_range(name, x):
    # NaN is no error: it is seen in the result.
    outside = ops.any((x < -_BEYOND) | (x > 1 + _BEYOND))
    symbolic = isinstance(outside, keras.KerasTensor) or backend.is_shape(outside)
    if not symbolic and backend.is_known(outside) and bool(outside):
        low, high = float(ops.min(x)), float(ops.max(x))
        raise ValueError(
            f"`{name}` must be frames with values in [0, 1]. Divide bytes by 255. "
            f"Received: {name} in [{low:g}, {high:g}]"
        )


@dataclass(frozen=True)
class BestSample:
    """The best sample of each video by a metric.

    Attributes:
        values: The metric of its frames, (batch, time).
        index: The index of the sample, (batch,).
    """

    values: np.ndarray
    index: np.ndarray


def best_of(
    metric: Callable, videos: Any, samples: Any, mode: str = "max"
) -> BestSample:
    """Finds for each video the sample with the best mean of `metric` over time.

    SRVP's protocol takes the best of 100 samples by PSNR, and separately the best by
    SSIM. It uses only predicted frames.

    Args:
        metric: `psnr`, `ssim`, or your own function, such as LPIPS with your network.
            It takes two tensors (..., height, width, channels) and gives (...).
        videos: The true videos, (batch, time, height, width, channels).
        samples: (batch, num_samples, time, height, width, channels).
        mode: `"max"` if a large metric is good, `"min"` if a small one is.

    Returns:
        A `BestSample`. `values.mean()` is the number to report, and
        `values.mean(axis=0)` is the curve over time.

    Raises:
        ValueError: if the shapes do not match, `mode` is unknown, or the metric is NaN
            for all samples of a video. Otherwise a sample with NaN is never the best.

    Example:

    >>> import numpy as np
    >>> from keras_nanode import metrics
    >>> videos = np.zeros((1, 3, 16, 16, 1))
    >>> samples = np.stack([videos + 0.2, videos + 0.1], axis=1)
    >>> metrics.best_of(metrics.psnr, videos, samples).index.tolist()
    [1]

    References:
        - [Franceschi et al., 2020](https://arxiv.org/abs/2002.09219)
    """
    checks.function("metric", metric)
    checks.one_of("mode", mode, ("max", "min"))
    shape, of_samples = (
        tuple(checks.tensor(name, x).shape)
        for name, x in (("videos", videos), ("samples", samples))
    )
    fits = of_samples == (*shape[:1], *of_samples[1:2], *shape[1:])
    if len(shape) != 5 or not fits or 0 in of_samples:
        raise ValueError(
            "`samples` must have the shape (batch, num_samples, time, height, width, "
            "channels) for `videos` of shape (batch, time, height, width, channels). "
            f"Received: samples with shape {of_samples}, videos with shape {shape}"
        )
    # Take one sample at a time: the metric's intermediates are as large as its input.
    values = np.stack(
        [
            _of_frames(metric(videos, samples[:, i]), shape)
            for i in range(of_samples[1])
        ],
        axis=1,
    )
    sign = 1 if mode == "max" else -1
    means = sign * values.mean(axis=2)
    unknown = np.isnan(means)
    if unknown.all(axis=1).any():
        raise ValueError(
            "`metric` is NaN for every sample of a video. Look for NaN in `videos` and "
            f"`samples`. Received: videos {np.flatnonzero(unknown.all(axis=1))}"
        )
    # A sample that is NaN is never the best.
    index = np.where(unknown, -np.inf, means).argmax(axis=1)
    return BestSample(values[np.arange(len(index)), index], index)


def _of_frames(values, shape):
    """What a metric gives for videos of a shape, as an array."""
    found = np.asarray(ops.convert_to_numpy(values))
    if found.shape != shape[:2] or found.dtype.kind not in "iuf":
        raise ValueError(
            "`metric` must give a number for each frame, (batch, time) for videos of "
            f"shape {shape}. Received: shape {found.shape}, dtype {found.dtype}"
        )
    return found


def frechet_distance(videos: Any, generated: Any, features: Callable) -> float:
    """The Frechet distance between Gaussians fitted to the features of two sets.

    |m - m'|^2 + tr(S + S' - 2 (S S')^(1/2)), with the means m and covariances S of the
    features. With an I3D network trained on Kinetics-400 this is FVD. For FVD, take one
    sample of each video, together with its context. The library contains no network.

    Args:
        videos, generated: Inputs of `features`, each of at least two videos.
        features: Your network, a function that gives a row of features for each video,
            (batch, n), such as the `predict` of a model.

    Returns:
        A number of at least 0.

    Raises:
        ValueError: if `features` is not a function, does not give rows of equal
            lengths, or gives fewer than 2 rows for one of the sets.

    Example:

    >>> import numpy as np
    >>> from keras_nanode import metrics
    >>> videos = np.random.default_rng(0).random((8, 3, 16, 16, 1))
    >>> colours = lambda x: x.mean(axis=(1, 2, 3))
    >>> round(metrics.frechet_distance(videos, videos + 0.5, colours), 4)
    0.25

    References:
        - [Unterthiner et al., 2018](https://arxiv.org/abs/1812.01717)
    """
    checks.function("features", features)
    a, b = (
        checks.array("features", ops.convert_to_numpy(features(x)), "real numbers")
        for x in (videos, generated)
    )
    shapes = {x.ndim for x in (a, b)} == {2} and a.shape[1] == b.shape[1] > 0
    finite = np.isfinite(a).all() and np.isfinite(b).all()
    if not shapes or min(len(a), len(b)) < 2 or not finite:
        raise ValueError(
            "`features` must give finite numbers, (batch, n), for both sets, of two "
            f"videos at least. Received: features of shapes {a.shape} and {b.shape}"
            f"{'' if finite else ', with NaN or infinity'}"
        )
    covariance_a, covariance_b = (np.atleast_2d(np.cov(x.T)) for x in (a, b))
    root = _square_root(covariance_a)
    cross = np.linalg.eigvalsh(root @ covariance_b @ root)
    variance = np.trace(covariance_a) + np.trace(covariance_b)
    distance = variance - 2 * np.sqrt(np.maximum(cross, 0)).sum()
    return float(np.sum((a.mean(0) - b.mean(0)) ** 2) + max(distance, 0.0))


def _square_root(covariance):
    values, vectors = np.linalg.eigh(covariance)
    return (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T


__all__ = ["BestSample", "best_of", "frechet_distance", "psnr", "ssim"]
