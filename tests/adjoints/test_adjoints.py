"""Gradients: exact ones against two oracles, and backsolve's convergence."""

import json

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
    gradients,
    in_turn,
    layer_gradients,
    numbers,
    random,
)
from keras import ops, tree
from problems import FLOAT64, lotka_volterra

from keras_nanode import (
    Adaptive,
    Checkpoint,
    adjoints,
    backend,
    bases,
    layers,
    odeint,
)
from keras_nanode.fields.stateless import LayerFunction
from keras_nanode.fields.vector_field import VectorField
from keras_nanode.fields.weights import BasisWeights, Parts
from keras_nanode.integrate import integrate
from keras_nanode.stepping import Problem
from keras_nanode.stepping.checkpoints import Doubling, Growing, Segments
from keras_nanode.stepping.fixed import FixedSteps
from keras_nanode.stepping.loops import backward_loop, solve
from keras_nanode.structures import read


def tanh_squared(x):
    """x / (1 + x^2): smooth, and float64 on every backend as `ops.tanh` is not."""
    return x / (1 + x * x)


def problem(basis, solver, steps, adjoint, times=(0.0, 1.0), dtype=FLOAT64):
    """y(times[1:]) as a function of y0 and of W and b's coefficients."""

    def slope(t, y, theta):
        ((kernel, bias),) = theta
        return tanh_squared(y @ kernel + bias)

    field = VectorField(slope, Parts(BasisWeights(basis)))

    def f(y0, params):
        return integrate(
            field,
            y0,
            (params,),
            np.array(times),
            solver=SOLVERS[solver],
            steps=steps,
            adjoint=adjoints.get(adjoint),
            name="the problem",
            fails=False,
        )[0]

    y0 = random((4, 3), dtype)
    params = [
        random((basis.size, 3, 3), dtype, seed=1),
        random((basis.size, 3), dtype, seed=2),
    ]
    return f, (y0, params)


def exact_adjoints(solver):
    return ["checkpoint", *(["reversible"] if solver in REVERSIBLE else [])]


def tolerance(dtype):
    return 1e-10 if dtype == FLOAT64 else 1e-5


@pytest.mark.parametrize(
    ("solver", "basis", "dtype"),
    [
        *in_turn(EACH_KIND, BASES, [FLOAT64]),
        *((solver, "bucket", FLOAT64) for solver in REVERSIBLE),
        ("rk4", "trig", "float32"),
        ("alf", "trig", "float32"),
    ],
)
def test_exact_adjoints_agree_with_direct(solver, basis, dtype):
    basis = BASES[basis]
    # 7 steps make legs of unequal length; 3 buckets are not aligned with them.
    exact, primals = problem(basis, solver, 7, "direct", dtype=dtype)
    desired = gradients(exact, *primals)
    for adjoint in exact_adjoints(solver):
        f, _ = problem(basis, solver, 7, adjoint, dtype=dtype)
        assert_close(gradients(f, *primals), desired, tolerance(dtype))


@pytest.mark.parametrize("steps", [17, 34, 50])
def test_direct_takes_any_number_of_steps(steps):
    """Also one whose last batch is shorter than the others."""
    exact, primals = problem(BASES["trig"], "euler", steps, "direct")
    f, _ = problem(BASES["trig"], "euler", steps, Checkpoint(steps))
    assert_close(gradients(exact, *primals), gradients(f, *primals), 1e-10)


@pytest.mark.parametrize("num", [1, 2, 3, 6, 7, 100])
def test_any_number_of_checkpoints_gives_the_same_gradient(num):
    exact, primals = problem(BASES["trig"], "heun", 7, "direct", (0.0, 0.4, 1.0))
    f, _ = problem(BASES["trig"], "heun", 7, Checkpoint(num), (0.0, 0.4, 1.0))
    assert_close(gradients(f, *primals), gradients(exact, *primals), 1e-10)


