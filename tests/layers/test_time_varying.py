"""The layers that others are made from: their weights, their files, what they hold."""

import functools
import itertools

import h5py
import keras
import numpy as np
import pytest
from cases import (
    BASES,
    IMAGE,
    LAYERS,
    SelfAttention,
    assert_close,
    in_turn,
    layer_gradients,
    numbers,
    random,
)
from keras import ops

from keras_nanode import bases, layers, models, odeint
from keras_nanode.copying.copies import copy_layer

SHAPE = (4, 3)


def sequential():
    return keras.Sequential([keras.layers.Dense(5, "tanh"), keras.layers.Dense(3)])


def functional():
    x = keras.Input((3,))
    y = keras.layers.Dense(3, "tanh")(keras.layers.Dense(5)(x))
    return keras.Model(x, keras.layers.Add()([x, y]))


TRAINED = {
    "Dense": (lambda: keras.layers.Dense(3, "tanh"), SHAPE),
    "Conv2D": (lambda: keras.layers.Conv2D(4, 3, padding="same"), IMAGE),
    "LayerNormalization": (keras.layers.LayerNormalization, SHAPE),
    "Sequential": (sequential, SHAPE),
    "functional": (functional, SHAPE),
    "SelfAttention": (SelfAttention, (2, 5, 4)),
    "DenseBlock": (lambda: layers.DenseBlock(None, 2), SHAPE),
    "frozen": (
        lambda: keras.Sequential(
            [keras.layers.Dense(3, trainable=False), sequential()]
        ),
        SHAPE,
    ),
}


def train(layer, shape):
    """Weights that no initializer gives."""
    layer(random(shape))
    for seed, weight in enumerate(layer.weights):
        weight.assign(0.3 * random(weight.shape, seed=seed))
    return layer


# Trained weights.


@pytest.mark.parametrize(
    ("basis", "name"), in_turn(BASES, ["Dense", "Sequential", "frozen"])
)
def test_a_trained_layer_starts_at_its_weights_on_every_basis(name, basis):
    check_start(*TRAINED[name], BASES[basis])


@pytest.mark.parametrize("name", TRAINED)
def test_every_kind_of_trained_layer_starts_at_its_weights(name):
    check_start(*TRAINED[name], bases.Bucket(3))


def check_start(make, shape, basis):
    layer, x = train(make(), shape), random(shape)
    own = [numbers(w) for w in layer.weights]
    alone = layers.ODE(layer, "heun", 3)
    varying = layers.ODE(layers.TimeVarying(layer, basis), "heun", 3)
    y = numbers(alone(x))
    assert_close(numbers(varying(x)), y, 1e-5)
    assert np.abs(y - x).max() > 1e-2
    # It is the same function, so the gradient in x is too.
    assert_close(layer_gradients(varying, x)[1], layer_gradients(alone, x)[1], 1e-4)
    for weight, value in zip(layer.weights, own, strict=True):
        np.testing.assert_array_equal(numbers(weight), value)


def test_the_layer_goes_its_own_way_once_the_coefficients_are_there():
    layer, x = train(keras.layers.Dense(3, "tanh"), SHAPE), random(SHAPE)
    varying = layers.TimeVarying(layer, "trig")
    y = numbers(varying(x, t=0.3))
    layer.kernel.assign(0 * layer.kernel)
    layer.trainable = False
    np.testing.assert_array_equal(numbers(varying(x, t=0.3)), y)
    before = [numbers(w) for w in varying.trainable_weights]
    model = keras.Sequential([keras.Input((3,)), layers.ODE(varying, steps=3)])
    model.compile("sgd", "mse")
    model.fit(x, x + 1, verbose=0)
    for weight, old in zip(varying.trainable_weights, before, strict=True):
        assert not np.array_equal(numbers(weight), old)
    assert not numbers(layer.kernel).any()
    assert len(model.weights) == 2


def test_independent_slices_are_draws_whatever_the_layer_has_learned():
    layer = train(keras.layers.Dense(64), (4, 64))
    varying = layers.TimeVarying(layer, bases.Bucket(3), "independent")
    varying.build((None, 64))
    slices = numbers(varying.coefficients[0]).reshape(3, -1)
    own = numbers(layer.kernel).ravel()
    correlations = np.corrcoef(np.concatenate([slices, own[None]]))
    assert np.abs(correlations - np.eye(4)).max() < 0.1
    assert not numbers(varying.coefficients[1]).any()


# Files.


