"""A model that was trained elsewhere predicts on Keras' OpenVINO backend."""

import os
import subprocess
import sys
from importlib.util import find_spec

import keras
import numpy as np
import pytest
from cases import random

from keras_nanode import layers, models

pytestmark = [
    pytest.mark.slower,
    pytest.mark.skipif(not find_spec("openvino"), reason="openvino is not installed"),
    pytest.mark.skipif(
        keras.backend.backend() != "tensorflow", reason="the files are the same"
    ),
]
SIZES = {"filters": 8, "hidden_filters": 4}
MODELS = {
    **{
        block: lambda block=block: models.classifier((8, 8, 1), 3, block, **SIZES)
        for block in models.BLOCKS
    },
    "dense": lambda: keras.Sequential(
        [keras.Input((5,)), layers.PolyDenseODE(2, solver="rk4", steps=3)]
    ),
    "augmented": lambda: keras.Sequential(
        [
            keras.Input((5,)),
            layers.Augment(2),
            layers.TrigDenseODE(1, solver="reversible_heun", steps=3),
        ]
    ),
}

PREDICT = """
import sys
import keras, numpy as np, openvino as ov

compile_model = ov.compile_model
# By itself OpenVINO computes in bfloat16 where a processor can.
ov.compile_model = lambda model, device: compile_model(
    model, device, {"INFERENCE_PRECISION_HINT": "f32"}
)
import keras_nanode

assert keras.backend.backend() == "openvino"
for file in sys.argv[1:]:
    model = keras.models.load_model(file + ".keras")
    found = model.predict(np.load(file + ".x.npy"), verbose=0)
    np.testing.assert_allclose(found, np.load(file + ".y.npy"), atol=1e-5, rtol=1e-5)
"""

ADAPTIVE = """
import sys
import keras, numpy as np
import keras_nanode

model = keras.models.load_model(sys.argv[1])
try:
    model.predict(np.ones((1, 5)), verbose=0)
    raise AssertionError
except NotImplementedError as error:
    assert "layer.steps = 20" in str(error), error
model = keras.models.load_model(sys.argv[1])
model.layers[0].steps = 20
assert np.isfinite(model.predict(np.ones((1, 5)), verbose=0)).all()
"""


def on_openvino(script: str, *files) -> None:
    subprocess.run(
        [sys.executable, "-c", script, *map(str, files)],
        env={**os.environ, "KERAS_BACKEND": "openvino"},
        check=True,
    )


def test_a_file_predicts_on_openvino_what_it_predicts_here(tmp_path):
    for name, make in MODELS.items():
        model = make()
        x = random((2, *model.input_shape[1:]))
        model.save(tmp_path / f"{name}.keras")
        np.save(tmp_path / f"{name}.x.npy", x)
        np.save(tmp_path / f"{name}.y.npy", model.predict(x, verbose=0))
    on_openvino(PREDICT, *(tmp_path / name for name in MODELS))


def test_adaptive_steps_are_refused_until_they_have_a_number(tmp_path):
    ode = layers.PolyDenseODE(2, solver="dopri5")
    model = keras.Sequential([keras.Input((5,)), ode])
    model.save(tmp_path / "model.keras")
    on_openvino(ADAPTIVE, tmp_path / "model.keras")
