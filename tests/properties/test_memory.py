"""What a solve was traced or computed with is freed with its function or its model."""

import gc
import itertools
import weakref

import keras
import numpy as np
import pytest
from cases import compiled, random
from keras import ops

from keras_nanode import Adaptive, layers, odeint

on_tensorflow = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="graphs are TensorFlow's"
)
SOLVES = {
    "checkpoint": {"solver": "heun", "steps": 3},
    "adaptive": {"solver": "bosh3", "steps": Adaptive(1e-3, 1e-3, 64)},
    "backsolve": {"solver": "euler", "steps": 3, "adjoint": "backsolve"},
    "reversible": {"solver": "alf", "steps": 3, "adjoint": "reversible"},
}


@on_tensorflow
@pytest.mark.parametrize("name", SOLVES)
@pytest.mark.parametrize("differentiated", ["inside", "outside"])
def test_a_traced_solve_dies_with_its_function(name, differentiated):
    import tensorflow as tf

    graphs = []

    def slope(t, y, w):
        graphs.append(weakref.ref(tf.compat.v1.get_default_graph()))
        return -w * y

    def solve(y):
        return odeint(slope, y, [0.0, 1.0], (tf.constant(2.0),), **SOLVES[name])[-1]

    def gradient(y):
        with tf.GradientTape() as tape:
            tape.watch(y)
            end = solve(y)
        return tape.gradient(end, y)

    def use():
        if differentiated == "inside":
            found = tf.function(gradient, autograph=False)(tf.ones(3))
        else:
            solve_compiled, y = tf.function(solve, autograph=False), tf.ones(3)
            with tf.GradientTape() as tape:
                tape.watch(y)
                end = solve_compiled(y)
            found = tape.gradient(end, y)
        assert len(graphs) > 1 and np.all(found != 0)

    use()
    gc.collect()
    assert not [graph for graph in graphs if graph() is not None]


def graphs_alive():
    import tensorflow as tf

    gc.collect()
    kinds = tf.__internal__.FuncGraph
    return {id(x): x for x in gc.get_objects() if isinstance(x, kinds)}


@on_tensorflow
@pytest.mark.parametrize("calls", [1, pytest.param(20, marks=pytest.mark.slower)])
def test_eager_bdf_leaves_no_graph(calls):
    """Not those of TensorFlow Probability's own gradient either."""
    import tensorflow as tf

    before = set(graphs_alive())
    for _ in range(calls):
        y = tf.ones(2)
        with tf.GradientTape() as tape:
            tape.watch(y)
            end = odeint(lambda t, y: -y * y, y, [0.0, 1.0], solver="bdf")[-1]
        np.testing.assert_allclose(tape.gradient(end, y), [0.25, 0.25], rtol=1e-2)
        del end, tape
        assert graphs_alive().keys() <= before


class RungeKuttaCell(keras.layers.Layer):
    """A step of the classical Runge-Kutta method, of an RNN."""

    state_size = output_size = 3

    def build(self, input_shape):
        sizes, activations = (3, 16, 16, 3), ("tanh", "tanh", None)
        self.parts = [
            keras.layers.Dense(n, a)
            for n, a in zip(sizes[1:], activations, strict=True)
        ]
        for part, size in zip(self.parts, sizes[:-1], strict=True):
            part.build((None, size))

    def call(self, x, states):
        def slope(y):
            for part in self.parts:
                y = part(y)
            return y

        y, h = states[0] + x, 1 / 8
        k1 = slope(y)
        k2 = slope(y + h / 2 * k1)
        k3 = slope(y + h / 2 * k2)
        k4 = slope(y + h * k3)
        y = y + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        return y, [y]


def model_of(layer):
    shape = (8, 3) if isinstance(layer, keras.layers.RNN) else (3,)
    model = keras.Sequential([keras.Input(shape), layer])
    model.compile("adam", "mse")
    return model, random((4, *shape)), random((4, 3))


