"""What the vector field may be, and what it may do to the tensors that it sees."""

import gc

import keras
import numpy as np
import pytest
from cases import assert_close, gradients, numbers, random
from keras import ops

from keras_nanode import bases, layers, odeint

TORCH = keras.backend.backend() == "torch"
only_torch = pytest.mark.skipif(not TORCH, reason="tensors change in place on PyTorch")
TIMES = [0.0, 0.4, 1.0]
WAYS = [
    {},
    {"solver": "rk4", "steps": 4},
    {"solver": "rk4", "steps": 4, "adjoint": "direct"},
    {"solver": "alf", "steps": 4, "adjoint": "reversible"},
    {"adjoint": "backsolve"},
]


class TimeFirst(keras.layers.Layer):
    def call(self, t, y):
        return t * y


class TimeSecond(keras.layers.Layer):
    def call(self, x, t):
        return t * x


class TimeLast(keras.layers.Layer):
    def call(self, x, rate, t=None):
        return t * rate * x


class TwoInputs(keras.layers.Layer):
    def call(self, query, value):
        return query * value


class AnyInputs(keras.layers.Layer):
    def call(self, *inputs):
        return inputs[0]


def mlp():
    return keras.Sequential([keras.layers.Dense(5, "tanh"), keras.layers.Dense(3)])


DYNAMICS = {
    "mlp": mlp,
    "buckets": lambda: layers.TimeVarying(mlp(), bases.Bucket(4)),
    "waves": lambda: layers.TimeVarying(mlp(), bases.Trigonometric(2)),
    "time appended": lambda: layers.TimeAppended(mlp()),
    "time second": TimeSecond,
    "time first": TimeFirst,
}


@pytest.mark.parametrize("way", WAYS, ids=str)
@pytest.mark.parametrize("name", DYNAMICS)
def test_odeint_calls_a_layer_as_ode_does(name, way):
    layer, y0 = DYNAMICS[name](), random((2, 3))
    ode = layers.ODE(layer, **{"solver": "dopri5", **way})
    desired = numbers(ode(y0))
    y = odeint(layer, y0, [0.0, 1.0], **way)
    np.testing.assert_array_equal(numbers(y[-1]), desired)
    with pytest.raises(AttributeError, match="cannot be changed"):
        ode.dynamics = layer


def test_weights_over_time_get_their_gradients_through_odeint():
    layer = layers.TimeVarying(keras.layers.Dense(3, "tanh"), bases.Bucket(3))
    ode = layers.ODE(layer, "rk4", 6)
    y0 = ops.convert_to_tensor(random((2, 3)))
    ode.build(y0.shape)

    def through(run):
        def f(weights, y0):
            pairs = zip(layer.trainable_variables, weights, strict=True)
            with keras.StatelessScope(list(pairs)):
                return run(y0)

        return gradients(f, [ops.copy(v.value) for v in layer.trainable_variables], y0)

    actual = through(lambda y0: odeint(layer, y0, [0.0, 1.0], solver="rk4", steps=6)[1])
    assert_close(actual, through(ode), 1e-6)


def test_times_that_are_a_tensor_see_the_weights_of_their_time():
    layer = layers.TimeVarying(mlp(), bases.Bucket(2), start="independent")
    y0 = random((2, 3))
    way = {"solver": "rk4", "steps": 2}
    desired = numbers(odeint(layer, y0, [0.0, 0.5, 1.0], **way))
    times = ops.convert_to_tensor([0.0, 0.5, 1.0], "float32")
    actual = numbers(odeint(layer, y0, times, **way))
    np.testing.assert_allclose(actual, desired, atol=1e-6)


def test_further_arguments_reach_a_layer():
    y = odeint(TimeLast(), np.ones((1, 2)), [0.0, 1.0], (2.0,))
    np.testing.assert_allclose(numbers(y[-1]), np.e, rtol=1e-4)


