"""A solve has the same gradient wherever it stands: in loops, maps, cells and solves.

Each place is a function `place(f, y, params)` that applies f, a solve from a state, in
some construct of Keras or of the backend, and what that amounts to.
"""

import functools
import itertools
import os

import keras
import numpy as np
import pytest
from cases import (
    ADJOINTS,
    BASES,
    EACH_KIND,
    PAIRS,
    REVERSIBLE,
    SOLVERS,
    assert_close,
    compiled,
    numbers,
    random,
)
from keras import ops, tree
from problems import FLOAT64

from keras_nanode import Adaptive, adjoints, backend, odeint
from keras_nanode.fields.vector_field import VectorField
from keras_nanode.fields.weights import BasisWeights, FixedWeights, Parts
from keras_nanode.integrate import integrate

BACKEND = keras.backend.backend()


def solution(solver, basis, steps, adjoint):
    """y(1) from y(0), with a vector field that all backends compute in float64."""
    weights = BasisWeights(BASES[basis]) if basis in BASES else FixedWeights()

    def slope(t, y, theta):
        ((kernel, bias),) = theta
        z = y @ kernel + bias * t
        return z / (1 + z * z)

    def f(y, params):
        ends, _ = integrate(
            VectorField(slope, Parts(weights)),
            y,
            (params,),
            np.array([0.0, 1.0]),
            solver=SOLVERS[solver],
            steps=steps,
            adjoint=adjoints.get(adjoint),
            name="the problem",
            fails=False,
        )
        return ends[0]

    size = (BASES[basis].size,) if basis in BASES else ()
    params = [random((*size, 3, 3), FLOAT64, 1), random((*size, 3), FLOAT64, 2)]
    return f, params


# What a place amounts to.


def twice(f, y, params):
    return f(f(y, params), params)


def rows(f, y, params):
    return ops.stack([f(y[i], params) for i in range(y.shape[0])])


def around(f, y, params):
    """In the vector field of another solve, two steps of Euler's method."""
    for _ in range(2):
        y = y + 0.5 * f(y, params)
    return y


# Places.


def keras_scan(f, y, params):
    return ops.scan(lambda y, _: (f(y, params),) * 2, y, length=2)[0]


def keras_map(f, y, params):
    return ops.map(lambda y: f(y, params), y)


def keras_vectorized_map(f, y, params):
    return ops.vectorized_map(lambda y: f(y, params), y)


def keras_fori_loop(f, y, params):
    return ops.fori_loop(0, 2, lambda _, y: f(y, params), y)


def keras_remat(f, y, params):
    f = keras.remat(f)
    return twice(f, y, params)


def keras_cond(f, y, params):
    for _ in range(2):
        y = ops.cond(ops.sum(y * y) >= 0, lambda y=y: f(y, params), lambda y=y: y)
    return y


class Cell(keras.Layer):
    """The state flows, whatever the input."""

    def __init__(self, f, y, params):
        super().__init__(dtype=FLOAT64)
        self.state_size = self.output_size = y.shape[-1]
        self.flow = lambda y: f(y, params)

    def call(self, inputs, states):
        y = self.flow(states[0])
        return y, [y]


def rnn(f, y, params, unroll=False):
    layer = keras.layers.RNN(Cell(f, y, params), unroll=unroll, dtype=FLOAT64)
    return layer(ops.zeros((y.shape[0], 2, 1), FLOAT64), initial_state=[y])


def unrolled_rnn(f, y, params):
    return rnn(f, y, params, unroll=True)


def another_solve(f, y, params, adjoint="checkpoint"):
    return odeint(
        lambda t, y, params: f(y, params),
        y,
        [0.0, 1.0],
        (params,),
        solver="euler",
        steps=2,
        adjoint=adjoint,
    )[-1]


def another_direct_solve(f, y, params):
    return another_solve(f, y, params, "direct")


PLACES = {
    keras_scan: twice,
    keras_map: rows,
    keras_vectorized_map: rows,
    keras_fori_loop: twice,
    keras_remat: twice,
    keras_cond: twice,
    rnn: twice,
    unrolled_rnn: twice,
    another_solve: around,
    another_direct_solve: around,
}

