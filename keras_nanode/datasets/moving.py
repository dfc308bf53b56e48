"""Moving digits: their first positions, their paths, and the rendered frames.

Each video has its own random generator. Random numbers are drawn for one video at a
time. All other work is done for a whole batch at once.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from keras_nanode import checks
from keras_nanode.datasets.epochs import as_floats

Draws = dict[str, np.ndarray]

# The speed of a reflected digit: the fraction of the way from wall to wall that it
# moves in a frame, as in TFDS's `moving_sequence`.
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


def stage(
    num_frames: int, num_digits: int, frame_size: int, digit_size: int | None
) -> Stage:
    checks.integer("frame_size", frame_size, 2)
    found = Stage(
        checks.integer("num_frames", num_frames),
        checks.integer("num_digits", num_digits),
        frame_size,
        checks.integer(
            "digit_size", frame_size // 2 if digit_size is None else digit_size
        ),
    )
    if found.room < 1:
        raise ValueError(
            "Digits need room to move: `digit_size` must be below `frame_size`. "
            f"Received: digit_size={digit_size}, frame_size={frame_size}"
        )
    return found


class Motion(NamedTuple):
    """A kind of motion, as three functions.

    Attributes:
        draw: Takes a stage and a generator. Gives the random numbers of one video.
        corners: Takes a stage and the numbers of a batch of videos. Gives the first row
            and column of each digit, integers `(batch, digits, frames, 2)`.
        compose: Takes frames of digits, `(batch, digits, frames, height, width)`. Gives
            frames `(batch, frames, height, width)`.
    """

    draw: Callable[[Stage, np.random.Generator], Draws]
    corners: Callable[[Stage, Draws], np.ndarray]
    compose: Callable[[np.ndarray], np.ndarray]


def videos(
    images: np.ndarray,
    generators: Iterable[np.random.Generator],
    stage: Stage,
    motion: Motion,
) -> np.ndarray:
    """A batch of videos `(batch, frames, height, width, 1)`, one for each generator.

    `images` are the digits to choose from, `(count, height, width, 1)`.
    """
    each = [draw(stage, motion, len(images), numbers) for numbers in generators]
    draws = {name: np.stack([one[name] for one in each]) for name in each[0]}
    chosen = as_floats(images[draws["choice"]][..., 0])
    down, across = (_resizing(n, stage.digit_size) for n in images.shape[1:3])
    digits = down @ chosen @ across.T
    frames = motion.compose(place(digits, motion.corners(stage, draws), stage))
    return frames[..., None]


def draw(
    stage: Stage, motion: Motion, count: int, numbers: np.random.Generator
) -> Draws:
    """Draws which of `count` images a video shows, and the numbers of its motion."""
    choice = numbers.integers(0, count, stage.num_digits)
    return {"choice": choice, **motion.draw(stage, numbers)}


def _resizing(old: int, new: int) -> np.ndarray:
    """The matrix that resizes a column linearly. It smooths when it shrinks."""
    width = max(old / new, 1.0)
    centres = (np.arange(new) + 0.5) * old / new - 0.5
    distances = abs(centres[:, None] - np.arange(old)) / width
    weights = np.maximum(1 - distances, 0)
    return (weights / weights.sum(axis=1, keepdims=True)).astype("float32")


def place(digits: np.ndarray, corners: np.ndarray, stage: Stage) -> np.ndarray:
    """Puts each digit in black frames, `(batch, digits, frames, height, width)`.

    Args:
        digits: `(batch, digits, height, width)`.
        corners: The first row and column, `(batch, digits, frames, 2)`.
        stage: The sizes.
    """
    side = stage.digit_size
    frames = np.zeros((*corners.shape[:3], *[stage.frame_size] * 2), "float32")
    for b, d, t in np.ndindex(corners.shape[:3]):
        row, column = corners[b, d, t]
        frames[b, d, t, row : row + side, column : column + side] = digits[b, d]
    return frames


# Straight lines with exact reflection.


def _draw_line(stage: Stage, numbers: np.random.Generator) -> Draws:
    shape = (stage.num_digits, 2)
    start = numbers.random(shape, "float32")
    direction = numbers.standard_normal(shape, "float32")
    velocity = (
        np.float32(SPEED)
        * direction
        / np.linalg.norm(direction, axis=-1, keepdims=True)
    )
    return {"start": start, "velocity": velocity}


def _reflected(stage: Stage, draws: Draws) -> np.ndarray:
    """Corners on a line that is folded at the walls, rounded to pixels."""
    start, velocity = draws["start"][:, :, None], draws["velocity"][:, :, None]
    line = start + velocity * np.arange(stage.num_frames, dtype="float32")[:, None]
    folded = np.minimum(line % 2, 2 - line % 2)
    return np.rint(folded * stage.room).astype("int64")


# Steps of whole pixels, with a random velocity after each bounce.


def _draw_bounces(stage: Stage, numbers: np.random.Generator) -> Draws:
    """Draws a bounce for every frame, digit and wall, even if it is not needed."""
    each, speed = (stage.num_digits, 2), _top_speed(stage)
    walls = (stage.num_frames, *each)
    return {
        "start": numbers.integers(0, stage.room, each),
        "velocity": numbers.integers(-speed, speed, each, endpoint=True),
        "away": numbers.integers(1, speed, walls, endpoint=True),
        "along": numbers.integers(-speed, speed, walls, endpoint=True),
    }


def _top_speed(stage: Stage) -> int:
    """The largest speed: 4 pixels in a room of 32, as in SVG, and in proportion."""
    return max(1, stage.room // 8)


def _bounced(stage: Stage, draws: Draws) -> np.ndarray:
    """Corners, computed frame by frame.

    As in SVG's generator, the last position before the far wall is `room - 1`. In a
    corner, the bounce off the left or right wall comes last and sets the velocity.
    """
    position, velocity = draws["start"], draws["velocity"]
    path = []
    for frame in range(stage.num_frames):
        away, along = draws["away"][:, frame], draws["along"][:, frame]
        for axis in (0, 1):
            velocity = _bounce(position, velocity, away, along, axis, stage.room)
        position = np.clip(position, 0, stage.room - 1)
        path.append(position)
        position = position + velocity
    return np.stack(path, axis=2)


def _bounce(
    position: np.ndarray,
    velocity: np.ndarray,
    away: np.ndarray,
    along: np.ndarray,
    axis: int,
    room: int,
) -> np.ndarray:
    """The velocity after a possible bounce off the two walls that end `axis`."""
    before, behind = position[..., axis] < 0, position[..., axis] >= room
    parts = [along[..., axis], along[..., axis]]
    parts[axis] = np.where(before, away[..., axis], -away[..., axis])
    hit = (before | behind)[..., None]
    return np.where(hit, np.stack(parts, axis=-1), velocity)


def _brightest(layers: np.ndarray) -> np.ndarray:
    return layers.max(axis=1)


def _added(layers: np.ndarray) -> np.ndarray:
    return np.minimum(layers.sum(axis=1), 1.0)


REFLECTION = Motion(_draw_line, _reflected, _brightest)
RANDOM_BOUNCES = Motion(_draw_bounces, _bounced, _added)