@pytest.mark.parametrize(
    ("solver", "basis"),
    [*((name, "poly") for name in EACH_KIND), *(("rk4", name) for name in BASES)],
)
def test_direct_agrees_with_finite_differences(solver, basis):
    f, (y0, params) = problem(BASES[basis], solver, 5, "direct")

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
        *((solver, "poly", (0.0, 1.0)) for solver in EACH_KIND),
        *(("heun", basis, (1.0, 0.0)) for basis in ("bucket", "trig", "hats")),
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

    # Multiples of 3, to be aligned with the buckets; 16 steps make a batch. With more
    # steps, the higher orders are exact to rounding.
    order = SOLVERS[solver].order
    steps = 24 if order < 5 else 6
    first, second = error(steps), error(2 * steps)
    assert second < 0.2
    assert np.log2(first / second) > order - 0.3


def _flat(gradient):
    in_y0, in_params = gradient
    return [in_y0, *in_params]


def steps_for(adjoint):
    """A solver that the adjoint takes."""
    return {"solver": "alf" if adjoint == "reversible" else "rk4", "adjoint": adjoint}


@pytest.mark.parametrize("adjoint", ADJOINTS)
def test_gradients_of_args_structures_and_output_times(adjoint):
    """A damped oscillator, against direct; row 0 is y0 itself and counts too."""

    def f(y0, k, **options):
        y = odeint(
            lambda t, y, k: {"x": y["v"], "v": -k["spring"] * y["x"] - 0.1 * y["v"]},
            y0,
            [0.0, 0.5, 2.0],
            args=(k,),
            steps=40,
            **options,
        )
        return y["x"]

    options = steps_for(adjoint)
    primals = ({"x": random(2, FLOAT64), "v": random(2, FLOAT64)}, {"spring": 2.0})
    primals[1]["spring"] = np.array(2.0)
    actual = gradients(lambda *p: f(*p, **options), *primals)
    direct = {**options, "adjoint": "direct"}
    desired = gradients(lambda *p: f(*p, **direct), *primals)
    assert_close(actual, desired, 1e-5 if adjoint == "backsolve" else 1e-10)


@pytest.mark.parametrize("adjoint", ADJOINTS)
def test_slopes_may_be_constants_or_depend_on_args_alone(adjoint):
    """a(1) = a0 + n w with an integer n, b(1) = b0 + 1, and c stays as it is."""

    def f(y0, w):
        y = odeint(
            lambda t, y, w, n: {
                "a": ops.cast(n, w.dtype) * w,
                "b": ops.ones_like(y["b"]),
                "c": np.zeros(2, "float32"),
            },
            y0,
            [0.0, 1.0],
            (w, np.array([2, 3])),
            steps=3,
            **steps_for(adjoint),
        )
        return tree.map_structure(lambda y: y[-1], y)

    y0 = {name: np.ones(2, "float32") for name in "abc"}
    in_y0, in_w = gradients(f, y0, np.ones(2, "float32"))
    desired = {"a": np.array([6.0, 8.0]), "b": np.full(2, 4.0), "c": np.full(2, 2.0)}
    assert_close(in_y0, desired, 1e-5)
    assert_close(in_w, np.array([12.0, 24.0]), 1e-5)


@pytest.mark.parametrize("adjoint", ADJOINTS)
def test_unused_args_get_zeros(adjoint):
    def f(y0, a, b):
        return odeint(
            lambda t, y, a, b: -a * y,
            y0,
            [0.0, 1.0],
            (a, b),
            steps=3,
            **steps_for(adjoint),
        )

    in_y0, in_a, in_b = gradients(f, np.ones(2), np.array(1.0), np.ones(5))
    assert np.all(in_y0 != 0) and in_a != 0 and np.all(in_b == 0)


