"""What the adaptive solves of a layer cost in training, and how they ended."""

import keras
import numpy as np
from keras import ops

from keras_nanode import backend
from keras_nanode.stepping import Status

_FAILURES = [status for status in Status if status != Status.SUCCESS]
# Calls, evaluations, and how many calls ended in each failure.
_SIZE = 2 + len(_FAILURES)


class Tally:
    """Counts calls, evaluations and failures, in eager mode and where it is compiled.

    It is neither a weight nor a metric of the layer that has it: files and `evaluate`
    are as with fixed steps. Keras does not track what is in a plain object.
    """

    def __init__(self):
        self._counts = keras.Variable(
            "zeros",
            shape=(_SIZE,),
            dtype="float32",
            trainable=False,
            # As a metric's: each replica counts its own calls.
            aggregation="sum",
            synchronization="on_read",
        )
        # What compiled functions of JAX report, which cannot assign to variables.
        self._reported = np.zeros(_SIZE)

    def add(self, stats: dict, state):
        """Counts one call, of which `stats` are the statistics."""
        ended = [ops.cast(stats["status"] == status, "float32") for status in _FAILURES]
        fevals = ops.cast(stats["num_fevals"], "float32")
        counts = ops.stack([ops.ones_like(fevals), fevals, *ended])
        if not backend.report(self._add_reported, counts, state):
            self._counts.assign_add(counts)

    def _add_reported(self, counts):
        self._reported = self._reported + np.asarray(counts)

    def reset(self):
        backend.await_reports()
        self._counts.assign(np.zeros(_SIZE, "float32"))
        self._reported = np.zeros(_SIZE)

    def _read(self) -> np.ndarray:
        backend.await_reports()
        return ops.convert_to_numpy(self._counts.value) + self._reported

    def evaluations(self) -> float:
        """The mean number of evaluations in a call since the last reset; 0 of none."""
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
