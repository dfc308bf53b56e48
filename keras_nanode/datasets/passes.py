"""Epochs as `PyDataset`s, for the backends whose `fit` does not read `tf.data`."""

import itertools
import threading
from collections.abc import Iterator
from typing import Any

import keras

from keras_nanode import checks
from keras_nanode.datasets.epochs import Make

_TAKING = threading.Lock()


class Next:
    """The number of the next epoch, for all that is made from the same epochs."""

    def __init__(self, epoch: int):
        self.epoch = epoch

    def take(self, count: int) -> int:
        """The first of the next `count` epochs, which are then taken."""
        with _TAKING:
            first = self.epoch
            self.epoch += count
        return first

    def pass_by(self, epoch: int) -> None:
        """Epochs below `epoch` are taken."""
        with _TAKING:
            self.epoch = max(self.epoch, epoch)


class Passes(keras.utils.PyDataset):
    """Follows the passes that Keras makes through the data.

    A pass takes its epochs when it begins, and gives up what it has not read when
    another begins, as iterators of `tf.data` do. What Keras calls an epoch is a part of
    a pass if `steps_per_epoch` is less than the number of batches.

    `fit` and `evaluate` make an adapter of the data, which asks for `workers`. They may
    then read some batches to build the model, and call `on_epoch_end` in any case,
    before the first epoch begins. What they have read until then is no pass.

    Args:
        following: The number of the next epoch.
        stride: How many epochs a pass takes.
    """

    def __init__(self, following: Next, stride: int):
        super().__init__()
        self._next, self.stride = following, stride
        self._preparing = self._within = False
        self._pass: int | None = None
        self._order: dict[int, int] = {}

    @property
    def workers(self) -> int:
        self._forget_pass()
        self._preparing, self._within = True, False
        return self._workers

    @workers.setter
    def workers(self, count: int) -> None:
        self._workers = count

    def on_epoch_begin(self) -> None:
        self._within = True
        if self._pass is None and not self._preparing:
            self._pass = self._next.take(self.stride)

    def on_epoch_end(self) -> None:
        all_read = len(self._order) == self.num_batches
        if all_read and not (self._within or self._preparing):
            self._next.take(self.stride)  # at the end of a loop of the user's own
        # Outside of an epoch, Keras drops its iterator.
        if all_read or self._restarts or self._preparing or not self._within:
            self._forget_pass()
        self._preparing = self._within = False

    def _forget_pass(self) -> None:
        self._pass, self._order = None, {}

    @property
    def _in_parallel(self) -> bool:
        return self._workers > (0 if self.use_multiprocessing else 1)

    @property
    def _restarts(self) -> bool:
        """Whether each of Keras' epochs is a pass. It is for parallel workers."""
        return self._in_parallel and self.num_batches is not None

    @property
    def _epoch(self) -> int:
        """The first epoch of the current pass, or of the next if there is none."""
        return self._next.epoch if self._pass is None else self._pass


class Epochs(Passes):
    """Epochs of batches, with some methods of `tf.data.Dataset`.

    In a pass of `fit`, batches come in their own order, which is shuffled anew in each
    epoch. Keras' `shuffle` changes nothing, as with a `tf.data.Dataset`.

    Args:
        make: As in `batches`.
        following: The number of the next epoch.
        places: For each batch of a pass, its epoch, counted from the first of
            the pass, and its number in that epoch.
        stride: How many epochs a pass takes.
    """

    def __init__(
        self,
        make: Make,
        following: Next,
        places: list[tuple[int, int]],
        stride: int = 1,
    ):
        super().__init__(following, stride)
        self._make, self._places = make, places

    def __len__(self) -> int:
        return len(self._places)

    def batch(self, epoch: int, place: int) -> Any:
        """A batch of the pass that begins with an epoch."""
        ahead, index = self._places[place]
        return self._make(epoch + ahead, index)

    def __getitem__(self, place: int) -> Any:
        """A batch of the current pass of `fit`."""
        if not self._in_parallel:
            # The first place that Keras asks for is the first batch, if it shuffles.
            number = self._order.setdefault(place, len(self._order))
            place = place if self._pass is None else number
        return self.batch(self._epoch, place)

    def __iter__(self) -> Iterator[Any]:
        epoch = self._next.take(self.stride)
        return (self.batch(epoch, place) for place in range(len(self)))

    def _with(self, places: list[tuple[int, int]], stride: int) -> "Epochs":
        return Epochs(self._make, self._next, places, stride)

    def take(self, count: int) -> "Epochs":
        """The first `count` batches of each iteration."""
        checks.integer("count", count, 0)
        return self._with(self._places[:count], self.stride)

    def skip(self, count: int) -> "Epochs":
        """All but the first `count` batches of each iteration."""
        checks.integer("count", count, 0)
        return self._with(self._places[count:], self.stride)

    def repeat(self, count: int | None = None) -> "Epochs | Endless":
        """`count` iterations as one. None for all, for `fit` with `steps_per_epoch`."""
        if count is None:
            # There is no end to wait for where there is nothing.
            return Endless(self, self._next) if self._places else self
        checks.integer("count", count, 0)
        places = [
            (i * self.stride + ahead, index)
            for i in range(count)
            for ahead, index in self._places
        ]
        return self._with(places, count * self.stride)


class Endless(Passes):
    """An endless sequence of iterations over epochs.

    Args:
        epochs: The batches of an iteration.
        following: The number of the epoch with which the first iteration begins.
        first: How many batches are left out.
    """

    def __init__(self, epochs: Epochs, following: Next, first: int = 0):
        super().__init__(following, epochs.stride)
        self._epochs, self._first = epochs, first

    @property
    def num_batches(self) -> None:
        return None

    def __getitem__(self, place: int) -> Any:
        """A batch of the current pass of `fit`, which takes the epochs it reaches."""
        iteration, place = divmod(self._first + place, len(self._epochs))
        epoch = self._epoch + iteration * self.stride
        if self._pass is not None:
            self._next.pass_by(epoch + self.stride)
        return self._epochs.batch(epoch, place)

    def __iter__(self) -> Iterator[Any]:
        left_out, first = divmod(self._first, len(self._epochs))
        self._next.take(left_out * self.stride)
        for start in itertools.chain([first], itertools.repeat(0)):
            epoch = self._next.take(self.stride)
            for place in range(start, len(self._epochs)):
                yield self._epochs.batch(epoch, place)

    def skip(self, count: int) -> "Endless":
        """The batches after the first `count`."""
        checks.integer("count", count, 0)
        return Endless(self._epochs, self._next, self._first + count)
