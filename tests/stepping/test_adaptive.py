"""Adaptive steps: against other people's solvers, counted, and when they fail."""

import json

import keras
import numpy as np
import pytest
from cases import PAIRS, compiled, numbers, random
from keras import ops, tree
from problems import (
    FLOAT64,
    ORACLES,
    forced,
    forced_solution,
    oracle,
    scalar,
    solve,
    van_der_pol,
)

from keras_nanode import Adaptive, bases, layers, odeint, solvers, tableaus
from keras_nanode.fields.vector_field import VectorField
from keras_nanode.fields.weights import BasisWeights, Parts
from keras_nanode.stepping import Problem, Status
from keras_nanode.stepping.control import error_norm, step_factor
from keras_nanode.stepping.stops import Stops

ON_TENSORFLOW = keras.backend.backend() == "tensorflow"


def tight(tolerance=1e-9):
    return Adaptive(tolerance, tolerance)


# Accuracy.


@pytest.mark.parametrize("name", ORACLES)
def test_scipy_agrees(name):
    func, y0, times = ORACLES[name]
    y = solve(func, tree.map_structure(scalar, y0), times, steps=tight(1e-10))
    for actual, desired in zip(y, oracle(func, y0, times), strict=True):
        np.testing.assert_allclose(actual, desired, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("solver", PAIRS)
def test_the_error_is_proportional_to_the_tolerance(solver):
    y0, times = (2.0, 0.0), (0.0, 10.0)
    exact = oracle(van_der_pol, y0, times)[0][-1]
    tolerances = np.array([1e-3, 1e-5, 1e-7, 1e-9])

    def error(tolerance):
        state = tree.map_structure(scalar, y0)
        steps = Adaptive(tolerance, tolerance, 20_000)
        y = solve(van_der_pol, state, times, solver=solver, steps=steps)
        return abs(y[0][-1] - exact)

    errors = np.array([error(tolerance) for tolerance in tolerances])
    assert np.all(errors < 100 * tolerances)
    slope, _ = np.polyfit(np.log(tolerances), np.log(errors), 1)
    assert 0.75 < slope < 1.25


@pytest.mark.skipif(not ON_TENSORFLOW, reason="the peer is TensorFlow's")
@pytest.mark.parametrize("name", ORACLES)
def test_tensorflow_probability_agrees(name):
    import warnings

    with warnings.catch_warnings():
        # Its imports warn of what it will lose.
        warnings.simplefilter("ignore")
        import tensorflow as tf
        import tensorflow_probability as tfp

        func, y0, times = ORACLES[name]
        theirs = tfp.math.ode.DormandPrince(rtol=1e-9, atol=1e-10).solve(
            lambda t, y: tf.stack(func(t, tf.unstack(y))),
            tf.constant(0.0, tf.float64),
            tf.constant(y0, tf.float64),
            solution_times=times[1:],
        )
    ours = solve(func, tree.map_structure(scalar, y0), times, steps=tight(1e-10))
    for i, y in enumerate(ours):
        np.testing.assert_allclose(y[1:], theirs.states[:, i], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("times", [(0.0, 0.3, 0.4, 2.0), (2.0, 1.0, 0.0)])
def test_steps_end_on_the_output_times(times):
    # dy/dt = 1 is integrated without error, so that y shows the time.
    y = solve(lambda t, y: y * 0 + 1, scalar(times[0]), times)
    np.testing.assert_allclose(y, times, atol=1e-14)
    there_and_not_past = solve(forced, scalar(1.0), sorted(times), steps=tight())
    np.testing.assert_allclose(there_and_not_past[-1], forced_solution(2.0), rtol=1e-7)


def test_a_large_t0_in_float32():
    y, stats = odeint(
        lambda t, y: -y,
        ops.ones((2,)),
        [1e4, 1e4 + 1],
        steps=Adaptive(1e-6, 1e-8),
        return_stats=True,
    )
    assert int(stats["status"]) == 0 and int(stats["num_steps"]) < 40
    np.testing.assert_allclose(numbers(y)[-1], np.exp(-1), rtol=1e-5)


@pytest.mark.parametrize("steps", [Adaptive(), 3])
def test_an_empty_batch_is_solved(steps):
    y, stats = odeint(
        lambda t, y: -y, ops.ones((0, 3)), [0.0, 1.0], steps=steps, return_stats=True
    )
    assert tuple(y.shape) == (2, 0, 3) and int(stats["status"]) == 0


def test_a_component_at_rest_needs_no_absolute_tolerance():
    y = solve(lambda t, y: -y, scalar([0.0, 1.0]), [0.0, 1.0], steps=Adaptive(1e-8, 0))
    np.testing.assert_allclose(y[-1], [0, np.exp(-1)], rtol=1e-7)


# The size of an error, and of the next step.


def test_the_norm_is_the_root_mean_square_over_the_whole_structure():
    error = {"a": scalar([3e-3, 0.0]), "b": scalar([[4e-3]])}
    y = {"a": scalar([-2.0, 0.0]), "b": scalar([[1.0]])}
    y_end = {"a": scalar([1.0, 0.0]), "b": scalar([[-3.0]])}
    # Tolerances 0.1 + 0.2 max(|y|, |y_end|): 0.5 and 0.7.
    norm = float(numbers(error_norm(0.2, 0.1, error, y, y_end)))
    expected = np.sqrt(((3e-3 / 0.5) ** 2 + (4e-3 / 0.7) ** 2) / 3)
    np.testing.assert_allclose(norm, expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("norm", "previous", "expected"),
    [
        (0.5, 0.2, 0.9 * 0.5**-0.17 * 0.2**0.04),
        # Rejected: by the error of this step alone.
        (2.0, 0.2, 0.9 * 2.0**-0.2),
        (1e-12, 1.0, 10.0),
        (1e9, 1.0, 0.2),
        (np.nan, 1.0, 0.2),
        (np.inf, 1.0, 0.2),
        # A step without error does not stop the next one from growing.
        (0.1, 0.0, 0.9 * 0.1**-0.17 * 1e-4**0.04),
    ],
)
def test_the_next_step_follows_the_error(norm, previous, expected):
    factor = step_factor(scalar(norm), scalar(previous), order=5)
    np.testing.assert_allclose(float(numbers(factor)), expected, rtol=1e-7)


@pytest.mark.parametrize("frequency", [1.0, 30.0])
@pytest.mark.parametrize("t_span", [(0.0, 9.0), (9.0, 0.0)])
def test_the_first_step_is_hairers(t_span, frequency):
    """SciPy's RK45 is the pair dopri5, and starts by the same rule."""
    from scipy.integrate import RK45

    def slope(t, y):
        return frequency * y[::-1] * np.array([1.0, -1.0])

    def func(t, y):
        return frequency * ops.stack([y[1], -y[0]])

    y0 = np.array([2.0, 1.5])
    reference = RK45(slope, t_span[0], y0, t_span[1], rtol=1e-4, atol=1e-6)
    problem = Problem(
        VectorField(lambda t, y, _: func(t, y)),
        solvers.get("dopri5"),
        np.array(t_span),
        FLOAT64,
    )
    found = Adaptive(1e-4, 1e-6, max_steps=2).choose(problem, scalar(y0), ())
    edges, _, _ = found.record
    np.testing.assert_allclose(numbers(edges)[1], reference.h_abs)


# Weights that jump.


class Counted(keras.layers.Layer):
    """tanh(x W), in operations that keep float64 on every backend."""

    def build(self, input_shape):
        self.w = self.add_weight(
            shape=(input_shape[-1],) * 2, initializer="glorot_uniform", name="w"
        )

    def call(self, x):
        e = ops.exp(2 * (x @ self.w.value))
        return (e - 1) / (e + 1)

    def compute_output_shape(self, input_shape):
        return input_shape


def ten_buckets(steps, t_span=(0.0, 1.0), solver="dopri5"):
    dynamics = layers.TimeVarying(
        Counted(dtype=FLOAT64), bases.Bucket(10), "independent", dtype=FLOAT64
    )
    ode = layers.ODE(dynamics, solver, steps, t_span=t_span, dtype=FLOAT64)
    ode.build((4, 8))
    return ode


@pytest.mark.parametrize("t_span", [(0.0, 1.0), (1.0, 0.0)])
def test_jumps_are_stepped_to(t_span):
    ode = ten_buckets(tight(1e-6), t_span)
    x = ops.convert_to_tensor(random((4, 8), FLOAT64))
    y = numbers(compiled(lambda x: ode(x, training=True))(x))
    nfe = ode.tally.evaluations()
    # Two to start, six for each step, and one at each of nine jumps.
    assert nfe <= 85 and (nfe - 2 - 9) % 6 == 0
    # 100 steps of rk4 in each bucket.
    reference = ten_buckets(1000, t_span, "rk4")
    reference.set_weights(ode.get_weights())
    desired = numbers(compiled(reference)(x))
    assert np.abs(y - desired).max() < 1e-6 * np.abs(desired).max()


def test_a_jump_at_an_output_time_is_one_stop():
    # The edges 0.1, 0.2, ... and the times differ by rounding.
    field = VectorField(lambda t, y, theta: y, Parts(BasisWeights(bases.Bucket(10))))
    times = np.array([0.0, 0.1 + 0.2, 0.95, 1.0])
    stops = Stops.of(Problem(field, solvers.get("dopri5"), times, FLOAT64))
    np.testing.assert_allclose(
        numbers(stops.at)[1:], [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0]
    )
    assert numbers(stops.intervals).tolist() == [0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 2, 3]
    assert numbers(stops.jumps).tolist() == [True] * 9 + [False, False]


@pytest.mark.parametrize("known", [True, False])
def test_places_are_numbers_where_python_runs_the_loop_over_known_times(known):
    times, field = np.array([0.0, 1.0]), VectorField(lambda t, y, theta: y)
    times = times if known else ops.convert_to_tensor(times)

    def f(x):
        stops = Stops.of(Problem(field, solvers.get("dopri5"), times, "float32"))
        found.append((stops.are_numbers, isinstance(stops.constant(0, "int32"), int)))
        return x

    found = []
    f(0)
    compiled(f)(ops.ones(()))
    eager = known and keras.backend.backend() != "jax"
    graph = known and keras.backend.backend() == "torch"
    assert found == [(eager, eager), (graph, graph)]


def test_a_jump_at_the_first_time_is_no_stop():
    """0.6 and the edge in `breakpoints` differ by rounding, to either side."""
    basis = bases.Bucket(7, domain=(0.0, 0.7))
    assert 0.6 not in basis.breakpoints

    def evaluations(t_span):
        ode = layers.DenseODE(basis, solver="dopri5", t_span=t_span, dtype=FLOAT64)
        ode(ops.convert_to_tensor(random((4, 3), FLOAT64)), training=True)
        return ode.tally.evaluations()

    # Six buckets, of three steps at most each.
    assert evaluations((0.6, 0.0)) < 2 + 6 * (3 * 6 + 1)
    assert evaluations((0.6, 0.7)) < 2 + 3 * 6 + 1


# Evaluations.


@pytest.mark.parametrize("solver", [*PAIRS, "rk4", "reversible_heun"])
def test_evaluations_are_counted(solver):
    """What is reported is what was called, where loops run in Python."""
    calls = []

    def func(t, y):
        calls.append(t)
        return -y

    steps = Adaptive(1e-5, 1e-5) if solver in PAIRS else 7
    _, stats = odeint(
        func, ops.ones((3,)), [0.0, 2.0], solver=solver, steps=steps, return_stats=True
    )
    tried, nfe = int(stats["num_steps"]), int(stats["num_fevals"])
    started = {"reversible_heun": 1, "rk4": 0}.get(solver, 2)
    tableau = tableaus.ALL.get(solver)
    # The last stage of some pairs is the first one of the next step.
    stages = tableau.num_stages - tableau.first_same_as_last if tableau else 1
    assert nfe == stages * tried + started
    assert tried == int(stats["num_accepted"]) + int(stats["num_rejected"])
    if keras.backend.backend() != "jax":
        assert len(calls) == nfe


@pytest.mark.skipif(
    keras.backend.backend() != "torch", reason="counted where loops run in Python"
)
@pytest.mark.parametrize("adjoint", ["checkpoint", "backsolve"])
def test_nothing_is_rejected_twice_and_parameters_are_no_state(adjoint):
    calls = []

    def func(t, y, a, unused):
        calls.append(t)
        return -a * y * ops.cast(t > 2, y.dtype)

    def count(unused):
        from cases import gradients

        calls.clear()
        gradients(
            lambda y0, a, unused: odeint(
                func, y0, [0.0, 5.0], (a, unused), steps=tight(1e-6), adjoint=adjoint
            ),
            random((3,), FLOAT64),
            np.array(9.0),
            unused,
        )
        return len(calls)

    y0 = ops.convert_to_tensor(random((3,), FLOAT64))
    _, stats = odeint(
        func, y0, [0.0, 5.0], (9.0, 0.0), steps=tight(1e-6), return_stats=True
    )
    accepted, nfe = int(stats["num_accepted"]), int(stats["num_fevals"])
    assert int(stats["num_rejected"]) > 0
    if adjoint == "checkpoint":
        # All but the states that are kept: 16, and then the squares.
        again = accepted - 16 - int(np.ceil(np.sqrt(accepted - 16)))
        assert count(np.zeros(())) == nfe + 6 * again + 6 * accepted
    # The number of parameters does not change the steps.
    assert count(np.zeros(())) == count(np.full((1000,), 1e9))


# Failures.


def stiff(t, y):
    return van_der_pol(t, y, 1000.0)


def singular(t, y):
    """Infinite from t = 1/2 on."""
    return y / ops.cast(t < 0.5, y.dtype)


FAILURES = {
    "MAX_STEPS": (stiff, (2.0, 0.0), Adaptive(max_steps=50), "max_steps.*stiff"),
    "NON_FINITE": (singular, 1.0, Adaptive(), "infinite or NaN"),
    "UNDERFLOW": (lambda t, y: y * y, 1.0, tight(1e-6), "became too small"),
}


@pytest.mark.parametrize("status", FAILURES)
def test_a_failure_is_nan_and_says_why(status):
    func, y0, steps, _ = FAILURES[status]
    y0 = tree.map_structure(scalar, y0)
    y, stats = solve(func, y0, [0.0, 1e-3, 2.0], steps=steps, return_stats=True)
    assert Status(int(stats["status"])) == Status[status]
    for component in tree.flatten(y):
        assert np.isfinite(component[:2]).all()
        assert np.isnan(component[-1])


@pytest.mark.parametrize("status", FAILURES)
def test_a_failure_is_an_error_in_eager_mode(status):
    func, y0, steps, message = FAILURES[status]
    y0 = tree.map_structure(scalar, y0)
    message = f"`odeint`.*{message}.*status={status}, t=.*step size=.*max_steps="
    with pytest.raises(RuntimeError, match=message):
        odeint(func, y0, [0.0, 2.0], steps=steps)


@pytest.mark.parametrize(
    ("func", "y0"),
    [
        (lambda t, y: y / t, [1.0, 1.0]),
        (lambda t, y: y * (0 / t), [1.0, 1.0]),
        (lambda t, y: -y, [1.0, np.nan]),
        (lambda t, y: -y, [np.inf, 1.0]),
    ],
    ids=["f is infinite", "f is NaN", "y0 has NaN", "y0 is infinite"],
)
def test_nothing_finite_at_the_start_ends_soon(func, y0):
    y, stats = solve(func, scalar(y0), [0.0, 1.0], return_stats=True)
    assert Status(int(stats["status"])) == Status.NON_FINITE
    assert stats["num_accepted"] == 0 and stats["num_steps"] < 60
    assert np.isnan(y[-1]).all()


@keras.saving.register_keras_serializable("tests")
class Explosion(keras.layers.Layer):
    """dx/dt = w x^2 with a solution until t = 1/x only."""

    def build(self, input_shape):
        self.w = self.add_weight(shape=(), initializer="ones", name="w")

    def call(self, x):
        return self.w * x * x


def test_fit_stops_on_a_failure():
    model = keras.Sequential(
        [keras.Input((1,)), layers.ODE(Explosion(), "dopri5", Adaptive(max_steps=99))]
    )
    model.compile("sgd", "mse")
    x = np.full((8, 1), 2.0, "float32")
    callbacks = [keras.callbacks.TerminateOnNaN()]
    if keras.backend.backend() == "torch":
        with pytest.raises(RuntimeError, match="the layer 'ode.*status="):
            model.fit(x, x, verbose=0)
        return
    history = model.fit(x, x, epochs=5, verbose=0, callbacks=callbacks)
    assert np.isnan(history.history["loss"]).all()
    assert len(history.history["loss"]) < 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rtol": -1e-3}, "`rtol` must be.*Received: rtol=-0.001"),
        ({"atol": np.inf}, "`atol` must be.*Received: atol=inf"),
        ({"rtol": 0, "atol": 0}, "must not both be 0"),
        ({"max_steps": 0}, "`max_steps` must be.*Received: max_steps=0"),
    ],
)
def test_bad_tolerances(arguments, message):
    with pytest.raises(ValueError, match=message):
        Adaptive(**arguments)


