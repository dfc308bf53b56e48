"""Every public call, metric and file that is given something malformed says so.

The constructors have their own battery, in `test_constructors.py`.
"""

import pickle
import re
import warnings

import keras
import numpy as np
import pytest
from keras import ops

import keras_nanode
from keras_nanode import bases, callbacks, datasets, layers, metrics, models, odeint

X = np.ones((2, 3), "float32")
IMAGES = np.ones((2, 8, 8, 3), "float32")
THING = object()
COLUMN = np.ones((2, 1), "float32")
NO_TENSOR = {"None": None, "text": "abc", "dict": {"a": X}, "thing": THING}
NO_NUMBER = {**NO_TENSOR, "complex": 1j, "boolean": True, "texts": ["a"]}
NO_TIME = {
    **NO_NUMBER,
    "two": [0.1, 0.2],
    "column": COLUMN,
    "NaN": np.nan,
    "infinity": np.inf,
    "empty": [],
}
NO_COUNT = {"0": 0, "-1": -1, "1.5": 1.5, "None": None, "text": "a", "True": True}
NO_CONFIG = {"None": None, "list": [], "text": "a", "number": 3}

# What Keras and Python say of the same thing to a layer of Keras.
STANDARD = (
    "Only input tensors may be passed as positional arguments",
    "Invalid dtype: str",
    "Unrecognized data type",
    "Unrecognized keyword arguments passed to",
    "multiple values for argument",
    "too many positional arguments",
)