@pytest.mark.parametrize(
    ("make", "change", "message"),
    [
        (mlp, {"y0": 1.0}, r"cannot be built for `y0`.*Received: .*shape \(\)"),
        (mlp, {"y0": np.ones(3)}, r"cannot be built.*Received: .*shape \(3,\)"),
        (mlp, {"args": (1.0,)}, r"the 1 entries of `args`.*Received: Sequential with"),
        (mlp, {"y0": keras.Input((3,))}, r"layers.ODE\(dynamics.*Received: y0="),
        (TwoInputs, {}, r"call\(y, t\).*Received: TwoInputs with call\(query, value"),
        (AnyInputs, {}, r"call\(y, t\).*Received: AnyInputs with call\(\*inputs\)"),
        (
            lambda: layers.TimeVarying(mlp(), bases.Bucket(2)),
            {"t": [0.0, 2.0]},
            r"not defined on all of `t`.*domain=\(0.0, 2.0\).*Received: t from",
        ),
    ],
)
def test_a_layer_that_cannot_be_called_is_left_as_it_was(make, change, message):
    layer = make()
    with pytest.raises(ValueError, match=message):
        odeint(**{"func": layer, "y0": np.ones((2, 3)), "t": TIMES, **change})
    if "t" not in change:
        assert not layer.built


def slope_of(kind):
    buffer = ops.zeros(2)

    def in_place(t, y):
        y *= -1
        return y

    def a_buffer(t, y):
        import torch

        return torch.neg(y, out=buffer)

    def the_time(t, y):
        t *= 0
        return t - y

    def an_array(t, y):
        buffer.numpy()[:] = -y.detach().numpy()
        return buffer

    given = {"state": in_place, "buffer": a_buffer, "array": an_array, "time": the_time}
    return given[kind]


@only_torch
@pytest.mark.parametrize("way", WAYS, ids=str)
@pytest.mark.parametrize("kind", ["state", "buffer", "array", "time"])
def test_what_func_writes_over_changes_nothing(kind, way):
    is_buffer = kind in ("buffer", "array")
    if is_buffer and way.get("adjoint") == "direct":
        pytest.skip("PyTorch has no gradient of a result that is written elsewhere")
    y0 = ops.ones(2)
    y = odeint(slope_of(kind), y0, TIMES, **way)
    np.testing.assert_array_equal(
        numbers(y), numbers(odeint(lambda t, y: -y, y0, TIMES, **way))
    )
    np.testing.assert_array_equal(numbers(y0), 1)
    if not is_buffer:
        tensors = ops.convert_to_tensor(np.ones(2))
        actual = gradients(lambda y: odeint(slope_of(kind), y, TIMES, **way), tensors)
        desired = gradients(lambda y: odeint(lambda t, y: -y, y, TIMES, **way), tensors)
        assert_close(actual, desired, 1e-12)


@only_torch
def test_a_layer_that_writes_over_its_input_changes_nothing():
    class Negative(keras.layers.Layer):
        def call(self, x):
            x *= -1
            return x

    x = ops.ones((1, 2))
    y = layers.ODE(Negative(), "rk4", 20)(x)
    np.testing.assert_allclose(numbers(y), np.exp(-1), rtol=1e-5)
    np.testing.assert_array_equal(numbers(x), 1)


@only_torch
def test_a_function_must_not_write_into_args():
    def f(t, y, w):
        w *= 2
        return w * y

    with pytest.raises(ValueError, match="must not write into `args`.*Received"):
        odeint(f, ops.ones(2), TIMES, (ops.ones(2),))


