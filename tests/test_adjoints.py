"""Gradients: exact ones against two oracles, and backsolve's convergence."""

import json

import keras
import numpy as np
import pytest
from cases import (
    ADJOINTS,
    BASES,
    SOLVERS,
    assert_close,
    compiled,
    gradients,
    numbers,
    random,
)
from keras import ops

from keras_nanode import Checkpoint, adjoints, odeint, tableaus
from keras_nanode.integrate import integrate
from keras_nanode.vector_field import BasisWeights, VectorField

FLOAT64 = "float64"
EXACT = [name for name in ADJOINTS if name != "backsolve"]


def tanh_squared(x):
    """x / (1 + x^2): smooth, and float64 on every backend as `ops.tanh` is not."""
    return x / (1 + x * x)


def problem(basis, solver, steps, adjoint, times=(0.0, 1.0), dtype=FLOAT64):
    """y(times[1:]) as a function of y0 and of W and b's coefficients."""
    field = VectorField(
        lambda t, y, theta: tanh_squared(y @ theta[0] + theta[1]), BasisWeights(basis)
    )

    def f(y0, params):
        return integrate(
            field,
            y0,
            params,
            np.array(times),
            solver=tableaus.get(solver),
            steps=steps,
            adjoint=adjoints.get(adjoint),
        )

    y0 = random((4, 3), dtype)
    params = [
        random((basis.size, 3, 3), dtype, seed=1),
        random((basis.size, 3), dtype, seed=2),
    ]
    return f, (y0, params)


def tolerance(dtype):
    return 1e-10 if dtype == FLOAT64 else 1e-5


@pytest.mark.parametrize("dtype", ["float32", FLOAT64])
@pytest.mark.parametrize("basis", BASES.values(), ids=BASES)
@pytest.mark.parametrize("solver", SOLVERS)
def test_checkpoint_agrees_with_direct(solver, basis, dtype):
    # 7 steps make legs of unequal length; 3 buckets are not aligned with them.
    exact, primals = problem(basis, solver, 7, "direct", dtype=dtype)
    f, _ = problem(basis, solver, 7, "checkpoint", dtype=dtype)
    assert_close(gradients(f, *primals), gradients(exact, *primals), tolerance(dtype))


@pytest.mark.parametrize("num", [1, 2, 3, 6, 7, 100])
def test_any_number_of_checkpoints_gives_the_same_gradient(num):
    exact, primals = problem(BASES["trig"], "heun", 7, "direct", (0.0, 0.4, 1.0))
    f, _ = problem(BASES["trig"], "heun", 7, Checkpoint(num), (0.0, 0.4, 1.0))
    assert_close(gradients(f, *primals), gradients(exact, *primals), 1e-10)


@pytest.mark.parametrize("adjoint", EXACT)
@pytest.mark.parametrize("basis", BASES.values(), ids=BASES)
@pytest.mark.parametrize("solver", SOLVERS)
def test_exact_adjoints_agree_with_finite_differences(solver, basis, adjoint):
    f, (y0, params) = problem(basis, solver, 5, adjoint)

    run = compiled(f)

    def loss(s):
        """Along one random direction of all primals at once."""
        moved = [p + s * random(p.shape, FLOAT64, seed=5) for p in (y0, *params)]
        moved = [ops.convert_to_tensor(p) for p in moved]
        return np.sum(numbers(run(moved[0], moved[1:])) ** 2)

    h = 1e-4
    difference = (8 * (loss(h) - loss(-h)) - (loss(2 * h) - loss(-2 * h))) / (12 * h)
    in_y0, in_params = gradients(f, y0, params)
    along = sum(
        np.sum(g * random(g.shape, FLOAT64, seed=5)) for g in (in_y0, *in_params)
    )
    np.testing.assert_allclose(along, difference, rtol=1e-8)


