"""A step of length h of f is one of length 1 of h f, if weights can take the factor."""

import dataclasses

import keras
import numpy as np
import pytest
from cases import (
    ADJOINTS,
    EACH_KIND,
    IMAGE,
    SOLVERS,
    VECTOR,
    assert_close,
    gradients,
    in_turn,
    random,
)

from keras_nanode import adjoints, bases, layers
from keras_nanode.fields.stateless import LayerFunction
from keras_nanode.integrate import integrate

BLOCKS = {
    "dense": lambda: (layers.DenseBlock(hidden_units=2), VECTOR),
    "dense, no bias": lambda: (
        layers.DenseBlock(hidden_units=2, use_bias=False),
        VECTOR,
    ),
    "conv": lambda: (layers.ConvBlock(hidden_filters=2), IMAGE),
    "conv, normalized": lambda: (
        layers.ConvBlock(hidden_filters=2, normalization="group"),
        IMAGE,
    ),
}


def built(make):
    block, shape = make()
    x = keras.ops.convert_to_tensor(random(shape))
    block(x)
    return block, x


@pytest.mark.parametrize("name", BLOCKS)
def test_scaled_weights_scale_the_slope(name):
    block, x = built(BLOCKS[name])
    # Biases too, which start at 0.
    weights = [random(w.shape, seed=1) for w in block.trainable_variables]
    f = LayerFunction(block)
    desired = 0.1 * keras.ops.convert_to_numpy(f(weights, x))
    scaled = f(f.scale(weights, 0.1), x)
    assert_close(keras.ops.convert_to_numpy(scaled), desired, 1e-6)


def frozen():
    block, x = built(BLOCKS["dense"])
    block.maps[-1].trainable = False
    return block, x


def quantized():
    block, x = built(BLOCKS["dense"])
    for linear in block.maps:
        linear.quantize("int8")
    return block, x


NOT_SCALED = {
    # Their activation comes last.
    "a single map": lambda: built(lambda: (layers.DenseBlock(), VECTOR)),
    "another layer": lambda: built(lambda: (keras.layers.Dense(3, "tanh"), VECTOR)),
    # Other weights than the trainable ones have a part in the output.
    "frozen": frozen,
    "quantized": quantized,
    # h W might be too small for float16.
    "half precision": lambda: built(
        lambda: (layers.DenseBlock(hidden_units=2, dtype="mixed_float16"), VECTOR)
    ),
}


@pytest.mark.parametrize("name", NOT_SCALED)
def test_weights_are_scaled_only_where_that_scales_the_slope(name):
    block, _ = NOT_SCALED[name]()
    assert LayerFunction(block).scale is None


UNIT_STEPS = [
    *(("euler", adjoint) for adjoint in ADJOINTS if adjoint != "reversible"),
    *((solver, "checkpoint") for solver in EACH_KIND if solver != "euler"),
    ("reversible(heun)", "reversible"),
    ("alf", "reversible"),
]


@pytest.mark.slower
@pytest.mark.parametrize(
    ("kind", "times"), in_turn(UNIT_STEPS, [[0.0, 1.0], [1.0, 0.7, -0.2]])
)
def test_a_unit_step_is_the_step(kind, times):
    solver, adjoint = kind
    dynamics = layers.TimeVarying(
        layers.DenseBlock(hidden_units=3), bases.Trigonometric(2), start="independent"
    )
    ode = layers.ODE(dynamics, steps=7)
    x = random(VECTOR)
    ode(x)
    field, params = ode.field()
    assert field.scale is not None

    def flow(field):
        return lambda y0, params: integrate(
            field,
            y0,
            params,
            np.array(times),
            solver=SOLVERS[solver],
            steps=7,
            adjoint=adjoints.get(adjoint),
            name="the test",
        )[0]

    plain = dataclasses.replace(field, scale=None)
    desired = gradients(flow(plain), x, params)
    assert_close(gradients(flow(field), x, params), desired, 2e-5)


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="loops cost little there")
@pytest.mark.parametrize(
    ("solver", "steps", "loops"),
    [("euler", 16, False), ("rk4", 4, False), ("euler", 17, True), ("rk4", 5, True)],
)
def test_a_short_solve_takes_no_loops_on_a_cpu(solver, steps, loops):
    # XLA's convolutions take 10 to 20 times as long in them.
    import jax

    ode = layers.TrigDenseODE(2, solver=solver, steps=steps)
    x = random(VECTOR)
    ode(x)
    weights = [v.value for v in ode.trainable_variables]
    gradient = jax.grad(lambda w: ode.stateless_call(w, [], x)[0].sum())
    text = str(jax.make_jaxpr(gradient)(weights))
    assert ("while" in text or "scan" in text) == loops
