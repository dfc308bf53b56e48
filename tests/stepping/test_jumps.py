"""Adaptive steps end on the weights' jumps, whatever form the times have.

y' = y A(t). A is constant in each bucket, so y is a product of matrix exponentials.
"""

import itertools

import keras
import numpy as np
import pytest
from cases import assert_close, compiled, numbers, random
from keras import ops
from problems import FLOAT64
from scipy.linalg import expm

from keras_nanode import Adaptive, backend, bases, layers, odeint

BACKEND = keras.backend.backend()
TIGHT = Adaptive(1e-7, 1e-9, max_steps=200)
# Each: a solver, its steps and an adjoint.
KINDS = {
    "adaptive checkpoint": {"steps": TIGHT},
    "adaptive direct": {"steps": TIGHT, "adjoint": "direct"},
    "adaptive backsolve": {"solver": "tsit5", "steps": TIGHT, "adjoint": "backsolve"},
    "fixed checkpoint": {"solver": "rk4", "steps": 24},
    "fixed reversible": {"solver": "alf", "steps": 96, "adjoint": "reversible"},
}
# The edges of the buckets are 1/3 and 2/3. Equal steps end there but for the last row.
PLACES = {
    "inside": [0.0, 0.5, 0.75, 1.0],
    "on": [0.0, 1 / 3, 2 / 3, 1.0],
    "within rounding": [1 / 3 - 4e-16, 2 / 3 + 3e-16, 0.9, 1.0],
    "repeated": [0.0, 2 / 3, 2 / 3, 2 / 3],
    "none": [0.1, 0.2, 0.3, 0.33],
    "beside": [0.0, 1 / 3 + 1e-3, 2 / 3 - 1e-3, 1.0],
}
MATRICES = random((3, 2, 2), FLOAT64, seed=3)
ASIDE = random((3, 2, 2), FLOAT64, seed=5)
Y0, COTANGENTS = np.array([[1.0, -2.0]]), random((4, 1, 2), FLOAT64, seed=4)


def bucket(t, side=0):
    """The bucket at t. At an edge, that to which the side leads, 1 or -1."""
    return int(np.clip(np.floor(3 * t + 1e-9 * side), 0, 2))


def flow(start, end, matrices):
    """Phi with y(end) = y(start) Phi."""
    sign = np.sign(end - start)
    edges = [e for e in (1 / 3, 2 / 3) if 0 < (e - start) * sign < abs(end - start)]
    ends, total = [start, *edges[:: int(sign or 1)], end], np.eye(2)
    for a, b in itertools.pairwise(ends):
        total = total @ expm((b - a) * matrices[bucket((a + b) / 2)])
    return total


def solution(times, matrices=MATRICES):
    return np.array([Y0 @ flow(times[0], t, matrices) for t in times])


def slopes(times):
    """Of sum(y * COTANGENTS): the gradients in the times and in y0, and the derivative
    in the direction ASIDE of the matrices."""
    ys, sign = solution(times), np.sign(times[-1] - times[0])
    through = [flow(times[0], t, MATRICES).T for t in times]
    parts = [c @ f for c, f in zip(COTANGENTS, through, strict=True)]
    # On an edge, on the side of the interval before the time, or behind the first time.
    sides = np.where(times == times[0], sign, -sign)
    in_times = [
        np.sum(c * (y @ MATRICES[bucket(t, side)]))
        for c, y, t, side in zip(COTANGENTS, ys, times, sides, strict=True)
    ]
    in_times[0] = -np.sum(sum(parts[1:]) * (Y0 @ MATRICES[bucket(times[0], sign)]))
    moved = [solution(times, MATRICES + e * ASIDE) for e in (1e-5, -1e-5)]
    aside = np.sum((moved[0] - moved[1]) * COTANGENTS) / 2e-5
    return np.array(in_times), sum(parts), aside


def jumping(basis=None, matrices=MATRICES):
    """The layer y A(t)."""
    size = matrices.shape[-1]
    dense = keras.layers.Dense(size, use_bias=False, dtype=FLOAT64)
    basis = basis or bases.Bucket(len(matrices))
    layer = layers.TimeVarying(dense, basis, "independent", dtype=FLOAT64)
    layer.build((1, size))
    layer.coefficients[0].assign(matrices)
    return layer


def tensor(x):
    return ops.convert_to_tensor(np.array(x, FLOAT64))


def with_slopes(options):
    """A function of tensors: y and what `slopes` gives."""
    layer = jumping()

    def solve(times, y0, matrices):
        with keras.StatelessScope([(layer.coefficients[0], matrices)]):
            return odeint(layer, y0, times, **options)

    def run(times, y0, matrices):
        y, pullback = backend.vjp(solve, times, y0, matrices)
        in_times, in_y0, in_matrices = pullback(tensor(COTANGENTS))
        return y, in_times, in_y0, ops.sum(in_matrices * tensor(ASIDE))

    return run


