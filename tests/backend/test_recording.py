"""Layers as graphs of PyTorch's operations: the same, but sooner."""

import functools

import keras
import numpy as np
import pytest
from keras import ops

from keras_nanode import bases, layers
from keras_nanode.fields.stateless import LayerFunction

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "torch", reason="the others compile"
)
X = np.random.default_rng(0).normal(size=(3, 5, 8)).astype("float32")


def graphs(layer):
    """Of a layer as dynamics."""
    from keras_nanode.backend.torch import recording

    layer = layer.layer if isinstance(layer, layers.TimeVarying) else layer

    _, settings = recording._RECORDED.get(layer, (None, None))
    return [graph for graphs in (settings or {}).values() for graph in graphs.values()]


def numbers(x):
    return ops.convert_to_numpy(x)


def attention():
    x = keras.Input((5, 8))
    y = keras.layers.LayerNormalization()(x)
    y = keras.layers.MultiHeadAttention(2, 4)(y, y)
    return keras.Model(x, y)


RECORDED = {
    "dense": lambda: keras.layers.Dense(8, activation="tanh"),
    "block": lambda: layers.DenseBlock(hidden_units=4, normalization="group"),
    "convolutions": lambda: layers.ConvBlock(hidden_filters=4, normalization="layer"),
    "sequential": lambda: keras.Sequential(
        [keras.layers.Dense(8), keras.layers.LeakyReLU()]
    ),
    "formula": lambda: keras.Sequential(
        [keras.layers.Dense(8), keras.layers.Lambda(lambda x: ops.sin(x) ** 3)]
    ),
    "attention": attention,
    "over time": lambda: layers.TimeVarying(keras.layers.Dense(8), bases.Bucket(2)),
    "appended": lambda: layers.TimeAppended(keras.layers.Dense(8)),
}


def solved(ode):
    """Outputs and gradients."""
    import torch

    x = torch.tensor(X, requires_grad=True)
    y = ode(x, training=True)
    weights = [v.value for v in ode.trainable_variables]
    return [y, *torch.autograd.grad((y**2).sum(), [x, *weights])]


@pytest.mark.parametrize("make", RECORDED.values(), ids=RECORDED)
def test_layers_of_keras_and_of_this_library_are_recorded_once(make, monkeypatch):
    dynamics = make()
    ode = layers.ODE(dynamics, "heun", steps=3)
    first = solved(ode)
    assert [g for g in graphs(dynamics) if g]
    number = len(graphs(dynamics))
    monkeypatch.setattr(LayerFunction, "__call__", None)
    again = solved(ode)
    assert len(graphs(dynamics)) == number
    for x, y in zip(first, again, strict=True):
        np.testing.assert_allclose(x.detach(), y.detach(), rtol=1e-4, atol=1e-5)


def test_the_graph_gives_what_the_layer_gives():
    dynamics = layers.ConvBlock(hidden_filters=4, normalization="group")
    plain = layers.ConvBlock.from_config(dynamics.get_config())
    plain.add = 0  # so that it is not known any more
    odes = [layers.ODE(f, "rk4", steps=4) for f in (dynamics, Plain(plain))]
    for ode in odes:
        ode(X)
    odes[1].set_weights(odes[0].get_weights())
    for x, y in zip(*map(solved, odes), strict=True):
        np.testing.assert_allclose(x.detach(), y.detach(), rtol=1e-4, atol=1e-5)
    assert graphs(dynamics) and not graphs(odes[1].dynamics)


class Plain(keras.layers.Layer):
    """A user's layer, whose code may do anything."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner
        self.calls = 0

    def call(self, x):
        self.calls += 1
        return self.inner(x)


@pytest.mark.parametrize("varies", [False, True])
def test_a_layer_of_the_user_is_called_every_time(varies):
    plain = Plain(keras.layers.Dense(8))
    dynamics = layers.TimeVarying(plain, "bucket") if varies else plain
    ode = layers.ODE(dynamics, "euler", steps=10)
    ode(X)
    before = plain.calls
    ode(X)
    assert plain.calls == before + 10


@pytest.mark.parametrize("adjoint", ["checkpoint", "backsolve"])
def test_a_gradient_is_recorded_too(adjoint, monkeypatch):
    """What a solver differentiates once is a graph, which autograd has no part in."""
    import torch

    from keras_nanode.backend.torch.graphs import Halves

    dynamics = layers.ConvBlock(hidden_filters=4, normalization="group")
    ode = layers.ODE(dynamics, "heun", steps=3, adjoint=adjoint)
    first = solved(ode)
    assert [g for g in graphs(dynamics) if isinstance(g, Halves)]
    calls = []
    grad = torch.autograd.grad
    monkeypatch.setattr(
        torch.autograd, "grad", lambda *a, **k: calls.append(1) or grad(*a, **k)
    )
    again = solved(ode)
    assert len(calls) == 1  # the user's own
    for x, y in zip(first, again, strict=True):
        np.testing.assert_allclose(x.detach(), y.detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layout", ["expanded", "transposed"])
def test_a_cotangent_may_have_any_layout(layout):
    """A graph has views, which are not there for every layout in memory."""
    import torch

    from keras_nanode import backend

    dynamics = keras.Sequential([keras.layers.Dense(8), keras.layers.Reshape((8, 8))])
    ode = layers.ODE(dynamics, "euler", steps=1)
    y = torch.tensor(
        np.random.default_rng(1).normal(size=(2, 8, 8)), dtype=torch.float32
    )
    ode.build(y.shape)
    field, params = ode.field()
    f = functools.partial(field.func, torch.tensor(0.0))
    a = torch.ones(()).expand(y.shape) if layout == "expanded" else y.mT
    found, expected = (
        backend.vjp(f, y, params)[1](a)
        for a in (a, a.clone(memory_format=torch.contiguous_format))
    )
    assert any(g is not None for g in graphs(dynamics))
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-5)


def test_a_copy_that_is_written_into_stays_a_copy():
    import torch

    from keras_nanode.backend.torch.graphs import operations

    def doubled(x):
        return (torch.clone(x).mul_(2),)

    x = torch.ones(3)
    graph = operations(doubled, [x])
    np.testing.assert_array_equal(graph(x)[0], 2.0)
    np.testing.assert_array_equal(x, 1.0)


def operations(function, name):
    """The shapes of the first tensors that PyTorch's operation of this name gets."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Listed(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func._schema.name == f"aten::{name}":
                shapes.append(tuple(args[0].shape))
            return func(*args, **(kwargs or {}))

    shapes = []
    with Listed():
        function()
    return shapes


