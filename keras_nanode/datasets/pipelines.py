"""Epochs as `tf.data` pipelines. Importing this module requires TensorFlow."""

import itertools

import keras
import tensorflow as tf

from keras_nanode.datasets.epochs import Make


def batches(make: Make, length: int, epoch: int) -> tf.data.Dataset:
    """Like `passes.Epochs`, but makes several batches in parallel."""
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
    """A dataset of one number: `epoch` in iteration 0, `epoch + i` in iteration i."""
    numbers = itertools.count(epoch)
    return tf.data.Dataset.from_generator(
        lambda: [next(numbers)], output_signature=tf.TensorSpec((), tf.int64)
    )