def jit(f):
    import tensorflow

    return tensorflow.function(f, autograph=False, jit_compile=True)


MODES = {"eager": lambda f: f, "compiled": compiled, "jit": jit}
CASES = {
    **{f"{kind}, compiled": (kind, "compiled") for kind in KINDS},
    "adaptive direct, eager": ("adaptive direct", "eager"),
}
if BACKEND == "tensorflow":
    CASES["adaptive checkpoint, jit"] = "adaptive checkpoint", "jit"


def by_first(times, slopes):
    """Of equal times, the first gets the sum, as with the direct adjoint."""
    equal = times == times[:, None]
    return np.where(np.argmax(equal, axis=0) == np.arange(4), equal @ slopes, 0)


@pytest.mark.parametrize("case", CASES)
def test_tensor_times_see_every_jump(case):
    """One compiled function solves from all times, in both directions."""
    kind, mode = CASES[case]
    run = MODES[mode](with_slopes(KINDS[kind]))
    rtol = 1e-5 if "adaptive" in kind else 2e-3
    places = list(PLACES.values())
    places = places[1:3] if mode == "eager" else places
    for forth in places[: -1 if "fixed" in kind else None]:
        for times in (np.array(forth), np.array(forth[::-1])):
            found = run(tensor(times), tensor(Y0), tensor(MATRICES))
            in_times, *others = slopes(times)
            if "direct" in kind:
                in_times = by_first(times, in_times)
            assert_close(numbers(found), (solution(times), in_times, *others), rtol)


@pytest.mark.parametrize("adjoint", ["checkpoint", "direct"])
def test_an_unknown_number_of_times(adjoint):
    if BACKEND != "tensorflow":
        pytest.skip("other backends know every shape")
    import tensorflow as tf

    layer, y0 = jumping(), tensor(Y0)

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.float64)], autograph=False)
    def run(t):
        with tf.GradientTape() as tape:
            tape.watch(t)
            y = odeint(layer, y0, t, steps=TIGHT, adjoint=adjoint)
            loss = tf.reduce_sum(y * COTANGENTS[: len(PLACES["on"])])
        return y, tape.gradient(loss, t)

    for name in ("on", "beside"):
        times = np.array(PLACES[name])
        y, in_times = numbers(run(tensor(times)))
        assert_close((y, in_times), (solution(times), slopes(times)[0]), 1e-5)


def test_eager_times_in_every_form_see_every_jump():
    layer = jumping()
    for place, make in {
        "inside": list,
        "on": lambda times: [tensor(t) for t in times],
        "within rounding": lambda times: keras.Variable(times, dtype=FLOAT64),
        "beside": lambda times: [*times[:-1], keras.Variable(times[-1], dtype=FLOAT64)],
    }.items():
        y = odeint(layer, tensor(Y0), make(PLACES[place]), steps=TIGHT)
        assert_close(numbers(y), solution(np.array(PLACES[place])), 1e-6)


@keras.saving.register_keras_serializable("test_jumps")
class Switch(bases.Basis):
    """1 before 0.4, and t from there on."""

    size, domain, breakpoints = 2, (0.0, 1.0), (0.4,)

    def __call__(self, t):
        late = ops.cast(t >= 0.4, t.dtype)
        return ops.stack([1 - late, late * t])

    def get_config(self):
        return {}


# Each: a basis, its coefficients, and the integral of the weight from 0 to t.
WEIGHTS = {
    "hats": (
        bases.BSpline(3, degree=1),
        [4.0, -4.0, 2.0],
        lambda t: np.where(
            t < 0.5, 4 * t - 8 * t**2, 6 * (t - 0.5) ** 2 - 4 * (t - 0.5)
        ),
    ),
    "a basis of one's own": (
        Switch(),
        [2.0, -3.0],
        lambda t: np.where(t < 0.4, 2 * t, 0.8 - 1.5 * (t**2 - 0.16)),
    ),
    "far from 0": (
        bases.Bucket(2, domain=(1e6, 1e6 + 1)),
        [3.0, -2.0],
        lambda t: np.where(t < 0.5, 3 * t, 1.5 - 2 * (t - 0.5)),
    ),
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_every_basis_with_breakpoints_is_stepped_to(name):
    basis, coefficients, integral = WEIGHTS[name]
    layer = jumping(basis, np.reshape(coefficients, (-1, 1, 1)))
    first = basis.domain[0]

    def solve(times):
        y0 = ops.ones((1, 1), FLOAT64)
        y, stats = odeint(layer, y0, times, steps=TIGHT, return_stats=True)
        return y, stats["num_rejected"]

    run = compiled(solve)
    for times in (np.array([0.0, 0.3, 1.0]), np.array([0.9, 0.4, 0.1])):
        y, rejected = numbers(run(tensor(first + times)))
        exact = np.exp(integral(times) - integral(times[0]))
        np.testing.assert_allclose(y[:, 0, 0], exact, rtol=1e-6)
        assert rejected <= 4
