"""What is right runs under the debuggers of the backends."""

import contextlib
import functools

import keras
import numpy as np
import pytest
from cases import ADJOINTS, LAYERS, gradients, layer_gradients, numbers, random
from keras import ops

from keras_nanode import Adaptive, bases, layers, metrics, models, odeint

BACKEND = keras.backend.backend()
WAYS = {
    "reversible": [{"solver": "alf", "steps": 3}],
    "others": [
        {"solver": "heun", "steps": 3},
        {"solver": "bosh3", "steps": Adaptive(1e-3, 1e-3, 30)},
    ],
}

pytestmark = pytest.mark.filterwarnings("ignore:Anomaly Detection")


@contextlib.contextmanager
def debugger():
    """That of the backend, which stops at a NaN, though it may not be used."""
    if BACKEND == "tensorflow":
        import tensorflow as tf

        tf.debugging.enable_check_numerics()
        try:
            yield
        finally:
            tf.debugging.disable_check_numerics()
    elif BACKEND == "jax":
        import jax

        with jax.debug_nans(True):
            yield
    else:
        import torch

        with torch.autograd.detect_anomaly(check_nan=True):
            yield


def ways(adjoint):
    return WAYS["reversible" if adjoint == "reversible" else "others"]


def solve_in_all_ways(adjoint, y, a):
    """A state that decays beside one that is constant."""

    def decay(t, y, a):
        return {"y": -a * y["y"], "z": 0 * y["z"]}

    found, y0 = [], {"y": y, "z": ops.ones((2,))}
    for options in ways(adjoint):
        ys = odeint(decay, y0, [0.0, 1.0], (a,), adjoint=adjoint, **options)
        found.append(ys["y"])
    return found


def assert_finite(structure):
    assert all(np.isfinite(x).all() for x in keras.tree.flatten(structure))


@pytest.mark.parametrize("adjoint", ADJOINTS)
def test_from_rest_and_at_rest(adjoint):
    y, a = np.array([0, 1e-30, 1], "float32"), np.float32(1)
    with debugger():
        solve = functools.partial(solve_in_all_ways, adjoint)
        assert_finite(gradients(solve, y, a))
        assert_finite(gradients(solve, 0 * y, a))


def test_from_rest_in_eager_mode(monkeypatch):
    monkeypatch.setattr("cases.compiled", lambda f: f)
    with debugger():
        solve = functools.partial(solve_in_all_ways, "checkpoint")
        assert_finite(gradients(solve, np.zeros(3, "float32"), np.float32(1)))


def test_without_an_absolute_tolerance():
    steps = Adaptive(1e-4, 0.0, 30)
    y = np.array([0, 1], "float32")
    with debugger():
        solved = odeint(lambda t, y: -y, y, [0.0, 1.0], steps=steps)
    np.testing.assert_allclose(numbers(solved)[1], [0, np.exp(-1)], atol=1e-3)


@pytest.mark.slower
@pytest.mark.parametrize("name", LAYERS)
def test_every_layer(name):
    arguments, shape = LAYERS[name]
    time = {"t": 0.4} if name in ("TimeVarying", "TimeAppended") else {}
    with debugger():
        layer = getattr(layers, name)(**arguments())
        layer(random(shape), **time)
        for x in (random(shape), np.zeros(shape, "float32")):
            assert_finite(layer_gradients(layer, x, **time))


@pytest.mark.slower
def test_videos_and_their_metrics():
    sizes = {"frame_shape": (16, 16, 1), "filters": (2, 2, 2, 2), "feature_dim": 2}
    with debugger():
        model = models.SVG(latent_dim=2, rnn_units=2, block="trig", steps=1, **sizes)
        model.compile("sgd")
        videos = np.random.default_rng(0).random((2, 4, 16, 16, 1), "float32")
        assert np.all(np.isfinite(model.evaluate(videos, verbose=0)))
        assert np.isfinite(model.fit(videos, verbose=0).history["loss"]).all()
        generator = models.VideoGenerator(model, num_frames=2)
        assert np.isfinite(generator.predict(videos[:, :2], verbose=0)).all()
        assert np.isfinite(metrics.psnr(videos, videos[::-1])).all()
        np.testing.assert_allclose(metrics.ssim(videos, videos), 1, rtol=1e-5)


@pytest.mark.skipif(BACKEND != "jax", reason="others have no such rule")
@pytest.mark.parametrize("adjoint", ADJOINTS)
def test_no_dtypes_are_mixed(adjoint):
    """With 64 bits, JAX can forbid even an index of 32 bits beside one of 64."""
    import jax

    x = random((2, 3))
    with jax.numpy_dtype_promotion("strict"):
        solve = functools.partial(solve_in_all_ways, adjoint)
        assert_finite(gradients(solve, x[0], np.float32(1)))
        for options in ways(adjoint):
            dynamics = layers.TimeVarying(keras.layers.Dense(3), bases.Bucket(3))
            layer = layers.ODE(dynamics, adjoint=adjoint, **options)
            layer.build(x.shape)
            assert_finite(layer_gradients(layer, x, training=True))