@pytest.mark.parametrize("adjoint", ["direct", "checkpoint", "backsolve"])
def test_a_convolution_copies_no_state(adjoint):
    """Keras itself lays out the input of each convolution twice."""
    conv = keras.layers.Conv2D(8, 3, padding="same", activation="tanh")
    ode = layers.ODE(conv, steps=3, adjoint=adjoint)
    x = ops.convert_to_tensor(X[:, None])

    def step():
        ode(x, training=True).sum().backward()

    step()
    state = (3, 8, 1, 5)  # as PyTorch's convolution takes it
    assert state in operations(lambda: conv(x), "clone")
    assert state not in operations(step, "clone")


def test_a_stage_that_depends_on_one_slope_takes_one_addition():
    ode = layers.ODE(keras.layers.Dense(8, "tanh", use_bias=False), "midpoint", steps=3)
    x = ops.convert_to_tensor(X)
    ode(x)
    assert operations(lambda: ode(x), "add").count(X.shape) == 2 * 3
    assert operations(lambda: ode(x), "mul").count(X.shape) == 0


def test_a_changed_attribute_is_seen():
    dynamics = keras.layers.Dense(8)
    ode = layers.ODE(dynamics, "euler", steps=1)
    linear = numbers(ode(X))
    dynamics.activation = keras.activations.relu
    changed = numbers(ode(X))
    np.testing.assert_allclose(changed - X, np.maximum(linear - X, 0), atol=1e-6)
    assert abs(changed - linear).max() > 0.1


@pytest.mark.parametrize("kind", [list, np.array])
def test_an_attribute_that_is_changed_in_place_is_seen(kind):
    scaling = keras.layers.Rescaling(kind([1.0] * 8))
    ode = layers.ODE(keras.Sequential([keras.layers.Dense(8), scaling]), "euler", 1)
    before = numbers(ode(X)) - X
    scaling.scale[0] = 9.0
    after = numbers(ode(X)) - X
    np.testing.assert_allclose(after[..., 0], 9 * before[..., 0], rtol=1e-5)


STATE = {"calls": 0, "rate": 1.0}


def of_a_closure():
    state = STATE
    return lambda x: state["rate"] * x


def counted(x):
    STATE["calls"] += 1
    return STATE["rate"] * x


def of_an_inner_function(x):
    return (lambda x: STATE["rate"] * x)(x)


@pytest.mark.parametrize(
    "activation",
    [
        of_a_closure(),
        counted,
        of_an_inner_function,
        lambda x, state=STATE: state["rate"] * x,
        lambda x, *, state=STATE: state["rate"] * x,
        lambda x: keras.tree.map_structure(float, STATE)["rate"] * x,
    ],
)
def test_a_function_that_reads_more_than_its_argument_is_called_every_time(
    activation, monkeypatch
):
    dynamics = keras.layers.Dense(8, activation=activation)
    ode = layers.ODE(dynamics, "euler", steps=1)
    once = numbers(ode(X)) - X
    monkeypatch.setitem(STATE, "rate", 3.0)
    np.testing.assert_allclose(numbers(ode(X)) - X, 3 * once, rtol=1e-4, atol=1e-5)


def test_a_solve_within_a_solve_keeps_its_own_gradient():
    inner = layers.ODE(keras.layers.Dense(8), "euler", steps=2)
    ode = layers.ODE(inner, "euler", steps=2)
    ode(X)
    assert set(graphs(inner)) == {None}
    assert [g for g in graphs(inner.dynamics) if g]


def test_no_more_forms_are_recorded_than_pay():
    from keras_nanode.backend.torch.recording import MOST

    dynamics = keras.layers.Dense(3)
    ode = layers.ODE(dynamics, "euler", steps=1)
    for length in range(MOST + 3):
        assert ode(np.ones((length + 1, 3), "float32")).shape[0] == length + 1
    assert len(graphs(dynamics)) == MOST


def test_inference_mode_is_recorded_too():
    import torch

    dynamics = keras.layers.Dense(8)
    ode = layers.ODE(dynamics, "euler", steps=2)
    ode.build(X.shape)
    with torch.inference_mode():
        y = numbers(ode(X))
    assert [g for g in graphs(dynamics) if g]
    np.testing.assert_allclose(y, numbers(ode(X)), atol=1e-6)
    solved(ode)
