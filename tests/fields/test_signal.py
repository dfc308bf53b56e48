"""A `Signal`, as a vector field sees it, and the gradients in its values."""

import keras
import numpy as np
import pytest
from cases import SOLVERS, assert_close, compiled, gradients, numbers, random
from keras import ops
from problems import FLOAT64
from scipy.integrate import solve_ivp
from scipy.interpolate import CubicHermiteSpline
from scipy.linalg import expm
from scipy.signal import cont2discrete

from keras_nanode import Adaptive, Signal, odeint
from keras_nanode.bases.sampled import KINDS

BATCH, WIDTH, CHANNELS = 2, 3, 2
KNOTS = np.array([0.0, 0.3, 0.7, 0.8, 1.5])
EQUAL = np.linspace(0.0, 1.5, 6)
A, B = random((WIDTH, WIDTH), FLOAT64, 1) / 2, random((CHANNELS, WIDTH), FLOAT64, 2)
Y0 = random((BATCH, WIDTH), FLOAT64)
U = random((BATCH, len(KNOTS), CHANNELS), FLOAT64, 3)
U_EQUAL = random((BATCH, len(EQUAL), CHANNELS), FLOAT64, 4)


def slopes(u, knots):
    lines = np.diff(u, axis=1) / np.diff(knots)[:, None]
    return np.concatenate([lines[:, :1], lines], axis=1)


def values(kind, u, knots):
    """u(t) as a function, by SciPy and NumPy."""
    if kind == "cubic":
        return CubicHermiteSpline(knots, u, slopes(u, knots), axis=1)
    if kind == "hold":
        return lambda t: u[:, np.searchsorted(knots, t, side="right") - 1]
    return lambda t: np.stack([[np.interp(t, knots, c) for c in row.T] for row in u])


def systems(to):
    """Of tensors or of arrays."""

    def linear(t, y, u):
        return y @ to(A) + u[..., :1] * to(B[0]) + u[..., 1:] * to(B[1])

    def bent(t, y, u):
        z = linear(t, y, u)
        return z / (1 + z * z)

    return linear, bent


linear, bent = systems(ops.convert_to_tensor)


def run(func, t, knots=KNOTS, kind="hold", **options):
    options["solver"] = SOLVERS[options["solver"]]

    def solve(y0, u):
        return odeint(func, y0, t, args=(Signal(u, knots, kind),), **options)

    return solve


def solved(func, u, t, *options, **named):
    return numbers(compiled(run(func, t, *options, **named))(*map(tensor, (Y0, u))))


def tensor(x):
    return ops.convert_to_tensor(x)


@pytest.mark.parametrize("kind", KINDS)
def test_a_signal_has_the_value_of_scipy_at_every_time(kind):
    signal, desired = Signal(tensor(U), KNOTS, kind), values(kind, U, KNOTS)
    for t in (0.0, 0.1, 0.3, 0.65, 0.7, 0.79, 0.8, 1.2, 1.49):
        assert_close(numbers(signal(t)), desired(t), 1e-12)
        assert_close(numbers(signal(scalar(t))), desired(t), 1e-12)


def scalar(t):
    return tensor(np.array(t, FLOAT64))


def test_a_held_input_of_a_linear_system_is_exact():
    discrete = (A.T, B.T, np.eye(WIDTH), np.zeros((WIDTH, CHANNELS)))
    a, b, *_ = cont2discrete(discrete, EQUAL[1], "zoh")
    desired = [Y0]
    for i in range(len(EQUAL) - 1):
        desired.append(desired[-1] @ a.T + U_EQUAL[:, i] @ b.T)
    ys = solved(linear, U_EQUAL, EQUAL, EQUAL, solver="dopri8", steps=4)
    assert_close(ys, np.stack(desired), 1e-10)


