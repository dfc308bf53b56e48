"""`solver="bdf"`: TensorFlow Probability's solver for stiff problems."""

import re
import subprocess
import sys

import keras
import numpy as np
import pytest
from cases import compiled, gradients, layer_gradients, numbers, random
from keras import ops
from problems import scalar

from keras_nanode import (
    Adaptive,
    Checkpoint,
    Reversible,
    bases,
    layers,
    odeint,
    solvers,
)
from keras_nanode.models import materialize
from keras_nanode.stepping import Status

ON_TENSORFLOW = keras.backend.backend() == "tensorflow"
on_tensorflow = pytest.mark.skipif(not ON_TENSORFLOW, reason="TensorFlow's")


def van_der_pol(t, y, mu):
    x, v = y
    return v, mu * (1 - x * x) * v - x


def solve(func, y0, t, args=(), **options):
    def run(y0, args):
        return odeint(func, y0, t, args, solver="bdf", **options)

    return numbers(compiled(run)(y0, args))


def reference(func, y0, times, args=()):
    from scipy.integrate import solve_ivp

    options = {"method": "Radau", "rtol": 1e-10, "atol": 1e-12}
    return solve_ivp(
        func, (times[0], times[-1]), y0, t_eval=times, args=args, **options
    ).y


def tight(tolerance=1e-7):
    return Adaptive(tolerance, tolerance, 20_000)


@on_tensorflow
def test_van_der_pol_with_mu_1000():
    times, y0 = (0.0, 1000.0, 3000.0), (2.0, 0.0)
    y, stats = solve(
        van_der_pol,
        tuple(map(scalar, y0)),
        times,
        (scalar(1000.0),),
        steps=Adaptive(1e-6, 1e-9, 20_000),
        return_stats=True,
    )
    expected = reference(van_der_pol, y0, times, (1000.0,))
    np.testing.assert_allclose(np.stack(y), expected, rtol=1e-3)
    assert stats["status"] == Status.SUCCESS
    # An explicit solver is held to steps of about 3 / 3000, which makes millions.
    assert stats["num_fevals"] < 20_000


@on_tensorflow
@pytest.mark.parametrize("times", [(0.0, 0.4, 1.0), (1.0, 0.7, 0.0)])
def test_any_structure_shape_and_direction_in_time(times):
    def func(t, y):
        t = ops.cast(t, "float64")
        return {"a": t * y["b"][0], "b": [-t * y["a"]]}

    y0 = {"a": scalar(random((2, 3))), "b": [scalar(random((2, 3), seed=1))]}
    y = solve(func, y0, times, steps=tight(1e-9))
    angle = (np.array(times) ** 2 - times[0] ** 2)[:, None, None] / 2
    a, b = numbers(y0["a"]), numbers(y0["b"][0])
    expected = a * np.cos(angle) + b * np.sin(angle)
    np.testing.assert_allclose(y["a"], expected, rtol=0, atol=1e-6)


@on_tensorflow
def test_eager_and_compiled_agree():
    y0, args = (scalar(2.0), scalar(0.0)), (scalar(10.0),)
    eager = numbers(odeint(van_der_pol, y0, (0.0, 2.0), args, solver="bdf"))
    np.testing.assert_allclose(eager, solve(van_der_pol, y0, (0.0, 2.0), args), 1e-12)


@on_tensorflow
@pytest.mark.parametrize("adjoint", ["checkpoint", "backsolve"])
def test_gradients_are_the_sensitivities(adjoint):
    """Integrated over times so long that y cannot be found again backwards."""
    y0, times, mu = (2.0, 0.0), (0.0, 1.0, 3.0), 5.0

    def f(x, v, mu):
        options = {"solver": "bdf", "steps": tight(1e-8), "adjoint": adjoint}
        return odeint(van_der_pol, (x, v), times, (mu,), **options)

    def loss(x, v, mu):
        y = reference(van_der_pol, (x, v), times, (mu,))
        return np.sum(y**2)

    point = np.array([*y0, mu])
    steps = 1e-4 * np.eye(3)
    expected = [(loss(*(point + e)) - loss(*(point - e))) / 2e-4 for e in steps]
    actual = gradients(f, *map(scalar, point))
    np.testing.assert_allclose(actual, expected, rtol=1e-4)


def layer(basis, solver, steps):
    keras.utils.set_random_seed(1)
    dynamics = layers.TimeVarying(
        keras.layers.Dense(3, "tanh"), basis, start="independent"
    )
    ode = layers.ODE(dynamics, solver, steps, t_span=(1.0, 0.0))
    ode.build((2, 3))
    return ode


@on_tensorflow
@pytest.mark.parametrize(
    "basis", [bases.Bucket(3), bases.Trigonometric(1), bases.Constant()], ids=str
)
def test_a_layer_and_its_gradients_are_those_of_dopri5(basis):
    x = random((2, 3))
    stiff = layer(basis, "bdf", Adaptive(1e-5, 1e-5))
    other = layer(basis, "dopri5", 30)
    np.testing.assert_allclose(stiff(x), other(x), rtol=0, atol=2e-4)
    np.testing.assert_allclose(stiff(x, training=False), stiff(x), rtol=0, atol=1e-6)
    pairs = zip(layer_gradients(stiff, x)[0], layer_gradients(other, x)[0], strict=True)
    for actual, expected in pairs:
        np.testing.assert_allclose(actual, expected, rtol=0, atol=2e-3)


