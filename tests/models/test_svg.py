"""The SVG video model: what it computes, what it learns from, and what it generates."""

import json
import subprocess
import sys

import keras
import numpy as np
import pytest
from cases import gradients, numbers
from keras import ops

import keras_nanode
from keras_nanode import backend, bases, layers, models
from keras_nanode.models.svg.recurrent import (
    advance,
    gaussian,
    held,
    kl_divergence,
    mean,
    network,
)

on_tensorflow = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="of TensorFlow alone"
)
TINY = {
    "frame_shape": (16, 16, 1),
    "filters": (4, 4, 8, 8),
    "feature_dim": 8,
    "latent_dim": 3,
    "rnn_units": 8,
}
HEADS = ("posterior_mean", "posterior_log_variance", "prior_mean", "prior_log_variance")


def tiny(**changes):
    return models.SVG(**{**TINY, "seed": 1, **changes})


def videos(batch=2, time=6, size=16, channels=1, seed=0):
    shape = (batch, time, size, size, channels)
    return np.random.default_rng(seed).random(shape).astype("float32")


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def moved(model):
    """The model away from where it was initialized, with statistics of its own."""
    rng = np.random.default_rng(0)
    for weight in model.trainable_weights:
        weight.assign(weight + rng.normal(0, 0.1, weight.shape).astype("float32"))
    model(videos(3, seed=4), training=True)
    return model


def same_draws(model, x):
    """The outputs, with the latents' noise that a new model would draw first."""
    seed = model.seed_generator.state
    before = ops.copy(ops.convert_to_tensor(seed))
    outputs = numbers(model(x))
    seed.assign(before)
    return outputs


def trainable(network):
    return sum(int(np.prod(w.shape)) for w in network.trainable_weights)


# Size and layout


def test_the_original_has_the_parameters_of_the_original():
    model = models.SVG.from_preset("original", frame_shape=(64, 64, 3), latent_dim=64)
    assert trainable(model.encoder) == 8_689_600
    assert trainable(model.decoder) == 11_822_659
    assert trainable(model.predictor) == 1_132_928
    assert trainable(model.posterior) == trainable(model.prior) == 591_232
    assert trainable(model) == 22_827_651
    assert trainable(models.SVG.from_preset("original")) == 22_756_009


def test_the_papers_preset_has_the_size_of_its_table_2():
    assert trainable(models.SVG.from_preset("paper")) == pytest.approx(1.15e6, rel=0.02)


@pytest.mark.parametrize(
    ("block", "basis"),
    [
        ("auto", bases.Constant()),
        ("trig", bases.Trigonometric(3)),
        ("bucket", bases.Bucket(3)),
        ("poly", bases.Polynomial(3)),
    ],
)
def test_an_ode_replaces_two_of_three_convolutions_throughout(block, basis):
    conv, model = tiny(), tiny(block=block)
    for part in ("encoder", "decoder"):
        networks = getattr(conv, part), getattr(model, part)
        kernels = [
            sum(type(layer) is keras.layers.Conv2D for layer in network.layers)
            for network in networks
        ]
        # Besides the four blocks, one convolution from or to the frames.
        assert kernels == [4 * 3 + 1, 4 * 1 + 1]
        odes = [x for x in networks[1].layers if isinstance(x, layers.ODE)]
        assert len(odes) == 4
        for ode in odes:
            assert (ode.basis, ode.steps, ode.solver.name) == (basis, 3, "euler")
            width = ode.weights[0].shape[-1]
            assert ode.weights[0].shape == (basis.size, 3, 3, width, width)


def test_options_reach_the_blocks():
    model = tiny(
        block="trig",
        basis=bases.Trigonometric(1),
        steps=2,
        adjoint="direct",
        normalization="batch",
    )
    odes = [x for x in model.encoder.layers if isinstance(x, layers.ODE)]
    assert [ode.basis.size for ode in odes] == [3] * 4
    assert [ode.steps for ode in odes] == [2] * 4
    assert {type(ode.adjoint).__name__ for ode in odes} == {"Direct"}
    kinds = {type(x).__name__ for x in model.encoder.layers + model.decoder.layers}
    assert "BatchNormalization" in kinds
    assert "GroupNormalization" not in kinds


