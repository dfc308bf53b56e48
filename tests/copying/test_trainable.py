"""What is frozen stays frozen: in configurations, files, clones and copies."""

import copy
import json
import pickle

import keras
import numpy as np
import pytest
from cases import IMAGE, LAYERS, VECTOR, numbers, random
from check_layer import TIME, _time

from keras_nanode import bases, layers, models


def parts(layer):
    """The layers in a layer but for inputs, whose flag Keras forgets."""
    found = layer._flatten_layers(include_self=False)
    return [x for x in found if not isinstance(x, keras.layers.InputLayer)]


def flags(layer):
    """Of a layer, of the layers in it, and of all their weights."""
    return [x.trainable for x in (layer, *parts(layer), *layer.weights)]


def set_alternately(layer, whole, first=0):
    """Sets the flag of a layer, and the opposite in every other part and weight."""
    layer.trainable = whole
    for part in (*parts(layer), *layer.weights)[first::2]:
        part.trainable = not whole


def from_config(layer):
    return type(layer).from_config(json.loads(json.dumps(layer.get_config())))


def built(layer, shape):
    if not layer.built:
        layer.build(shape)
    return layer


def public(name, **more):
    arguments, shape = LAYERS[name]
    return getattr(layers, name)(**arguments(), **more), shape


@pytest.mark.parametrize("name", LAYERS)
def test_flags_set_in_the_constructor_before_and_after_the_build_are_kept(name):
    later, shape = public(name)
    later.trainable = False
    assert not any(flags(built(from_config(later), shape)))
    layer, shape = public(name, trainable=False)
    assert not any(flags(built(layer, shape)))
    for whole, first in ((True, 0), (False, 1)):
        set_alternately(layer, whole, first)
        again = from_config(from_config(layer))  # the first one is perhaps not built
        assert flags(built(again, shape)) == flags(layer)


# Models of all public layers, beside those of Keras.

STOCK = {
    VECTOR: lambda: [
        keras.layers.Dense(3),
        keras.Sequential([keras.layers.Dense(3), keras.layers.LayerNormalization()]),
    ],
    IMAGE: lambda: [
        keras.layers.Conv2D(2, 3),
        keras.layers.TimeDistributed(keras.layers.Dense(3)),
    ],
}


def model_of(shape):
    inputs = keras.Input(shape[1:])
    ours = [public(name)[0] for name in LAYERS if LAYERS[name][1] == shape]
    outputs = []
    for layer in (*ours, *STOCK[shape]()):
        y = layer(inputs, **({"t": TIME} if _time(layer) else {}))
        outputs.append(keras.layers.Dense(1)(keras.layers.Flatten()(y)))
    return keras.Model(inputs, keras.layers.Add()(outputs))


def read(model, file):
    model.save(file)
    return keras.models.load_model(file)


@pytest.mark.parametrize("shape", [VECTOR, IMAGE], ids=["vectors", "images"])
def test_a_model_read_from_a_file_learns_as_the_one_that_was_written(shape, tmp_path):
    model = model_of(shape)
    for layer in model.layers:
        if type(layer).__name__ in LAYERS:
            set_alternately(layer, True)
        else:
            for part in parts(layer)[::2]:
                part.trainable = False
    x = random(shape)
    y = numbers(model(x))
    again = read(model, tmp_path / "model.keras")
    clone = keras.models.clone_model(again)
    assert flags(clone) == flags(again) == flags(model)
    model.save_weights(tmp_path / "model.weights.h5")
    again.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_allclose(numbers(again(x)), y, rtol=1e-5)
    assert flags(again) == flags(model)
    before = again.get_weights()
    again.compile(keras.optimizers.SGD(0.01), "mse")
    again.fit(x, y + 3, verbose=0)
    after = zip(again.weights, before, again.get_weights(), strict=True)
    for weight, old, new in after:
        assert np.array_equal(old, new) is not weight.trainable, weight.path


