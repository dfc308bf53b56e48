"""Moving digits: how they start, where they go, and the frames they are seen in.

All random numbers of a video are drawn from a seed of its own, one video at a time; the
work with these numbers is done for a whole batch at once.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import tensorflow as tf

Draws = dict[str, tf.Tensor]

# The part of its way from wall to wall that a reflected digit goes in a frame, as in
# TFDS's `moving_sequence`.
SPEED = 0.1


class Stage(NamedTuple):
    """The sizes of a video: frames, digits, and the sides of both squares in pixels."""

    num_frames: int
    num_digits: int
    frame_size: int
    digit_size: int

    @property
    def room(self) -> int:
        """The pixels between a digit at one wall and the other wall."""
        return self.frame_size - self.digit_size


class Motion(NamedTuple):
    """A way to move.

    Attributes:
        draw: From a stage and a seed to the random numbers of one video.
        corners: From a stage and the numbers of a batch of videos to the first row and
            column of each digit, int32 `(batch, digits, frames, 2)`.
        compose: From frames of single digits, `(batch, digits, frames, height, width)`,
            to frames `(batch, frames, height, width)`.
    """

    draw: Callable[[Stage, tf.Tensor], Draws]
    corners: Callable[[Stage, Draws], tf.Tensor]
    compose: Callable[[tf.Tensor], tf.Tensor]


def videos(
    images: tf.Tensor, seeds: tf.data.Dataset, batch_size: int, stage: Stage, motion
) -> tf.data.Dataset:
    """Batches of videos `(batch, frames, height, width, 1)`, one for each seed.

    `images` are the digits to choose from, `(count, height, width, 1)`; `seeds` are
    pairs of integers. A video depends on its seed alone.
    """
    draws = seeds.map(partial(_draw, stage, motion, len(images)), tf.data.AUTOTUNE)
    film = partial(_film, images, stage, motion)
    return draws.batch(batch_size).map(film, tf.data.AUTOTUNE)


def _draw(stage: Stage, motion: Motion, count: int, seed: tf.Tensor) -> Draws:
    choice_seed, motion_seed = tf.unstack(tf.random.split(seed, 2))
    choice = _integers([stage.num_digits], choice_seed, 0, count - 1)
    return {"choice": choice, **motion.draw(stage, motion_seed)}


def _film(images: tf.Tensor, stage: Stage, motion: Motion, draws: Draws) -> tf.Tensor:
    chosen = tf.reshape(tf.gather(images, draws["choice"]), [-1, *images.shape[1:]])
    pixels = tf.image.convert_image_dtype(chosen, tf.float32)
    resized = tf.image.resize(pixels, [stage.digit_size] * 2, antialias=True)
    size = [-1, stage.num_digits, stage.digit_size, stage.digit_size]
    digits = tf.reshape(resized, size)
    frames = motion.compose(place(digits, motion.corners(stage, draws), stage))
    return frames[..., None]


def place(digits: tf.Tensor, corners: tf.Tensor, stage: Stage) -> tf.Tensor:
    """Each digit in black frames of its own: `(batch, digits, frames, height, width)`.

    Args:
        digits: `(batch, digits, height, width)`.
        corners: The first row and column, `(batch, digits, frames, 2)`.
        stage: The sizes.
    """
    here = tf.range(stage.frame_size) - corners[..., None]
    # Rows (and columns) that the digit does not have are rows of zeros.
    rows, columns = tf.unstack(tf.one_hot(here, stage.digit_size), axis=-3)
    return tf.matmul(rows @ digits[:, :, None], columns, transpose_b=True)


# Straight lines with exact reflection


def _draw_line(stage: Stage, seed: tf.Tensor) -> Draws:
    start_seed, direction_seed = tf.unstack(tf.random.split(seed, 2))
    shape = [stage.num_digits, 2]
    start = tf.random.stateless_uniform(shape, start_seed)
    direction = tf.random.stateless_normal(shape, direction_seed)
    velocity = SPEED * direction / tf.norm(direction, axis=-1, keepdims=True)
    return {"start": start, "velocity": velocity}


def _reflected(stage: Stage, draws: Draws) -> tf.Tensor:
    """Corners on a line that is folded at the walls, rounded to pixels."""
    start, velocity = draws["start"][:, :, None], draws["velocity"][:, :, None]
    line = start + velocity * tf.range(stage.num_frames, dtype=tf.float32)[:, None]
    folded = tf.minimum(line % 2, 2 - line % 2)
    return tf.cast(tf.round(folded * stage.room), tf.int32)


# Steps of whole pixels with a random velocity after each bounce


def _draw_bounces(stage: Stage, seed: tf.Tensor) -> Draws:
    """Draws a bounce for every frame, digit and wall, whether it is needed or not."""
    seeds = tf.unstack(tf.random.split(seed, 4))
    each, speed = [stage.num_digits, 2], _top_speed(stage)
    walls = [stage.num_frames, *each]
    return {
        "start": _integers(each, seeds[0], 0, stage.room - 1),
        "velocity": _integers(each, seeds[1], -speed, speed),
        "away": _integers(walls, seeds[2], 1, speed),
        "along": _integers(walls, seeds[3], -speed, speed),
    }


def _top_speed(stage: Stage) -> int:
    """SVG's 4 pixels in a room of 32, and in proportion."""
    return max(1, stage.room // 8)


def _bounced(stage: Stage, draws: Draws) -> tf.Tensor:
    """Corners from frame to frame.

    As in SVG's generator, the last position before the far wall is `room - 1`, and the
    bounce off the left or right wall has the last word in a corner.
    """
    position, velocity = draws["start"], draws["velocity"]
    path = []
    for frame in range(stage.num_frames):
        away, along = draws["away"][:, frame], draws["along"][:, frame]
        for axis in (0, 1):
            velocity = _bounce(position, velocity, away, along, axis, stage.room)
        position = tf.clip_by_value(position, 0, stage.room - 1)
        path.append(position)
        position += velocity
    return tf.stack(path, axis=2)


def _bounce(position, velocity, away, along, axis: int, room: int) -> tf.Tensor:
    """The velocity after a possible bounce off the two walls that end `axis`."""
    before, behind = position[..., axis] < 0, position[..., axis] >= room
    parts = [along[..., axis], along[..., axis]]
    parts[axis] = tf.where(before, away[..., axis], -away[..., axis])
    hit = (before | behind)[..., None]
    return tf.where(hit, tf.stack(parts, axis=-1), velocity)


def _integers(shape: list[int], seed: tf.Tensor, least: int, most: int) -> tf.Tensor:
    return tf.random.stateless_uniform(shape, seed, least, most + 1, tf.int32)


def _brightest(layers: tf.Tensor) -> tf.Tensor:
    return tf.reduce_max(layers, axis=1)


def _added(layers: tf.Tensor) -> tf.Tensor:
    return tf.minimum(tf.reduce_sum(layers, axis=1), 1.0)


REFLECTION = Motion(_draw_line, _reflected, _brightest)
RANDOM_BOUNCES = Motion(_draw_bounces, _bounced, _added)