@pytest.mark.parametrize(
    ("solver", "times"), in_turn(EACH_KIND, [(0.0, 0.5, 1.0), (1.0, 0.7, -0.2)])
)
def test_gradients_of_times_with_fixed_steps(solver, times):
    """Against central differences, which are those of the discrete solution."""

    def f(t, y0):
        return odeint(
            lambda t, y: (1 - 0.5 * t * t) * y,
            y0,
            t,
            solver=SOLVERS[solver],
            steps=200 if SOLVERS[solver].order < 3 else 20,
        )

    y0, times = np.array([1.0, -0.5]), np.array(times)
    in_times, _ = gradients(f, times, y0)
    run = compiled(lambda t, y0: ops.sum(f(t, y0) ** 2))

    def loss(t):
        return float(numbers(run(ops.convert_to_tensor(t), ops.convert_to_tensor(y0))))

    h = 1e-5
    moves = h * np.eye(len(times))
    expected = [(loss(times + move) - loss(times - move)) / (2 * h) for move in moves]
    rtol = 0.05 if solver == "euler" else 1e-3
    np.testing.assert_allclose(in_times, expected, rtol=rtol)


# Adaptive steps.


def sensitivities(y0, args, times):
    """d y(t_i) / d (y0, args) of `lotka_volterra` by SciPy, shape (times, 2, 6)."""
    from scipy.integrate import solve_ivp

    a, b, c, d = args

    def both(t, state):
        (x, y), s = state[:2], state[2:].reshape(2, 6)
        in_y = np.array([[a - b * y, -b * x], [d * y, d * x - c]])
        in_args = np.array([[0, 0, x, -x * y, 0, 0], [0, 0, 0, 0, -y, x * y]])
        return np.append(lotka_volterra(t, (x, y), *args), in_y @ s + in_args)

    start = np.append(y0, np.eye(2, 6))
    found = solve_ivp(
        both, times[[0, -1]], start, "DOP853", times, rtol=1e-12, atol=1e-13
    )
    return found.y.T[:, 2:].reshape(-1, 2, 6)


@pytest.mark.parametrize(
    ("solver", "adjoint"),
    [
        *((solver, "checkpoint") for solver in PAIRS),
        ("dopri5", "backsolve"),
        ("tsit5", "direct"),
    ],
)
def test_adaptive_gradients_are_the_sensitivities(solver, adjoint):
    y0, args = np.array([1.0, 1.0]), np.array([1.5, 1.0, 3.0, 1.0])
    times = np.array([0.0, 0.5, 1.0])
    steps = Adaptive(1e-9, 1e-9, 1000)

    def f(prey, hunters, args, times):
        y = odeint(
            lambda t, y, p: lotka_volterra(t, y, p[0], p[1], p[2], p[3]),
            (prey, hunters),
            times,
            (args,),
            solver=solver,
            steps=steps,
            adjoint=adjoint,
        )
        return ops.stack(y, axis=1)

    # Arrays, since a scalar of NumPy's becomes float32 on PyTorch.
    primals = (*map(np.array, y0), args, times)
    in_prey, in_hunters, in_args, in_times = gradients(f, *primals)
    y = numbers(compiled(f)(*map(ops.convert_to_tensor, primals)))
    expected = np.einsum("ty,typ->p", 2 * y, sensitivities(y0, args, times))
    actual = np.concatenate([[in_prey, in_hunters], in_args])
    np.testing.assert_allclose(actual, expected, rtol=1e-6)

    # dL/dt_i = <a_i, f(t_i)>; a at t0 is the gradient in y0 less what row 0 itself has.
    slopes = np.array([lotka_volterra(0, row, *args) for row in y])
    flow = np.array([in_prey, in_hunters]) - 2 * y[0]
    expected = [-flow @ slopes[0], *np.sum(2 * y[1:] * slopes[1:], axis=1)]
    np.testing.assert_allclose(in_times, expected, rtol=1e-7)


@pytest.mark.parametrize(
    ("solver", "basis"),
    [
        ("bosh3", "trig"),
        ("dopri5", "bucket"),
        ("dopri8", "poly"),
        pytest.param("tsit5", "trig", marks=pytest.mark.slower),
    ],
)
def test_adaptive_exact_adjoints_agree_with_direct(solver, basis):
    steps = Adaptive(1e-4, 1e-4, 60)
    exact, primals = problem(BASES[basis], solver, steps, "direct", (0.0, 0.5, 2.0))
    desired = gradients(exact, *primals)
    # 3 and 5 states become too many more than once.
    nums = (1, 2, 3, 5, 60) if solver == "bosh3" else (3,)
    for adjoint in ("checkpoint", *map(Checkpoint, nums)):
        f, _ = problem(BASES[basis], solver, steps, adjoint, (0.0, 0.5, 2.0))
        assert_close(gradients(f, *primals), desired, 1e-10)


