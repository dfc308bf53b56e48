"""Metrics of predicted videos."""

import keras
import numpy as np
import pytest
from cases import numbers
from keras import ops

from keras_nanode import metrics

on_tensorflow = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="compares with tf.image"
)


def frames(*shape, seed=0):
    return np.random.default_rng(seed).random(shape).astype("float32")


@on_tensorflow
@pytest.mark.parametrize("channels", [1, 3])
def test_ssim_is_that_of_tensorflow(channels):
    import tensorflow as tf

    a = frames(2, 3, 16, 21, channels)
    for b in (frames(*a.shape, seed=1), np.clip(a + 0.1, 0, 1), 0.02 * a):
        expected = tf.image.ssim(a, b, max_val=1.0).numpy()
        np.testing.assert_allclose(numbers(metrics.ssim(a, b)), expected, atol=1e-5)


@on_tensorflow
def test_psnr_is_the_mean_over_channels():
    import tensorflow as tf

    a, b = frames(2, 3, 8, 8, 3), frames(2, 3, 8, 8, 3, seed=1)
    each = [
        tf.image.psnr(a[..., c : c + 1], b[..., c : c + 1], max_val=1.0).numpy()
        for c in range(3)
    ]
    np.testing.assert_allclose(numbers(metrics.psnr(a, b)), np.mean(each, 0), rtol=1e-5)


@pytest.mark.parametrize("metric", [metrics.psnr, metrics.ssim])
def test_leading_axes_are_broadcast(metric):
    video, samples = frames(1, 3, 12, 12, 2), frames(5, 3, 12, 12, 2, seed=1)
    together = numbers(metric(video, samples))
    assert together.shape == (5, 3)
    np.testing.assert_allclose(
        together[4], numbers(metric(video[0], samples[4])), rtol=1e-5
    )


def test_equal_frames():
    a = frames(4, 16, 16, 1)
    np.testing.assert_allclose(numbers(metrics.ssim(a, a)), 1, atol=1e-6)
    assert np.isinf(numbers(metrics.psnr(a, a))).all()


def test_the_best_sample_is_chosen_for_each_metric_and_video():
    videos = frames(3, 4, 12, 12, 1)
    samples = np.stack([frames(3, 4, 12, 12, 1, seed=i) for i in (1, 2, 3)], axis=1)
    samples[1, 2] = 0.5 * (samples[1, 2] + videos[1])
    for metric in (metrics.psnr, metrics.ssim):
        values = numbers(metric(videos[:, None], samples))
        best = metrics.best_of(metric, videos, samples)
        np.testing.assert_array_equal(best.index, values.mean(2).argmax(1))
        assert best.index[1] == 2
        assert best.values.shape == (3, 4)
        np.testing.assert_allclose(
            best.values.mean(1), values.mean(2).max(1), rtol=1e-6
        )


def test_a_sample_whose_metric_is_nan_is_never_the_best():
    videos = frames(2, 3, 16, 16, 1) / 2
    samples = np.stack([videos + np.nan, videos + 0.2, videos + 0.1], axis=1)
    for mode, best in (("max", 2), ("min", 1)):
        found = metrics.best_of(metrics.psnr, videos, samples, mode)
        assert found.index.tolist() == [best, best]
        assert np.isfinite(found.values).all()
    samples[1] = np.nan
    with pytest.raises(ValueError, match=r"NaN for every sample.*Received: videos \[1"):
        metrics.best_of(metrics.psnr, videos, samples)


def test_a_distance_of_the_users_own_is_minimised():
    network = keras.layers.Dense(4)

    def distance(a, b):
        return ops.mean((network(a) - network(b)) ** 2, axis=(-3, -2, -1))

    videos = frames(2, 3, 8, 8, 1)
    samples = np.stack([videos + 0.3, videos + 0.01, videos - 0.2], axis=1)
    assert metrics.best_of(distance, videos, samples, mode="min").index.tolist() == [
        1,
        1,
    ]


def test_the_frechet_distance_is_that_of_gaussians():
    """Against scipy's matrix square root."""
    linalg = pytest.importorskip("scipy.linalg")
    rng = np.random.default_rng(0)
    a = rng.normal(size=(200, 5)) @ rng.normal(size=(5, 5)) + 1
    b = rng.normal(size=(300, 5)) @ rng.normal(size=(5, 5))
    mean = np.sum((a.mean(0) - b.mean(0)) ** 2)
    product = np.cov(a.T) @ np.cov(b.T)
    expected = mean + np.trace(
        np.cov(a.T) + np.cov(b.T) - 2 * linalg.sqrtm(product).real
    )
    actual = metrics.frechet_distance(a, b, lambda x: x)
    assert actual == pytest.approx(expected, rel=1e-6)
    assert metrics.frechet_distance(a, a, lambda x: x) == pytest.approx(0, abs=1e-6)


def test_the_users_network_sees_both_sets():
    videos, generated = frames(6, 3, 8, 8, 1), frames(6, 3, 8, 8, 1, seed=1)
    network = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(3)])
    distance = metrics.frechet_distance(videos, generated, network)
    rows = [numbers(network(x)) for x in (videos, generated)]
    assert distance == pytest.approx(
        metrics.frechet_distance(*rows, lambda x: x), rel=1e-5
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: metrics.psnr(frames(2, 8, 8, 1), frames(2, 8, 8, 3)),
            r"one shape.*shape \(2, 8, 8, 1\), b with shape \(2, 8, 8, 3\)",
        ),
        (
            lambda: metrics.psnr(np.zeros((8, 8, 1), "uint8"), frames(8, 8, 1)),
            "Divide bytes by 255.*Received: a with dtype=uint8, b with dtype=float32",
        ),
        (
            lambda: metrics.ssim(frames(10, 16, 1), frames(10, 16, 1)),
            "window has 11x11.*Received: frames of 10x16",
        ),
        (
            lambda: metrics.best_of(
                metrics.psnr, frames(2, 3, 8, 8, 1), frames(2, 3, 8, 8, 1)
            ),
            r"num_samples.*Received: samples with shape \(2, 3, 8, 8, 1\)",
        ),
        (
            lambda: metrics.best_of(
                metrics.psnr, frames(2, 3, 8, 8, 1), frames(2, 1, 3, 8, 8, 1), "best"
            ),
            "'max', 'min'.*Received: mode='best'",
        ),
        (
            lambda: metrics.frechet_distance(
                frames(4, 2), frames(4, 3, seed=1), lambda x: x
            ),
            r"Received: features of shapes \(4, 2\) and \(4, 3\)",
        ),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