def test_a_linear_input_of_a_linear_system_is_exact():
    h, size = EQUAL[1], WIDTH + 2 * CHANNELS
    # Of the state (y, u, du/dt), of which the last is constant.
    system = np.zeros((size, size))
    system[:WIDTH, :WIDTH], system[WIDTH:-CHANNELS, :WIDTH] = A, B
    system[-CHANNELS:, WIDTH:-CHANNELS] = np.eye(CHANNELS)
    step, lines, desired = expm(system * h), np.diff(U_EQUAL, axis=1) / h, [Y0]
    for i in range(len(EQUAL) - 1):
        state = np.concatenate([desired[-1], U_EQUAL[:, i], lines[:, i]], axis=1)
        desired.append((state @ step)[:, :WIDTH])
    ys = solved(linear, U_EQUAL, EQUAL, EQUAL, "linear", solver="dopri8", steps=4)
    assert_close(ys, np.stack(desired), 1e-10)


def by_scipy(kind, ends):
    """y at each of `ends`. SciPy stops at each, and all knots are among them."""
    u, y, found = values(kind, U, KNOTS), Y0.ravel(), []
    _, of_arrays = systems(np.asarray)
    for start, end in zip(ends[:-1], ends[1:], strict=True):
        # A held input is that of the middle of the piece.
        held = u((start + end) / 2)

        def right(t, y, held=held):
            now = held if kind == "hold" else u(t)
            return of_arrays(t, y.reshape(Y0.shape), now).ravel()

        y = solve_ivp(right, (start, end), y, "DOP853", rtol=1e-12, atol=1e-12).y[:, -1]
        found.append(y.reshape(Y0.shape))
    return np.stack([Y0, *found])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("as_tensor", [False, True])
def test_adaptive_steps_end_on_knots(kind, as_tensor):
    """Also between output times, and if these are a tensor."""
    times = np.array([0.0, 0.5, 1.2])
    steps = Adaptive(1e-11, 1e-11, 400)
    t = tensor(times) if as_tensor else times
    ys = solved(bent, U, t, KNOTS, kind, solver="dopri8", steps=steps)
    ends = np.array([0.0, 0.3, 0.5, 0.7, 0.8, 1.2])
    assert_close(ys, by_scipy(kind, ends)[[0, 2, 5]], 1e-9)


def test_equal_steps_that_end_on_knots_keep_the_order_of_the_solver():
    knots = np.linspace(0.0, 1.5, len(KNOTS))

    def last(steps):
        t = [0.0, 1.5]
        return solved(bent, U, t, knots, solver="rk4", steps=steps)[-1]

    exact = last(512)
    coarse, fine = (np.abs(last(n) - exact).max() for n in (8, 32))
    assert np.log(coarse / fine) / np.log(4) > 3.8


EXACT = [
    ("rk4", 5, "checkpoint"),
    ("bosh3", Adaptive(1e-4, 1e-6, 60), "checkpoint"),
    ("alf", 5, "reversible"),
    ("reversible_heun", 5, "reversible"),
]


