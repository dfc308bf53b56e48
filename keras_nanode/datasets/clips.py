"""Videos cut from recorded clips that are in memory."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from keras_nanode.datasets import epochs
from keras_nanode.datasets.batches import batches, starting_at
from keras_nanode.datasets.epochs import Batches
from keras_nanode.datasets.sources import Clip


def cut(
    train: Clip, test: Clip, length: int, batch_size: int, seed: int
) -> tuple[Callable[[int], Batches], Batches]:
    """`train_from`, which cuts at random places, and a test set of first frames."""
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
        starting_at(train_batch, count, batch_size),
        batches(test_batch, math.ceil(len(test["frames"]) / batch_size)),
    )


def _cut(clips: Clip, which: np.ndarray, starts: np.ndarray, length: int) -> Any:
    """`length` frames of each clip from its start on, with their actions if any."""
    times = starts[:, None] + np.arange(length)
    batch = {name: values[which[:, None], times] for name, values in clips.items()}
    batch["frames"] = epochs.as_floats(batch["frames"])
    return batch if "actions" in batch else batch["frames"]