# In layers.


@pytest.mark.parametrize("steps", [None, "adaptive", Adaptive(1e-3, 1e-5, 77)], ids=str)
def test_configuration_round_trip(steps):
    ode = layers.ODE(keras.layers.Dense(3), "dopri5", steps)
    config = json.loads(json.dumps(ode.get_config()))
    again = layers.ODE.from_config(config)
    assert again.steps == ode.steps
    assert ode.steps == (steps if isinstance(steps, Adaptive) else Adaptive())


@pytest.mark.skipif(
    keras.backend.backend() != "jax", reason="export it from TensorFlow"
)
def test_jax_exports_no_report_of_the_evaluations(tmp_path):
    import tensorflow as tf

    ode = layers.DenseODE(bases.Bucket(2), solver="bosh3")
    model = keras.Sequential([keras.Input((3,)), ode])
    model.export(str(tmp_path / "model"), verbose=False)
    served = tf.saved_model.load(str(tmp_path / "model"))
    x = random((5, 3))
    np.testing.assert_allclose(
        served.serve(x), model.predict(x, verbose=0), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("t_span", [(0.0, 1.0), (2.0, 0.5)])
def test_the_inverse_leads_back(t_span):
    basis = bases.Trigonometric(2)
    ode = layers.DenseODE(
        basis, solver="dopri5", steps=tight(1e-5), t_span=t_span, start="independent"
    )
    x = random((4, 3))
    y = ode(x)
    assert np.abs(numbers(y) - x).max() > 0.1
    np.testing.assert_allclose(numbers(ode.inverse(y)), x, atol=1e-3)


@pytest.mark.parametrize(("solver", "steps"), [("rk4", 20), ("dopri5", tight(1e-5))])
def test_the_inverse_may_come_first(solver, steps):
    flow = {"t_span": (0.0, 1.0), "start": "constant"}
    ode = layers.DenseODE("trig", solver=solver, steps=steps, **flow)
    x = random((4, 3))
    np.testing.assert_allclose(numbers(ode(ode.inverse(x))), x, atol=1e-4)


@pytest.mark.slower
@pytest.mark.skipif(not ON_TENSORFLOW, reason="TensorFlow compiles in several ways")
@pytest.mark.parametrize("adjoint", ["checkpoint", "backsolve", "direct", "reversible"])
def test_eager_graph_and_xla_agree(adjoint):
    import tensorflow as tf

    reversible = {"solver": "reversible_heun", "steps": 10}
    adaptive = {"solver": "dopri5", "steps": Adaptive(1e-3, 1e-3, 50)}
    ode = layers.DenseODE(
        bases.Bucket(3),
        start="independent",
        adjoint=adjoint,
        **(reversible if adjoint == "reversible" else adaptive),
    )
    x = tf.constant(random((4, 3)))

    def run(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = ode(x)
        gradients = tape.gradient(y, [x, *ode.trainable_variables])
        # That of a gather comes as slices.
        return y, *map(tf.convert_to_tensor, gradients)

    eager = run(x)
    for jit in (False, True):
        for a, b in zip(tf.function(run, jit_compile=jit)(x), eager, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5 * np.abs(b).max())
