"""On JAX and PyTorch everything but TFDS works where TensorFlow is not installed."""

import os
import subprocess
import sys

import cases
import keras
import pytest

BLOCK = """
import sys

# A finder of everything but TensorFlow.
class Others:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, *args):
        if name.split(".")[0] != "tensorflow":
            return self.finder.find_spec(name, *args)

sys.meta_path[:] = map(Others, sys.meta_path)
"""

USE = """
import keras, numpy as np, sys
sys.path.insert(0, SUPPORT)
import keras_nanode
import cases
from keras_nanode import backend, datasets, layers, models, odeint

for name, (arguments, shape) in cases.LAYERS.items():
    layer = getattr(layers, name)(**arguments())
    time = {"t": 0.5} if name in ("TimeVarying", "TimeAppended") else {}
    y = layer(cases.random(shape), **time)
    assert np.isfinite(keras.ops.convert_to_numpy(y)).all()

(slope,) = cases.gradients(
    lambda a: odeint(lambda t, y, a: a * y, keras.ops.ones(()), [0.0, 1.0], (a,))[-1],
    np.float32(0.5),
)
np.testing.assert_allclose(slope, 2 * np.e, rtol=1e-3)

data = datasets.digits(augment=True)
model = models.classifier(data.input_shape, 10, filters=4, hidden_filters=2, steps=2)
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
fit = {"shuffle": False, "verbose": 0}
def compiled():
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    copy.compile("sgd", loss)
    return copy
whole, begun = compiled(), compiled()
whole.fit(data.train_from(0), epochs=3, validation_data=data.test, **fit)
begun.fit(data.train, epochs=2, **fit)
begun.save(FOLDER + "/m.keras")
begun = keras.models.load_model(FOLDER + "/m.keras")
begun.fit(data.train_from(2), epochs=3, initial_epoch=2, **fit)
for one, other in zip(whole.get_weights(), begun.get_weights()):
    np.testing.assert_allclose(one, other, atol=1e-6)
first, second = ([y for _, y in data.train_from(0).take(2)] for _ in range(2))
assert all(map(np.array_equal, first, second)) and len(first) == 2

videos = datasets.moving_digits(4, 4, train_videos=8, test_videos=4)
svg = models.SVG((32, 32, 1), 2, filters=(2, 2, 2, 2), feature_dim=4, rnn_units=4)
svg.compile("adam")
svg.fit(videos.train, verbose=0, shuffle=False)
svg.fit(videos.train.repeat(), steps_per_epoch=3, epochs=2, verbose=0, shuffle=False)
svg.save(FOLDER + "/s.keras")
generator = models.VideoGenerator(keras.models.load_model(FOLDER + "/s.keras"), 2)
assert generator.predict(np.zeros((1, 2, 32, 32, 1)), verbose=0).shape[2] == 2

for load in (datasets.mnist, datasets.bair):
    try:
        load()
        raise AssertionError
    except ImportError as error:
        assert type(error) is ImportError and "keras_nanode[tensorflow]" in str(error)
assert "tensorflow" not in sys.modules
"""

NO_BACKEND = """
try:
    import keras_nanode
    raise AssertionError
except ImportError as error:
    assert type(error) is ImportError and "keras_nanode[tensorflow]" in str(error)
"""


def run(script, backend, tmp_path):
    names = (
        f"SUPPORT, FOLDER = {os.path.dirname(cases.__file__)!r}, {str(tmp_path)!r}\n"
    )
    environment = {**os.environ, "KERAS_BACKEND": backend}
    command = [sys.executable, "-c", BLOCK + names + script]
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert not result.returncode, result.stderr


@pytest.mark.skipif(
    keras.backend.backend() == "tensorflow", reason="Keras runs on TensorFlow"
)
def test_nothing_needs_tensorflow(tmp_path):
    run(USE, keras.backend.backend(), tmp_path)


def test_a_backend_that_is_not_installed_is_named_with_its_extra(tmp_path):
    run(NO_BACKEND, "tensorflow", tmp_path)
