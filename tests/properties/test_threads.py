"""Threads that share layers: no call and no build changes what another call sees."""

import functools
import sys
import threading
import warnings

import keras
import numpy as np
import pytest
from cases import compiled, in_turn, numbers, random
from keras import ops

from keras_nanode import Adaptive, backend, layers, models

THREADS = 4
WIDTH = 3
SHAPE = (2, 4, WIDTH)
TORCH = keras.backend.backend() == "torch"
JAX = keras.backend.backend() == "jax"
CALLS = 2


class TimeSecond(keras.layers.Layer):
    """Knows a bucket: a time that is rounded is seen."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = keras.layers.Dense(WIDTH, dtype=self.dtype_policy)

    def build(self, *shapes):
        self.dense.build((None, WIDTH))

    def slope(self, x, t):
        y = self.dense(x)
        rate = ops.where(t < 0.50001, ops.cos(t), 2.0)
        return ops.tanh(y) * ops.cast(rate, y.dtype)

    def call(self, x, t):
        return self.slope(x, t)

    def compute_output_shape(self, x_shape, t_shape):
        return x_shape


class TimeFirst(TimeSecond):
    def build(self, t_shape, y_shape):
        super().build(y_shape)

    def call(self, t, y):
        return self.slope(y, t)

    def compute_output_shape(self, t_shape, y_shape):
        return y_shape


class TakesMask(TimeSecond):
    def call(self, x, t, mask=None):
        rate = 1.0 if mask is None else ops.cast(mask, x.dtype)[..., None]
        return rate * self.slope(x, t)


def dense(**named):
    return keras.layers.Dense(WIDTH, "tanh", **named)


def functional():
    x = keras.Input((4, WIDTH))
    return keras.Model(x, keras.layers.LayerNormalization()(dense()(x)))


def varying(basis, **named):
    layer = dense(**named)
    return layers.TimeVarying(layer, basis, start="independent", **named)


DYNAMICS = {
    "dense": dense,
    "waves": lambda: varying("trig"),
    "appended": lambda: layers.TimeAppended(dense()),
    "time second": TimeSecond,
    "time first": TimeFirst,
    "functional": functional,
    "mask": TakesMask,
    "lost mask": dense,
    "appended mask": lambda: layers.TimeAppended(dense()),
    "stack mask": lambda: layers.ResidualStack(dense(), depth=2),
    "float16": lambda: TimeSecond(dtype="mixed_float16"),
    "bfloat16": lambda: TimeFirst(dtype="mixed_bfloat16"),
    "varying float16": lambda: varying("trig", dtype="mixed_float16"),
    "appended bfloat16": lambda: layers.TimeAppended(
        dense(dtype="mixed_bfloat16"), dtype="mixed_bfloat16"
    ),
}
WAYS = [
    {"solver": "rk4", "steps": 2, "adjoint": "direct"},
    {"solver": "bosh3", "steps": Adaptive(0.5, 0.5, 20)},
    {"solver": "heun", "steps": 2, "adjoint": "backsolve"},
    {"solver": "alf", "steps": 2, "adjoint": "reversible"},
    {"solver": "midpoint", "steps": 2, "adjoint": "checkpoint"},
]
# In eager mode JAX compiles each loop anew, and each gradient.
if JAX:
    WAYS, CALLS = [{"solver": "heun", "steps": 1}], 1


def made(name, way):
    ode = layers.ODE(DYNAMICS[name](), **way)
    ode.build(SHAPE)
    return ode, masks(name)


def masks(name):
    return {"mask": MASK} if "mask" in name else {}


MASK = np.arange(4) < [[2], [4]]
INPUTS = [random(SHAPE, seed=i) for i in range(THREADS)]


@pytest.fixture(autouse=True, scope="module")
def threads_change_often():
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def together(*functions):
    """The results of functions that begin at one time, each in its thread."""
    start = threading.Barrier(len(functions))
    results = [None] * len(functions)

    def run(i):
        start.wait()
        try:
            results[i] = functions[i]()
        except Exception as error:
            results[i] = error

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(functions))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in results:
        if isinstance(result, Exception):
            raise result
    return results


def solve(ode, named, x):
    """Outputs and gradients in the weights and in x."""

    def f(weights, x):
        pairs = zip(ode.trainable_variables, weights, strict=True)
        with keras.StatelessScope(list(pairs)):
            return ode(x, training=True, **named)

    outputs, pullback = backend.vjp(f, [v.value for v in ode.trainable_variables], x)
    return outputs, pullback(ops.cos(outputs))


def eagerly(ode, named, x):
    x = ops.convert_to_tensor(x)
    return numbers(ode(x, **named) if JAX else solve(ode, named, x))


def in_a_graph(ode, named, x):
    # A function of its own, which is traced at its first call.
    traced = compiled(lambda x: solve(ode, named, x))
    return numbers(traced(ops.convert_to_tensor(x)))


def assert_equal(actual, desired):
    keras.tree.map_structure(np.testing.assert_array_equal, actual, desired)


@pytest.mark.parametrize(("name", "way"), in_turn(DYNAMICS, WAYS), ids=str)
def test_calls_in_threads_equal_the_calls_alone(name, way):
    ode, named = made(name, way)
    call = functools.partial(eagerly, ode, named)
    alone = [call(x) for x in INPUTS]

    def again(i):
        for _ in range(CALLS):
            assert_equal(call(INPUTS[i]), alone[i])

    together(*(functools.partial(again, i) for i in range(THREADS)))


@pytest.mark.skipif(TORCH, reason="has no graphs")
@pytest.mark.parametrize("name", ["float16"])
def test_graphs_traced_in_threads_equal_one_traced_alone(name):
    ode, named = made(name, {"solver": "euler", "steps": 2})
    trace = functools.partial(in_a_graph, ode, named)
    alone = trace(INPUTS[0])
    for found in together(*[functools.partial(trace, INPUTS[0])] * THREADS):
        assert_equal(found, alone)


def process():
    """What libraries replace for the whole process, and should not: the handling of
    warnings, functions of Keras, and methods of PyTorch's modules."""
    found = [warnings.showwarning, id(warnings.filters), keras.remat]
    if TORCH:
        import torch

        found += [torch.nn.Module.__call__, torch.nn.Module.__getattr__]
    return found


