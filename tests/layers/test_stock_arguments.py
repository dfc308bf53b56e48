"""What `keras.layers.Dense` and `Conv2D` take, our layers take."""

import functools

import keras
import numpy as np
import pytest
from cases import numbers, random
from keras import ops

from keras_nanode import layers

X = random((4, 3))
IMAGES = random((2, 5, 5, 3))
# The layers that are made of dense maps or of convolutions.
BLOCKS = {
    "DenseBlock": layers.DenseBlock,
    "ConvBlock": layers.ConvBlock,
    "DenseODE": functools.partial(layers.DenseODE, "trig"),
    "ConvODE": functools.partial(layers.ConvODE, "trig"),
    "BucketDenseODE": functools.partial(layers.BucketDenseODE, 3),
    "PolyDenseODE": functools.partial(layers.PolyDenseODE, 3),
    "TrigDenseODE": functools.partial(layers.TrigDenseODE, 3),
    "BucketConvODE": functools.partial(layers.BucketConvODE, 3),
    "PolyConvODE": functools.partial(layers.PolyConvODE, 3),
    "TrigConvODE": functools.partial(layers.TrigConvODE, 3),
}


def inputs(name):
    return IMAGES if "Conv" in name else X


def scaled_sine(x):
    return 2.0 * ops.sin(x)


class Swish(keras.layers.Layer):
    """A layer as an activation, not registered."""

    def call(self, x):
        return x * ops.sigmoid(x)


class Halved:
    """An object that can be called, without a configuration."""

    def __call__(self, x):
        return x / 2


class Constant(keras.initializers.Initializer):
    """An initializer with an argument, not registered and without a configuration."""

    def __init__(self, value):
        self.value = value

    def __call__(self, shape, dtype=None, **kwargs):
        return ops.full(shape, self.value, dtype)


def drawn(shape, dtype=None):
    return keras.random.normal(shape, dtype=dtype, seed=1)


def penalty(w):
    return 0.01 * ops.sum(w**2)


class Penalty(keras.regularizers.Regularizer):
    def __call__(self, w):
        return penalty(w)


class Positive(keras.constraints.Constraint):
    def __call__(self, w):
        return abs(w)


ACTIVATIONS = {
    "name": "gelu",
    "none": None,
    "of keras": keras.activations.relu,
    "operation": ops.sin,
    "function": scaled_sine,
    "lambda": lambda x: ops.tanh(x) / 2,
    "partial": functools.partial(keras.activations.leaky_relu, negative_slope=0.1),
    "layer of keras": keras.layers.LeakyReLU(),
    "layer": Swish(),
    "object": Halved(),
}
INITIALIZERS = {
    "name": "he_normal",
    "class": keras.initializers.HeNormal,
    "of keras": keras.initializers.TruncatedNormal(seed=1),
    "function": drawn,
    "lambda": lambda shape, dtype=None: ops.ones(shape, dtype) / 9,
    "partial": functools.partial(drawn),
    "object": Constant(0.1),
}
REGULARIZERS = {
    "name": "l2",
    "of keras": keras.regularizers.L1L2(1e-3, 1e-3),
    "function": penalty,
    "lambda": lambda w: ops.sum(abs(w)),
    "partial": functools.partial(penalty),
    "object": Penalty(),
}
CONSTRAINTS = {
    "name": "non_neg",
    "of keras": keras.constraints.MaxNorm(1.0),
    "function": abs,
    "lambda": lambda w: ops.clip(w, -1, 1),
    "partial": functools.partial(ops.clip, x_min=-1, x_max=1),
    "object": Positive(),
}
TAKEN = [
    pytest.param({argument: value}, id=f"{argument}: {kind}")
    for argument, values in {
        "activation": ACTIVATIONS,
        "kernel_initializer": INITIALIZERS,
        "bias_initializer": INITIALIZERS,
        "kernel_regularizer": REGULARIZERS,
        "bias_regularizer": REGULARIZERS,
        "kernel_constraint": CONSTRAINTS,
        "bias_constraint": CONSTRAINTS,
    }.items()
    for kind, value in values.items()
] + [
    pytest.param({"kernel_initializer": np.eye(3, dtype="float32")}, id="array"),
    pytest.param({"activity_regularizer": "l2"}, id="activity_regularizer"),
    pytest.param({"use_bias": False}, id="no bias"),
    pytest.param({"dtype": "mixed_bfloat16"}, id="dtype"),
    pytest.param({"dtype": keras.DTypePolicy("float32")}, id="policy"),
    pytest.param({"name": "a_name", "trainable": False}, id="name"),
]


def is_array(given):
    return isinstance(given.get("kernel_initializer"), np.ndarray)


@pytest.mark.parametrize("given", TAKEN)
def test_dense_takes_it(given):
    keras.layers.Dense(3, **given)(X)
    if not is_array(given):
        keras.layers.Conv2D(3, 3, **given)(IMAGES)


@pytest.mark.parametrize("given", TAKEN)
def test_so_do_our_layers(given):
    # The start is a matter of initializers.
    draws = any("initializer" in argument for argument in given)
    for start in ("constant", "independent") if draws else ("constant",):
        check_taken(given, start)


def check_taken(given, start):
    for name, make in BLOCKS.items():
        if is_array(given) and "Conv" in name:
            continue
        arguments = {**given}
        if name.endswith("ODE"):
            arguments |= {"start": start, "steps": 3}
        elif start == "independent":
            continue
        layer = make(**arguments)
        x = inputs(name)
        y = layer(x)
        assert np.isfinite(numbers(ops.cast(y, "float32"))).all()
        has_penalty = any("regularizer" in argument for argument in given)
        assert bool(layer.losses) is has_penalty


@pytest.mark.parametrize(
    "given",
    [
        {"activation": ACTIVATIONS["lambda"]},
        {"activation": ACTIVATIONS["partial"]},
        {"activation": ACTIVATIONS["object"]},
        {"kernel_initializer": np.eye(3, dtype="float32")},
        {"kernel_regularizer": REGULARIZERS["lambda"]},
        {"bias_constraint": CONSTRAINTS["partial"]},
    ],
    ids=lambda given: next(iter(given)),
)
@pytest.mark.parametrize("make", [layers.DenseBlock, BLOCKS["TrigDenseODE"]])
def test_what_no_file_can_name_is_refused_in_words_when_it_is_saved(
    make, given, tmp_path
):
    model = keras.Sequential([keras.Input((3,)), make(**given)])
    with pytest.raises(
        ValueError,
        match=rf"`{next(iter(given))}` of the layer '.*' cannot be saved.*"
        r"keras.saving.register_keras_serializable.*Received",
    ):
        model.save(tmp_path / "model.keras")


def test_a_function_that_is_not_registered_is_loaded_by_its_name(tmp_path):
    model = keras.Sequential(
        [keras.Input((3,)), layers.TrigDenseODE(1, activation=scaled_sine)]
    )
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(
        tmp_path / "model.keras", custom_objects={"scaled_sine": scaled_sine}
    )
    np.testing.assert_allclose(numbers(again(X)), numbers(model(X)), atol=1e-6)


@pytest.mark.filterwarnings("ignore:Do not pass an `input_shape`")
@pytest.mark.parametrize("name", BLOCKS)
def test_an_input_shape_builds_a_sequential_as_for_dense(name):
    model = keras.Sequential([BLOCKS[name](input_shape=inputs(name).shape[1:])])
    dense = keras.Sequential([keras.layers.Dense(3, input_shape=(3,))])
    assert dense.built and model.built
    assert model.output_shape == (None, *inputs(name).shape[1:])