@pytest.mark.slower
@pytest.mark.parametrize("shape", [(32, 48, 3), (128, 128, 1)])
def test_frames_of_other_sizes(shape):
    model = tiny(frame_shape=shape)
    x = np.zeros((1, 3, *shape), "float32")
    assert model(x)["reconstruction"].shape == (1, 2, *shape)


# Mathematics


@pytest.mark.parametrize("layout", ["paper", "original"])
def test_keras_default_of_channels_first_changes_no_video(layout):
    x = videos()
    outputs = []
    for image_data_format in ("channels_last", "channels_first"):
        keras.config.set_image_data_format(image_data_format)
        keras.utils.set_random_seed(1)
        outputs.append(numbers(tiny(layout=layout)(x))["reconstruction"])
    np.testing.assert_array_equal(*outputs)


def test_kl_is_that_of_numpy_integration_and_zero_for_equals():
    mean, log_variance = normal(4, 3), normal(4, 3, seed=1)
    other_mean, other_log_variance = normal(4, 3, seed=2), normal(4, 3, seed=3)
    same, other = (mean, log_variance), (other_mean, other_log_variance)
    actual = numbers(kl_divergence(*map(ops.convert_to_tensor, (*same, *other))))
    z = np.linspace(-40, 40, 200_001)[:, None, None]

    def log_density(mean, log_variance):
        squares = (z - mean) ** 2 / np.exp(log_variance)
        return -0.5 * (squares + log_variance + np.log(2 * np.pi))

    q = log_density(mean.astype("float64"), log_variance.astype("float64"))
    p = log_density(other_mean.astype("float64"), other_log_variance.astype("float64"))
    expected = np.sum(np.exp(q) * (q - p), axis=0).sum(axis=-1) * (z[1] - z[0]).item()
    np.testing.assert_allclose(actual, expected, rtol=1e-5)
    zero = numbers(kl_divergence(*map(ops.convert_to_tensor, (*same, *same))))
    np.testing.assert_array_equal(zero, 0)


