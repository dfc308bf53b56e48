"""A SavedModel serves where this library is not installed."""

import subprocess
import sys

import keras
import numpy as np
import pytest
from cases import random

from keras_nanode import bases, layers, models

SERVE = """
import sys
import numpy as np
import tensorflow as tf
sys.modules["keras_nanode"] = None  # an import of it would fail
model = tf.saved_model.load(sys.argv[1])
x, y = (np.load(sys.argv[2])[name] for name in "xy")
difference = np.abs(model.serve(x).numpy() - y).max()
print(f"difference {difference:.2e}")
assert difference < 1e-5
"""


pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="a SavedModel is TensorFlow's"
)


def check_served(model, shape, tmp_path):
    """Elsewhere, with a batch size that was never seen."""
    model.export(str(tmp_path / "model"), verbose=False)
    x = random((11, *shape), seed=2)
    np.savez(tmp_path / "batch.npz", x=x, y=model.predict(x, verbose=0))
    run = subprocess.run(
        [sys.executable, "-c", SERVE, tmp_path / "model", tmp_path / "batch.npz"],
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("difference")


@pytest.mark.parametrize("block", ["trig", "bucket", "app", "uncon_resnet"])
def test_a_saved_model_is_served_without_this_library(block, tmp_path):
    model = models.classifier((8, 8, 1), 3, block, filters=8, hidden_filters=4, steps=5)
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(random((8, 8, 8, 1)), np.arange(8) % 3, batch_size=4, verbose=0)
    check_served(model, (8, 8, 1), tmp_path)


def test_adaptive_steps_are_served(tmp_path):
    ode = layers.DenseODE(bases.Bucket(2), solver="bosh3")
    model = keras.Sequential([keras.Input((3,)), ode])
    model.compile("sgd", "mse")
    model.fit(random((8, 3)), random((8, 3), seed=1), verbose=0)
    check_served(model, (3,), tmp_path)
