"""Batches in the form that the backend's `fit` reads fastest."""

import functools
import math
from collections.abc import Callable

import keras

from keras_nanode import checks
from keras_nanode.datasets.epochs import Batches, Make
from keras_nanode.datasets.passes import Epochs, Next


def starting_at(make: Make, count: int, batch_size: int) -> Callable[[int], Batches]:
    """The function `train_from` of a dataset of `count` images or videos."""
    return functools.partial(_starting_at, make, math.ceil(count / batch_size))


def _starting_at(make: Make, length: int, epoch: int) -> Batches:
    return batches(make, length, checks.integer("epoch", epoch, 0))


def batches(make: Make, length: int, epoch: int = 0) -> Batches:
    """Batches. The i-th iteration over them gives the epoch `epoch + i`.

    Args:
        make: A pure function that gives a batch, as NumPy arrays.
        length: Positive integer, the number of batches in an epoch.
        epoch: The number of the first epoch.
    """
    if keras.backend.backend() == "tensorflow":
        # It imports TensorFlow, which other backends do without.
        from keras_nanode.datasets import pipelines

        return pipelines.batches(make, length, epoch)
    return Epochs(make, Next(epoch), [(0, index) for index in range(length)])