if BACKEND == "torch":
    del PLACES[keras_vectorized_map]  # refused, see below

# Where the lengths of steps cannot differ from row to row.
NOT_ADAPTIVE = {}

if BACKEND == "tensorflow":
    import tensorflow as tf

    NOT_ADAPTIVE[keras_vectorized_map] = "TensorFlow writes all rows to one place"

    def tf_while_loop(f, y, params):
        return tf.while_loop(
            lambda i, _: i < 2, lambda i, y: (i + 1, f(y, params)), (0, y)
        )[1]

    def tf_while_loop_of_known_length(f, y, params):
        return tf.while_loop(
            lambda i, _: i < 2,
            lambda i, y: (i + 1, f(y, params)),
            (0, y),
            maximum_iterations=2,
        )[1]

    def tf_map_fn(f, y, params):
        return tf.map_fn(lambda y: f(y, params), y)

    def tf_function(f, y, params):
        return twice(tf.function(f), y, params)

    def loop_in_a_loop(f, y, params):
        def body(i, y):
            return i + 1, tf_while_loop(lambda y, params: f(y, params), y, params)

        return tf.while_loop(lambda i, _: i < 1, body, (0, y))[1]

    PLACES |= {
        tf_while_loop: twice,
        tf_while_loop_of_known_length: twice,
        tf_map_fn: rows,
        tf_function: twice,
        loop_in_a_loop: twice,
    }


ADAPTIVE = Adaptive(1e-3, 1e-3, 30)
# Beside the bases weights that are the same at all times: "none".
KINDS = ("none", *BASES)


def gradients(apply, f, y, params):
    """Of sum(apply(f, y, params) ** 2) in y and params."""

    def run(y, params):
        outputs, pullback = backend.vjp(functools.partial(apply, f), y, params)
        return pullback(2 * outputs)

    primals = tree.map_structure(ops.convert_to_tensor, (y, params))
    return numbers(compiled(run)(*primals))


@functools.cache
def expected(amounts, solver, basis, steps, adjoint):
    f, params = solution(solver, basis, steps, adjoint)
    return gradients(amounts, f, state(amounts), params)


def state(amounts):
    return random((2, 4, 3) if amounts is rows else (4, 3), FLOAT64)


def check(place, solver, basis, steps, adjoint):
    """Against `direct` outside of loops; `backsolve`, which is not exact, to itself."""
    amounts = PLACES[place]
    # TensorFlow's vectorized maps lose custom gradients: it differentiates the solve.
    lost = BACKEND == "tensorflow" and place is keras_vectorized_map
    exact = adjoint if adjoint == "backsolve" and not lost else "direct"
    f, params = solution(solver, basis, steps, adjoint)
    actual = gradients(place, f, state(amounts), params)
    desired = expected(amounts, solver, basis, steps, exact)
    assert all(np.any(g != 0) for g in tree.flatten(desired))
    assert_close(actual, desired, 1e-10)


def by_name(function):
    return function.__name__


@pytest.mark.parametrize(
    ("solver", "basis", "steps", "adjoint"),
    [("alf", "none", 1, "reversible"), ("heun", "bucket", 3, "checkpoint")],
)
@pytest.mark.parametrize("place", PLACES, ids=by_name)
def test_gradients_are_the_same_in_every_place(place, solver, basis, steps, adjoint):
    check(place, solver, basis, steps, adjoint)


def with_constants(adjoint, solver):
    """A problem that reads tensors without a gradient: an integer and booleans."""

    def slope(t, y, kernel, bias, number, chosen):
        z = ops.cast(number, y.dtype) * (y @ kernel) + bias * t
        return z / (1 + z * z) * ops.cast(chosen, y.dtype)

    def f(y, params):
        args = (*params, 2, np.array([True, False, True]))
        options = {"solver": solver, "adjoint": adjoint, "steps": 3}
        return odeint(slope, y, [0.0, 1.0], args, **options)[-1]

    return f


