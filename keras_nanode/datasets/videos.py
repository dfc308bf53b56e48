"""Video datasets."""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

from keras_nanode import checks
from keras_nanode.datasets import clips, epochs, moving
from keras_nanode.datasets.batches import batches, starting_at
from keras_nanode.datasets.epochs import Batches
from keras_nanode.datasets.sources import (
    PathLike,
    Source,
    load_clips,
    load_digits,
    load_tfds,
    load_tfds_clips,
)


class VideoDataset(NamedTuple):
    """A training and a test set of videos.

    Both sets give batches of float32 frames in `[0, 1]` with shape
    `(batch, frames, height, width, channels)`, for `model.fit(data.train)` without
    targets. As in `ImageDataset`, they are `tf.data.Dataset`s or `PyDataset`s. (Clips
    that TFDS streams come from `tf.data` on every backend.) With actions, an element
    is a dict of `"frames"` and `"actions"`, float32 `(batch, frames, action_dim)`.
    Action `t` leads from frame `t` to the next. The last batch of an epoch may be
    smaller. The training set shuffles itself, and `shuffle` of `model.fit` changes
    nothing.

    The videos of an epoch and their order depend only on the seed and the epoch's
    number, as in `ImageDataset`.

    Attributes:
        train: Batches, `train_from(0)`: each iteration is the next epoch,
            shuffled anew.
        test: Batches, the same in every epoch and for every seed.
        frame_shape: Tuple of three integers, `(height, width, channels)`.
        train_from: Function of a non-negative integer `epoch`, to the training set
            whose first iteration is that epoch, counted from 0.
    """

    train: Batches
    test: Batches
    frame_shape: tuple[int, int, int]
    train_from: Callable[[int], Batches]


def moving_digits(
    batch_size: int = 16,
    num_frames: int = 12,
    frame_size: int = 32,
    digit_size: int | None = None,
    num_digits: int = 2,
    stochastic: bool = False,
    train_videos: int = 10_000,
    test_videos: int = 1_000,
    seed: int = 0,
) -> VideoDataset:
    """Scikit-learn's digits, scaled up and moving, without a download.

    Like `moving_mnist`, but with 1,437 digits of 8x8 pixels for training and 360 for
    the test.

    Args:
        batch_size, num_frames, frame_size, digit_size, num_digits, stochastic,
        train_videos, test_videos, seed: As in `moving_mnist`.

    Returns:
        A `VideoDataset` with `frame_shape` `(frame_size, frame_size, 1)`.

    Raises:
        ValueError: If an argument is out of its range.
        ImportError: If scikit-learn is not installed.

    Example:

    >>> from keras_nanode import datasets
    >>> data = datasets.moving_digits(batch_size=8, num_frames=5)
    >>> tuple(next(iter(data.test)).shape), data.frame_shape
    ((8, 5, 32, 32, 1), (32, 32, 1))
    """
    stage = moving.stage(num_frames, num_digits, frame_size, digit_size)
    counts = (train_videos, test_videos)
    return _moving(load_digits, stage, stochastic, counts, batch_size, seed)


def moving_mnist(
    data_dir: PathLike | None = None,
    batch_size: int = 16,
    num_frames: int = 12,
    frame_size: int = 64,
    digit_size: int | None = None,
    num_digits: int = 2,
    stochastic: bool = False,
    train_videos: int = 10_000,
    test_videos: int = 1_000,
    seed: int = 0,
    train_split: str = "train",
    test_split: str = "test",
) -> VideoDataset:
    """Moving MNIST: handwritten digits that bounce off the walls of a dark square.

    Videos are generated on demand. Each depends only on `seed` and its own number, not
    on its batch. The test videos show the digits of `test_split` and do not depend on
    `seed`. A digit's room is the free space between it and the walls. Deterministic
    digits move a tenth of their room in a frame, in a random direction, and are
    reflected exactly. Where they overlap, the brighter one is seen. Stochastic digits
    move by whole pixels, up to an eighth of their room in a frame, and take a random
    velocity after each bounce. Where they overlap, they add up.

    Args:
        data_dir: Path of the folder with TFDS datasets. MNIST is downloaded into it if
            missing. `None` means the environment variable `TFDS_DATA_DIR`, or
            `~/tensorflow_datasets`.
        batch_size: Positive integer, videos per batch.
        num_frames: Positive integer, frames per video.
        frame_size: Integer of at least 2, height and width of a frame in pixels.
        digit_size: Positive integer below `frame_size`. Digits are scaled to it. `None`
            means half of `frame_size`, as in SVG. TFDS uses 28 for frames of 64.
        num_digits: Positive integer, digits per video.
        stochastic: Boolean. True makes digits bounce at random, as in SVG. False makes
            them bounce exactly, as in TFDS.
        train_videos, test_videos: Positive integers, videos per epoch.
        seed: Non-negative integer. Equal seeds give equal training batches, epoch by
            epoch.
        train_split: String, the digits to train with, in
            [TFDS's slicing syntax](https://www.tensorflow.org/datasets/splits).
        test_split: String, the digits to test with, in the same syntax.

    Returns:
        A `VideoDataset` with `frame_shape` `(frame_size, frame_size, 1)`.

    Raises:
        ValueError: If an argument is out of its range, if a split does not exist, or if
            the data is not in `data_dir` and cannot be downloaded.
        ImportError: If tensorflow-datasets or TensorFlow is not installed.

    Example:

    >>> from keras_nanode import datasets
    >>> data = datasets.moving_mnist("~/tfds", stochastic=True)  # doctest: +SKIP
    >>> data.frame_shape  # doctest: +SKIP
    (64, 64, 1)

    References:
        - Unsupervised Learning of Video Representations using LSTMs, arXiv 1502.04681
        - Stochastic Video Generation with a Learned Prior, arXiv 1802.07687
    """
    load = partial(load_tfds, "mnist", data_dir, train_split, test_split)
    stage = moving.stage(num_frames, num_digits, frame_size, digit_size)
    counts = (train_videos, test_videos)
    return _moving(load, stage, stochastic, counts, batch_size, seed)