def arrays(path):
    """The shapes of what a file of weights holds, without an optimizer's."""
    found = []
    with h5py.File(path) as file:
        file.visititems(
            lambda name, item: (
                found.append(item.shape)
                if isinstance(item, h5py.Dataset) and not name.startswith("optimizer")
                else None
            )
        )
    return sorted(found)


@pytest.mark.parametrize("name", LAYERS)
def test_a_file_holds_the_weights_of_a_model_and_no_more(name, tmp_path):
    arguments, shape = LAYERS[name]
    model = wrapped(getattr(layers, name)(**arguments()), shape)
    model.save_weights(tmp_path / "model.weights.h5")
    assert arrays(tmp_path / "model.weights.h5") == sorted(
        tuple(w.shape) for w in model.weights
    )


def wrapped(layer, shape):
    x = keras.Input(shape[1:])
    time = {"t": 0.3} if isinstance(layer, KINDS_WITH_TIME) else {}
    return keras.Model(x, layer(x, **time))


KINDS_WITH_TIME = (layers.TimeVarying, layers.TimeAppended)


@pytest.mark.parametrize("saved_built", [True, False])
@pytest.mark.parametrize("loaded_built", [True, False])
@pytest.mark.parametrize("start", ["constant", "independent"])
def test_a_file_is_loaded_whether_or_not_the_pattern_was_called(
    start, saved_built, loaded_built, tmp_path
):
    def model(is_built):
        pattern = sequential()
        if is_built:
            train(pattern, SHAPE)
        varying = layers.TimeVarying(pattern, bases.Bucket(2), start)
        return wrapped(layers.ODE(varying, "heun", 2), SHAPE)

    source, target, x = model(saved_built), model(loaded_built), random(SHAPE)
    source.set_weights([random(w.shape, seed=7) for w in source.weights])
    source.save_weights(tmp_path / "model.weights.h5")
    target.load_weights(tmp_path / "model.weights.h5")
    y = numbers(source(x))
    np.testing.assert_allclose(numbers(target(x)), y, rtol=1e-5)
    source.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(numbers(again(x)), y, rtol=1e-5)
    assert len(again.weights) == 4


def freeze(layer):
    layer.trainable = False


def enable_lora(model):
    for dense in model.layers[1].layers:
        dense.enable_lora(2)
        dense.lora_kernel_b.assign(np.ones(dense.lora_kernel_b.shape))


def quantize(model):
    model.quantize("int8")


CHANGES = {
    "frozen": freeze,
    "partly frozen": lambda model: freeze(model.layers[1].layers[0]),
    "thawed": lambda model: setattr(model, "trainable", True),
    "lora": enable_lora,
    "quantized": quantize,
    "activation": lambda model: setattr(
        model.layers[1].layers[0], "activation", keras.activations.relu
    ),
}
KEPT = ("frozen", "partly frozen", "thawed")


def changed_later(change, part):
    """A model around a pattern, part of another model that changes later; and what the
    model computed before."""
    inner = keras.Sequential([keras.layers.Dense(3, "tanh"), keras.layers.Dense(3)])
    other = keras.Sequential([keras.Input((3,)), keras.layers.Dense(3), inner])
    inner.layers[0].trainable = change != "thawed"
    varying = layers.TimeVarying(part(other), "trig")
    model = wrapped(layers.ODE(varying, steps=3), SHAPE)
    y = numbers(model(random(SHAPE)))
    CHANGES[change](other)
    return model, y


PARTS = {
    "whole": lambda model: model,
    "model": lambda model: model.layers[1],
    "layer": lambda model: model.layers[1].layers[0],
}


# Keras says of every layer without weights that it has none to quantize.
@pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize` method")
@pytest.mark.parametrize(("change", "part"), list(itertools.product(CHANGES, PARTS)))
def test_a_pattern_may_change_after_it_was_built(change, part, tmp_path):
    model, y = changed_later(change, PARTS[part])
    x = random(SHAPE)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    if change == "activation":
        y = numbers(model(x))
    np.testing.assert_allclose(numbers(again(x)), y, rtol=1e-5)
    if change in KEPT:
        np.testing.assert_array_equal(numbers(model(x)), y)
        plain = models.materialize(model)
        np.testing.assert_allclose(numbers(plain(x)), y, rtol=1e-4)
    again.save(tmp_path / "again.keras")
    keras.models.load_model(tmp_path / "again.keras")


@pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize` method")
@pytest.mark.parametrize("change", ["lora", "quantized"])
def test_a_pattern_with_other_variables_is_not_called(change):
    model, _ = changed_later(change, PARTS["model"])
    with pytest.raises(ValueError, match="(?s)has other variables than.*Received: var"):
        model(random(SHAPE))


