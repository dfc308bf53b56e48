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
    return Epochs(make, epoch, [(0, index) for index in range(length)])


class Epochs(keras.utils.PyDataset):
    """Batches for the other backends, with some methods of `tf.data.Dataset`.

    Args:
        make: As in `batches`.
        epoch: The number of the first epoch.
        places: For each batch of an iteration, its epoch, counted from the first of
            this iteration, and its number in that epoch.
        stride: How many epochs an iteration goes on.
    """

    def __init__(
        self, make: Make, epoch: int, places: list[tuple[int, int]], stride: int = 1
    ):
        super().__init__()
        self._make, self._epoch, self._ended = make, epoch, False
        self._places, self.stride = places, stride

    def __len__(self) -> int:
        return len(self._places)

    def batch(self, epoch: int, place: int) -> Any:
        """A batch of the iteration that begins with an epoch."""
        ahead, index = self._places[place]
        return self._make(epoch + ahead, index)

    def __getitem__(self, place: int) -> Any:
        """A batch of the current epoch of `fit`."""
        self._ended = place == len(self) - 1
        return self.batch(self._epoch, place)

    def on_epoch_end(self) -> None:
        # Keras also calls this before the first epoch, and after it peeks at one batch.
        if self._ended:
            self._epoch, self._ended = self._epoch + self.stride, False

    def __iter__(self) -> Iterator[Any]:
        epoch = self._epoch
        self._epoch += self.stride
        return (self.batch(epoch, place) for place in range(len(self)))

    def _with(self, places: list[tuple[int, int]], stride: int) -> "Epochs":
        return Epochs(self._make, self._epoch, places, stride)

    def take(self, count: int) -> "Epochs":
        """The first `count` batches of each iteration."""
        return self._with(self._places[:count], self.stride)

    def skip(self, count: int) -> "Epochs":
        """All but the first `count` batches of each iteration."""
        return self._with(self._places[count:], self.stride)

    def repeat(self, count: int | None = None) -> "Epochs | Endless":
        """`count` iterations as one. None for all, for `fit` with `steps_per_epoch`."""
        if count is None:
            return Endless(self, self._epoch)
        places = [
            (i * self.stride + ahead, index)
            for i in range(count)
            for ahead, index in self._places
        ]
        return self._with(places, count * self.stride)


class Endless(keras.utils.PyDataset):
    """An endless sequence of iterations over epochs.

    Args:
        epochs: The batches of an iteration.
        epoch: The epoch with which the first iteration begins.
        first: How many batches are left out.
    """

    def __init__(self, epochs: Epochs, epoch: int, first: int = 0):
        super().__init__()
        self._epochs, self._epoch, self._first = epochs, epoch, first

    @property
    def num_batches(self) -> None:
        return None

    def __getitem__(self, place: int) -> Any:
        iteration, place = divmod(self._first + place, len(self._epochs))
        epoch = self._epoch + iteration * self._epochs.stride
        return self._epochs.batch(epoch, place)

    def __iter__(self) -> Iterator[Any]:
        return map(self.__getitem__, itertools.count())

    def skip(self, count: int) -> "Endless":
        """The batches after the first `count`."""
        return Endless(self._epochs, self._epoch, self._first + count)


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
