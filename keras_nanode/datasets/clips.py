"""Pieces of recorded clips: of arrays, or of a stream too large for memory."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from keras_nanode import checks
from keras_nanode.datasets import epochs
from keras_nanode.datasets.epochs import Batches
from keras_nanode.datasets.sources import Clip

# A clip of 30 frames of 64x64 pixels in colour takes 0.4 MB.
SHUFFLED_CLIPS = 512


# Arrays


def from_arrays(
    train: Clip, test: Clip, length: int, batch_size: int, seed: int
) -> tuple[Callable[[int], Batches], Batches]:
    """`train_from`, which cuts videos anywhere, and the first frames for the test."""
    count, frames = train["frames"].shape[:2]

    def train_batch(epoch: int, index: int) -> Any:
        here = epochs.places(index, count, batch_size)
        numbers = epochs.generator("cuts", seed, epoch, index)
        starts = numbers.integers(0, frames - length, len(here), endpoint=True)
        return _cut(train, epochs.shuffled(count, seed, epoch)[here], starts, length)

    def test_batch(epoch: int, index: int) -> Any:
        del epoch
        here = epochs.places(index, len(test["frames"]), batch_size)
        return _cut(test, here, np.zeros_like(here), length)

    return (
        epochs.train_from(train_batch, count, batch_size),
        epochs.batches(test_batch, math.ceil(len(test["frames"]) / batch_size)),
    )


def _cut(clips: Clip, which: np.ndarray, starts: np.ndarray, length: int) -> Any:
    """`length` frames of each clip from its start on, and what belongs to them."""
    times = starts[:, None] + np.arange(length)
    batch = {name: values[which[:, None], times] for name, values in clips.items()}
    batch["frames"] = epochs.as_floats(batch["frames"])
    return batch if "actions" in batch else batch["frames"]


# Streams


def from_streams(
    train: tf.data.Dataset,
    test: tf.data.Dataset,
    length: int,
    batch_size: int,
    seed: int,
) -> tuple[Callable[[int], Batches], Batches]:
    """The same of single clips."""

    def train_from(epoch: int) -> Batches:
        numbers = epochs.numbered(checks.integer("epoch", epoch, 0))
        clips = numbers.flat_map(
            lambda epoch: _cut_anywhere(train, length, seed, epoch)
        )
        counted = tf.data.experimental.assert_cardinality(train.cardinality())
        return _finished(clips.apply(counted), batch_size)

    first = test.map(lambda clip: _cut_one(clip, 0, length))
    return train_from, _finished(first, batch_size)


def _cut_one(clip: Clip, start: tf.Tensor | int, length: int) -> Clip:
    here = start + tf.range(length)
    return {name: tf.gather(values, here) for name, values in clip.items()}


def _cut_anywhere(
    clips: tf.data.Dataset, length: int, seed: int, epoch: tf.Tensor
) -> tf.data.Dataset:
    """Shuffles the clips and cuts each, elsewhere in every epoch."""
    # Shuffling takes half of its seed from the graph that `flat_map` traces; set there,
    # it is not the one that the user may have set.
    tf.random.set_seed(1)
    pair = tf.stack([tf.constant(seed, tf.int64), epoch])

    def cut_somewhere(number: tf.Tensor, clip: Clip) -> Clip:
        starts = clips.element_spec["frames"].shape[0] - length + 1
        clip_seed = tf.random.fold_in(pair, number)
        start = tf.random.stateless_uniform([], clip_seed, 0, starts, tf.int32)
        return _cut_one(clip, start, length)

    order = tf.random.stateless_uniform([], pair, None, None, tf.int64)
    shuffled = clips.shuffle(SHUFFLED_CLIPS, order, reshuffle_each_iteration=False)
    return shuffled.enumerate().map(cut_somewhere, tf.data.AUTOTUNE)


def _finished(clips: tf.data.Dataset, batch_size: int) -> tf.data.Dataset:
    """Batches of float32 frames, or of dicts with actions beside them."""

    def convert(batch: Clip) -> Clip | tf.Tensor:
        frames = tf.image.convert_image_dtype(batch["frames"], tf.float32)
        return {**batch, "frames": frames} if "actions" in batch else frames

    batches = clips.batch(batch_size)
    return batches.map(convert, tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)