@pytest.mark.parametrize(
    ("basis", "times"),
    in_turn(["bucket", "trig", "hats", "legendre"], [(0.0, 1.0), (1.0, 0.4, 0.0)]),
)
def test_adaptive_backsolve_is_as_exact_as_its_tolerance(basis, times):
    steps = Adaptive(1e-9, 1e-9, 300)
    exact, primals = problem(BASES[basis], "tsit5", steps, "checkpoint", times)
    f, _ = problem(BASES[basis], "tsit5", steps, "backsolve", times)
    assert_close(gradients(f, *primals), gradients(exact, *primals), 1e-6)


@pytest.mark.parametrize(
    ("solver", "steps"), [("rk4", 10), ("dopri5", Adaptive(1e-8, 1e-8, 1000))]
)
def test_backsolve_starts_anew_from_each_output_time(solver, steps):
    """Backwards an error grows by e^20 in all, and by e^2 from one time to the next."""

    def f(adjoint):
        return lambda y0, a: odeint(
            lambda t, y, a: -a * y * (1 + y * y),
            y0,
            np.linspace(0, 1, 11),
            (a,),
            solver=solver,
            steps=steps,
            adjoint=adjoint,
        )

    primals = random((3,), FLOAT64), np.array(20.0)
    actual = gradients(f("backsolve"), *primals)
    assert_close(actual, gradients(f("checkpoint"), *primals), 1e-3)


@pytest.mark.parametrize(
    "adjoint", ["checkpoint", Checkpoint(3), "backsolve", "direct"], ids=str
)
def test_the_gradient_of_a_failed_solve_is_nan(adjoint):
    f, primals = problem(
        BASES["trig"], "dopri5", Adaptive(1e-9, 1e-9, 4), adjoint, (0.0, 5.0)
    )
    assert all(np.isnan(g).any() for g in _flat(gradients(f, *primals)))


@pytest.mark.parametrize("adjoint", ["checkpoint", "backsolve", "direct"])
def test_the_gradient_of_a_failed_solve_is_nan_whatever_the_loss(adjoint):
    """The cotangent of a sum does not know of the NaN."""
    f, primals = problem(
        BASES["trig"], "dopri5", Adaptive(1e-9, 1e-9, 4), adjoint, (0.0, 5.0)
    )

    def run(*primals):
        y, pullback = backend.vjp(f, *primals)
        return pullback(ops.ones_like(y))

    found = compiled(run)(*tree.map_structure(ops.convert_to_tensor, primals))
    assert all(np.isnan(g).all() for g in _flat(numbers(found)))


@pytest.mark.parametrize("adjoint", ["checkpoint", Checkpoint(3), "backsolve"], ids=str)
@pytest.mark.parametrize("times", [(0.0, 1.0), (0.0, 0.5, 1.0)])
def test_the_gradient_is_nan_also_if_no_step_succeeds(adjoint, times):
    def f(y0, k):
        y, _ = odeint(
            lambda t, y, k: k * y / t,
            y0,
            times,
            (k,),
            adjoint=adjoint,
            return_stats=True,
        )
        return y[1:]

    in_y0, in_k = gradients(f, np.ones(2), np.array(1.0))
    assert np.isnan(in_y0).all() and np.isnan(in_k)


# Reversible solvers.