def operations_kept(use, layer):
    """In graphs that live on after the model and the session."""
    before = set(graphs_alive())
    use(*model_of(layer))
    keras.backend.clear_session()
    kept = [g for key, g in graphs_alive().items() if key not in before]
    return sum(len(graph.get_operations()) for graph in kept)


def train_in_a_loop(model, x, y):
    import tensorflow as tf

    @tf.function
    def step(x, y):
        with tf.GradientTape() as tape:
            loss = ops.mean((model(x, training=True) - y) ** 2)
        return tape.gradient(loss, model.trainable_variables)

    assert all(map(ops.is_tensor, step(x, y)))


def trig():
    return layers.TrigDenseODE(2, hidden_units=16, solver="rk4", steps=8)


@on_tensorflow
@pytest.mark.parametrize(
    "use",
    [
        train_in_a_loop,
        lambda model, x, y: model.predict(x, verbose=0),
        lambda model, x, y: model.evaluate(x, y, verbose=0),
    ],
    ids=["a loop of one's own", "predict", "evaluate"],
)
def test_a_model_leaves_no_graph(use):
    assert operations_kept(use, trig()) == 0


@on_tensorflow
@pytest.mark.slower
def test_fit_leaves_little_more_than_with_an_rnn_of_the_same_steps():
    """The optimizers of Keras leave the graph of `fit`, with what a model has in it:
    `all_reduce`, which they call, registers a custom gradient for ever. What is kept
    is counted in operations, since memory is noisy: each takes about 7 KiB."""

    def fit(model, x, y):
        # Batches of a known size: an unknown one adds operations to the RNN.
        model.fit(x, y, batch_size=2, verbose=0)

    ours = operations_kept(fit, trig())
    rnn = operations_kept(fit, keras.layers.RNN(RungeKuttaCell()))
    assert ours <= 1.5 * rnn


@on_tensorflow
def test_a_loaded_solve_without_its_gradient_says_so(tmp_path):
    """Though the name of its gradient may be that of another solve in this process."""
    import tensorflow as tf

    module = tf.Module()
    module.solve = tf.function(
        lambda y: odeint(lambda t, y: -y, y, [0.0, 1.0], **SOLVES["checkpoint"])[-1],
        [tf.TensorSpec((3,))],
    )
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
    tf.saved_model.save(module, str(tmp_path), options=options)
    loaded, y = tf.saved_model.load(str(tmp_path)), tf.ones(3)
    with tf.GradientTape() as tape:
        tape.watch(y)
        with pytest.raises(ValueError, match="custom gradients.*Received"):
            tape.gradient(loaded.solve(y), y)


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="graphs are PyTorch's")
@pytest.mark.parametrize("differentiated", [False, True])
@pytest.mark.parametrize("name", [*SOLVES, "direct"])
def test_what_keeps_its_own_solution_dies_with_it(name, differentiated):
    options = SOLVES.get(name, {"solver": "heun", "steps": 3, "adjoint": "direct"})

    class Function:
        def __call__(self, t, y, w):
            return keras.tree.map_structure(lambda y: -w * y, y)

    def tensor(shape):
        return ops.ones(shape).requires_grad_()

    def function(y, t):
        f = Function()
        f.kept = odeint(f, y, t, (tensor(()),), **options)
        return f, sum(y.sum() for y in keras.tree.flatten(f.kept))

    def layer(training):
        ode = layers.ODE(keras.layers.Dense(3), **options)
        # Not as an attribute: Keras would take it for a part of the layer.
        ode.dynamics.__dict__["kept"] = y = ode(tensor((4, 3)), training=training)
        return ode.dynamics, y.sum()

    several = {"a": tensor((3,)), "b": tensor((2,))}
    uses = [
        lambda: function(tensor((3,)), [0.0, 1.0]),
        lambda: function(several, [0.0, 0.5, 1.0]),
        lambda: function(tensor((3,)), ops.linspace(0.0, 1.0, 2).requires_grad_()),
        lambda: layer(False),
        lambda: layer(True),
    ]

    def left_by(use):
        keeper, total = use()
        if differentiated:
            total.backward()
        return weakref.ref(keeper)

    left = [left_by(use) for use in uses]
    gc.collect()
    assert [ref() for ref in left] == [None] * len(uses)