def outcome(call):
    """None if a malformed call is refused in words, else what happened."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            call()
    except (ValueError, TypeError) as error:
        # Not the arguments that Keras adds to each error of a layer.
        text = re.sub(r"\x1b\[\d+m", "", str(error)).partition("Arguments received")[0]
        if re.search("[Rr]eceived|missing|unexpected", text) and len(text) < 1200:
            return None
        if any(words in text for words in STANDARD):
            return None
        return f"raw {type(error).__name__}: {text[:300]}"
    except Exception as error:
        return f"raw {type(error).__name__}: {error!s:.300}"
    return "accepted"


def check(function, malformed):
    """Calls the function with each malformed value, and says which are not refused."""
    found = {name: outcome(lambda v=v: function(v)) for name, v in malformed.items()}
    bad = [f"{name}: {what}" for name, what in found.items() if what]
    print(f"{len(found)} malformed uses, {len(bad)} not refused")
    assert not bad, "\n".join(bad)


def dense():
    return keras.layers.Dense(3)


# Each public kind of layer, with an input and what else its call takes.
LAYERS = {
    "ODE": (lambda: layers.ODE(dense(), "rk4", 2), X, {}),
    "TimeVarying": (lambda: layers.TimeVarying(dense(), "trig"), X, {"t": 0.5}),
    "TimeAppended": (lambda: layers.TimeAppended(dense()), X, {"t": 0.5}),
    "Augment": (lambda: layers.Augment(2), X, {}),
    "ResidualStack": (lambda: layers.ResidualStack(dense(), 2), X, {}),
    "DenseBlock": (layers.DenseBlock, X, {}),
    "ConvBlock": (layers.ConvBlock, IMAGES, {}),
    "TrigDenseODE": (lambda: layers.TrigDenseODE(1, steps=2), X, {}),
    "BucketConvODE": (lambda: layers.BucketConvODE(2, steps=2), IMAGES, {}),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_refuses_what_is_no_input(name):
    make, x, time = LAYERS[name]
    malformed = {
        **NO_TENSOR,
        "list": [x, x],
        "tuple": (),
        "ragged": [[1.0, 2.0], [3.0]],
        "texts": np.full(x.shape, "a"),
        "complex": x.astype("complex64"),
        "scalar": np.float32(1),
    }
    layer = make()
    expected = ops.convert_to_numpy(layer(x, **time))
    check(lambda v: layer(v, **time), malformed)
    check(lambda v: make()(v, **time), malformed)
    check(lambda v: layer(inputs=v, **time), {"None": None, "list": [x, x]})
    check(lambda _: layer(x, x, x, **time), {"three inputs": None})
    if name != "Augment":  # which has no weights
        wider = np.ones((*x.shape[:-1], 4), "float32")
        check(lambda v: layer(v, **time), {"channels": wider})
    if "ODE" in name:
        check(lambda v: layer(v), {"integers": x.astype(int), "booleans": x > 0})
    # What was refused changed nothing, and NaN may come in.
    np.testing.assert_array_equal(ops.convert_to_numpy(layer(x, **time)), expected)
    assert layer(np.nan * x, **time).shape == expected.shape


@pytest.mark.parametrize("name", ["TimeVarying", "TimeAppended"])
def test_a_time_is_one_number(name):
    make, x, _ = LAYERS[name]
    layer = make()
    check(lambda t: make()(x, t=t), NO_TIME)
    expected = ops.convert_to_numpy(layer(x, t=1.0))
    check(lambda t: layer(x, t=t), NO_TIME)
    check(lambda _: layer(x), {"no time": None})
    for t in (1, np.float64(1), np.array(1.0), ops.ones(()), ops.ones((1,)), [1.0]):
        found = ops.convert_to_numpy(layer(x, t=t))
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert layer(keras.KerasTensor((2, 3)), t=keras.KerasTensor(())).shape == (2, 3)


@pytest.mark.parametrize("name", ["ODE", "TrigDenseODE", "BucketConvODE"])
def test_an_inverse_refuses_what_is_no_output(name):
    make, x, _ = LAYERS[name]
    layer = make()
    malformed = {
        **NO_TENSOR,
        "integers": x.astype(int),
        "complex": x.astype("complex64"),
    }
    check(lambda y: make().inverse(y), malformed)
    layer(x)
    check(layer.inverse, {**malformed, "channels": np.ones((*x.shape[:-1], 5))})


def test_weights_are_asked_for_at_finite_times_of_the_domain():
    layer = layers.TimeVarying(dense(), bases.BSpline(4))
    ode = layers.ODE(layer, steps=2)
    check(ode.weights_at, {"not built": 0.5})
    ode(X)
    malformed = {
        **NO_NUMBER,
        "column": COLUMN,
        "NaN": np.nan,
        "a NaN": [0.0, np.nan],
        "infinity": np.inf,
        "outside": 2.0,
        "one outside": [0.5, -1.0],
    }
    check(ode.weights_at, malformed)
    check(layer.weights_at, malformed)
    assert ode.weights_at([0.0, 1.0])[0].shape == (2, 3, 3)
    assert ode.weights_at([0.0, ops.ones(())])[0].shape == (2, 3, 3)
    check(lambda t: layers.ODE(dense()).weights_at(t), {"do not vary": 0.5})


@pytest.mark.parametrize("name", bases.ALL)
def test_a_basis_takes_times_and_configurations(name):
    basis = bases.get(name)
    times = {**NO_NUMBER, "NaN": np.nan, "infinity": [np.inf]}
    check(basis, times)
    check(type(basis).from_config, {**NO_CONFIG, "unknown": {"a": 1}})
    values = [basis(t) for t in (0.5, np.float32(0.5), ops.convert_to_tensor(0.5))]
    for z in values:
        pair = map(ops.convert_to_numpy, (z, values[0]))
        np.testing.assert_allclose(*pair, rtol=1e-5, atol=1e-6)
    assert basis([0.25, 0.5]).shape == (2, basis.size)


CONFIGURABLE = [
    *(getattr(layers, name) for name in layers.__all__),
    *(models.SVG, models.VideoGenerator),
    *(keras_nanode.Adaptive, keras_nanode.Checkpoint, keras_nanode.Reversible),
    keras_nanode.tableaus.Tableau,
]
# Classes whose arguments all have defaults.
FROM_NOTHING = ("Adaptive", "Checkpoint", "DenseBlock", "ConvBlock", "SVG")


@pytest.mark.parametrize("owner", CONFIGURABLE, ids=lambda owner: owner.__name__)
def test_a_configuration_is_a_dict_of_what_the_class_takes(owner):
    malformed = {**NO_CONFIG, "unknown": {"a": 1}}
    if owner.__name__ not in FROM_NOTHING:
        malformed["missing"] = {}
    check(owner.from_config, malformed)


def decay(t, y, *args):
    return -y


def test_odeint_refuses_malformed_states_and_arguments():
    times = [0.0, 1.0]
    check(
        lambda args: odeint(decay, X, times, args=args),
        {"number": 1, "None": None, "text": "ab", "dict": {"a": 1.0}, "set": {1.0}},
    )
    check(
        lambda y: odeint(decay, y, times),
        {
            **{name: y for name, y in NO_NUMBER.items() if name != "dict"},
            "integers": np.array([1, 2]),
            "with a text": [X, "a"],
            "with integers": [X, np.array([1])],
            "empty": [],
            "with None": {"a": None},
        },
    )
    check(
        lambda t: odeint(decay, X, t),
        {
            **{name: t for name, t in NO_TIME.items() if name != "two"},
            "one": [0.0],
            "axes": [[0.0, 1.0]],
            "back": [0.0, 1.0, 0.5],
        },
    )
    check(
        lambda value: odeint(lambda t, y: value, ops.ones((2, 3)), times),
        {
            "None": None,
            "text": "a",
            "shape": np.ones(7),
            "pair": (X, X),
            "thing": THING,
        },
    )


# Metrics.

FRAME = np.random.default_rng(0).random((12, 12, 1)).astype("float32")
VIDEOS = np.stack([FRAME[None]] * 2)
SAMPLES = np.stack([VIDEOS] * 3, axis=1)


@pytest.mark.parametrize("metric", [metrics.psnr, metrics.ssim])
def test_metrics_compare_frames_in_0_to_1(metric):
    malformed = {
        **NO_TENSOR,
        "bytes' range": 255 * FRAME,
        "around 0": 2 * FRAME - 1,
        "infinity": FRAME * np.inf,
        "bytes": (255 * FRAME).astype("uint8"),
        "booleans": FRAME > 0.5,
        "complex": FRAME.astype("complex64"),
        "no channels": FRAME[:, :, 0],
        "other height": FRAME[:10],
        "empty": FRAME[:, :0],
        "scalar": 0.5,
    }
    check(lambda a: metric(a, FRAME), malformed)
    check(lambda b: metric(FRAME, b), malformed)
    check(lambda b: metric(np.stack([FRAME] * 2), b), {"batch": np.stack([FRAME] * 3)})
    assert metric(np.stack([FRAME] * 2), FRAME).shape == (2,)
    assert np.isnan(ops.convert_to_numpy(metric(FRAME, FRAME * np.nan)))


def test_small_frames_have_no_structural_similarity():
    check(lambda x: metrics.ssim(x, x), {"small": FRAME[:4, :4]})


def test_the_best_sample_is_asked_for_of_what_fits():
    def best(videos=VIDEOS, samples=SAMPLES, metric=metrics.psnr):
        return metrics.best_of(metric, videos, samples)

    check(best, {**NO_TENSOR, "bytes' range": 255 * VIDEOS, "frame": FRAME})
    check(
        lambda samples: best(samples=samples),
        {
            **NO_TENSOR,
            "bytes' range": 255 * SAMPLES,
            "no samples": SAMPLES[:, :0],
            "batch": SAMPLES[:1],
            "NaN": SAMPLES * np.nan,
        },
    )
    check(
        lambda value: best(metric=lambda a, b: value),
        {"None": None, "number": 1.0, "text": "a", "shape": np.ones(3), "frames": X},
    )
    assert best().index.shape == (2,)


def test_a_frechet_distance_is_that_of_finite_features():
    features = np.random.default_rng(0).random((3, 2))
    check(
        lambda value: metrics.frechet_distance(VIDEOS, VIDEOS, lambda x: value),
        {
            **NO_TENSOR,
            "NaN": np.nan * features,
            "infinity": np.inf * features,
            "complex": 1j * features,
            "one video": features[:1],
            "no features": features[:, :0],
        },
    )


# Models.

CLASSIFIER = {"input_shape": (8, 8, 1), "classes": 3, "filters": 4, "hidden_filters": 2}
UNKNOWN = {
    "start": "unknown",
    "solver": "unknown",
    "adjoint": "unknown",
    "normalization": "unknown",
    "basis": "unknown",
    "t_span": (1.0, 1.0),
    "use_bias": 3,
}


@pytest.mark.parametrize("block", ["trig", "auto", "app", "con_resnet", "uncon_resnet"])
def test_a_classifier_refuses_arguments_that_its_block_has_no_use_for_too(block):
    def make(item):
        models.classifier(
            **{**CLASSIFIER, "block": block, "steps": 2, item[0]: item[1]}
        )

    check(make, {item[0]: item for item in UNKNOWN.items()})


def test_a_model_is_materialized_for_numbers_of_steps():
    model = keras.Sequential([keras.Input((3,)), layers.TrigDenseODE(1, steps=2)])
    check(models.materialize, {**NO_TENSOR, "class": keras.Model})
    check(
        lambda steps: models.materialize(model, steps),
        {"0": 0, "1.5": 1.5, "text": "a", "list": [1], "True": True},
    )


def test_a_callback_can_be_told_of_a_batch_alone():
    callback = callbacks.Evaluations()
    callback.on_train_batch_end(0, {})
    callback.on_train_end()


SIZES = {"filters": (2, 2, 2, 2), "feature_dim": 2, "latent_dim": 2, "rnn_units": 2}
CLIPS = np.random.default_rng(0).random((2, 4, 16, 16, 1)).astype("float32")
ACTIONS = np.ones((2, 4, 2), "float32")
NOISE = np.ones((2, 1, 3, 2), "float32")
NO_VIDEOS = {
    **NO_TENSOR,
    "bytes": (255 * CLIPS).astype("uint8"),
    "bytes' range": 255 * CLIPS,
    "frames": CLIPS[0],
    "channels": CLIPS[..., [0, 0]],
    "few": CLIPS[:, :1],
    "complex": CLIPS.astype("complex64"),
}


@pytest.fixture(scope="module")
def svg():
    model = models.SVG((16, 16, 1), **SIZES)
    model.compile("sgd")
    return model


def test_a_video_model_is_called_with_videos(svg):
    malformed = {
        **NO_VIDEOS,
        "list": [CLIPS, CLIPS],
        "pair": (CLIPS, ACTIONS),
        "no frames": {"frames": None},
        "more": {"frames": CLIPS, "x": CLIPS},
        "actions": {"frames": CLIPS, "actions": ACTIONS},
    }
    check(svg, malformed)
    check(lambda x: svg.fit(x, verbose=0), malformed)
    check(lambda context: svg.generate(context, 2), NO_VIDEOS)
    for count in (
        lambda n: svg.generate(CLIPS, n),
        lambda n: svg.generate(CLIPS, 1, n),
    ):
        check(count, NO_COUNT)


def test_noise_is_finite_and_for_each_video(svg):
    malformed = {
        **{name: x for name, x in NO_TENSOR.items() if name != "None"},
        "batch of one": NOISE[:1],
        "batch of three": NOISE[[0, 0, 0]],
        "NaN": NOISE * np.nan,
        "integers": NOISE.astype(int),
        "booleans": NOISE > 0,
        "complex": NOISE.astype("complex64"),
        "frames": NOISE[:, :, :2],
        "latent": NOISE[..., :1],
    }
    check(lambda noise: svg.generate(CLIPS, 3, noise=noise), malformed)
    generator = models.VideoGenerator(svg, 3)
    check(lambda noise: generator({"context": CLIPS, "noise": noise}), malformed)
    check(generator, {**NO_VIDEOS, "list": [CLIPS]})
    check(lambda x: generator.predict(x, verbose=0), {**NO_VIDEOS, "list": [CLIPS]})
    check(generator.input_signature, {"text": "a"})


def test_actions_are_for_each_video():
    model = models.SVG((16, 16, 1), action_dim=2, **SIZES)
    malformed = {
        **NO_TENSOR,
        "batch": ACTIONS[:1],
        "few": ACTIONS[:, :1],
        "size": ACTIONS[..., :1],
        "rank": ACTIONS[0],
        "complex": 1j * ACTIONS,
    }
    check(lambda a: model({"frames": CLIPS, "actions": a}), malformed)
    check(lambda a: model.generate(CLIPS, 1, actions=a), malformed)


def test_a_video_model_learns_from_videos_alone(svg):
    weights = [np.copy(w) for w in svg.get_weights()]
    more = {
        "targets": {"y": CLIPS},
        "weights": {"sample_weight": np.ones(2)},
        "classes": {"class_weight": {0: 1.0}},
    }
    check(lambda arguments: svg.fit(CLIPS, verbose=0, **arguments), more)
    del more["classes"]
    check(lambda arguments: svg.evaluate(CLIPS, verbose=0, **arguments), more)
    check(lambda arguments: svg.train_on_batch(CLIPS, **arguments), more)
    check(lambda arguments: svg.test_on_batch(CLIPS, **arguments), more)
    check(lambda loss: svg.compile("sgd", loss), {"loss": "mse"})
    for one, other in zip(svg.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(one, other)


# Files.


def written(path, **arrays):
    np.savez(path, **arrays)
    return path


def test_a_file_of_clips_is_read_whole_or_refused(tmp_path):
    numbers = np.random.default_rng(0)
    video = numbers.integers(0, 255, (8, 5, 4, 4, 3)).astype("uint8")
    actions = numbers.normal(size=(8, 5, 2))
    path = tmp_path / "clips.npz"

    def read(arrays):
        return datasets.bair(written(path, **arrays), num_frames=3, batch_size=2)

    read({"video": video})
    check(
        read,
        {
            "nothing": {},
            "other names": {"a": video},
            "no pixels": {"video": video[:, :, :0]},
            "no frames": {"video": video[:, :0]},
            "no clips": {"video": video[:0]},
            "floats": {"video": video / 255},
            "rank": {"video": video[0]},
            "objects": {"video": np.array([None] * 3, object)},
        },
    )
    check(
        lambda a: datasets.bair(
            written(path, video=video, actions=a), num_frames=3, actions=True
        ),
        {
            "NaN": actions * np.nan,
            "beyond float32": actions * 1e300,
            "clips": actions[:3],
            "empty": actions[..., :0],
            "texts": np.full(actions.shape, "a"),
            "complex": 1j * actions,
            "objects": actions.astype(object),
        },
    )
    whole = written(path, video=video).read_bytes()

    def read_bytes(content):
        path.write_bytes(content)
        return datasets.bair(path, num_frames=3)

    damaged = {
        "truncated": whole[: len(whole) // 2],
        "empty": b"",
        "text": b"hello",
        "a byte": whole[:300] + bytes([whole[300] ^ 255]) + whole[301:],
        "a pickle": pickle.dumps(video),
    }
    check(read_bytes, damaged)
    assert path.read_bytes() == damaged["a pickle"]
    check(datasets.bair, {"missing": tmp_path / "missing.npz"})
