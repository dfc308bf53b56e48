"""What an adaptive solve costs, as a metric."""

import keras

from keras_nanode import backend


class Evaluations(keras.metrics.Metric):
    """The mean number of evaluations of the vector field in a call.

    In compiled functions on JAX, where Keras loses what a layer's call does to a
    metric, the numbers come back at run time, and the mean is known between epochs.
    """

    def __init__(self, name):
        super().__init__(name=name)
        self.total = self.add_variable((), "zeros", name="total")
        self.count = self.add_variable((), "zeros", name="count")
        self._late_total = self._late_count = 0.0

    def update_state(self, num_fevals):
        if backend.report(self._update_late, num_fevals):
            return
        self.total.assign_add(keras.ops.cast(num_fevals, self.dtype))
        self.count.assign_add(1.0)

    def _update_late(self, num_fevals):
        self._late_total += float(num_fevals)
        self._late_count += 1

    def result(self):
        backend.await_reports()
        return (self.total + self._late_total) / (self.count + self._late_count)

    def reset_state(self):
        super().reset_state()
        backend.await_reports()
        self._late_total = self._late_count = 0.0

    # It says nothing about the model, and other solvers' weights should load.
    def save_own_variables(self, store):
        del store

    def load_own_variables(self, store):
        del store
