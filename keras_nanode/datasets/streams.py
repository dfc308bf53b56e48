"""Videos cut from clips that are too large for memory, as `tf.data` pipelines."""

from collections.abc import Callable

import tensorflow as tf

from keras_nanode import checks
from keras_nanode.datasets import pipelines
from keras_nanode.datasets.epochs import Batches
from keras_nanode.datasets.sources import Clip

# The size of the shuffle buffer. A clip of 30 colour frames of 64x64 takes 0.4 MB.
SHUFFLED_CLIPS = 512


def cut(
    train: tf.data.Dataset,
    test: tf.data.Dataset,
    length: int,
    batch_size: int,
    seed: int,
) -> tuple[Callable[[int], Batches], Batches]:
    """Like `clips.cut`, for datasets of single clips."""

    def train_from(epoch: int) -> Batches:
        numbers = pipelines.numbered(checks.integer("epoch", epoch, 0))
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
    """Shuffles the clips and cuts each at a place that depends on the epoch."""
    # Shuffling takes half of its seed from the graph that `flat_map` traces. Setting it
    # here keeps a seed of the user from having an effect.
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
    """Batches of float32 frames, or of dicts of frames and actions."""

    def convert(batch: Clip) -> Clip | tf.Tensor:
        frames = tf.image.convert_image_dtype(batch["frames"], tf.float32)
        return {**batch, "frames": frames} if "actions" in batch else frames

    batches = clips.batch(batch_size)
    return batches.map(convert, tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)
