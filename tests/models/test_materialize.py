"""A model with ODEs as a plain Keras model."""

import subprocess
import sys

import keras
import numpy as np
import pytest
from cases import EACH_KIND, SOLVERS, random

from keras_nanode import Adaptive, bases, layers, models

STARTS = {"start": "independent"}

LOAD = """
import os, sys
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
sys.modules["keras_nanode"] = None  # an import of it would fail
import keras
import numpy as np
path, batch, results = sys.argv[1:]
np.save(results, keras.saving.load_model(path).predict(np.load(batch), verbose=0))
"""


def around(*stack, shape=(3,)):
    return keras.Sequential([keras.Input(shape), *stack])


def check_equal(model, steps=None):
    plain = models.materialize(model, steps)
    x = random((5, *model.input_shape[1:]), seed=2)
    np.testing.assert_allclose(
        plain.predict(x, verbose=0), model.predict(x, verbose=0), atol=1e-5
    )
    assert "keras_nanode" not in plain.to_json()
    return plain


@keras.saving.register_keras_serializable("test_materialize")
class Decay(keras.layers.Dense):
    def call(self, x, t):
        return super().call(x) - t * x


DYNAMICS = {
    "autonomous": lambda: keras.layers.Dense(3, "tanh"),
    "a block": lambda: layers.DenseBlock(hidden_units=2, normalization="layer"),
    "a model": lambda: around(keras.layers.Dense(4, "tanh"), keras.layers.Dense(3)),
    "varying": lambda: layers.TimeVarying(
        layers.DenseBlock(), bases.Trigonometric(2), "independent"
    ),
    "buckets": lambda: layers.TimeVarying(
        keras.layers.Dense(3, "tanh"), bases.Bucket(3), "independent"
    ),
    "appended": lambda: layers.TimeAppended(layers.DenseBlock(3)),
    "with a time": lambda: Decay(3),
}


@pytest.mark.parametrize("name", DYNAMICS)
def test_any_dynamics_are_unrolled(name):
    check_equal(around(layers.ODE(DYNAMICS[name](), "heun", 4)))


@pytest.mark.parametrize("name", EACH_KIND)
def test_any_solver_is_unrolled(name):
    """Those that carry slopes renew them where the weights jump."""
    check_equal(
        around(layers.BucketDenseODE(2, solver=SOLVERS[name], steps=4, **STARTS))
    )


@pytest.mark.parametrize("block", ["trig", "bucket", "app", "auto", "uncon_resnet"])
def test_a_classifier_is_unrolled(block):
    # As many steps as the buckets of the default basis.
    model = models.classifier((6, 6, 1), 3, block, filters=4, hidden_filters=2)
    plain = check_equal(model)
    names, expected = ([x.name for x in m.layers[1:]] for m in (plain, model))
    assert names == expected


def test_models_within_models_and_augmentation_are_unrolled():
    ode = layers.PolyDenseODE(2, steps=3, **STARTS)
    inner = around(layers.Augment(2), ode, shape=(3,))
    x = keras.Input((3,))
    y = keras.layers.Add()([inner(x), keras.layers.Dense(5)(x)])
    stack = layers.ResidualStack(layers.DenseBlock(), 3, shared=True)
    check_equal(keras.Model(x, stack(y)))


def test_stages_of_equal_weights_are_one():
    buckets = around(layers.BucketDenseODE(2, solver="heun", steps=6, **STARTS))
    assert models.materialize(buckets).count_params() == buckets.count_params()
    plain = models.materialize(around(layers.TrigDenseODE(1, steps=6, **STARTS)))
    assert plain.count_params() == 6 * (3 * 3 + 3)
    assert not plain.trainable_weights


def test_the_original_is_left_alone():
    model = around(layers.TrigDenseODE(1, steps=2), keras.layers.Dense(2))
    before = model.get_weights()
    plain = models.materialize(model)
    plain.compile("sgd", "mse")
    plain.fit(random((4, 3)), random((4, 2)), verbose=0)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert len(plain.trainable_weights) == 2


def test_under_mixed_precision_the_state_stays_float32():
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = around(layers.TrigDenseODE(1, steps=3, **STARTS))
    plain = models.materialize(model)
    x = random((5, 3))
    y, expected = (m.predict(x, verbose=0).astype("float32") for m in (plain, model))
    np.testing.assert_allclose(y, expected, atol=1e-2, rtol=1e-2)
    assert plain.get_layer(index=0).output.dtype == "bfloat16"


def test_it_loads_without_this_library(tmp_path):
    model = around(
        layers.Augment(1),
        layers.ODE(layers.TimeAppended(layers.DenseBlock(4)), "rk4", 2),
        layers.BucketDenseODE(2, steps=3, solver="alf", **STARTS),
    )
    models.materialize(model).save(tmp_path / "plain.keras")
    x = random((5, 3), seed=2)
    np.save(tmp_path / "batch.npy", x)
    names = ["plain.keras", "batch.npy", "results.npy"]
    command = [sys.executable, "-c", LOAD, *(tmp_path / name for name in names)]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    y = np.load(tmp_path / "results.npy")
    np.testing.assert_allclose(y, model.predict(x, verbose=0), atol=1e-5)


def test_adaptive_steps_need_a_number():
    model = around(
        layers.TrigDenseODE(1, solver="bosh3", steps=Adaptive(1e-6), **STARTS)
    )
    with pytest.raises(ValueError, match=r"chooses its steps.*materialize\(model, st"):
        models.materialize(model)
    with pytest.raises(ValueError, match="`steps` must be an integer"):
        models.materialize(model, steps=0)
    check_equal(model, steps=60)


def test_what_cannot_be_unrolled_is_refused():
    ode = layers.TrigDenseODE(1, steps=2)
    with pytest.raises(ValueError, match="must be a functional or Sequential model"):
        models.materialize(ode)
    with pytest.raises(ValueError, match="that is built"):
        models.materialize(keras.Sequential([ode]))
    distributed = around(keras.layers.TimeDistributed(ode), shape=(4, 3))
    with pytest.raises(
        ValueError, match="cannot be made plain where it is.*TimeDistri"
    ):
        models.materialize(distributed)
    x = keras.Input((3,))
    alone = layers.TimeVarying(keras.layers.Dense(2), "poly")
    with pytest.raises(ValueError, match="Received: TimeVarying in the TimeVarying"):
        models.materialize(keras.Model(x, alone(x, t=0.5)))
    inner = layers.ODE(around(layers.DenseBlock()), steps=2)
    with pytest.raises(ValueError, match="Received: DenseBlock in the Sequential"):
        models.materialize(around(inner))