class Watched(TimeSecond):
    """Lists what it looks like from inside of its calls."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.__dict__["seen"] = []

    def call(self, x, t):
        own = {name: id(value) for name, value in vars(self).items()}
        self.seen.append((own, self.supports_masking, process()))
        return self.slope(x, t)


@pytest.mark.parametrize("dtype", ["float32", "mixed_float16"])
def test_a_layer_warnings_and_modules_are_unchanged_within_calls_and_builds(dtype):
    layer = Watched(dtype=dtype)
    layer(ops.convert_to_tensor(INPUTS[0]), t=ops.ones(()))
    desired = layer.seen[-1]
    ode = layers.ODE(layer, "euler", 1)
    ode(INPUTS[0])
    ode(INPUTS[0], mask=MASK)
    assert len(layer.seen) > 3
    assert all(seen == desired for seen in layer.seen)
    assert not layer._inbound_nodes


def test_first_calls_in_threads_equal_the_calls_alone():
    """Each thread builds layers of its own, and PyTorch records them, while others
    call one that they share, for the first time too."""
    way = {"solver": "heun", "steps": 2}
    own = ["dense", "varying float16"]
    shared, shared_mask = made("functional", way)
    copies = {name: made(name, way)[0] for name in own}
    alone = {}
    for name, ode in copies.items():
        alone[name] = [eagerly(ode, masks(name), x) for x in INPUTS]

    def build(i):
        for name in own[i:] + own[:i]:
            ode = layers.ODE(DYNAMICS[name](), **way)
            ode.build(SHAPE)
            ode.set_weights(copies[name].get_weights())
            assert_equal(eagerly(ode, masks(name), INPUTS[i]), alone[name][i])

    def call(i):
        return [eagerly(shared, shared_mask, INPUTS[i]) for _ in range(CALLS)]

    functions = [functools.partial(f, i) for f in (build, call) for i in range(2)]
    before = process()
    *_, first, second = together(*functions)
    assert process() == before
    for i, found in enumerate((first, second)):
        for got in found:
            assert_equal(got, eagerly(shared, shared_mask, INPUTS[i]))


def test_every_call_in_a_thread_is_counted():
    ode = layers.ODE(dense(), "bosh3", Adaptive(0.5, 0.5, 20))
    ode.build(SHAPE)
    x = ops.convert_to_tensor(INPUTS[0])
    solve = functools.partial(ode, training=True)
    # Compiled functions on JAX report from its own threads.
    solve = compiled(solve) if JAX else solve
    solve(x)
    once = ode.tally.evaluations()
    ode.tally.reset()

    def train():
        for _ in range(3):
            solve(x)

    together(*[train] * THREADS)
    assert ode.tally.evaluations() == once
    assert ode.tally._read()[0] == THREADS * 3


@pytest.mark.skipif(JAX, reason="compiles every loop of an eager call: 45 s")
def test_videos_generated_in_threads_equal_those_generated_alone():
    sizes = {"filters": (2, 2, 2, 2), "feature_dim": 4, "latent_dim": 3, "rnn_units": 4}
    model = models.SVG((16, 16, 1), block="trig", steps=1, seed=1, **sizes)
    contexts = np.random.default_rng(0).random((THREADS, 2, 2, 16, 16, 1))
    noise = random((2, 1, 2, 3))

    def generate(context):
        return numbers(model.generate(context, 2, noise=noise))

    alone = [generate(context) for context in contexts]
    found = together(*(functools.partial(generate, context) for context in contexts))
    assert_equal(found, alone)


def test_models_are_saved_and_unrolled_beside_calls(tmp_path):
    parts = [varying("trig"), layers.TimeAppended(dense()), layers.DenseBlock()]
    odes = [layers.ODE(part, "heun", 1) for part in parts]
    model = keras.Sequential([keras.Input(SHAPE[1:]), *odes])
    x = [ops.convert_to_tensor(x) for x in INPUTS]
    alone = [numbers(model(x)) for x in x]

    def call(i):
        for _ in range(CALLS):
            assert_equal(numbers(model(x[i])), alone[i])

    def save():
        model.save(tmp_path / "model.keras")
        loaded = keras.models.load_model(tmp_path / "model.keras")
        assert_equal(numbers(loaded(x[0])), alone[0])

    def unroll():
        plain = numbers(models.materialize(model)(x[1]))
        np.testing.assert_allclose(plain, alone[1], atol=1e-5)

    before = process()
    together(save, unroll, functools.partial(call, 2), functools.partial(call, 3))
    assert process() == before


def test_builds_in_threads_leave_the_filters_of_warnings():
    """Of the process. Keras' warning about lambdas is silenced meanwhile."""
    before = list(warnings.filters)

    def build():
        for activation in (ops.tanh, lambda x: ops.sin(x)):
            layer = keras.layers.Dense(WIDTH, activation=activation)
            layers.TimeVarying(layer, "bucket").build(SHAPE)

    together(*[build] * THREADS)
    assert list(warnings.filters) == before
