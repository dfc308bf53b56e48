"""Parts of theta in one vector field, each with its own dependence on time."""

import numpy as np
import pytest
from cases import SOLVERS, assert_close, compiled, gradients, numbers, random
from keras import ops
from problems import FLOAT64
from scipy.integrate import solve_ivp

from keras_nanode import Adaptive, adjoints, bases, tree
from keras_nanode.fields.vector_field import VectorField
from keras_nanode.fields.weights import BasisWeights, FixedWeights, Parts
from keras_nanode.integrate import integrate

# Weights over time, a held and a linear signal, and constants.
BASIS = (bases.Trigonometric(2), bases.Bucket(3), bases.BSpline(4, degree=1))
PARTS = Parts(*map(BasisWeights, BASIS), FixedWeights())
BATCH, WIDTH = 4, 3
Y0 = random((BATCH, WIDTH), FLOAT64)
PARAMS = (
    [random((5, WIDTH, WIDTH), FLOAT64, 1), random((5, WIDTH), FLOAT64, 2)],
    random((3, BATCH, WIDTH), FLOAT64, 3),
    random((4, BATCH, WIDTH), FLOAT64, 4),
    [random((WIDTH,), FLOAT64, 5)],
)
TIMES = np.array([0.0, 0.45, 1.0])


def slope(t, y, theta):
    (kernel, bias), held, linear, (rate,) = theta
    z = y @ kernel + bias * t + held + linear * rate
    return z / (1 + z * z)


def tensors(structure):
    return tree.map_structure(ops.convert_to_tensor, structure)


def flow(solver, steps, adjoint, parts=PARTS, func=slope, times=TIMES):
    def f(y0, params):
        ys, _ = integrate(
            VectorField(func, parts),
            y0,
            params,
            times,
            solver=SOLVERS[solver],
            steps=steps,
            adjoint=adjoints.get(adjoint),
            name="the test",
        )
        return ys

    return f


ADAPTIVE = Adaptive(1e-4, 1e-6, 40)
EXACT = [
    ("rk4", 3, "checkpoint"),
    ("bosh3", ADAPTIVE, "checkpoint"),
    ("alf", 3, "reversible"),
    ("reversible_heun", 3, "reversible"),
]


@pytest.mark.parametrize(("solver", "steps", "adjoint"), EXACT, ids=str)
def test_exact_adjoints_agree_with_direct_in_every_part(solver, steps, adjoint):
    found, desired = (
        gradients(flow(solver, steps, way), Y0, PARAMS) for way in (adjoint, "direct")
    )
    assert all(np.abs(g).max() > 1e-3 for part in desired[1] for g in part)
    assert_close(found, desired, 1e-10)


def test_the_continuous_adjoint_agrees_with_direct_in_every_part():
    """Up to the error of its steps."""
    found, desired = (
        gradients(flow("dopri5", Adaptive(1e-9, 1e-9, 500), way), Y0, PARAMS)
        for way in ("backsolve", "checkpoint")
    )
    assert_close(found, desired, 1e-6)


def test_parts_are_those_of_scipy():
    weights, held, linear, constants = PARAMS

    def theta(t, inside):
        waves = [1, *(f(n * t) for n in (1, 2) for f in (np.cos, np.sin))]
        hats = [np.interp(t, np.linspace(0, 1, 4), unit) for unit in np.eye(4)]
        combined = [np.tensordot(waves, w, 1) for w in weights]
        return combined, held[int(3 * inside)], np.tensordot(hats, linear, 1), constants

    y, desired = Y0.ravel(), {}
    ends = [1 / 3, 0.45, 2 / 3, 1.0]
    for start, end in zip([0.0, *ends], ends, strict=False):
        middle = (start + end) / 2

        def right(t, y, middle=middle):
            return slope(t, y.reshape(Y0.shape), theta(t, middle)).ravel()

        # The linear signal has kinks at 1/3 and 2/3, where these pieces end too.
        solved = solve_ivp(right, (start, end), y, "DOP853", rtol=1e-12, atol=1e-12)
        y = solved.y[:, -1]
        desired[end] = y.reshape(Y0.shape)
    f = flow("dopri8", Adaptive(1e-11, 1e-11, 200), "checkpoint")
    ys = numbers(compiled(f)(*tensors((Y0, PARAMS))))
    assert_close(ys, np.stack([desired[0.45], desired[1.0]]), 1e-9)


@pytest.mark.parametrize(("solver", "steps"), [("reversible_heun", 6), ("rk4", 6)])
def test_jumps_of_two_parts_are_those_of_one_with_all_pieces(solver, steps):
    """Two buckets beside three are one part over the six pieces of sixths."""
    twos, threes = (random((n, WIDTH, WIDTH), FLOAT64, n) for n in (2, 3))

    def solve(sizes, func, params):
        parts = Parts(*(BasisWeights(bases.Bucket(size)) for size in sizes))
        f = flow(solver, steps, "checkpoint", parts, func, np.array([0.0, 1.0]))
        return numbers(compiled(f)(*tensors((Y0, params))))

    def both(t, y, theta):
        return y @ (theta[0] + theta[1])

    def one(t, y, theta):
        return y @ theta[0]

    found = solve((2, 3), both, (twos, threes))
    each = np.repeat(twos, 3, axis=0) + np.repeat(threes, 2, axis=0)
    desired = solve((6,), one, (each,))
    np.testing.assert_allclose(found, desired, rtol=1e-12)
