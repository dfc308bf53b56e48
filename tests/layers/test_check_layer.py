"""`check_layer` on all public layers, and on layers that it must reject."""

import keras
import numpy as np
import pytest
from cases import LAYERS, VECTOR
from check_layer import CHECKS, check_layer, checks_of
from keras import ops

from keras_nanode import backend, layers


def test_every_public_layer_is_in_the_list():
    assert set(LAYERS) == set(layers.__all__)


@pytest.mark.parametrize(
    ("name", "check"),
    [
        pytest.param(name, check, id=f"{name}{check.__name__}")
        for name, (arguments, _) in LAYERS.items()
        for check in checks_of(getattr(layers, name), arguments)
    ],
)
def test_public_layers(name, check, tmp_path):
    arguments, shape = LAYERS[name]
    check(getattr(layers, name), arguments, shape, tmp_path)


class Scale(keras.layers.Layer):
    """A correct layer with one weight: what the broken ones derive from."""

    def build(self, input_shape):
        self.scale = self.add_weight(shape=(), initializer="ones", name="scale")

    def call(self, inputs):
        return inputs * self.scale

    def compute_output_shape(self, input_shape):
        return input_shape


def registered(cls):
    return keras.saving.register_keras_serializable("keras_nanode")(cls)


@registered
class Correct(Scale):
    pass


@registered
class DropsItsName(Scale):
    def get_config(self):
        return {}


@registered
class PromisesAnotherShape(Scale):
    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], 7)


@registered
class RoundsTheTime(Scale):
    """As every layer does that lets Keras cast its arguments."""

    def call(self, inputs, t):
        return inputs * self.scale * ops.cast(t < 0.5, inputs.dtype)


@registered
class HasNoGradient(Scale):
    def call(self, inputs):
        return inputs * ops.stop_gradient(self.scale.value)


@registered
class ComputesInFloat32(Scale):
    def call(self, inputs):
        scale = ops.cast(self.scale, "float32")
        return ops.cast(ops.cast(inputs, "float32") * scale, self.compute_dtype)


class IsNotRegistered(Scale):
    pass


@registered
class ForgetsItsArgument(Scale):
    def __init__(self, factor=2, **kwargs):
        super().__init__(**kwargs)


@registered
class DependsOnMoreThanItsWeights(Scale):
    """An attribute that no file holds."""

    def build(self, input_shape):
        super().build(input_shape)
        self.offset = float(keras.random.uniform(()))

    def call(self, inputs):
        return super().call(inputs) + self.offset


@registered
class DrawsItsWeightsByItself(Scale):
    def build(self, input_shape):
        drawn = keras.initializers.Constant(np.random.default_rng().random())
        self.scale = self.add_weight(shape=(), initializer=drawn, name="scale")


@registered
class KnowsWhetherItIsCompiled(Scale):
    def call(self, inputs):
        return super().call(inputs) * (1 if backend.is_known(inputs) else 2)


@registered
class CountsItsCalls(Scale):
    calls = 0

    def call(self, inputs):
        self.calls += 1
        return super().call(inputs) + self.calls


def test_a_correct_layer_passes(tmp_path):
    check_layer(Correct, dict, VECTOR, tmp_path)


@pytest.mark.parametrize(
    ("broken", "sign"),
    [
        (DropsItsName, "'name'"),
        (PromisesAnotherShape, r"3\) == \(None, 7\)|7\) == \(None, 3\)"),
        (RoundsTheTime, "the time is rounded"),
        pytest.param(
            ComputesInFloat32,
            "computes in float32",
            marks=pytest.mark.skipif(
                keras.backend.backend() != "tensorflow",
                reason="much of Keras computes float64 in float32",
            ),
        ),
        (HasNoGradient, "No gradients|did not move|does not require grad"),
        (IsNotRegistered, "keras_nanode>IsNotRegistered"),
        (ForgetsItsArgument, "assert False"),
        (DependsOnMoreThanItsWeights, "Not equal to tolerance"),
    ],
)
# Keras itself warns of a weight that gets no gradient.
@pytest.mark.filterwarnings("ignore:Gradients do not exist:UserWarning")
def test_broken_layers_are_rejected(broken, sign, tmp_path):
    with pytest.raises(
        (AssertionError, KeyError, ValueError, RuntimeError), match=sign
    ):
        check_layer(broken, dict, VECTOR, tmp_path)


@pytest.mark.parametrize(
    ("broken", "name"),
    [
        (DrawsItsWeightsByItself, "_seeds"),
        pytest.param(
            KnowsWhetherItIsCompiled,
            "_graph",
            marks=pytest.mark.skipif(
                keras.backend.backend() == "torch", reason="compiles nothing"
            ),
        ),
        (CountsItsCalls, "_company"),
    ],
)
def test_every_check_can_fail(broken, name, tmp_path):
    (check,) = (check for check in CHECKS if check.__name__ == name)
    check(Correct, dict, VECTOR, tmp_path)
    with pytest.raises(AssertionError, match="Not equal|are not equal"):
        check(broken, dict, VECTOR, tmp_path)
