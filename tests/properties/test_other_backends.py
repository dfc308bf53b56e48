"""A file that one backend wrote gives the same on the others."""

import importlib.util
import inspect
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from cases import LAYERS, random

from keras_nanode import layers, models

BACKENDS = ("tensorflow", "jax", "torch")
READ = Path(__file__).parents[1] / "support" / "read_models.py"


def layer_model(name):
    arguments, shape = LAYERS[name]
    layer = getattr(layers, name)(**arguments())
    x = keras.Input(shape[1:])
    time = {"t": 0.3} if "t" in inspect.signature(layer.call).parameters else {}
    return keras.Model(x, layer(x, **time)), shape


def classifier(name):
    # As many steps as the default basis has buckets.
    steps = 10 if name == "bucket" else 3
    sizes = {"steps": steps, "filters": 8, "hidden_filters": 4}
    return models.classifier((8, 8, 1), 3, name, **sizes), (2, 8, 8, 1)


MODELS = {
    **{name: lambda name=name: layer_model(name) for name in LAYERS},
    **{f"{name}-model": lambda name=name: classifier(name) for name in models.BLOCKS},
}


@pytest.mark.slower
@pytest.mark.skipif(
    not all(map(importlib.util.find_spec, BACKENDS)), reason="not all are installed"
)
def test_backends_agree(tmp_path):
    for name, make in MODELS.items():
        # Of its own, or a model's weights would follow from what others draw.
        keras.utils.set_random_seed(0)
        model, shape = make()
        model.save(tmp_path / f"{name}.keras")
        np.savez(tmp_path / f"{name}.npz", x=random(shape))
    readers = [
        subprocess.Popen(
            [sys.executable, READ, tmp_path],
            env={**os.environ, "KERAS_BACKEND": backend},
            stderr=subprocess.PIPE,
            text=True,
        )
        for backend in BACKENDS
    ]
    for reader in readers:
        _, errors = reader.communicate()
        assert reader.returncode == 0, errors
    for name in MODELS:
        first, *others = (
            dict(np.load(tmp_path / f"{name}.{backend}.npz")) for backend in BACKENDS
        )
        y = first.pop("y")
        for other in others:
            np.testing.assert_allclose(other.pop("y"), y, 1e-5, 1e-5, err_msg=name)
            assert other.keys() == first.keys()
            # What cancels to nearly nothing keeps the rounding of its parts.
            atol = 1e-4 * max(np.abs(gradient).max() for gradient in first.values())
            for key, gradient in first.items():
                np.testing.assert_allclose(
                    other[key], gradient, 0, atol, err_msg=f"{name}, {key}"
                )