@pytest.mark.parametrize(
    ("solver", "basis", "times"),
    [
        *((solver, "trig", (0.0, 1.0)) for solver in SOLVERS),
        *(("heun", basis, (1.0, 0.0)) for basis in BASES),
        ("rk4", "poly", (0.0, 0.3, 1.0)),
    ],
)
def test_backsolve_converges_at_the_order_of_the_solver(solver, basis, times):
    def error(steps):
        exact, primals = problem(BASES[basis], solver, steps, "direct", times)
        f, _ = problem(BASES[basis], solver, steps, "backsolve", times)
        pairs = zip(
            _flat(gradients(f, *primals)),
            _flat(gradients(exact, *primals)),
            strict=True,
        )
        return max(np.abs(a - b).max() / np.abs(b).max() for a, b in pairs)

    # Multiples of 3, to be aligned with the buckets; 16 steps make a leg.
    first, second = error(24), error(48)
    assert second < 0.2
    assert np.log2(first / second) > tableaus.ALL[solver].order - 0.3


def _flat(gradient):
    in_y0, in_params = gradient
    return [in_y0, *in_params]


@pytest.mark.parametrize("adjoint", ADJOINTS)
def test_gradients_of_args_structures_and_output_times(adjoint):
    """A damped oscillator, against direct; row 0 is y0 itself and counts too."""

    def f(y0, k, adjoint):
        y = odeint(
            lambda t, y, k: {"x": y["v"], "v": -k["spring"] * y["x"] - 0.1 * y["v"]},
            y0,
            [0.0, 0.5, 2.0],
            args=(k,),
            steps=40,
            adjoint=adjoint,
        )
        return y["x"]

    primals = ({"x": random(2, FLOAT64), "v": random(2, FLOAT64)}, {"spring": 2.0})
    primals[1]["spring"] = np.array(2.0)
    actual = gradients(lambda *p: f(*p, adjoint), *primals)
    desired = gradients(lambda *p: f(*p, "direct"), *primals)
    assert_close(actual, desired, 1e-5 if adjoint == "backsolve" else 1e-10)


@pytest.mark.parametrize("adjoint", ADJOINTS)
def test_unused_args_get_zeros(adjoint):
    def f(y0, a, b):
        return odeint(
            lambda t, y, a, b: -a * y, y0, [0.0, 1.0], (a, b), steps=3, adjoint=adjoint
        )

    in_y0, in_a, in_b = gradients(f, np.ones(2), np.array(1.0), np.ones(5))
    assert np.all(in_y0 != 0) and in_a != 0 and np.all(in_b == 0)


@pytest.mark.parametrize("adjoint", ["checkpoint", "backsolve"])
def test_the_backward_pass_is_paid_for_as_planned(adjoint):
    """Evaluations of f by eager execution: n forward; then as DESIGNed."""
    if keras.backend.backend() != "torch":
        pytest.skip("counted where loops run in Python")
    calls = []

    def func(t, y):
        calls.append(t)
        return -y

    def count(adjoint):
        calls.clear()
        y0 = random((3,))
        gradients(
            lambda y0: odeint(
                func, y0, [0.0, 1.0], solver="euler", steps=9, adjoint=adjoint
            ),
            y0,
        )
        return len(calls)

    # 9 steps forward, 9 to differentiate; sqrt checkpoints take 3 * 2 again.
    assert count(Checkpoint(num=9)) == 18
    assert count("backsolve") == 18
    assert count("checkpoint") == 24


@pytest.mark.parametrize("adjoint", [*ADJOINTS, Checkpoint(5)], ids=str)
def test_configuration_round_trip(adjoint):
    config = json.loads(json.dumps(adjoints.serialize(adjoints.get(adjoint))))
    assert adjoints.get(config) == adjoints.get(adjoint)


@pytest.mark.parametrize("num", [0, -1, 2.5, True])
def test_a_bad_number_of_checkpoints_is_refused(num):
    with pytest.raises(ValueError, match=f"`num` must be.*Received: num={num}"):
        Checkpoint(num)
