"""PyTorch: a layer that was recorded can be changed, and acts as it then is."""

import types
from unittest import mock

import keras
import numpy as np
import pytest
from keras import ops

from keras_nanode import layers, odeint

if keras.backend.backend() != "torch":
    pytest.skip("the others compile", allow_module_level=True)

import torch
from torch.nn.modules import module as modules
from torch.nn.utils import parametrize, prune
from torch.overrides import TorchFunctionMode

from keras_nanode.backend.torch import recording

X = np.random.default_rng(0).normal(size=(2, 3)).astype("float32")
SHIFTS = np.array([0.5, 0.0, -0.5], "float32")


def network():
    """Some layer of each kind, in three levels."""
    inputs = keras.Input((3,))
    x = keras.layers.Dense(3, keras.layers.LeakyReLU(0.2), name="first")(inputs)
    x = x + SHIFTS.copy()
    inner = keras.Sequential(
        [
            keras.Input((3,)),
            keras.layers.Dense(3, "tanh", name="second"),
            keras.layers.Rescaling([1.0, 2.0, 3.0], name="scaling"),
        ],
        name="inner",
    )
    x = inner(x)
    x = keras.layers.Lambda(scaled, arguments={"by": [2.0, 1.0]}, name="formula")(x)
    x = keras.layers.LayerNormalization(name="norm")(x)
    return keras.Model(inputs, x)


scaled = eval("lambda x, by: ops.sin(x) * by[0]", {"ops": ops})


def part(model, name):
    return next(x for x in model._flatten_layers() if x.name == name)


def negated(*args):
    return -args[-1]


def counted(module, *args):
    module.counts = getattr(module, "counts", 0) + 1


def backwards(module, grads, *_):
    return tuple(2 * g for g in grads)


def add_hook(layer, kind, hook, **options):
    getattr(part(layer, "second"), f"register_{kind}_hook")(hook, **options)


def tie(layer):
    object.__setattr__(part(layer, "second"), "_kernel", part(layer, "first").kernel)


def freeze(layer, name):
    part(layer, name).kernel.trainable = False


def replace_call(layer):
    second = part(layer, "second")
    second.call = types.MethodType(lambda self, x, training=None: -x, second)


def write_constant(layer):
    (node,) = (
        node
        for nodes in layer._nodes_by_depth.values()
        for node in nodes
        if any(isinstance(x, np.ndarray) for x in node.arguments._flat_arguments)
    )
    next(x for x in node.arguments._flat_arguments if isinstance(x, np.ndarray))[0] = 7


def lora(layer):
    second = part(layer, "second")
    second.enable_lora(2)
    second.lora_kernel_b.assign(ops.ones((2, 3)))


def rebuild(layer):
    inner = part(layer, "inner")
    inner.pop()
    inner.add(keras.layers.Activation("sigmoid"))


CHANGES = {
    "hook": lambda x: add_hook(x, "forward", negated),
    "hook of the whole": lambda x: x.register_forward_hook(negated),
    "hook before": lambda x: add_hook(x, "forward_pre", lambda m, i: (-i[0],)),
    "hook with keywords": lambda x: add_hook(
        x, "forward", lambda m, a, k, out: -out, with_kwargs=True
    ),
    "hook of the gradient": lambda x: add_hook(x, "full_backward", backwards),
    "hook before the gradient": lambda x: add_hook(x, "full_backward_pre", backwards),
    "activation": lambda x: setattr(part(x, "second"), "activation", ops.sin),
    "activation's number": lambda x: setattr(
        part(x, "first").activation, "negative_slope", -3.0
    ),
    "no activation": lambda x: setattr(part(x, "second"), "activation", None),
    "user's activation": lambda x: setattr(
        part(x, "second"), "activation", lambda x: x**3
    ),
    "list": lambda x: part(x, "scaling").scale.__setitem__(0, -4.0),
    "list in a dict": lambda x: part(x, "formula").arguments["by"].__setitem__(0, -4.0),
    "dict": lambda x: part(x, "formula").arguments.update({"by": [0.1]}),
    "constant of a model": write_constant,
    "variable": tie,
    "first weight frozen": lambda x: freeze(x, "first"),
    "second weight frozen": lambda x: freeze(x, "second"),
    "no bias": lambda x: setattr(part(x, "second"), "bias", None),
    "number": lambda x: setattr(part(x, "norm"), "epsilon", 0.5),
    "call": replace_call,
    "dtype policy": lambda x: setattr(
        part(x, "second"), "dtype_policy", "mixed_bfloat16"
    ),
    "quantization": lambda x: part(x, "second").quantize("int8"),
    "adapter": lora,
    "parts": rebuild,
    "evaluation mode": lambda x: x.eval(),
    "parametrization": lambda x: parametrize.register_parametrization(
        part(x, "second").torch_params, "inner/second/kernel", Doubled()
    ),
    "pruning": lambda x: prune.l1_unstructured(
        part(x, "second").torch_params, "inner/second/kernel", 0.5
    ),
}


