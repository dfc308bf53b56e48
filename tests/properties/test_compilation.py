"""Compiled or not, a model computes and learns the same, and it is traced once."""

import functools

import keras
import numpy as np
import pytest
from cases import numbers, random
from keras import ops

from keras_nanode import Adaptive, Checkpoint, bases, layers

BACKEND = keras.backend.backend()
WAYS = {"graph": {"jit_compile": False}, "jit_compile": {"jit_compile": True}}
on_tensorflow = pytest.mark.skipif(
    BACKEND != "tensorflow", reason="`tf.function` is TensorFlow's"
)
not_on_torch = pytest.mark.skipif(
    BACKEND == "torch", reason="eager: see `torch.compile`"
)
EAGER = {"run_eagerly": True, "jit_compile": False}

ADAPTIVE = {"solver": "bosh3", "steps": Adaptive(1e-4, 1e-4, 64)}
FLOWS = {
    "checkpoint": {"solver": "heun", "steps": 5},
    "checkpoint-adaptive": ADAPTIVE,
    "few-states-adaptive": {"adjoint": Checkpoint(3), **ADAPTIVE},
    "backsolve": {"solver": "rk4", "steps": 2, "adjoint": "backsolve"},
    "backsolve-adaptive": {"adjoint": "backsolve", **ADAPTIVE},
    "reversible": {"solver": "alf", "steps": 4, "adjoint": "reversible"},
    "direct": {"solver": "heun", "steps": 3, "adjoint": "direct"},
    "direct-adaptive": {"adjoint": "direct", **ADAPTIVE},
}
# XLA takes long to compile the others.
QUICK = ("checkpoint", "reversible")


@functools.cache
def eager(flow):
    return three_steps(FLOWS[flow], **EAGER)


def three_steps(options, **compilation):
    """The outputs, and the weights after three batches."""
    keras.utils.set_random_seed(0)
    ode = layers.DenseODE(bases.Bucket(2), hidden_units=4, activation="tanh", **options)
    model = keras.Sequential([keras.Input((3,)), ode, keras.layers.Dense(2)])
    model.compile(keras.optimizers.SGD(0.1), "mse", **compilation)
    x, y = random((24, 3)), random((24, 2), seed=1)
    outputs = model.predict(x, verbose=0)
    # The last batch is smaller: TensorFlow compiles for any size then.
    model.fit(x, y, batch_size=10, shuffle=False, verbose=0)
    return outputs, [numbers(w) for w in model.weights]


@pytest.mark.parametrize(
    "way",
    [
        pytest.param("graph", marks=on_tensorflow),
        pytest.param("jit_compile", marks=not_on_torch),
    ],
)
@pytest.mark.parametrize(
    "flow",
    [pytest.param(f, marks=() if f in QUICK else pytest.mark.slower) for f in FLOWS],
)
def test_compiled_functions_agree_with_eager_ones(flow, way):
    outputs, weights = eager(flow)
    compiled_outputs, compiled_weights = three_steps(FLOWS[flow], **WAYS[way])
    np.testing.assert_allclose(compiled_outputs, outputs, atol=1e-5)
    for one, other in zip(compiled_weights, weights, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


class FlowCell(keras.layers.Layer):
    """A cell of `keras.layers.RNN` whose state flows and then takes the input in."""

    def __init__(self, adjoint):
        super().__init__()
        self.state_size = self.units = 3
        dynamics = keras.layers.Dense(3, activation="tanh")
        self.ode = layers.ODE(dynamics, **{**ADAPTIVE, "adjoint": adjoint})
        self.dense = keras.layers.Dense(3)

    def build(self, input_shape):
        self.ode.build((None, 3))
        self.dense.build(input_shape)

    def call(self, inputs, states, training=None):
        state = self.ode(states[0], training=training) + self.dense(inputs)
        return state, [state]


@not_on_torch
@pytest.mark.slower
@pytest.mark.parametrize("adjoint", ["checkpoint", "backsolve", "direct"])
def test_adaptive_steps_in_a_recurrent_cell_are_compiled(adjoint):
    """XLA has to know how long a loop within another is, to differentiate it."""

    def weights(**compilation):
        keras.utils.set_random_seed(0)
        rnn = keras.layers.RNN(FlowCell(adjoint))
        model = keras.Sequential([keras.Input((4, 2)), rnn])
        model.compile(keras.optimizers.SGD(0.1), "mse", **compilation)
        model.fit(random((8, 4, 2)), random((8, 3), seed=1), batch_size=4, verbose=0)
        return [numbers(w) for w in model.weights]

    for one, other in zip(
        weights(jit_compile=True), weights(run_eagerly=True), strict=True
    ):
        np.testing.assert_allclose(one, other, atol=1e-5)


class Traced(keras.layers.Dense):
    """Counts how often Python runs through it."""

    count = 0

    def call(self, inputs):
        Traced.count += 1
        return super().call(inputs)


@not_on_torch
def test_three_blocks_are_not_traced_again_by_the_next_batch():
    inputs = x = keras.Input((3,))
    for options in ({"steps": 4}, {"solver": "rk4", "steps": 2}, ADAPTIVE):
        dynamics = layers.TimeVarying(Traced(3, "tanh"), bases.Trigonometric(1))
        x = layers.ODE(dynamics, **options)(x)
    model = keras.Model(inputs, x)
    model.compile("sgd", "mse")
    # Of two sizes, the last batch being smaller.
    data = random((20, 3)), random((20, 3), seed=1)

    def use():
        before = Traced.count
        model.fit(*data, batch_size=8, epochs=2, verbose=0)
        model.evaluate(*data, batch_size=8, verbose=0)
        model.predict(data[0], batch_size=8, verbose=0)
        return Traced.count - before

    assert use() > 0
    assert use() == 0
    assert bool(ops.all(ops.isfinite(model(data[0]))))