@pytest.mark.parametrize(
    ("solver", "basis"),
    sorted({*in_turn(REVERSIBLE, BASES), *((name, "bucket") for name in REVERSIBLE)}),
)
def test_reversible_steps_are_undone(solver, basis):
    """All states are rebuilt to rounding, also over jumps of the weights."""
    field = VectorField(
        lambda t, y, theta: tanh_squared(y @ theta[0]),
        Parts(BasisWeights(BASES[basis])),
    )
    problem = Problem(field, SOLVERS[solver], np.array([0, 1.0]), FLOAT64)
    plan = FixedSteps(problem, 7, 7)
    params = (ops.convert_to_tensor(random((BASES[basis].size, 3, 3), FLOAT64, 1)),)
    y0 = ops.convert_to_tensor(random((4, 3), FLOAT64))

    def back_and_forth(y0, params):
        _, state, _ = solve(plan, y0, params)
        (state, _), _ = backward_loop(
            plan,
            params,
            0,
            7,
            lambda i, step, carry: (
                (step.take_back(carry[0], step.theta), 0),
                step.theta,
            ),
            (state, 0),
            params,
        )
        return plan.problem.solver.value(state)

    back = numbers(compiled(back_and_forth)(y0, params))
    np.testing.assert_allclose(back, numbers(y0), atol=1e-13)


@pytest.mark.parametrize("solver", REVERSIBLE)
def test_a_thousand_steps_are_undone_in_float32(solver):
    x = random((2, 6, 6, 4))
    found = []
    for adjoint in ("reversible", "checkpoint"):
        keras.utils.set_random_seed(0)
        ode = layers.TrigConvODE(
            2,
            hidden_filters=2,
            solver=SOLVERS[solver],
            steps=100 if keras.backend.backend() == "torch" else 1000,
            adjoint=adjoint,
        )
        ode.build(x.shape)
        found.append(layer_gradients(ode, x))
    assert_close(*found, 1e-3)


@pytest.mark.parametrize("solver", REVERSIBLE)
def test_reversible_solvers_keep_their_order_over_jumps(solver):
    basis = bases.Bucket(4)
    f, primals = problem(basis, "rk4", 1024, "direct")
    primals = tree.map_structure(ops.convert_to_tensor, primals)
    exact = numbers(compiled(f)(*primals))

    def error(steps):
        f, _ = problem(basis, solver, steps, "reversible")
        return np.abs(numbers(compiled(f)(*primals)) - exact).max()

    assert np.log2(error(64) / error(128)) > SOLVERS[solver].order - 0.15


@pytest.mark.parametrize("solver", ["rk4", "dopri5"])
def test_the_reversible_adjoint_names_its_solvers(solver):
    message = rf"'reversible_heun', 'alf'.*Reversible\('{solver}'\).*Received: solver="
    with pytest.raises(ValueError, match=message):
        layers.ODE(keras.layers.Dense(2), solver, 3, adjoint="reversible")
    with pytest.raises(ValueError, match=message):
        odeint(
            lambda t, y: y, 1.0, [0, 1], solver=solver, steps=3, adjoint="reversible"
        )


@pytest.mark.parametrize("solver", REVERSIBLE)
def test_reversible_solvers_take_no_adaptive_steps(solver):
    with pytest.raises(ValueError, match="no error estimate.*'dopri5'.*steps=None"):
        odeint(lambda t, y: y, 1.0, [0, 1], solver=SOLVERS[solver])


# Counts and configuration.


COUNTS = [1, 2, 3, 7, 9, 10, 16, 17, 18, 40, 99, 100]