@on_tensorflow
@pytest.mark.slower
def test_kl_is_that_of_tensorflow_probability():
    """In a process of its own: the package warns as it is imported."""
    code = """
import numpy as np
import tensorflow_probability as tfp
from keras_nanode.models.svg.recurrent import kl_divergence
a, b, c, d = np.random.default_rng(0).normal(size=(4, 5, 7)).astype("float32")
q, p = (
    tfp.distributions.MultivariateNormalDiag(m, np.exp(0.5 * v))
    for m, v in ((a, b), (c, d))
)
np.testing.assert_allclose(kl_divergence(a, b, c, d), q.kl_divergence(p), rtol=1e-5)
print("equal")
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.stdout == "equal\n", run.stderr


def test_the_loss_and_its_parts_are_those_of_numpy():
    """With batches of 2, 2 and 1, which count by their videos."""
    model, x = tiny(beta=0.3), videos(5)
    model.compile(keras.optimizers.SGD(0.0))
    parts = []
    for i in (0, 2, 4):
        batch = x[i : i + 2].astype("float64")
        outputs = same_draws(model, x[i : i + 2])
        model.seed_generator.state.assign(_next_state(model))
        errors = outputs["reconstruction"] - batch[:, 1:]
        mse = np.mean(errors**2, axis=(2, 3, 4))
        q_mean, q_log, p_mean, p_log = (outputs[n].astype("float64") for n in HEADS)
        variances = np.exp(q_log) + (q_mean - p_mean) ** 2
        terms = 0.5 * (p_log - q_log) + variances / (2 * np.exp(p_log)) - 0.5
        parts += zip(mse, terms.sum(axis=-1), strict=True)
    mse, kl = (np.stack(part) for part in zip(*parts, strict=True))
    loss = np.mean(np.sum(mse + 0.3 * kl, axis=1))
    expected = {
        "loss": loss,
        "mse": mse.mean(),
        "kl_nats": kl.mean(),
        "nelbo_per_frame": loss / 5,
        "nelbo_per_pixel": loss / (16 * 16),
    }
    fresh = tiny(beta=0.3)
    fresh.set_weights(model.get_weights())
    fresh.compile(keras.optimizers.SGD(0.0))
    fresh.seed_generator.state.assign(tiny().seed_generator.state)
    measured = fresh.evaluate(x, batch_size=2, return_dict=True, verbose=0)
    assert measured.keys() == expected.keys()
    for name, value in expected.items():
        assert measured[name] == pytest.approx(value, rel=1e-4), name


def _next_state(model):
    keras.random.normal((1,), seed=model.seed_generator)
    return ops.copy(ops.convert_to_tensor(model.seed_generator.state))


@pytest.mark.parametrize("block", ["conv", "trig"])
def test_nothing_sees_the_future(block):
    """Frame t enters the posterior of t and all that comes after it."""
    model, x = tiny(block=block), videos(time=7)
    changed = x.copy()
    changed[:, 4] = 1 - changed[:, 4]
    before, after = same_draws(model, x), same_draws(model, changed)
    # Frame t is at t - 1, since the first is not predicted.
    first = {name: 3 for name in before} | {n: 4 for n in before if "prior" in n}
    for name, start in first.items():
        np.testing.assert_array_equal(before[name][:, :start], after[name][:, :start])
        assert np.abs(before[name][:, start] - after[name][:, start]).max() > 1e-6, name


def test_skip_connections_come_from_the_context_after_it():
    """Past the context a frame reaches the decoder by its features alone."""
    model, x = tiny(context_frames=3), videos(time=7)
    taken = []
    decoder = model.decoder

    def spy(inputs, training=None):
        taken.append(numbers(inputs[1]))
        return decoder(inputs, training=training)

    object.__setattr__(model, "decoder", spy)
    model(x)
    maps = numbers(model.encoder(x.reshape(-1, 16, 16, 1))[1]).reshape(2, 7, 16, 16, 4)
    expected = maps[:, [0, 1, 2, 2, 2, 2]]
    np.testing.assert_allclose(taken[0].reshape(expected.shape), expected, atol=1e-6)


def test_a_sequence_is_its_steps():
    recurrent = network("r", 5, 6, 2, 4, "tanh", "float32", "float32")
    x, states = ops.convert_to_tensor(normal(3, 4, 5)), None
    whole, last = advance(recurrent, x)
    steps = []
    for t in range(4):
        outputs, states = advance(recurrent, x[:, t : t + 1], states)
        steps.append(numbers(outputs)[:, 0])
    np.testing.assert_allclose(numbers(whole), np.stack(steps, axis=1), atol=1e-6)
    for a, b in zip(last, states, strict=True):
        np.testing.assert_allclose(numbers(a), numbers(b), atol=1e-6)


@pytest.mark.slower
def test_generation_goes_on_as_the_sequence_path_does():
    """Its own frames, fed back as a video, give the priors that it drew from."""
    model = moved(tiny(block="auto"))
    x, noise = videos(2, 2), normal(2, 1, 4, 3)
    frames = numbers(model.generate(x, 4, noise=noise))[:, 0]
    video = np.concatenate([x, frames], axis=1)
    flat = numbers(model.encoder(video.reshape(-1, 16, 16, 1), training=False)[0])
    features = ops.convert_to_tensor(flat.reshape(2, 6, 8))
    (mean, log_variance), _ = map(numbers, gaussian(model.prior, features[:, :-1]))
    (first, _), _ = map(numbers, gaussian(model.posterior, features[:, 1:2]))
    drawn = mean + np.exp(0.5 * log_variance) * np.pad(
        noise[:, 0], [(0, 0), (1, 0), (0, 0)]
    )
    latents = np.concatenate([first, drawn[:, 1:]], axis=1)
    joined = ops.concatenate([features[:, :-1], latents], axis=-1)
    predicted = advance(model.predictor, joined)[0]
    skips = model.encoder(x[:, 1], training=False)[1:]
    for t in range(4):
        decoded = model.decoder([predicted[:, t + 1], *skips], training=False)
        np.testing.assert_allclose(numbers(decoded), frames[:, t], atol=1e-5)


# Generation


@pytest.mark.slower
@pytest.mark.parametrize("normalization", ["group", "batch"])
def test_generation_is_reproducible_and_a_matter_of_each_video_alone(normalization):
    model = moved(tiny(normalization=normalization))
    x, noise = videos(3, 2), normal(3, 2, 4, 3)
    frames = numbers(model.generate(x, 4, 2, noise=noise))
    assert frames.shape == (3, 2, 4, 16, 16, 1)
    assert 0 <= frames.min() < frames.max() <= 1
    np.testing.assert_array_equal(frames, numbers(model.generate(x, 4, 2, noise=noise)))
    for i in range(3):
        alone = numbers(model.generate(x[i : i + 1], 4, 2, noise=noise[i : i + 1]))
        np.testing.assert_allclose(alone[0], frames[i], atol=1e-5)
    one = numbers(model.generate(x, 4, noise=noise[:, 1:]))
    np.testing.assert_allclose(one[:, 0], frames[:, 1], atol=1e-5)


def test_noise_is_drawn_from_the_seed():
    model, x = tiny(), videos(1, 2)
    same = numbers(model.generate(x, 2, 2)), numbers(tiny().generate(x, 2, 2))
    assert tiny(seed=2).seed == 2
    weights = model.get_weights()
    again, other = tiny(), tiny(seed=2)
    for copy in (again, other):
        state = ops.copy(ops.convert_to_tensor(copy.seed_generator.state))
        copy.set_weights(weights)
        copy.seed_generator.state.assign(state)
    np.testing.assert_allclose(numbers(again.generate(x, 2, 2)), same[0], atol=1e-6)
    assert np.abs(numbers(other.generate(x, 2, 2)) - same[0]).max() > 0
    assert np.abs(same[0][:, 0] - same[0][:, 1]).max() > 0
    assert np.abs(numbers(model.generate(x, 2, 2)) - same[0]).max() > 0


def test_generation_leaves_statistics_alone():
    model = moved(tiny(normalization="batch"))
    before = numbers([w.value for w in model.encoder.non_trainable_weights])
    generator = models.VideoGenerator(model, 2)
    generator(videos(2, 2), training=True)
    after = numbers([w.value for w in model.encoder.non_trainable_weights])
    for a, b in zip(before, after, strict=True):
        np.testing.assert_array_equal(a, b)


def test_predict_is_generate():
    model = moved(tiny())
    generator = models.VideoGenerator(model, 3, 2)
    x, noise = videos(5, 2), normal(5, 2, 3, 3)
    inputs = {"context": x, "noise": noise}
    predicted = generator.predict(inputs, batch_size=2, verbose=0)
    expected = numbers(model.generate(x, 3, 2, noise=noise))
    np.testing.assert_allclose(predicted, expected, atol=1e-5)
    drawn = [generator.predict(x, batch_size=2, verbose=0) for _ in range(2)]
    assert drawn[0].shape == (5, 2, 3, 16, 16, 1)
    assert np.abs(drawn[0] - drawn[1]).max() > 0
    assert np.abs(drawn[0][:, 0] - drawn[0][:, 1]).max() > 0


def test_actions_lead_from_a_frame_to_the_next():
    model = tiny(action_dim=2)
    x, actions = videos(4, 6), normal(4, 6, 2)
    model.compile()
    losses = model.evaluate({"frames": x, "actions": actions}, verbose=0)
    assert np.isfinite(losses).all()
    changed = actions.copy()
    changed[:, 3] += 1
    before, after = (
        same_draws(model, {"frames": x, "actions": a}) for a in (actions, changed)
    )
    # The action of frame 3 leads to frame 4, which is at 3.
    for name in before:
        np.testing.assert_array_equal(before[name][:, :3], after[name][:, :3])
        assert np.abs(before[name][:, 3] - after[name][:, 3]).max() > 0
    noise = normal(4, 1, 4, 3)
    generator = models.VideoGenerator(model, 4)
    inputs = {"context": x[:, :2], "noise": noise, "actions": actions}
    frames = generator.predict(inputs, verbose=0)
    other = generator.predict({**inputs, "actions": changed}, verbose=0)
    np.testing.assert_allclose(frames[:, :, :2], other[:, :, :2], atol=1e-6)
    assert np.abs(frames[:, :, 2] - other[:, :, 2]).max() > 0


# Keras


@pytest.mark.slower
def test_a_block_learns_and_is_saved(tmp_path):
    model, x = tiny(block="trig"), np.tile(videos(1, 4), (8, 1, 1, 1, 1))
    # Keras traces a step of Adam twice, each time for seconds.
    model.compile(keras.optimizers.SGD(0.5))
    losses = model.fit(x, batch_size=2, epochs=8, verbose=0).history["loss"]
    assert losses[-1] < 0.9 * losses[0]
    noise = normal(8, 1, 2, 3)
    frames = numbers(model.generate(x[:, :2], 2, noise=noise))
    generator = models.VideoGenerator(model, 2)
    model.save(tmp_path / "model.keras")
    generator.save(tmp_path / "generator.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(
        numbers(again.generate(x[:, :2], 2, noise=noise)), frames, atol=1e-5
    )
    served = keras.models.load_model(tmp_path / "generator.keras").predict(
        {"context": x[:, :2], "noise": noise}, verbose=0
    )
    np.testing.assert_allclose(served, frames, atol=1e-5)


def test_a_compiled_model_is_loaded_compiled(tmp_path):
    model = tiny()
    model(videos())
    model.compile(keras.optimizers.Adam(0.5))
    model.optimizer.build(model.trainable_variables)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert again.compiled and float(again.optimizer.learning_rate) == 0.5
    assert len(again.optimizer.variables) > 2 * len(again.trainable_variables)


def test_configuration():
    changes = {
        "block": "trig",
        "basis": bases.Trigonometric(2),
        "context_frames": 3,
        "steps": 2,
        "beta": 0.5,
        "normalization": "batch",
        "adjoint": keras_nanode.Checkpoint(2),
        "layout": "original",
        "action_dim": 4,
        "dtype": "mixed_bfloat16",
        "name": "a_name",
    }
    model = tiny(**changes)
    config = json.loads(json.dumps(model.get_config()))
    again = models.SVG.from_config(config)
    assert json.loads(json.dumps(again.get_config())) == config
    for name, value in {**TINY, **changes, "seed": 1}.items():
        if name != "dtype":
            assert getattr(again, name) == value, name
    assert again.dtype_policy.name == "mixed_bfloat16"
    assert [w.shape for w in again.weights] == [w.shape for w in model.weights]
    assert keras.saving.serialize_keras_object(model)["registered_name"] == (
        "keras_nanode>SVG"
    )


@pytest.mark.slower
@pytest.mark.skipif(
    keras.backend.backend() == "torch", reason="XLA is TensorFlow's and JAX's"
)
def test_compiled_by_xla():
    model, x = tiny(block="trig"), videos(4, 4)
    plain = same_draws(model, x)["reconstruction"]
    model.compile(keras.optimizers.SGD(1e-3), jit_compile=True)
    history = model.fit(x, batch_size=4, epochs=2, verbose=0).history["loss"]
    assert np.isfinite(history).all() and plain.shape == (4, 3, 16, 16, 1)
    noise = normal(4, 1, 2, 3)
    generator = models.VideoGenerator(model, 2)
    generator.compile(jit_compile=True)
    inputs = {"context": x[:, :2], "noise": noise}
    np.testing.assert_allclose(
        generator.predict(inputs, verbose=0),
        numbers(model.generate(x[:, :2], 2, noise=noise)),
        atol=1e-4,
    )


@pytest.mark.parametrize("block", ["conv", "trig"])
def test_mixed_precision(block):
    reference = tiny(block=block)
    model = tiny(block=block, dtype="mixed_bfloat16")
    model.set_weights(reference.get_weights())
    assert model.encoder.outputs[0].dtype == "bfloat16"
    x = videos(2, 4)
    exact, outputs = same_draws(reference, x), same_draws(model, x)
    for name, value in outputs.items():
        assert value.dtype == "float32", name
        assert np.abs(value - exact[name]).max() < 0.05, name
    assert {w.dtype for w in model.trainable_weights} == {"float32"}
    assert numbers(model.generate(x[:, :2], 2)).dtype == "float32"


SERVE = """
import sys
import numpy as np
import tensorflow as tf
sys.modules["keras_nanode"] = None  # an import of it would fail
folder = sys.argv[1]
given = np.load(f"{folder}/given.npz")
context, noise = given["context"], given["noise"]
drawn, fixed = (tf.saved_model.load(f"{folder}/{n}") for n in ("drawn", "fixed"))
first, second = drawn.serve(context).numpy(), drawn.serve(context).numpy()
assert first.shape == given["frames"].shape and np.abs(first - second).max() > 0
frames = fixed.serve({"context": context, "noise": noise}).numpy()
print(f"difference {np.abs(frames - given['frames']).max():.2e}")
assert np.abs(frames - given["frames"]).max() < 1e-5
"""


@on_tensorflow
@pytest.mark.slower
def test_a_saved_generator_is_served_without_this_library(tmp_path):
    model = moved(tiny(block="trig"))
    generator = models.VideoGenerator(model, 3, 2)
    with_noise = generator.input_signature(noise=True)
    generator.export(str(tmp_path / "drawn"), verbose=False)
    generator.export(str(tmp_path / "fixed"), verbose=False, input_signature=with_noise)
    # A batch size that was never seen.
    x, noise = videos(5, 2, seed=3), normal(5, 2, 3, 3)
    frames = generator.predict({"context": x, "noise": noise}, verbose=0)
    np.savez(tmp_path / "given.npz", context=x, noise=noise, frames=frames)
    run = subprocess.run(
        [sys.executable, "-c", SERVE, tmp_path], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("difference")


@on_tensorflow
@pytest.mark.slower
def test_training_on_a_dataset_of_videos():
    import tensorflow as tf

    dataset = tf.data.Dataset.from_tensor_slices(videos(4)).batch(2)
    model = tiny()
    model.compile("sgd")
    history = model.fit(
        dataset, validation_data=dataset, shuffle=False, verbose=0
    ).history
    names = ("loss", "mse", "kl_nats", "nelbo_per_frame", "nelbo_per_pixel")
    assert set(history) == {*names, *(f"val_{name}" for name in names)}


# Errors


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frame_shape": (24, 16, 1)}, r"multiples of 16.*frame_shape=\(24, 16, 1\)"),
        ({"frame_shape": (16, 16)}, r"height, width, channels.*=\(16, 16\)"),
        ({"context_frames": 0}, "Received: context_frames=0"),
        ({"block": "app"}, "'conv', 'auto'.*Received: block='app'"),
        ({"basis": bases.Bucket(2)}, r"takes no `basis`.*Received: basis=Bucket\("),
        (
            {"block": "trig", "basis": bases.Bucket(2)},
            r"takes a `keras_nanode.bases.Trigonometric`.*Received: basis=Bucket\(",
        ),
        ({"filters": (4, 4, 8)}, r"four widths.*Received: filters=\(4, 4, 8\)"),
        ({"beta": -1}, "at least 0. Received: beta=-1"),
        ({"normalization": None}, "'batch'.*Received: normalization=None"),
        ({"layout": "vgg"}, "'original'.*Received: layout='vgg'"),
        ({"latent_dim": 0}, "Received: latent_dim=0"),
        ({"steps": 0}, "Received: steps=0"),
    ],
)
def test_bad_arguments(changes, message):
    with pytest.raises(ValueError, match=message):
        tiny(**changes)


def test_an_unknown_preset():
    with pytest.raises(ValueError, match="'original'.*Received: preset='large'"):
        models.SVG.from_preset("large")


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (255 * videos(), r"in \[0, 1\]. Divide bytes by 255.*Received: frames in \[0"),
        (videos() - 0.5, r"in \[0, 1\].*Received: frames in \[-0.49"),
        ((255 * videos()).astype("uint8"), "floating.*/ 255.*frames with dtype=uint8"),
        (videos(time=2), "at least 3 frames.*Received: frames with 2 frames"),
        (videos(channels=3), r"frames of shape \(16, 16, 1\).*\(2, 6, 16, 16, 3\)"),
        (videos()[0], r"\(batch, time, .*Received: frames with shape \(6, 16, 16, 1\)"),
    ],
)
def test_bad_videos(x, message):
    with pytest.raises(ValueError, match=message):
        tiny()(x)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (255 * videos(), r"`frames` must be in \[0, 1\]. Divide bytes by 255"),
        ((255 * videos()).astype("uint8"), "Received: frames with dtype=uint8"),
    ],
)
def test_bad_videos_stop_a_compiled_function(x, message):
    model = tiny()
    model.compile()
    # Not a ValueError on every backend when it only shows at run time.
    with pytest.raises(Exception, match=message):
        model.evaluate(((batch,) for batch in [x]), verbose=0)
        backend.await_reports()


def test_targets_are_refused():
    model = tiny()
    model.compile("adam")
    with pytest.raises(ValueError, match="from videos alone.*Received: targets="):
        model.fit(videos(), np.zeros(2), verbose=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_frames": 0}, "Received: num_frames=0"),
        ({"num_samples": 0}, "Received: num_samples=0"),
        ({"context": videos(2, 1)}, "at least 2 frames.*Received: context with 1"),
        ({"context": 2 * videos(2, 2)}, r"in \[0, 1\].*Received: context in \[0"),
        ({"noise": normal(2, 1, 3, 4)}, r"here \(2, 1, 3, 3\).*\(2, 1, 3, 4\)"),
        ({"actions": normal(2, 5, 2)}, r"takes no `actions`. Received: .*\(2, 5, 2\)"),
    ],
)
def test_bad_generation(arguments, message):
    with pytest.raises(ValueError, match=message):
        tiny().generate(**{"context": videos(2, 2), "num_frames": 3, **arguments})


@pytest.mark.parametrize("actions", [None, normal(2, 3, 2), normal(2, 9, 3)])
def test_missing_or_wrong_actions(actions):
    with pytest.raises(ValueError, match=r"\(batch, time, 2\).*at least 4"):
        tiny(action_dim=2).generate(videos(2, 2), 3, actions=actions)


def test_bad_generators():
    with pytest.raises(ValueError, match="keras_nanode.models.SVG.*Received: model="):
        models.VideoGenerator(keras.Sequential(), 3)
    with pytest.raises(ValueError, match="Received: num_frames=0"):
        models.VideoGenerator(tiny(), 0)
    generator = models.VideoGenerator(tiny(), 3)
    with pytest.raises(ValueError, match=r"'noise'.*the keys \('frames',\)"):
        generator({"frames": videos(2, 2)})


class Batches(keras.utils.PyDataset):
    def __init__(self, batch):
        super().__init__()
        self.batch = batch

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return self.batch


@pytest.mark.parametrize("value", [1.5, np.nan])
def test_a_video_out_of_range_is_refused_or_its_prediction_is_nan(value):
    model = tiny()
    generator = models.VideoGenerator(model, num_frames=2, num_samples=2)
    x = videos(2, 2)
    x[1, 0, 3, 4] = value
    with pytest.raises(ValueError, match=r"`context` must be in \[0, 1\].*Received"):
        generator.predict(x, verbose=0)
    with pytest.raises(ValueError, match=r"`context` must be in \[0, 1\].*Received"):
        generator.predict({"context": x}, verbose=0)
    if keras.backend.backend() == "torch":
        return  # it knows all values
    # Of a dataset nothing is known beforehand, and in a compiled function never.
    video = generator.predict(Batches(x), verbose=0)
    assert np.isfinite(video[0]).all() and np.isnan(video[1]).all()
    seen = videos(2, 5)
    seen[1, 0, 3, 4] = value
    predicted = model.predict(Batches(seen), verbose=0)["reconstruction"]
    assert np.isfinite(predicted[0]).all() and np.isnan(predicted[1]).all()


@on_tensorflow
def test_an_exported_generator_says_so_too(tmp_path):
    import tensorflow as tf

    generator = models.VideoGenerator(tiny(), num_frames=2)
    generator.export(str(tmp_path / "model"), verbose=False)
    x = videos(2, 2)
    x[1] = 255
    served = tf.saved_model.load(str(tmp_path / "model"))
    video = numbers(served.serve(x))
    assert np.isfinite(video[0]).all() and np.isnan(video[1]).all()


@pytest.mark.parametrize("floatx", ["float16", "bfloat16", "float64"])
def test_latents_do_not_depend_on_floatx(floatx):
    before = keras.config.floatx()
    keras.config.set_floatx(floatx)
    try:
        model = tiny(dtype="float32")
        outputs = model(videos(time=3))
        future = model.generate(videos(time=2), num_frames=1)
    finally:
        keras.config.set_floatx(before)
    assert {keras.backend.standardize_dtype(x.dtype) for x in outputs.values()} == {
        "float32"
    }
    assert np.isfinite(numbers(future)).all()


def test_a_batch_without_videos_has_no_loss_and_no_gradient():
    # TensorFlow's own convolutions stop at one on some processors: so the parts alone.
    for batch in (0, 2):
        x = normal(batch, 5, 2, 2, 1)
        kept = numbers(held(ops.convert_to_tensor(x), 2))
        np.testing.assert_array_equal(kept, x[:, [0, 1, 1, 1]])
        (found,) = gradients(lambda x: held(x, 2), x)
        expected = 2 * x * np.array([1, 3, 0, 0, 0]).reshape((5, 1, 1, 1))
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert numbers(mean(ops.zeros((0,)))) == 0
    assert numbers(mean(ops.convert_to_tensor([1.0, 2.0]))) == 1.5
