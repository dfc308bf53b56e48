"""What a batch is made of. It depends only on its epoch and its place in it."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

# The data that `fit` takes: a `tf.data.Dataset` or `passes.Epochs`.
Batches = Any
# A function of the numbers of an epoch and a batch. It gives the arrays of the batch.
Make = Callable[[int, int], Any]


def places(index: int, count: int, batch_size: int) -> np.ndarray:
    """The indices, below `count`, of the examples in a batch, without shuffling."""
    return np.arange(index * batch_size, min(count, (index + 1) * batch_size))


@functools.lru_cache(4)
def shuffled(count: int, seed: int, epoch: int) -> np.ndarray:
    """All indices below `count`, in the order of an epoch."""
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