def test_the_pattern_can_be_read_but_is_no_layer_of_the_layer():
    dense = keras.layers.Dense(3)
    varying = layers.TimeVarying(dense, "trig")
    assert varying.layer is dense
    with pytest.raises(AttributeError, match="`layer` of a TimeVarying cannot be"):
        varying.layer = dense
    assert "basis" in dir(varying) and "layer" not in dir(varying)


# What Keras' own layers take.


def scaled(x, factor=2.0):
    return ops.sin(factor * x)


def drawn(shape, dtype=None):
    return keras.random.normal(shape, stddev=0.3, dtype=dtype)


class Cosine:
    def __call__(self, x):
        return ops.cos(x)


class Uniform(keras.initializers.Initializer):
    """Unregistered, and without a configuration."""

    def __init__(self, scale):
        self.scale = scale

    def __call__(self, shape, dtype=None):
        return keras.random.uniform(shape, -self.scale, self.scale, dtype)


class Plain(keras.layers.Layer):
    """Unregistered, with what no file can hold, and without `get_config`."""

    def __init__(self, function, **kwargs):
        super().__init__(**kwargs)
        self.function = function
        self.dense = keras.layers.Dense(3, function)

    def build(self, input_shape):
        self.dense.build(input_shape)

    def call(self, x):
        return self.dense(x)

    def compute_output_shape(self, input_shape):
        return input_shape


class Holding(keras.layers.Layer):
    """Its argument is a layer, which it keeps under another name."""

    def __init__(self, units, inner, **kwargs):
        super().__init__(**kwargs)
        self.units = keras.layers.Dense(units)
        self.held = inner

    def build(self, input_shape):
        self.units.build(input_shape)
        self.held.build(input_shape)

    def call(self, x):
        return self.held(self.units(x))

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        inner = keras.saving.serialize_keras_object(self.held)
        return {**super().get_config(), "units": 3, "inner": inner}

    @classmethod
    def from_config(cls, config):
        inner = keras.saving.deserialize_keras_object(config.pop("inner"))
        return cls(inner=inner, **config)


DENSE = functools.partial(keras.layers.Dense, 3)
KERNEL = random((3, 3), seed=5)
PATTERNS = {
    "a function": lambda: DENSE(scaled),
    "a lambda": lambda: DENSE(lambda x: ops.sin(x)),
    "a partial": lambda: DENSE(functools.partial(scaled, factor=3.0)),
    "ops.sin": lambda: DENSE(ops.sin),
    "an object": lambda: DENSE(Cosine()),
    "a layer as activation": lambda: DENSE(keras.layers.LeakyReLU(0.3)),
    "an array": lambda: DENSE(kernel_initializer=KERNEL),
    "a drawing function": lambda: DENSE(kernel_initializer=drawn),
    "a drawing lambda": lambda: DENSE(
        kernel_initializer=lambda *a, **k: drawn(*a, **k)
    ),
    "an unregistered initializer": lambda: DENSE(kernel_initializer=Uniform(0.3)),
    "a seeded initializer": lambda: DENSE(
        lambda x: x, kernel_initializer=keras.initializers.GlorotUniform(3)
    ),
    "a regularizer": lambda: DENSE(kernel_regularizer=lambda w: ops.sum(w**2)),
    "a constraint": lambda: DENSE(kernel_constraint=lambda w: w),
    "Lambda": lambda: keras.layers.Lambda(lambda x: ops.sin(x)),
    "Lambda with a shape": lambda: keras.layers.Lambda(
        lambda x: ops.sin(x), output_shape=lambda s: s
    ),
    "unregistered": lambda: Plain(scaled),
    "unregistered with a partial": lambda: Plain(functools.partial(scaled, factor=3.0)),
    "a layer of a layer": lambda: Holding(3, DENSE("tanh")),
    "Sequential": lambda: keras.Sequential([DENSE(scaled), Plain(lambda x: x)]),
    "functional": lambda: around(DENSE(functools.partial(scaled, factor=3.0))),
    "our block": lambda: layers.DenseBlock(activation=lambda x: ops.sin(x)),
}


def around(layer):
    x = keras.Input((3,))
    return keras.Model(x, layer(keras.layers.Lambda(lambda x: 2 * x)(x)))