@pytest.mark.parametrize(
    ("slope", "message"),
    [
        (lambda y: None, "must give dy/dt, a floating tensor.*Received: .*dy/dt=None"),
        (lambda y: "1", "must give dy/dt, a floating tensor.*Received: .*dy/dt='1'"),
        (lambda y: 1, "must give dy/dt, a floating tensor.*Received: .*dy/dt=1"),
        (lambda y: 1.0, r"in the shape of y.*Received: .*dy/dt with shape \(\)"),
        (lambda y: [y, y], "in the structure of y.*Received"),
        (lambda y: y > 0, "floating.*Received: .*dy/dt with dtype=bool"),
        (lambda y: ops.cast(y, "int32"), "floating.*Received: .*dtype=int32"),
        (lambda y: ops.cast(y, "complex64"), "imaginary.*Received: .*dtype=complex64"),
        (lambda y: np.ones(2, "int64"), "floating.*Received: .*dtype=int64"),
    ],
)
def test_a_slope_is_floating_and_shaped_as_the_state(slope, message):
    with pytest.raises(ValueError, match=message):
        odeint(lambda t, y: slope(y), ops.ones(2), TIMES)
    if isinstance(slope(ops.ones(2)), (list, str, float, int, type(None))):
        return  # which Keras itself refuses of a layer
    layer = layers.ODE(keras.layers.Lambda(lambda x: ops.reshape(slope(x), (-1,))))
    with pytest.raises(ValueError, match=message):
        layer(ops.ones(2))


def test_a_number_is_the_slope_of_a_number():
    y = numbers(odeint(lambda t, y: 0.1, np.float64(0.0), [0.0, 1.0]))
    assert y.dtype == "float64"
    assert y[-1] == pytest.approx(0.1, abs=1e-15)
    y = odeint(lambda t, y: np.ones(2), np.zeros(2, "float32"), [0.0, 1.0])
    np.testing.assert_allclose(numbers(y)[-1], 1, rtol=1e-6)


@pytest.mark.parametrize("name", ["y0", "t", "args"])
def test_symbols_are_told_the_layer(name):
    symbol = keras.KerasTensor((2,))
    given = {"y0": np.ones(2), "t": [0.0, 1.0], "args": (2.0,)}
    given[name] = (symbol,) if name == "args" else symbol
    with pytest.raises(
        ValueError, match=f"`{name}` is symbolic.*ODE.*Received: {name}="
    ):
        odeint(lambda t, y, *args: -y, **given)


@pytest.mark.parametrize(
    "where",
    [
        lambda z: odeint(lambda t, y: y, z, TIMES),
        lambda z: odeint(lambda t, y: y, [ops.ones(2), z], TIMES),
        lambda z: odeint(lambda t, y, w: y, ops.ones(2), TIMES, (z,)),
        lambda z: odeint(lambda t, y, w: y, ops.ones(2), TIMES, ({"w": z},)),
        lambda z: layers.ODE(layers.Augment(1)).call(z),
    ],
)
@pytest.mark.parametrize("as_tensor", [False, True])
def test_complex_numbers_are_refused_without_advice_that_drops_half(where, as_tensor):
    z = np.array([1 + 1j, 2], "complex64")
    z = ops.convert_to_tensor(z) if as_tensor else z
    with pytest.raises(ValueError, match="keras.ops.imag.*Received: .*complex") as info:
        where(z)
    assert "cast" not in str(info.value)


@only_torch
@pytest.mark.parametrize("adjoint", ["checkpoint", "backsolve", "reversible"])
def test_pytorch_frees_what_was_kept_after_the_backward_pass(adjoint):
    import torch

    def kept():
        """How many states are alive that only a solve can hold."""
        gc.collect()
        shape = (7, 11, 13)
        found = [x for x in gc.get_objects() if type(x) is torch.Tensor]
        return sum(tuple(x.shape) == shape for x in found)

    y = torch.ones((7, 11, 13), requires_grad=True)
    options = {"solver": "alf" if adjoint == "reversible" else "heun", "steps": 36}
    counts = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda x: counts.append(x.shape) or x, lambda x: x
    ):
        y1 = odeint(lambda t, y: -y, y, [0.0, 1.0], adjoint=adjoint, **options)[-1]
    assert counts, "hooks see what is kept"
    loss = y1.sum()
    loss.backward()
    assert kept() <= 3  # y, y1 and the gradient
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        loss.backward()
