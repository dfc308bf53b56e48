"""The lists that the tests iterate over, and gradients on any backend.

A solver, basis or adjoint of the library is in its `ALL` and so is tested with no
further word. A public layer needs a line in `LAYERS`, which a test enforces.
"""

import keras
import numpy as np
from keras import ops, tree

from keras_nanode import Adaptive, Reversible, adjoints, backend, bases, layers, solvers

SOLVERS = {**solvers.ALL, "reversible(heun)": Reversible("heun")}
REVERSIBLE = [name for name, solver in SOLVERS.items() if solver.is_reversible]
PAIRS = [
    name
    for name in SOLVERS
    if name not in REVERSIBLE and SOLVERS[name].tableau.b_embedded
]
# One of each kind, where the tableau is not the subject.
EACH_KIND = ("euler", "rk4", "dopri5", "alf", "reversible_heun", "reversible(heun)")
ADJOINTS = sorted(adjoints.ALL)
# The named sizes are larger than a test needs.
BASES = {
    "constant": bases.Constant(),
    "bucket": bases.Bucket(3),
    "poly": bases.Polynomial(2),
    "trig": bases.Trigonometric(2),
    "cosine": bases.Cosine(3),
    "legendre": bases.Legendre(2),
    "bspline": bases.BSpline(4, degree=2, knots=(0.4,)),
    "hats": bases.BSpline(3, degree=1),
}

# Whether Keras writes SavedModels.
EXPORTS = keras.backend.backend() != "torch"
STEPS = {"steps": 3}
VECTOR, IMAGE = (4, 3), (2, 6, 6, 4)

# Each public layer: its arguments and the shape of an input.
LAYERS = {
    "ODE": (lambda: {"dynamics": keras.layers.Dense(3, "tanh"), **STEPS}, VECTOR),
    "DenseODE": (lambda: {"basis": "cosine", **STEPS}, VECTOR),
    "ConvODE": (
        lambda: {"basis": bases.Bucket(2), "normalization": "group", **STEPS},
        IMAGE,
    ),
    "TrigDenseODE": (
        lambda: {
            "order": 2,
            "hidden_units": 2,
            "solver": "alf",
            "adjoint": "reversible",
            **STEPS,
        },
        VECTOR,
    ),
    "TrigConvODE": (lambda: {"order": 1, "hidden_filters": 2, **STEPS}, IMAGE),
    "BucketDenseODE": (
        lambda: {
            "num_buckets": 3,
            "solver": "bosh3",
            "steps": Adaptive(1e-3, 1e-3, 50),
        },
        VECTOR,
    ),
    "BucketConvODE": (lambda: {"num_buckets": 3, **STEPS}, IMAGE),
    "PolyDenseODE": (lambda: {"degree": 2, "solver": "rk4", **STEPS}, VECTOR),
    "PolyConvODE": (lambda: {"degree": 1, "adjoint": "backsolve", **STEPS}, IMAGE),
    "TimeVarying": (
        # Buckets that differ, or a time in the wrong one would not show.
        lambda: {
            "layer": keras.layers.Dense(5),
            "basis": bases.Bucket(2),
            "start": "independent",
        },
        VECTOR,
    ),
    "TimeAppended": (lambda: {"layer": keras.layers.Dense(5)}, VECTOR),
    "ResidualStack": (lambda: {"block": layers.DenseBlock(), "depth": 2}, VECTOR),
    "DenseBlock": (lambda: {"hidden_units": 2, "normalization": "layer"}, VECTOR),
    "ConvBlock": (lambda: {"filters": 5, "activation": "tanh"}, IMAGE),
    "Augment": (lambda: {"channels": 2}, VECTOR),
}


def in_turn(*lists):
    """Tuples of a member of each list, as many as the longest has.

    The product of all lists would find no more where one does not act on another.
    """
    lists = [list(members) for members in lists]
    rounds = range(max(map(len, lists)))
    return [tuple(members[i % len(members)] for members in lists) for i in rounds]


def numbers(structure):
    return tree.map_structure(ops.convert_to_numpy, structure)


def batches(dataset, epochs: int = 1) -> list:
    """The batches of successive epochs, as NumPy arrays."""
    return [
        keras.tree.map_structure(np.asarray, batch)
        for _ in range(epochs)
        for batch in dataset
    ]


def random(shape, dtype="float32", seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def compiled(f):
    """`f` as a graph, where the backend has graphs: much faster than eager loops."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow

        return tensorflow.function(f, autograph=False)
    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(f)
    return f


def gradients(f, *primals):
    """Of sum(f(*primals) ** 2), as NumPy arrays in the structure of the primals."""
    return gradients_of(f)(*primals)


def gradients_of(f):
    """`gradients` of f as a function of the primals: compiled once for their shapes."""

    @compiled
    def run(*primals):
        outputs, pullback = backend.vjp(f, *primals)
        return pullback(tree.map_structure(lambda y: 2 * y, outputs))

    return lambda *primals: numbers(
        run(*tree.map_structure(ops.convert_to_tensor, primals))
    )


def layer_gradients(layer, x, **inputs):
    """Of sum(layer(x) ** 2) in the layer's trainable weights and in x."""

    def f(weights, x):
        state = [v.value for v in layer.non_trainable_variables]
        return layer.stateless_call(weights, state, x, **inputs)[0]

    return gradients(f, [ops.copy(v.value) for v in layer.trainable_variables], x)


def assert_close(actual, desired, tolerance):
    """Every array differs by at most `tolerance` of the desired one's largest entry."""
    tree.assert_same_structure(actual, desired)
    for a, d in zip(tree.flatten(actual), tree.flatten(desired), strict=True):
        np.testing.assert_allclose(a, d, rtol=0, atol=tolerance * np.abs(d).max())


def gradient(f, x):
    """Of a scalar, and with a gradient itself, as users of the backend take it."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch(tree.flatten(x))
            y = f(x)
        return tape.gradient(y, x)
    if keras.backend.backend() == "jax":
        import jax

        return jax.grad(f)(x)
    import torch

    x = tree.map_structure(lambda a: a if a.grad_fn else a.requires_grad_(), x)
    found = torch.autograd.grad(f(x), tree.flatten(x), create_graph=True)
    return tree.pack_sequence_as(x, list(found))


@keras.saving.register_keras_serializable("tests")
class SelfAttention(keras.layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.norm = keras.layers.LayerNormalization()
        self.attention = keras.layers.MultiHeadAttention(2, 2)

    def build(self, input_shape):
        self.norm.build(input_shape)
        self.attention.build(input_shape, input_shape)

    def call(self, x):
        x = self.norm(x)
        return self.attention(x, x)

    def compute_output_shape(self, input_shape):
        return input_shape