@pytest.mark.parametrize("count", COUNTS)
def test_segments_go_through_all_steps_in_their_slots(count):
    root = int(np.ceil(np.sqrt(count)))
    tensor = ops.convert_to_tensor(count, "int32")
    growing = Growing(count + 5).segments(tensor, 0)
    most = Growing.FIRST + int(np.ceil(np.sqrt(max(count - Growing.FIRST, 0))))
    numbers_kept = {num for num in (1, 2, 5, root, count) if num <= count}
    plans = [(num, Segments.split(count, num)) for num in numbers_kept]
    for num, segments in [(most, growing), *plans]:
        found = [
            tuple(map(int, numbers(segments.span(s))))
            for s in range(int(numbers(segments.number)))
        ]
        steps = [first + i for first, length in found for i in range(length)]
        assert steps == list(range(count))
        assert len(found) <= min(num, segments.most)
        slots = [s + length for s, (_, length) in enumerate(found)]
        assert max(slots) <= segments.capacity
    # Known beforehand, three quarters of the states of equal segments: 1.5 sqrt(n).
    assert Segments.split(count, root).capacity <= 1.5 * np.sqrt(count) + 1


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("rule", [Growing(120), Doubling(120, 5)], ids=str)
def test_the_kept_states_begin_the_segments(rule, count):
    states = ops.arange(count, dtype="int32")
    saved, mark = rule.start(states[0]), rule.first_mark
    for i in range(count):
        saved, mark = rule.keep(saved, mark, i, states[i])
    segments = rule.segments(ops.convert_to_tensor(count, "int32"), mark)
    for s in range(int(numbers(segments.number))):
        first, _ = segments.span(s)
        assert int(numbers(first)) == int(numbers(read(saved, s)))


def test_the_backward_pass_is_paid_for_as_planned():
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


@pytest.mark.parametrize("steps", [5, Adaptive(1e-3, 1e-3)], ids=["fixed", "adaptive"])
@pytest.mark.parametrize("adjoint", ["checkpoint", "backsolve", "direct"])
def test_inference_has_the_gradient_of_training(adjoint, steps):
    """Though it keeps nothing for one, and solves again when somebody asks."""
    ode = layers.BucketDenseODE(
        2, solver="bosh3", steps=steps, adjoint=adjoint, start="independent"
    )
    x = random((4, 3))
    ode(x)

    def run(training):
        def f(weights, x):
            state = [v.value for v in ode.non_trainable_variables]
            return ode.stateless_call(weights, state, x, training=training)[0]

        return gradients(f, [ops.copy(v.value) for v in ode.trainable_variables], x)

    assert_close(run(False), run(True), 1e-6)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="reads the graph")
@pytest.mark.parametrize("adjoint", ["checkpoint", "direct"])
@pytest.mark.parametrize("steps", [5, Adaptive()], ids=["fixed", "adaptive"])
def test_inference_keeps_no_lists(adjoint, steps):
    import tensorflow as tf

    ode = layers.TrigDenseODE(1, solver="bosh3", steps=steps, adjoint=adjoint)

    def lists(training):
        graph = tf.function(lambda x: ode(x, training=training))
        graph = graph.get_concrete_function(tf.TensorSpec((None, 3))).graph
        return "TensorList" in str(graph.as_graph_def())

    assert not lists(False)
    # Otherwise the test sees nothing; direct's fixed steps leave it to the backend.
    assert lists(True) or (adjoint == "direct" and steps == 5)


CONSTANT_OR_NOT = (None, bases.Bucket(4), bases.Trigonometric(2))


@pytest.mark.parametrize(
    ("adjoint", "basis"),
    sorted(
        {
            *in_turn(ADJOINTS, CONSTANT_OR_NOT),
            *(("checkpoint", basis) for basis in CONSTANT_OR_NOT),
        },
        key=str,
    ),
    ids=str,
)
def test_the_length_of_a_step_may_be_part_of_the_last_weights(
    adjoint, basis, monkeypatch
):
    """h f(y, theta) = f(y, h theta), where f is linear in some weights: both ways give
    the same gradients."""
    solver = "reversible_heun" if adjoint == "reversible" else "rk4"
    x = random((4, 3), FLOAT64)

    def found():
        block = layers.DenseBlock(hidden_units=5, dtype=FLOAT64)
        dynamics = layers.TimeVarying(block, basis) if basis else block
        ode = layers.ODE(dynamics, solver, steps=4, adjoint=adjoint)
        ode.build(x.shape)
        ode.set_weights([random(v.shape, FLOAT64) for v in ode.weights])
        return layer_gradients(ode, x)

    absorbed = found()
    monkeypatch.setattr(LayerFunction, "scale", None)
    assert_close(absorbed, found(), tolerance(FLOAT64))
