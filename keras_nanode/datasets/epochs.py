"""Epochs of batches. A batch depends only on its epoch and its place in it."""

import functools
import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np

from keras_nanode import checks

# The data that `fit` takes: a `tf.data.Dataset` or `Epochs`.
Batches = Any
# A function of the numbers of an epoch and a batch. It gives the arrays of the batch.
Make = Callable[[int, int], Any]


def train_from(make: Make, count: int, batch_size: int) -> Callable[[int], Batches]:
    """The function `train_from` of a dataset of images or videos."""
    return functools.partial(_train_from, make, math.ceil(count / batch_size))


def _train_from(make: Make, length: int, epoch: int) -> Batches:
    return batches(make, length, checks.integer("epoch", epoch, 0))


def batches(make: Make, length: int, epoch: int = 0) -> Batches:
    """Batches. The i-th iteration over them gives the epoch `epoch + i`.

    Args:
        make: A pure function that gives a batch, as NumPy arrays.
        length: Positive integer, the number of batches in an epoch.
        epoch: The number of the first epoch.
    """
    if keras.backend.backend() == "tensorflow":
        from keras_nanode.datasets import pipelines

        return pipelines.batches(make, length, epoch)
    return Epochs(make, range(length), epoch)


class Epochs(keras.utils.PyDataset):
    """Batches for the other backends, with some methods of `tf.data.Dataset`."""

    def __init__(self, make: Make, indices: range, epoch: int):
        super().__init__()
        self._make, self._indices, self._epoch = make, indices, epoch
        self._ended = False

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, place: int) -> Any:
        """A batch of the current epoch of `fit`."""
        self._ended = place == len(self) - 1
        return self._make(self._epoch, self._indices[place])

    def on_epoch_end(self) -> None:
        # Keras also calls this before the first epoch, and after it peeks at one batch.
        if self._ended:
            self._epoch, self._ended = self._epoch + 1, False

    def __iter__(self) -> Iterator[Any]:
        epoch = self._epoch
        self._epoch += 1
        return (self._make(epoch, index) for index in self._indices)

    def take(self, count: int) -> "Epochs":
        """The first `count` batches of each epoch."""
        return Epochs(self._make, self._indices[:count], self._epoch)

    def skip(self, count: int) -> "Epochs":
        """All but the first `count` batches of each epoch."""
        return Epochs(self._make, self._indices[count:], self._epoch)

    def repeat(self) -> "Endless":
        """All epochs in a row, for `fit` with `steps_per_epoch`."""
        return Endless(self._make, self._indices, self._epoch * len(self))


class Endless(keras.utils.PyDataset):
    """An endless sequence of epochs."""

    def __init__(self, make: Make, indices: range, first: int):
        super().__init__()
        self._make, self._indices, self._first = make, indices, first

    @property
    def num_batches(self) -> None:
        return None

    def __getitem__(self, place: int) -> Any:
        epoch, index = divmod(self._first + place, len(self._indices))
        return self._make(epoch, self._indices[index])

    def __iter__(self) -> Iterator[Any]:
        return map(self.__getitem__, itertools.count())

    def skip(self, count: int) -> "Endless":
        """The batches after the first `count`."""
        return Endless(self._make, self._indices, self._first + count)


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
