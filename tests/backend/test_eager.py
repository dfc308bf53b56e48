"""Eager TensorFlow: tapes keep no more of a solve than its adjoint does."""

import contextlib
import weakref

import keras
import numpy as np
import pytest
from cases import numbers
from keras import ops

from keras_nanode import Adaptive, Checkpoint, odeint

if keras.backend.backend() != "tensorflow":
    pytest.skip("the others have no tapes", allow_module_level=True)

import tensorflow as tf

# Each adjoint: a solver, and how many of 64 states may be alive.
LEAN = {
    "checkpoint": ("euler", 20),
    "backsolve": ("euler", 9),
    "reversible": ("alf", 9),
}
STEPS = 64
ADAPTIVE = Adaptive(1e-4, 1e-4)


class Census:
    """A vector field that counts how many of the states it was given are alive."""

    def __init__(self):
        self.states, self.most = [], 0

    def __call__(self, t, y, w):
        self.states.append(weakref.ref(y))
        self.states = [ref for ref in self.states if ref() is not None]
        self.most = max(self.most, len(self.states))
        return ops.tanh(w * y)


def one_tape():
    return [tf.GradientTape()]


def nested_tapes():
    return [tf.GradientTape(), tf.GradientTape()]


def persistent_tapes():
    return [tf.GradientTape(persistent=True), tf.GradientTape(persistent=True)]


def under(tapes, options, census, inside=False):
    """The gradient of a solve in y and w, by the last tape, `inside` the first."""
    y, w = tf.ones((3,)), tf.constant(0.5)
    with contextlib.ExitStack() as stack:
        for tape in tapes:
            stack.enter_context(tape)
            tape.watch([y, w])
        end = odeint(census, y, [0.0, 1.0], (w,), **options)[-1]
        if inside:
            return numbers(tapes[-1].gradient(end, [y, w]))
    return numbers(tapes[-1].gradient(end, [y, w]))


@pytest.mark.parametrize("inside", [False, True], ids=["after", "inside"])
@pytest.mark.parametrize("tapes", [one_tape, nested_tapes, persistent_tapes])
@pytest.mark.parametrize("adjoint", LEAN)
def test_tapes_keep_few_states(adjoint, tapes, inside):
    solver, most = LEAN[adjoint]
    options = {"solver": solver, "steps": STEPS}
    census, all_kept = Census(), Census()
    actual = under(tapes(), {**options, "adjoint": adjoint}, census, inside)
    assert census.most <= most
    desired = under(one_tape(), {**options, "adjoint": "direct"}, all_kept)
    # Or the census sees nothing.
    assert all_kept.most >= STEPS
    tolerance = 0.05 if adjoint == "backsolve" else 1e-4
    for a, d in zip(actual, desired, strict=True):
        np.testing.assert_allclose(a, d, rtol=tolerance)


def test_tapes_keep_few_states_of_adaptive_steps():
    census = Census()
    options = {"steps": Adaptive(1e-6, 1e-6), "solver": "bosh3"}
    under(nested_tapes(), {**options, "adjoint": "backsolve"}, census, inside=True)
    assert 0 < census.most <= 20


@pytest.mark.parametrize("adjoint", LEAN)
def test_eager_training_keeps_few_states(adjoint):
    """In `fit`, whose tape watches the weights of the model."""
    from keras_nanode import layers

    solver, most = LEAN[adjoint]
    census = Census()

    class Counted(keras.layers.Dense):
        def call(self, inputs):
            return census(0.0, super().call(inputs), 1.0)

    def run(adjoint):
        model = keras.Sequential(
            [keras.Input((3,)), layers.ODE(Counted(3), solver, STEPS, adjoint=adjoint)]
        )
        model.compile("sgd", "mse", run_eagerly=True)
        census.states, census.most = [], 0
        model.fit(np.ones((2, 3)), np.ones((2, 3)), verbose=0)
        return census.most

    assert run(adjoint) <= most
    assert run("direct") >= STEPS