HOLDERS = {
    "ODE": lambda layer: layers.ODE(layer, steps=2),
    "constant": lambda layer: layers.ODE(layers.TimeVarying(layer, "bucket")),
    "independent": lambda layer: layers.ODE(
        layers.TimeVarying(layer, bases.Bucket(2), "independent"), steps=2
    ),
    "ResidualStack": lambda layer: layers.ResidualStack(layer, 3),
    "shared": lambda layer: layers.ResidualStack(layer, 3, shared=True),
    "TimeAppended": lambda layer: layers.ODE(
        layers.TimeAppended(keras.Sequential([DENSE(), layer])), steps=2
    ),
}


@pytest.mark.parametrize("holder", HOLDERS)
def test_holders_take_what_layers_of_keras_take(holder):
    for name, make in PATTERNS.items():
        layer = HOLDERS[holder](make())
        x = random(SHAPE)
        y = numbers(layer(x))
        assert np.isfinite(y).all() and np.abs(y - x).max() > 1e-3, name


@pytest.mark.parametrize("name", sorted(set(PATTERNS) - {"our block"}))
def test_the_blocks_of_a_stack_are_the_block_with_weights_of_their_own(name):
    block = PATTERNS[name]()
    stack = layers.ResidualStack(block, 2)
    stack(random(SHAPE))
    first, second = stack.blocks
    assert first is block and type(first) is type(second)
    assert not {id(w) for w in first.weights} & {id(w) for w in second.weights}
    fixed = name in ("an array", "an unregistered initializer of one draw")
    for one, other in zip(first.weights, second.weights, strict=True):
        differs = not np.array_equal(numbers(one), numbers(other))
        assert differs is (len(one.shape) > 1 and not fixed), one.path
    second.set_weights(first.get_weights())
    x = random(SHAPE)
    np.testing.assert_allclose(numbers(second(x)), numbers(first(x)), rtol=1e-6)


COPIED = {
    "Conv2D": lambda: keras.layers.Conv2D(4, 3, 2, "same", activation=scaled),
    "EinsumDense": lambda: keras.layers.EinsumDense("ab,bc->ac", 3, activation=scaled),
    "MultiHeadAttention": lambda: keras.layers.MultiHeadAttention(
        2, 3, output_shape=7, kernel_initializer=Uniform(0.1)
    ),
    "LSTM": lambda: keras.layers.LSTM(3, scaled, return_sequences=True),
    "RNN": lambda: keras.layers.RNN(keras.layers.GRUCell(3, scaled), unroll=True),
    "StackedRNNCells": lambda: keras.layers.StackedRNNCells(
        [keras.layers.GRUCell(3, scaled), keras.layers.LSTMCell(2)]
    ),
    "Bidirectional": lambda: keras.layers.Bidirectional(keras.layers.GRU(3, "relu")),
    "TimeDistributed": lambda: keras.layers.TimeDistributed(DENSE(scaled)),
    "GroupNormalization": lambda: keras.layers.GroupNormalization(1, epsilon=1e-2),
    "ODE": lambda: layers.ODE(DENSE(scaled), "rk4", 3, t_span=(1.0, 0.0)),
    "TrigDenseODE": lambda: layers.TrigDenseODE(2, hidden_units=3, activation=scaled),
    "DenseBlock": lambda: layers.DenseBlock(activation=scaled, dtype="mixed_bfloat16"),
    "frozen": lambda: DENSE(scaled, trainable=False, name="a_name", dtype="float64"),
}


@pytest.mark.parametrize("name", COPIED)
def test_a_copy_has_the_configuration_of_the_layer(name):
    layer = COPIED[name]()
    copy = copy_layer(layer)
    assert copy is not layer
    assert copy.get_config() == layer.get_config()


def test_a_layer_that_cannot_be_copied_is_named():
    class Hiding(Plain):
        def __init__(self, other, **kwargs):
            super().__init__(other, **kwargs)

    layer = Hiding(functools.partial(scaled), name="hiding")
    layers.ODE(layer, steps=2)(random(SHAPE))
    with pytest.raises(
        ValueError, match="'hiding' cannot be copied.*Received: a layer of type Hiding"
    ):
        layers.ResidualStack(Hiding(functools.partial(scaled), name="hiding"), 2)