def bair(
    data_dir: PathLike | None = None,
    batch_size: int = 16,
    num_frames: int = 12,
    actions: bool = False,
    seed: int = 0,
    train_split: str = "train",
    test_split: str = "test",
) -> VideoDataset:
    """BAIR robot pushing: clips of 30 frames of 64x64 pixels, through TFDS or a file.

    Training videos start at a random frame of their clip, drawn anew in every epoch.
    Test videos are the first frames of the clips. Of the two cameras, this uses
    `image_aux1`, as SVG does.

    Args:
        data_dir: Path of the folder with TFDS datasets. 30 GB are downloaded into it if
            missing. `None` means the environment variable `TFDS_DATA_DIR`, or
            `~/tensorflow_datasets`. Alternatively, the path of an `.npz` file with
            clips of any size and length: an array `video`, uint8
            `(clips, frames, height, width, channels)`, and, for actions, an array
            `actions`, `(clips, frames, action_dim)`. The last quarter of its clips is
            for the test.
        batch_size: Positive integer, videos per batch.
        num_frames: Positive integer, frames per video.
        actions: Boolean, whether to give the robot's actions too (4 numbers per frame).
        seed: Non-negative integer. Equal seeds give equal training batches, epoch by
            epoch.
        train_split: String, the clips to train on, in
            [TFDS's slicing syntax](https://www.tensorflow.org/datasets/splits).
        test_split: String, the clips to test on, in the same syntax.

    Returns:
        A `VideoDataset`, with `frame_shape` `(64, 64, 3)` through TFDS.

    Raises:
        ValueError: If an argument is out of its range, if clips have fewer frames than
            `num_frames`, if a split does not exist, if the data is not in `data_dir`
            and cannot be downloaded, or if the file does not have the form above.
        ImportError: If tensorflow-datasets or TensorFlow is not installed.

    Example:

    >>> from keras_nanode import datasets
    >>> data = datasets.bair("clips.npz", num_frames=12)  # doctest: +SKIP
    >>> data.frame_shape  # doctest: +SKIP
    (64, 64, 3)

    References:
        - Self-Supervised Visual Planning with Temporal Skip Connections, arXiv
          1710.05268
    """
    checks.integer("num_frames", num_frames)
    _check_batches(batch_size, seed)
    checks.boolean("actions", actions)
    checks.path("data_dir", data_dir)
    splits = (train_split, test_split)
    if data_dir is not None and str(data_dir).endswith(".npz"):
        _check_no_splits(splits)
        train, test = load_clips(data_dir, actions)
        length, *frame_shape = train["frames"].shape[1:]
        pieces = clips.cut
    else:
        train, test = load_tfds_clips(data_dir, splits, actions)
        from keras_nanode.datasets import streams

        length, *frame_shape = train.element_spec["frames"].shape
        pieces = streams.cut
    if num_frames > length:
        raise ValueError(
            f"The clips have {length} frames, fewer than `num_frames`. "
            f"Received: num_frames={num_frames}, data_dir={data_dir!r}"
        )
    train_from, test = pieces(train, test, num_frames, batch_size, seed)
    return VideoDataset(train_from(0), test, tuple(frame_shape), train_from)


def _check_batches(batch_size: int, seed: int) -> None:
    checks.integer("batch_size", batch_size)
    checks.integer("seed", seed, 0)


def _check_no_splits(splits: tuple[str, str]) -> None:
    if splits != ("train", "test"):
        raise ValueError(
            "The last quarter of the clips in an .npz file is for the test; leave out "
            "`train_split` and `test_split`. "
            f"Received: train_split={splits[0]!r}, test_split={splits[1]!r}"
        )


# Moving digits.


def _moving(
    load: Callable[[], Source],
    stage: moving.Stage,
    stochastic: bool,
    counts: tuple[int, int],
    batch_size: int,
    seed: int,
) -> VideoDataset:
    _check_batches(batch_size, seed)
    for name, count in zip(("train_videos", "test_videos"), counts, strict=True):
        checks.integer(name, count)
    bounces = checks.boolean("stochastic", stochastic)
    motion = moving.RANDOM_BOUNCES if bounces else moving.REFLECTION
    source = load()
    train_videos, test_videos = counts

    def train_batch(epoch: int, index: int) -> np.ndarray:
        here = epochs.places(index, train_videos, batch_size)
        order = epochs.shuffled(train_videos, seed, epoch)
        each = (epochs.generator("training videos", seed, n) for n in order[here])
        return moving.videos(source.train.images, each, stage, motion)

    def test_batch(epoch: int, index: int) -> np.ndarray:
        del epoch
        here = epochs.places(index, test_videos, batch_size)
        each = (epochs.generator("test videos", n) for n in here)
        return moving.videos(source.test.images, each, stage, motion)

    train_from = starting_at(train_batch, train_videos, batch_size)
    return VideoDataset(
        train=train_from(0),
        test=batches(test_batch, math.ceil(test_videos / batch_size)),
        frame_shape=(stage.frame_size, stage.frame_size, 1),
        train_from=train_from,
    )