@keras.saving.register_keras_serializable("tests")
class Pair(keras.Layer):
    """A layer of a user's own, whose configuration has no flags of its parts."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first = keras.layers.Dense(3)

    def build(self, input_shape):
        self.second = [keras.layers.Dense(3)]
        self.first.build(input_shape)
        self.second[0].build(input_shape)

    def call(self, inputs):
        return self.second[0](self.first(inputs))


def thawed():
    """Frozen, but for a part."""
    layer = layers.ODE(layers.TimeAppended(keras.layers.Dense(3)), steps=2)
    layer.build(VECTOR)
    layer.trainable = False
    layer.dynamics.layer.bias.trainable = True
    return layer


def with_a_frozen(path, layer):
    layer.build(VECTOR)
    *owners, name = path.split(".")
    part = layer
    for owner in owners:
        part = part[int(owner)] if owner.isdigit() else getattr(part, owner)
    part = part[int(name)] if name.isdigit() else getattr(part, name)
    part.trainable = False
    return layer


def pattern_with_a_frozen_part(make):
    layer = make()
    pattern = layer.dynamics.layer
    pattern.build(VECTOR)
    list(pattern._flatten_layers())[-1].trainable = False
    return layer


def normalized():
    block = keras.Sequential([keras.layers.BatchNormalization(), keras.layers.Dense(3)])
    return layers.ResidualStack(block, 2)


PARTS = {
    "a part of the dynamics": lambda: with_a_frozen(
        "dynamics.first", layers.ODE(Pair(), steps=2)
    ),
    "a part made late": lambda: with_a_frozen(
        "blocks.1.second.0", layers.ResidualStack(Pair(), 2)
    ),
    "the first block alone": lambda: with_a_frozen(
        "block", layers.ResidualStack(Pair(), 2)
    ),
    "normalization": lambda: with_a_frozen("blocks.1.layers.0", normalized()),
    "a thawed part of a frozen layer": thawed,
    "a part of the pattern": lambda: pattern_with_a_frozen_part(
        lambda: layers.ODE(
            layers.TimeVarying(Pair(), bases.Bucket(2), "independent"), steps=2
        )
    ),
    "a part of a ready-made pattern": lambda: pattern_with_a_frozen_part(
        lambda: layers.TrigDenseODE(1, hidden_units=2, start="independent", steps=2)
    ),
}


@pytest.mark.parametrize("name", PARTS)
def test_parts_of_parts_are_kept_where_keras_forgets_them(name, tmp_path):
    layer = PARTS[name]()
    model = keras.Sequential([keras.Input(VECTOR[1:]), layer])
    again = read(model, tmp_path / "model.keras")
    clone = keras.models.clone_model(model)
    assert flags(again) == flags(clone) == flags(model)
    trained = [[w.path for w in m.trainable_weights] for m in (again, model)]
    assert len(trained[0]) == len(trained[1]) > 0
    x = random(VECTOR)
    np.testing.assert_allclose(numbers(again(x)), numbers(model(x)), rtol=1e-6)


def test_a_thawed_part_of_a_frozen_layer_learns():
    model = keras.Sequential([keras.Input(VECTOR[1:]), thawed()])
    model.compile("sgd", "mse")
    before = model.get_weights()
    model.fit(random(VECTOR), random(VECTOR, seed=1), verbose=0)
    (bias,) = model.trainable_weights
    for weight, old in zip(model.weights, before, strict=True):
        assert np.array_equal(numbers(weight), old) is (weight is not bias)


def test_what_keras_forgets_of_its_own_layers():
    """Side by side: if one of these fails, Keras does better than it did."""
    dense = keras.layers.Dense(3)
    wrapper = keras.layers.TimeDistributed(dense, trainable=False)
    assert dense.trainable, wrapper
    frozen = keras.layers.Dense(3)
    assert not layers.ODE(frozen, trainable=False).dynamics.trainable
    for layer in (dense, layers.TimeVarying(keras.layers.Dense(3), bases.Bucket(2))):
        layer.build(VECTOR)
        layer.trainable_weights[0].trainable = False
        again = built(from_config(layer), VECTOR)
        assert len(again.trainable_weights) == (2 if layer is dense else 1)
    pair = with_a_frozen("first", Pair())
    assert all(flags(built(from_config(pair), VECTOR)))


@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))]
)
def test_copies_of_layers_are_as_copies_of_the_layers_of_keras(copied):
    dense, block = keras.layers.Dense(3), layers.DenseBlock(hidden_units=2)
    for layer in (dense, block):
        layer.build(VECTOR)
    dense.trainable = block.maps[1].trainable = False
    for layer in (dense, block):
        again = copied(layer)
        assert flags(again) == flags(layer)
        for new, old in zip(again.weights, layer.weights, strict=True):
            np.testing.assert_array_equal(numbers(new), numbers(old))


def test_a_flag_set_before_the_build_is_the_last_word():
    block = with_a_frozen("maps.1", layers.DenseBlock(hidden_units=2))
    again = from_config(block)
    again.trainable = True
    assert all(flags(built(again, VECTOR)))


def test_a_configuration_without_flags_of_parts_is_read_as_before():
    stack = layers.ResidualStack(keras.layers.Dense(3, trainable=False), 2)
    config = stack.get_config()
    del config["trainable_parts"]
    assert flags(layers.ResidualStack.from_config(config))[1:] == [False, False]
    plain = layers.TrigDenseODE(1).get_config()
    assert "trainable_parts" not in plain
    frozen = layers.TrigDenseODE.from_config({**plain, "trainable": False})
    assert not any(flags(built(frozen, VECTOR)))


@pytest.mark.parametrize("wrong", [3, ["block"], {"block": 1}, {1: True}])
def test_flags_that_are_none_are_refused(wrong):
    config = layers.DenseBlock().get_config()
    with pytest.raises(ValueError, match="trainable_parts.*must be a dict.*Received"):
        layers.DenseBlock.from_config({**config, "trainable_parts": wrong})


def test_a_plain_copy_of_a_model_is_frozen_as_it_is():
    block = with_a_frozen("maps.1", layers.DenseBlock(hidden_units=2))
    ode = layers.TrigDenseODE(1, steps=2, trainable=False)
    stack = with_a_frozen("blocks.1", layers.ResidualStack(layers.DenseBlock(), 2))
    model = keras.Sequential([keras.Input(VECTOR[1:]), block, ode, stack])
    plain = models.materialize(model)
    frozen = [weight.trainable for weight in block.weights]
    assert [weight.trainable for weight in plain.layers[0].weights] == frozen
    assert not plain.layers[1].trainable
    assert [len(x.trainable_weights) for x in plain.layers] == [4, 0, 2]


@pytest.mark.slower
def test_parts_of_a_video_model_are_kept(tmp_path):
    arguments = {"filters": (4, 4, 4, 4), "rnn_units": 4, "feature_dim": 4}
    model = models.SVG((32, 32, 1), block="trig", **arguments)
    for part in (model.encoder, model.decoder.layers[5], *model.prior.layers[2:]):
        part.trainable = False
    model.encoder.layers[4].trainable = True
    generator = models.VideoGenerator(model, 2)
    again = read(generator, tmp_path / "model.keras")
    assert flags(again) == flags(generator)
    assert not any(flags(models.SVG((32, 32, 1), trainable=False, **arguments)))
