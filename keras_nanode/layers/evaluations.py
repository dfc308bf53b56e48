"""What an adaptive solve costs, as a metric."""

import keras
import numpy as np
from keras import ops

from keras_nanode import backend


class Evaluations(keras.metrics.Metric):
    """The mean number of evaluations of the vector field in a call.

    On JAX, where Keras loses what a layer's call does to a metric, the numbers come
    back at run time: within an epoch the mean may lack the latest calls.
    """

    def __init__(self, name):
        super().__init__(name=name)
        self.total = self.add_variable((), "zeros", name="total")
        self.count = self.add_variable((), "zeros", name="count")
        self._late = np.zeros(2, self.dtype)

    def update_state(self, num_fevals, state):
        if backend.report(self._update_late, num_fevals, state):
            return
        self.total.assign_add(ops.cast(num_fevals, self.dtype))
        self.count.assign_add(1.0)

    def _update_late(self, num_fevals):
        self._late = self._late + np.array([num_fevals, 1], self.dtype)

    def result(self):
        backend.await_reports()
        seen = ops.stack([self.total.value, self.count.value])
        late = backend.recall(lambda: self._late, seen)
        seen = seen + ops.convert_to_tensor(late, seen.dtype)
        return seen[0] / ops.maximum(seen[1], 1)

    def reset_state(self):
        super().reset_state()
        backend.await_reports()
        self._late = np.zeros(2, self.dtype)

    # It says nothing about the model, and other solvers' weights should load.
    def save_own_variables(self, store):
        del store

    def load_own_variables(self, store):
        del store
