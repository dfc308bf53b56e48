"""Epochs of batches, each a function of its epoch and its place in it alone."""

import functools
import itertools
import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_nanode import checks

# What `fit` takes: a `tf.data.Dataset`.
Batches = Any
# From the numbers of an epoch and of a batch to its arrays.
Make = Callable[[int, int], Any]


def train_from(make: Make, count: int, batch_size: int) -> Callable[[int], Batches]:
    """The function that a dataset of images or videos has as `train_from`."""
    return functools.partial(_train_from, make, math.ceil(count / batch_size))


def _train_from(make: Make, length: int, epoch: int) -> Batches:
    return batches(make, length, checks.integer("epoch", epoch, 0))


def batches(make: Make, length: int, epoch: int = 0) -> Batches:
    """Batches of which the i-th iteration is the epoch `epoch + i`.

    Args:
        make: A pure function that gives a batch, as NumPy arrays.
        length: Positive integer, batches in an epoch.
        epoch: The first one.
    """
    first = make(epoch, 0)
    specs = [
        tf.TensorSpec((None, *array.shape[1:]), array.dtype)
        for array in keras.tree.flatten(first)
    ]

    def flat(epoch, index):
        return keras.tree.flatten(make(int(epoch), int(index)))

    def batch(epoch, index):
        types = [spec.dtype for spec in specs]
        arrays = tf.numpy_function(flat, [epoch, index], types, stateful=False)
        for array, spec in zip(arrays, specs, strict=True):
            array.set_shape(spec.shape)
        return keras.tree.pack_sequence_as(first, arrays)

    def one_epoch(epoch):
        indices = tf.data.Dataset.range(length)
        return indices.map(lambda index: batch(epoch, index), tf.data.AUTOTUNE)

    epochs = numbered(epoch).flat_map(one_epoch)
    counted = epochs.apply(tf.data.experimental.assert_cardinality(length))
    return counted.prefetch(tf.data.AUTOTUNE)


def numbered(epoch: int) -> tf.data.Dataset:
    """One number: `epoch` in the first iteration, one more in each that follows."""
    numbers = itertools.count(epoch)
    return tf.data.Dataset.from_generator(
        lambda: [next(numbers)], output_signature=tf.TensorSpec((), tf.int64)
    )


def places(index: int, count: int, batch_size: int) -> np.ndarray:
    """Which examples of `count` are in a batch, without shuffling."""
    return np.arange(index * batch_size, min(count, (index + 1) * batch_size))


@functools.lru_cache(4)
def shuffled(count: int, seed: int, epoch: int) -> np.ndarray:
    """All numbers below `count` in the order of an epoch."""
    order = generator("order", seed, epoch).permutation(count)
    order.flags.writeable = False
    return order


# Each purpose draws its own numbers.
_PURPOSES = ("order", "augmentation", "cuts", "training videos", "test videos")


def generator(purpose: str, *numbers: int) -> np.random.Generator:
    """Random numbers that depend on these arguments alone."""
    return np.random.default_rng([_PURPOSES.index(purpose), *numbers])


def as_floats(values: np.ndarray) -> np.ndarray:
    """Integers divided by their range; floating point values pass unchanged."""
    if np.issubdtype(values.dtype, np.integer):
        return values.astype("float32") / np.float32(np.iinfo(values.dtype).max)
    return values.astype("float32", copy=False)