@pytest.mark.parametrize(
    ("make", "culprit"),
    [
        (lambda: DENSE(functools.partial(scaled), name="d"), "`activation` of 'd'"),
        (lambda: DENSE(Cosine(), name="d"), "`activation` of 'd'"),
        (
            lambda: keras.Sequential([DENSE(Cosine(), name="inner")], name="d"),
            "`activation` of 'inner'",
        ),
        (lambda: Plain(scaled, name="d"), "because of its `get_config`"),
    ],
)
@pytest.mark.parametrize(
    ("hold", "argument"),
    [
        (lambda layer: layers.ODE(layer, steps=2, name="holder"), "dynamics"),
        (lambda layer: layers.TimeVarying(layer, "trig", name="holder"), "layer"),
        (lambda layer: layers.TimeAppended(layer, name="holder"), "layer"),
        (lambda layer: layers.ResidualStack(layer, 1, name="holder"), "block"),
    ],
)
def test_only_saving_asks_for_what_a_file_can_hold(make, culprit, hold, argument):
    with pytest.raises(
        ValueError,
        match=f"'d', `{argument}` of the layer 'holder', cannot be saved.*{culprit}.*"
        "keras.saving.register_keras_serializable",
    ):
        hold(make()).get_config()


def test_a_constant_start_of_a_built_layer_is_a_new_draw():
    dense = keras.layers.Dense(3)
    dense.build((None, 3))
    starts = {}
    for start in ("layer", "constant"):
        varying = layers.TimeVarying(dense, bases.Bucket(2), start)
        varying.build((None, 3))
        starts[start] = numbers(varying.weights_at(0.7)[0])
    np.testing.assert_allclose(starts["layer"], numbers(dense.kernel), atol=1e-6)
    assert np.abs(starts["constant"] - starts["layer"]).max() > 0.1


# A layer that other layers of the model use, too.

SHARING = {
    "ODE": lambda d, x: layers.ODE(d, steps=3)(d(x)),
    "between": lambda d, x: d(layers.ODE(d, steps=3)(d(x))),
    "two ODEs": lambda d, x: layers.ODE(d, "heun", 2)(layers.ODE(d, steps=3)(d(x))),
    "ResidualStack": lambda d, x: layers.ResidualStack(d, 2, shared=True)(d(x)),
    "TimeVarying": lambda d, x: layers.ODE(layers.TimeVarying(d, "trig"), steps=3)(
        d(d(x))
    ),
    "TimeAppended": lambda d, x: layers.ODE(layers.TimeAppended(d), steps=3)(
        d(layers.Augment(1)(x))
    ),
    "with a time": lambda d, x: layers.ODE(WithTime(d), steps=3)(d(x)),
}


@keras.saving.register_keras_serializable("tests")
class WithTime(keras.layers.Layer):
    """Builds the layer that it holds in its first call."""

    def __init__(self, layer, **kwargs):
        super().__init__(**kwargs)
        self.layer = layer

    def call(self, t, y):
        return t * self.layer(y)

    def get_config(self):
        layer = keras.saving.serialize_keras_object(self.layer)
        return {**super().get_config(), "layer": layer}

    @classmethod
    def from_config(cls, config):
        layer = keras.saving.deserialize_keras_object(config.pop("layer"))
        return cls(layer, **config)


SHARED = {
    "Dense": lambda: keras.layers.Dense(3, "tanh"),
    "Sequential": sequential,
    "functional": functional,
}


@pytest.mark.parametrize(
    ("use", "shared"),
    [
        *itertools.product(SHARING, ["Dense"]),
        *itertools.product(["between"], ["Sequential", "functional"]),
    ],
)
def test_a_layer_may_also_be_used_elsewhere_in_the_model(use, shared, tmp_path):
    i = keras.Input((3,))
    model = keras.Model(i, SHARING[use](SHARED[shared](), i))
    x = random(SHAPE)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(numbers(again(x)), numbers(model(x)), rtol=1e-5)
    assert len(again.weights) == len(model.weights)
    clone = keras.models.clone_model(model)
    assert clone(x).shape == SHAPE


def of_another_layer():
    dense = keras.layers.Dense(3)
    return keras.layers.Lambda(lambda x: dense(x))


def of_another_kernel():
    dense = keras.layers.Dense(3)
    dense.build((None, 3))

    class Transposed(keras.layers.Layer):
        def call(self, x):
            return x @ ops.transpose(dense.kernel)

    return Transposed()


@pytest.mark.parametrize("make", [of_another_layer, of_another_kernel])
def test_dynamics_read_no_weights_of_other_layers(make):
    """They would get no gradient, or one without this part."""
    message = (
        r"read a trainable variable that is not theirs.*direct.*Received: variable"
    )
    with pytest.raises(ValueError, match=message):
        layers.ODE(make(), steps=2)(ops.ones((2, 3)))
    with pytest.raises(ValueError, match=message):
        odeint(make(), ops.ones((2, 3)), [0.0, 1.0])
    y = layers.ODE(make(), steps=2, adjoint="direct")(ops.ones((2, 3)))
    assert np.isfinite(numbers(y)).all()