@pytest.mark.parametrize(
    ("adjoint", "solver"),
    [("checkpoint", "heun"), ("backsolve", "heun"), ("reversible", "alf")],
)
@pytest.mark.parametrize("place", PLACES, ids=by_name)
def test_constants_have_no_gradient_in_any_place(place, adjoint, solver):
    amounts = PLACES[place]
    params = [random((3, 3), FLOAT64, 1), random((3,), FLOAT64, 2)]
    actual = gradients(place, with_constants(adjoint, solver), state(amounts), params)
    # TensorFlow's vectorized maps lose custom gradients, as in `check`.
    lost = BACKEND == "tensorflow" and place is keras_vectorized_map
    exact = adjoint if adjoint == "backsolve" and not lost else "direct"
    f = with_constants(exact, solver)
    assert_close(actual, gradients(amounts, f, state(amounts), params), 1e-10)


def turns(pairs, places, steps):
    """Each of the pairs once, and with them all bases and places in turn.

    With EVERY_PLACE=1 in the environment they occur at every place: `EVERY_PLACE=1
    pytest -m slow tests/properties/test_places.py` takes hours.
    """
    every = os.environ.get("EVERY_PLACE") == "1"
    for i, (solver, adjoint) in enumerate(pairs):
        for j in range(i, i + (len(places) if every else 1)):
            # A pair moves on by one place for each basis, or some would never meet.
            basis, place = KINDS[(i + j) % len(KINDS)], places[j % len(places)]
            name = f"{place.__name__}-{solver}-{basis}-{adjoint}"
            yield pytest.param(place, solver, basis, steps, adjoint, id=name)


# The gradient of equal steps is the backend's own with `direct`: two of them will do.
ONLY = {"direct": ("rk4", "alf"), "reversible": REVERSIBLE}
FIXED = [
    (solver, adjoint) for adjoint in ADJOINTS for solver in ONLY.get(adjoint, EACH_KIND)
]
CHOSEN = list(itertools.product(PAIRS, ("checkpoint", "backsolve", "direct")))
ANYWHERE = list(PLACES)
CHOOSING = [place for place in PLACES if place not in NOT_ADAPTIVE]


@pytest.mark.slower
@pytest.mark.parametrize(
    ("place", "solver", "basis", "steps", "adjoint"),
    [*turns(FIXED, ANYWHERE, 3), *turns(CHOSEN, CHOOSING, ADAPTIVE)],
)
def test_gradients_of_every_solver_and_adjoint(place, solver, basis, steps, adjoint):
    check(place, solver, basis, steps, adjoint)


@pytest.mark.skipif(BACKEND != "torch", reason="the others map custom gradients")
def test_the_transforms_of_pytorch_take_direct_alone():
    args = ("rk4", "trig", 3)
    y, (f, params) = state(rows), solution(*args, "direct")
    actual = gradients(keras_vectorized_map, f, y, params)
    assert_close(actual, expected(rows, *args, "direct"), 1e-10)
    f, _ = solution(*args, "checkpoint")
    with pytest.raises(ValueError, match='torch.func.*`adjoint="direct"`'):
        gradients(keras_vectorized_map, f, y, params)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="other backends map any steps")
def test_adaptive_steps_in_a_vectorized_map_of_tensorflow():
    def f(y):
        def solve(row):
            steps = {"steps": Adaptive(1e-8, 1e-8), "adjoint": "backsolve"}
            return odeint(lambda t, y: -y, row, [0.0, 1.0], **steps)[-1]

        return ops.vectorized_map(solve, y)

    y = np.linspace(1, 2, 6).reshape(2, 3)
    y1, pullback = backend.vjp(f, ops.convert_to_tensor(y))
    np.testing.assert_allclose(numbers(y1), y * np.exp(-1), rtol=1e-6)
    (in_y,) = pullback(ops.ones_like(y1))
    np.testing.assert_allclose(numbers(in_y), np.exp(-1), rtol=1e-6)