@pytest.mark.parametrize("steps", [5, ADAPTIVE], ids=["fixed", "adaptive"])
@pytest.mark.parametrize("num", [None, 2])
def test_a_jacobian_vectorizes_the_gradient_of_an_eager_solve(num, steps):
    """Its default is to find the gradient of what was recorded eagerly in a graph."""
    y, w = tf.ones((2, 3)), tf.constant(0.5)
    options = {"solver": "bosh3", "steps": steps, "adjoint": Checkpoint(num)}
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([y, w])
        times = [0.0, 0.5, 1.0]
        y1 = odeint(lambda t, y, w: ops.tanh(w * y), y, times, (w,), **options)[-1]
    by_rows = tape.jacobian(y1, [y, w], experimental_use_pfor=False)
    for a, b in zip(tape.jacobian(y1, [y, w]), by_rows, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
        assert np.any(b != 0)
    in_graph = tf.function(lambda: tape.gradient(y1, w))()
    np.testing.assert_allclose(in_graph, tape.gradient(y1, w), rtol=1e-5)


def test_a_tape_in_the_vector_field_works_under_another():
    """As of a Hamiltonian: dy/dt is a gradient itself."""

    def func(t, y, w):
        with tf.GradientTape() as tape:
            tape.watch(y)
            energy = ops.sum(w * ops.cos(y))
        return tape.gradient(energy, y)

    options = {"solver": "rk4", "steps": 4}
    found = [
        under(nested_tapes(), {**options, "adjoint": adjoint}, func)
        for adjoint in ("checkpoint", "direct")
    ]
    for a, d in zip(*found, strict=True):
        assert np.all(d != 0)
        np.testing.assert_allclose(a, d, rtol=1e-5)


in_both_modes = pytest.mark.parametrize(
    "mode", [lambda f: f, tf.function], ids=["eager", "graph"]
)


@pytest.fixture
def checked_numerics():
    tf.debugging.enable_check_numerics()
    yield
    tf.debugging.disable_check_numerics()


@in_both_modes
@pytest.mark.parametrize("adjoint", ["checkpoint", "backsolve", "direct"])
@pytest.mark.usefixtures("checked_numerics")
def test_a_search_for_nan_and_infinities_finds_none_of_ours(adjoint, mode):
    """`tf.debugging.enable_check_numerics()`, of a basis with breakpoints."""
    from keras_nanode import layers

    ode = layers.BucketDenseODE(2, solver="bosh3", steps=ADAPTIVE, adjoint=adjoint)
    x = tf.ones((2, 3))
    ode.build(x.shape)

    def gradient(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = ode(x)
        return tape.gradient(y, x)

    assert np.isfinite(mode(gradient)(x)).all()


@in_both_modes
@pytest.mark.parametrize("steps", [5, ADAPTIVE], ids=["fixed", "adaptive"])
def test_a_vector_field_of_numpy(steps, mode):
    """`tf.numpy_function`, which does not tell a graph its shape."""

    def func(t, y):
        return tf.numpy_function(np.negative, [y], y.dtype)

    def f(y):
        return odeint(func, y, [0.0, 1.0], solver="bosh3", steps=steps)[-1]

    np.testing.assert_allclose(mode(f)(tf.ones((3,))), np.exp(-1), rtol=1e-3)


@in_both_modes
@pytest.mark.parametrize("adjoint", LEAN)
def test_what_is_closed_over_learns_in_no_mode(adjoint, mode):
    y, w, scale = tf.ones((3,)), tf.constant(0.5), tf.constant(2.0)
    solver, _ = LEAN[adjoint]

    def gradients():
        with tf.GradientTape() as tape:
            tape.watch([w, scale])
            end = odeint(
                lambda t, y, w: w * scale * y,
                y,
                [0.0, 1.0],
                (w,),
                solver=solver,
                steps=3,
                adjoint=adjoint,
            )
        in_w, in_scale = tape.gradient(end, [w, scale])
        assert in_scale is None
        return in_w

    assert mode(gradients)() > 0


@in_both_modes
@pytest.mark.parametrize("adjoint", LEAN)
def test_what_is_closed_over_alone_learns_in_no_mode(adjoint, mode):
    solver, _ = LEAN[adjoint]
    w = tf.constant(0.5)

    def end():
        with tf.GradientTape() as tape:
            tape.watch(w)
            end = odeint(
                lambda t, y: w * y,
                tf.ones((3,)),
                [0.0, 1.0],
                solver=solver,
                steps=3,
                adjoint=adjoint,
            )
        assert tape.gradient(end, w) is None
        return end

    assert np.isfinite(mode(end)()).all()


@in_both_modes
@pytest.mark.parametrize("adjoint", LEAN)
def test_a_variable_that_is_closed_over_is_named(adjoint, mode):
    y, w = tf.ones((3,)), tf.Variable(0.5, name="rate")
    solver, _ = LEAN[adjoint]

    def gradient():
        with tf.GradientTape() as tape:
            tape.watch(y)
            end = odeint(
                lambda t, y: w * y,
                y,
                [0.0, 1.0],
                solver=solver,
                steps=3,
                adjoint=adjoint,
            )
        return tape.gradient(end, y)

    with pytest.raises(ValueError, match=r"not among its arguments.*rate:0"):
        mode(gradient)()