def states_held_by(result):
    """The memory that a result on PyTorch holds, with all that its gradient needs, in
    states of 1000 numbers."""
    from torch.multiprocessing.reductions import StorageWeakRef
    from torch.utils._python_dispatch import TorchDispatchMode

    class Seen(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            outputs = func(*args, **(kwargs or {}))
            for x in keras.tree.flatten((args, outputs)):
                if ops.is_tensor(x):
                    storage = x.untyped_storage()
                    seen[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
            return outputs

    seen = {}
    with Seen():
        kept = result()
    gc.collect()
    assert kept is not None
    # Beside the states there are numbers, of a few bytes.
    return sum(size for ref, size in seen.values() if not ref.expired()) // 4000


def heun(func, y, t, args, steps, **_):
    """The loop that `direct` stands for, in plain PyTorch."""
    ys = [y]
    for start, end in itertools.pairwise(t):
        h = (end - start) / steps
        for _ in range(steps):
            k1 = func(start, y, *args)
            k2 = func(end, y + h * k1, *args)
            y = y + h / 2 * (k1 + k2)
        ys.append(y)
    return ops.stack(ys)


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="others compile")
@pytest.mark.parametrize("adjoint", ["checkpoint", "backsolve", "direct", "reversible"])
def test_a_kept_end_holds_all_outputs_and_what_its_gradient_needs(adjoint):
    """And no more: the end is a view of the outputs, as everywhere in PyTorch."""
    t = [0.0, 0.25, 0.5, 0.75, 1.0]
    outputs, solver = len(t), "alf" if adjoint == "reversible" else "heun"

    def end(steps, solve=odeint):
        y, w = ops.ones(1000), ops.ones(()).requires_grad_()
        options = {"solver": solver, "steps": steps, "adjoint": adjoint}
        return solve(lambda t, y, w: -w * y, y, t, (w,), **options)[-1]

    assert states_held_by(lambda: end(4).detach()) == outputs
    assert states_held_by(lambda: end(4).detach().clone()) == 1
    for steps in (4, 16):
        needed = {
            "checkpoint": 1 + (4 * steps) ** 0.5,
            "backsolve": outputs,
            "direct": states_held_by(lambda n=steps: end(n, heun)) - outputs,
            # The first state, and the last one with its velocity.
            "reversible": 3,
        }
        held = states_held_by(lambda n=steps: end(n))
        assert held == outputs + needed[adjoint]


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="others cannot write")
@pytest.mark.parametrize("name", SOLVES)
def test_a_solution_may_be_written_to_and_only_its_sum_be_kept(name):
    def total(write):
        w = ops.ones(()).requires_grad_()
        y = odeint(
            lambda t, y, w: -w * y, ops.ones(2), [0.0, 1.0], (w,), **SOLVES[name]
        )
        return w, (y.mul_(3) if write else 3 * y).sum()

    def gradients(w, total):
        gc.collect()
        total.backward(retain_graph=True)
        first = w.grad.clone()
        total.backward()
        return [float(first), float(w.grad - first)]

    found = gradients(*total(write=True))
    assert found[0] == found[1] != 0
    assert found == gradients(*total(write=False))


def test_a_layer_and_its_model_die_like_stock_ones():
    def use(layer):
        model = keras.Sequential([keras.Input((3,)), layer])
        x = random((4, 3))
        model.predict(x, verbose=0)
        compiled(lambda x: layer(x))(ops.convert_to_tensor(x))
        layer(x)
        return [weakref.ref(model), weakref.ref(layer)]

    stock = use(keras.layers.Dense(3))
    ours = use(layers.TrigDenseODE(2, hidden_units=4, steps=2))
    keras.backend.clear_session()
    if keras.backend.backend() == "jax":
        import jax

        jax.clear_caches()
    gc.collect()
    assert [ref() is None for ref in stock] == [True, True]
    assert [ref() is None for ref in ours] == [True, True]