@pytest.mark.parametrize(("solver", "steps", "adjoint"), EXACT, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_in_the_values_agree_with_direct(kind, solver, steps, adjoint):
    found, desired = (
        gradients(
            run(bent, [0.1, 1.3], KNOTS, kind, solver=solver, steps=steps, adjoint=way),
            Y0,
            U,
        )
        for way in (adjoint, "direct")
    )
    assert np.abs(desired[1]).max() > 1e-3
    assert_close(found, desired, 1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_in_the_values_are_those_of_finite_differences(kind):
    solve = run(bent, [0.1, 1.3], KNOTS, kind, solver="rk4", steps=4)
    _, found = gradients(solve, Y0, U)
    direction, run_once, h = random(U.shape, FLOAT64, 8), compiled(solve), 1e-5
    up, down = (
        np.sum(numbers(run_once(tensor(Y0), tensor(U + way * direction))) ** 2)
        for way in (h, -h)
    )
    np.testing.assert_allclose(np.sum(found * direction), (up - down) / h / 2, 1e-7)


@pytest.mark.parametrize("kind", KINDS)
def test_a_later_value_changes_no_earlier_state(kind):
    """Of a held input at any time, of the others at the knots before."""
    times = np.array([0.0, 0.3, 0.7, 0.75] if kind == "hold" else [0.0, 0.3, 0.7])
    later = np.where(np.arange(len(KNOTS))[:, None] > 2, 9.0, U)

    def early(u):
        return solved(bent, u, times, KNOTS, kind, solver="rk4", steps=3)

    np.testing.assert_array_equal(early(U), early(later))
    beyond = [0.0, 1.2]
    assert np.any(
        solved(bent, U, beyond, KNOTS, kind, solver="rk4", steps=5)
        != solved(bent, later, beyond, KNOTS, kind, solver="rk4", steps=5)
    )


def test_a_series_without_a_batch_is_the_same_for_all_rows():
    shared = np.broadcast_to(U[:1], U.shape)
    one, each = (
        solved(bent, u, [0.0, 1.5], solver="rk4", steps=5) for u in (U[0], shared)
    )
    assert_close(one, each, 1e-14)


def test_a_held_value_stays_after_its_last_time():
    u = Signal(np.array([[1.0], [2.0]], "float32"), [0.0, 1.0])
    found = odeint(lambda t, y, u: u, np.zeros(1), [0.0, 2.0, 5.0], args=(u,))
    np.testing.assert_allclose(numbers(found), [[0.0], [3.0], [9.0]], rtol=1e-5)


@keras.saving.register_keras_serializable("keras_nanode_tests")
class Pushed(keras.layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = keras.layers.Dense(WIDTH)

    def build(self, y_shape, u_shape):
        self.dense.build((None, WIDTH + CHANNELS))

    def call(self, y, u):
        return ops.tanh(self.dense(ops.concatenate([y, u], axis=-1)))


def test_a_layer_takes_a_signal_beside_other_arguments():
    u, y0 = U.astype("float32"), Y0.astype("float32")
    layer = Pushed()
    ys = odeint(layer, y0, [0.0, 1.5], args=(Signal(u, KNOTS),), solver="rk4", steps=5)
    kernel, bias = layer.get_weights()

    def same(t, y, weights, signals, n):
        kernel, bias = weights
        now = ops.concatenate([y, signals["u"]], axis=-1)
        return ops.tanh(now @ kernel + bias) * ops.cast(n, "float32")

    args = ([kernel, bias], {"u": Signal(u, KNOTS)}, 1)
    desired = odeint(same, y0, [0.0, 1.5], args, solver="rk4", steps=5)
    assert_close(numbers(ys), numbers(desired), 1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    {
        "no order": ((U, KNOTS[::-1]), "`times` must be finite, increasing times"),
        "twice": ((U[:, :2], [1.0, 1.0]), "`times` must be finite, increasing"),
        "one to join": ((U[:, :1], [1.0], "linear"), "times, at least 2"),
        "other length": ((U[:, :4], KNOTS), r"a value for each of the 5 `times`"),
        "no channels": ((U[0, :, 0], KNOTS), r"Received: shape=\(5,\)"),
        "integers": ((U.astype(int), KNOTS), "`values` must be floating"),
        "missing": ((np.where(U == U[1, 2, 0], np.nan, U), KNOTS), r"\[1, 2, 0\]"),
        "kind": ((U, KNOTS, "zoh"), "Unknown `kind`"),
        "symbolic": ((keras.KerasTensor((2, 5, 2)), KNOTS), "is symbolic"),
    }.values(),
)
def test_a_malformed_signal_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Signal(*arguments)


@pytest.mark.parametrize(
    ("kind", "t"),
    [("hold", [-0.1, 1.0]), ("linear", [0.0, 1.6]), ("cubic", [1.6, 0.0])],
)
def test_times_without_values_are_refused(kind, t):
    message = f"kind '{kind}' has values from 0.0 .* and `t` leaves them"
    with pytest.raises(ValueError, match=message):
        odeint(bent, Y0, t, args=(Signal(U, KNOTS, kind),))
    with pytest.raises(ValueError, match=message):
        Signal(U, KNOTS, kind)(min(t) if kind == "hold" else max(t))
