"""Counts what a layer's adaptive solves cost in training, and how they ended."""

import threading
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_nanode import backend
from keras_nanode.stepping import Status

_FAILURES = [status for status in Status if status != Status.SUCCESS]
# Calls, evaluations, and how many calls ended in each failure.
_SIZE = 2 + len(_FAILURES)


class Tally:
    """Counts calls, evaluations and failures, in eager mode and in compiled functions.

    It is neither a weight nor a metric of its layer, since Keras does not track what a
    plain object holds. So files and `evaluate` are the same as with fixed steps.

    Attributes:
        skips: Whether the update of a failed batch is skipped. Then a failure in
            training is no error in eager mode either.
    """

    skips = False

    def __init__(self):
        self._counts = keras.Variable(
            "zeros",
            shape=(_SIZE,),
            dtype="float32",
            trainable=False,
            # As in a metric, each replica counts its own calls.
            aggregation="sum",
            synchronization="on_read",
        )
        # Compiled JAX functions cannot assign to variables. They report here.
        self._reported = np.zeros(_SIZE)
        # Threads may train at once, and JAX reports from threads of its own.
        self._lock = threading.Lock()

    @property
    def resource(self) -> Any:
        """The variable of the backend."""
        return self._counts.value

    def add(self, stats: dict, state: Any) -> None:
        """Counts one call with the statistics `stats`."""
        ended = [ops.cast(stats["status"] == status, "float32") for status in _FAILURES]
        fevals = ops.cast(stats["num_fevals"], "float32")
        counts = ops.stack([ops.ones_like(fevals), fevals, *ended])
        if not backend.report(self._add_reported, counts, state):
            with self._lock:
                self._counts.assign_add(counts)

    def _add_reported(self, counts):
        with self._lock:
            self._reported = self._reported + np.asarray(counts)

    def reset(self):
        backend.await_reports()  # which take the lock
        with self._lock:
            self._counts.assign(np.zeros(_SIZE, "float32"))
            self._reported = np.zeros(_SIZE)

    def _read(self) -> np.ndarray:
        backend.await_reports()
        return ops.convert_to_numpy(self._counts.value) + self._reported

    def evaluations(self) -> float:
        """The mean evaluations per call since the last reset; 0 without calls."""
        calls, fevals = self._read()[:2]
        return float(fevals / max(calls, 1))

    def failures(self) -> dict[Status, int]:
        """How many calls ended in each kind of failure since the last reset."""
        counts = self._read()[2:].astype(int).tolist()
        return {
            status: count
            for status, count in zip(_FAILURES, counts, strict=True)
            if count
        }
