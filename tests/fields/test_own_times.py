"""t of shape (batch, times): each sample is solved over its own times."""

import keras
import numpy as np
import pytest
from cases import SOLVERS, assert_close, compiled, gradients, numbers, random
from keras import ops
from problems import FLOAT64

from keras_nanode import Adaptive, Signal, bases, layers, odeint

BATCH, WIDTH = 3, 2
T = np.array([[0.0, 0.4, 1.0, 1.2], [0.5, 0.9, 1.0, 2.0], [2.0, 1.5, 0.3, 0.0]])
Y0 = random((BATCH, WIDTH), FLOAT64)
RATE = random((WIDTH,), FLOAT64, 1)


def slope(t, y, rate):
    z = rate * y + t
    return z / (1 + z * z)


def run(solver, steps=3, adjoint="checkpoint"):
    def solve(y0, t, rate):
        options = {"solver": SOLVERS[solver], "steps": steps, "adjoint": adjoint}
        return odeint(slope, y0, t, (rate,), **options)

    return solve


def alone(solver):
    """The samples one after the other, each over a series of times."""
    one = run(solver, adjoint="direct")

    def solve(y0, t, rate):
        each = [one(y0[i : i + 1], t[i], rate) for i in range(BATCH)]
        return ops.concatenate(each, axis=1)

    return solve


@pytest.mark.parametrize(
    ("solver", "adjoint"), [("rk4", "checkpoint"), ("midpoint", "direct")]
)
def test_a_batch_is_its_samples_one_by_one(solver, adjoint):
    """Its values, and its gradients in y0, the times and the arguments."""
    together = run(solver, adjoint=adjoint)
    found, desired = (
        numbers(compiled(f)(*map(ops.convert_to_tensor, (Y0, T, RATE))))
        for f in (together, alone(solver))
    )
    assert_close(found, desired, 1e-12)
    found, desired = (gradients(f, Y0, T, RATE) for f in (together, alone(solver)))
    assert np.abs(desired[1]).max() > 1e-2
    assert_close(found, desired, 1e-10)


@pytest.mark.parametrize("solver", ["alf", "reversible_heun"])
def test_solvers_that_carry_slopes_start_anew_in_each_gap(solver):
    """So they are not a sample's alone to rounding. They converge to it, and their
    reversible gradient is exact."""
    found, desired = (
        gradients(run(solver, 3, way), Y0, T, RATE) for way in ("reversible", "direct")
    )
    assert_close(found, desired, 1e-10)
    given = [ops.convert_to_tensor(x) for x in (Y0, T, RATE)]
    exact = numbers(compiled(run("rk4", 32))(*given))
    assert_close(numbers(compiled(run(solver, 64))(*given)), exact, 1e-3)


def test_backsolve_has_the_gradients_of_the_differential_equation():
    found, desired = (
        gradients(run("rk4", 40, way), Y0, T, RATE) for way in ("backsolve", "direct")
    )
    assert_close(found, desired, 1e-6)


def test_padded_times_have_equal_states_and_a_gradient():
    padded = np.concatenate([T, T[:, -1:], T[:, -1:]], axis=1)
    found, desired = (
        numbers(compiled(run("rk4"))(*map(ops.convert_to_tensor, (Y0, t, RATE))))
        for t in (padded, T)
    )
    np.testing.assert_array_equal(found[:4], desired)
    np.testing.assert_array_equal(found[4], found[3])
    np.testing.assert_array_equal(found[5], found[3])
    assert all(np.isfinite(g).all() for g in gradients(run("rk4"), Y0, padded, RATE))


def test_large_times_are_subtracted_before_they_are_rounded():
    """Seconds since 1970 are 128 s apart in float32."""
    seconds = 1.7e9 + np.array([[0.0, 1.0, 3.0], [0.0, 0.5, 0.5]])
    y = numbers(
        odeint(
            lambda t, y: -y, np.ones((2, 1), "float32"), seconds, steps=8, solver="rk4"
        )
    )
    np.testing.assert_allclose(y[:, :, 0].T, np.exp(seconds[:, :1] - seconds), 1e-4)


def test_a_layer_and_a_structure_see_the_times_of_each_sample():
    class Clock(keras.layers.Layer):
        def call(self, y, t):
            return ops.zeros_like(y) + ops.cast(t, y.dtype)

    y0, t = np.zeros((BATCH, 2, 1), "float32"), T.astype("float32")
    desired = np.moveaxis((T**2 - T[:, :1] ** 2) / 2, 1, 0)[..., None, None]
    desired = np.broadcast_to(desired, (4, *y0.shape))
    y = odeint(Clock(), y0, t, solver="midpoint", steps=1)
    np.testing.assert_allclose(numbers(y), desired, atol=1e-6)
    pair, stats = odeint(
        lambda t, y: (y[0] * 0 + t, y[1] * 0),
        (y0, y0 + 1),
        t.tolist(),
        solver="midpoint",
        steps=2,
        return_stats=True,
    )
    np.testing.assert_allclose(numbers(pair[0]), desired, atol=1e-6)
    np.testing.assert_array_equal(numbers(pair[1]), np.ones((4, *y0.shape)))
    assert int(stats["num_steps"]) == 6


VARYING = layers.TimeVarying(keras.layers.Dense(WIDTH), bases.Bucket(2))


@pytest.mark.parametrize(
    ("changes", "message"),
    {
        "adaptive": ({"solver": "dopri5", "steps": None}, "no error can choose"),
        "tolerances": ({"solver": "dopri5", "steps": Adaptive()}, "share their steps"),
        "no batch": ({"y0": np.ones(2)}, "the batch as its first axis"),
        "other batch": ({"y0": np.ones((4, 2))}, r"y0 of shapes \[\(4, 2\)\]"),
        "ranks": ({"y0": [np.ones((3, 2)), np.ones(3)]}, "equally many axes"),
        "disorder": ({"t": [[0.0, 2.0, 1.0]] * 3}, "in a row"),
        "one time": ({"t": [[0.0]] * 3}, "at least two finite times"),
        "not finite": ({"t": [[0.0, np.nan]] * 3}, "at least two finite times"),
        "weights": ({"func": VARYING}, "weights or inputs of another time"),
        "signal": (
            {"args": (Signal(np.ones((3, 1)), [0.0, 1.0, 2.0]),)},
            "weights or inputs of another time.* Signal",
        ),
    }.values(),
)
def test_what_samples_with_own_times_cannot_have(changes, message):
    given = {"func": lambda t, y, *args: y, "y0": Y0, "t": T}
    with pytest.raises(ValueError, match=message):
        odeint(**{**given, "solver": "rk4", "steps": 2, **changes})