@on_tensorflow
def test_a_layer_learns_and_is_saved(tmp_path):
    import tensorflow as tf

    model = keras.Sequential(
        [keras.Input((2,)), layers.ODE(keras.layers.Dense(2), "bdf")]
    )
    model.compile("sgd", "mse")
    x = random((4, 2))
    batches = tf.data.Dataset.from_tensor_slices((x, 0.5 * x)).batch(4, True)
    history = model.fit(batches, epochs=3, shuffle=False, verbose=0).history["loss"]
    assert history[-1] < history[0]
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.layers[0].solver == solvers.get("bdf")
    np.testing.assert_array_equal(
        loaded.predict(x, verbose=0), model.predict(x, verbose=0)
    )


@on_tensorflow
def test_an_unknown_batch_size_is_refused():
    model = keras.Sequential(
        [keras.Input((2,)), layers.ODE(keras.layers.Dense(2), "bdf")]
    )
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match=r"drop_remainder=True.*shape \(None, 2\)"):
        model.fit(random((4, 2)), random((4, 2)), verbose=0)


@on_tensorflow
@pytest.mark.parametrize(
    ("func", "max_steps", "status"),
    [
        (lambda t, y: -1e4 * (y - ops.cos(t)), 20, Status.MAX_STEPS),
        (lambda t, y: ops.sqrt(-y), 2000, Status.NON_FINITE),
    ],
)
def test_failure_is_nan_and_an_error_in_eager_mode(func, max_steps, status):
    options = {"solver": "bdf", "steps": Adaptive(1e-8, 1e-8, max_steps)}
    times = (0.0, 100.0, 200.0)
    y, stats = odeint(func, scalar(1.0), times, return_stats=True, **options)
    assert stats["status"] == status
    assert stats["num_steps"] <= max_steps + 1
    np.testing.assert_array_equal(y, [1, np.nan, np.nan])
    with pytest.raises(RuntimeError, match=f"status={status.name}.*solver='bdf'"):
        odeint(func, scalar(1.0), times, **options)


@on_tensorflow
def test_evaluations_are_counted():
    import tensorflow as tf

    count = tf.Variable(0, trainable=False)

    def func(t, y):
        count.assign_add(1)
        return -50 * (y - ops.cos(t))

    _, stats = odeint(
        func, scalar(1.0), (0.0, 1.0, 2.0), solver="bdf", return_stats=True
    )
    assert stats["num_fevals"] == count
    assert stats["num_accepted"] + stats["num_rejected"] == stats["num_steps"]
    assert 10 < stats["num_accepted"] <= stats["num_steps"]


@on_tensorflow
def test_its_gradient_is_not_differentiated():
    import tensorflow as tf

    x = scalar(1.0)
    # TensorFlow prepares the second derivative of a function with the first.
    with (
        pytest.raises(LookupError, match="explicit solver"),
        tf.GradientTape() as outer,
    ):
        outer.watch(x)
        with tf.GradientTape() as inner:
            inner.watch(x)
            y = odeint(lambda t, y: -y * y, x, (0.0, 1.0), solver="bdf")[-1]
        outer.gradient(inner.gradient(y, x), x)


@on_tensorflow
@pytest.mark.parametrize("steps", [3, "many"])
def test_steps_are_not_counted_out(steps):
    message = rf"'bdf' chooses its steps.*Received: steps={steps!r}"
    with pytest.raises(ValueError, match=message):
        layers.ODE(keras.layers.Dense(3), "bdf", steps)
    if steps == 3:
        x = keras.Input((3,))
        model = keras.Model(x, layers.ODE(keras.layers.Dense(3), "bdf")(x))
        with pytest.raises(ValueError, match=message):
            materialize(model, steps)


@on_tensorflow
@pytest.mark.parametrize("adjoint", ["direct", "reversible", Checkpoint(3)], ids=str)
def test_other_adjoints_are_refused(adjoint):
    with pytest.raises(ValueError, match=r"continuous adjoint.*Received: solver='bdf'"):
        layers.ODE(keras.layers.Dense(3), "bdf", adjoint=adjoint)


@on_tensorflow
def test_name_and_configuration():
    assert solvers.serialize(solvers.get("bdf")) == "bdf"
    assert "bdf" not in solvers.ALL
    with pytest.raises(ValueError, match="Runge-Kutta.*Received: solver='bdf'"):
        Reversible("bdf")


@on_tensorflow
def test_without_tensorflow_probability_the_error_names_the_extra():
    code = """
import sys
sys.modules["tensorflow_probability"] = None
from keras import ops
from keras_nanode import odeint
try:
    odeint(lambda t, y: -y, ops.ones(()), [0.0, 1.0], solver="bdf")
except ImportError as error:
    print(error)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert re.search(r"pip install \"./keras_nanode\[stiff\]\"", run.stdout), run.stderr


@pytest.mark.skipif(ON_TENSORFLOW, reason="of the other backends")
def test_other_backends_say_so():
    with pytest.raises(ValueError, match="on TensorFlow.*use 'tsit5'.*Received"):
        odeint(lambda t, y: -y, ops.ones(()), [0.0, 1.0], solver="bdf")
