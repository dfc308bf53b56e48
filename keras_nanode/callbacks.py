"""Callbacks for `fit`."""

import itertools
import warnings

import keras

from keras_nanode.copying.parts import all_layers
from keras_nanode.layers import ODE


class Evaluations(keras.callbacks.Callback):
    """Reports in `fit` the cost of adaptive steps, and their failures.

    For each `layers.ODE` of the model with adaptive steps, the progress bar and the
    history get two numbers for the epoch so far: `<layer>_nfe`, the mean number of
    evaluations of the dynamics in a training call, and `<layer>_failed`, the number of
    calls whose steps ended before the last time. Where layers share a name, `<layer>`
    is `<name>_1` for the second one, and so on.

    In a compiled function, a failure makes the output NaN. Then the loss and, after the
    update, the weights are NaN too. The first failure of each kind in an epoch gives a
    `RuntimeWarning` with advice. In eager mode, and so on PyTorch, a failure is an
    error and ends the training.

    To skip the update of such a batch, and keep the weights, compile the model with
    `keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=1.0)`, which skips
    updates that are not finite. Then a failure is NaN in eager mode too. The loss that
    Keras shows is the epoch's mean, so it stays NaN. A BatchNormalization after the ODE
    still takes NaN into its statistics.

    These numbers are not Keras metrics, so `evaluate`, `train_on_batch` and
    `test_on_batch` return the same as with fixed steps. There are drawbacks:
    without the callback nothing is shown, and evaluations in validation are not
    counted. The numbers are read after every batch, so JAX has to wait for that batch.
    If several processes run JAX, only the first one counts; the others show 0.

    Example:

    >>> import keras, numpy as np
    >>> from keras_nanode import callbacks, layers
    >>> ode = layers.TrigDenseODE(2, solver="dopri5", name="flow")
    >>> model = keras.Sequential([keras.Input((3,)), ode])
    >>> model.compile("sgd", "mse")
    >>> x = np.ones((8, 3))
    >>> fit = model.fit(x, x, verbose=0, callbacks=[callbacks.Evaluations()])
    >>> sorted(fit.history)
    ['flow_failed', 'flow_nfe', 'loss']
    """

    def __init__(self):
        super().__init__()
        self._odes: dict[str, ODE] = {}

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch, self._told = epoch, set()
        odes = [x for x in all_layers(self.model) if isinstance(x, ODE)]
        self._odes = _by_name(odes)
        skips = isinstance(self.model.optimizer, keras.optimizers.LossScaleOptimizer)
        for ode in odes:
            ode.tally.reset()
            ode.tally.skips = skips

    def on_train_end(self, logs=None):
        for ode in self._odes.values():
            ode.tally.skips = False

    def on_train_batch_end(self, batch, logs=None):
        self._add(logs)
        for name, ode in self._odes.items():
            for status in ode.tally.failures():
                if (name, status) not in self._told:
                    self._told.add((name, status))
                    warnings.warn(
                        f"The adaptive steps of the layer {name!r} ended before "
                        f"the last time, first in batch {batch + 1} of epoch "
                        f"{self._epoch + 1}. {status.message} "
                        f"Received: status={status.name}, steps={ode.steps}",
                        RuntimeWarning,
                        stacklevel=2,
                    )

    def on_epoch_end(self, epoch, logs=None):
        self._add(logs)

    def _add(self, logs):
        for name, ode in self._odes.items():
            if ode.is_adaptive:
                logs[f"{name}_nfe"] = ode.tally.evaluations()
                logs[f"{name}_failed"] = sum(ode.tally.failures().values())


def _by_name(odes: list[ODE]) -> dict[str, ODE]:
    """The layers by their names. A name that is taken gets a number, as in Keras."""
    found: dict[str, ODE] = {}
    for ode in odes:
        names = (f"{ode.name}_{i}" if i else ode.name for i in itertools.count())
        found[next(name for name in names if name not in found)] = ode
    return found


__all__ = ["Evaluations"]