class Doubled(torch.nn.Module):
    def forward(self, x):
        return 2 * x


def solve(layer):
    """A recorded step of length 1, and its gradients."""
    return with_gradients(layers.ODE(layer, "euler", steps=1), layer)


def plain(layer):
    """The same by the layer alone."""
    return with_gradients(lambda x, training: x + layer(x), layer)


def with_gradients(f, layer):
    x = torch.tensor(X, requires_grad=True)
    y = f(x, training=True)
    sources = [x, *(v.value for v in layer.trainable_variables)]
    gradients = torch.autograd.grad(
        (y**2).sum(), sources, allow_unused=True, materialize_grads=True
    )
    return [z.detach() for z in (y, *gradients)]


def assert_same(layer):
    for a, b in zip(solve(layer), plain(layer), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3)


def is_recorded(layer):
    _, found = recording._RECORDED.get(layer, (None, None))
    return any(graph for graphs in (found or {}).values() for graph in graphs.values())


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_changed_layer_acts_as_it_now_is(change):
    layer = network()
    solve(layer)
    assert is_recorded(layer)
    change(layer)
    for _ in range(3):
        assert_same(layer)


ONLY_SEEN_BY_CALLS = {
    "hook": lambda layer, hook: part(layer, "second").register_forward_hook(hook),
    "hook of all modules": lambda _, hook: modules.register_module_forward_hook(hook),
    "hook before all modules": lambda _, hook: modules.register_module_forward_pre_hook(
        hook
    ),
    "hook of all gradients": lambda _, hook: modules.register_module_full_backward_hook(
        hook
    ),
}


@pytest.mark.parametrize(
    "register", ONLY_SEEN_BY_CALLS.values(), ids=ONLY_SEEN_BY_CALLS
)
def test_a_hook_is_called_at_each_evaluation_until_it_is_removed(register):
    layer, calls = network(), []
    ode = layers.ODE(layer, "rk4", steps=3)
    before = with_gradients(ode, layer)
    second = part(layer, "second")
    handle = register(layer, lambda module, *_: calls.append(module))
    try:
        during = with_gradients(ode, layer)
    finally:
        handle.remove()
    number = calls.count(second)
    assert number >= 4 * 3
    after = [with_gradients(ode, layer) for _ in range(3)][-1]
    assert calls.count(second) == number and is_recorded(layer)
    for a, b, c in zip(before, during, after, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(c, a, rtol=1e-4, atol=1e-4)


def test_a_method_that_is_replaced_for_a_while_is_called():
    layer = network()
    solve(layer)
    with mock.patch.object(keras.layers.Rescaling, "call", lambda self, x: -x) as call:
        assert_same(layer)
    with mock.patch.object(
        keras.layers.Rescaling, "call", autospec=True, side_effect=lambda self, x: 3 * x
    ) as call:
        assert_same(layer)
    # By each of the two, and again for the gradient.
    assert call.call_count >= 3
    with mock.patch.object(ops, "sin", lambda x: x**2):
        assert_same(layer)
    assert_same(layer)


class Negative(TorchFunctionMode):
    """Changes the hyperbolic tangent."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        y = func(*args, **(kwargs or {}))
        return -y if func is torch.tanh else y


SETTINGS = {
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "functions": Negative,
    "device": lambda: torch.device("cpu"),
    "attention": lambda: torch.nn.attention.sdpa_kernel(
        torch.nn.attention.SDPBackend.MATH
    ),
    "no gradient": torch.no_grad,
}


@pytest.mark.parametrize("setting", SETTINGS.values(), ids=SETTINGS)
def test_a_recorded_layer_follows_the_setting_that_it_is_called_in(setting):
    layer = network()
    ode = layers.ODE(layer, "euler", steps=1)
    x = torch.tensor(X)
    outside = ode(x).detach()
    for _ in range(2):
        with setting():
            found, right = ode(x).detach(), x + layer(x).detach()
        np.testing.assert_allclose(found, right, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(ode(x).detach(), outside, rtol=1e-5, atol=1e-5)


class Outer(keras.layers.Layer):
    """Solves with `odeint`, so that nothing is tried out when it is built."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def call(self, x):
        return odeint(self.inner, x, [0.0, 1.0], solver="euler", steps=1)[-1]


def test_what_is_recorded_in_inference_is_not_used_in_training():
    """The batch normalization updates its statistics in training, which is refused."""
    inner = keras.layers.BatchNormalization(center=False, scale=False)
    outer, x = Outer(inner), torch.tensor(X)
    for _ in range(2):
        outer(x, training=False)
        with pytest.raises(ValueError, match="updates"):
            outer(x, training=True)
