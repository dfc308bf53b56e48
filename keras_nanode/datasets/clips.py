"""Pieces of recorded clips."""

import tensorflow as tf

from keras_nanode.datasets.sources import Clip

# A clip of 30 frames of 64x64 pixels in colour takes 0.4 MB.
SHUFFLED_CLIPS = 512


def cut(clip: Clip, start: tf.Tensor | int, length: int) -> Clip:
    """`length` frames from `start` on, and what belongs to them."""
    here = start + tf.range(length)
    return {name: tf.gather(values, here) for name, values in clip.items()}


def cut_anywhere(clips: tf.data.Dataset, length: int, seed: int) -> tf.data.Dataset:
    """Shuffles the clips and cuts each, elsewhere in every epoch."""

    def cut_somewhere(clip: Clip, clip_seed: tf.Tensor) -> Clip:
        starts = clips.element_spec["frames"].shape[0] - length + 1
        start = tf.random.stateless_uniform([], clip_seed, 0, starts, tf.int32)
        return cut(clip, start, length)

    shuffled = clips.shuffle(SHUFFLED_CLIPS, seed=seed, reshuffle_each_iteration=True)
    # Drawn in order, outside the parallel map, so that threads cannot change them.
    seeds = tf.data.Dataset.random(seed, rerandomize_each_iteration=True).batch(2)
    return tf.data.Dataset.zip(shuffled, seeds).map(cut_somewhere, tf.data.AUTOTUNE)


def finished(clips: tf.data.Dataset, batch_size: int) -> tf.data.Dataset:
    """Batches of float32 frames, or of dicts with actions beside them."""

    def convert(batch: Clip) -> Clip | tf.Tensor:
        # Integers are divided by their range; floating point frames pass unchanged.
        frames = tf.image.convert_image_dtype(batch["frames"], tf.float32)
        return {**batch, "frames": frames} if "actions" in batch else frames

    batches = clips.batch(batch_size)
    return batches.map(convert, tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)
