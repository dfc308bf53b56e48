"""Every public argument of a wrong type or range is refused in words that name it."""

import warnings

import keras
import numpy as np
import pytest

import keras_nanode
from keras_nanode import Adaptive, bases, datasets, layers, metrics, models, odeint


class Nothing:
    """A thing that is no argument of anything."""


NOTHING = Nothing()
SYMBOL = keras.KerasTensor((2,))
NOT_A_NUMBER = ["3", [1], {}, NOTHING, 1j, np.nan, float("inf"), True, np.ones(2)]

# What a damaged file may hold in place of an object.
CONFIGS = [
    {},
    {"a": 1},
    {"class_name": "Foo", "config": {}},
    {"class_name": "Adaptive", "config": 3, "registered_name": "keras_nanode>Adaptive"},
    {
        "class_name": "Bucket",
        "config": {"a": 1},
        "registered_name": "keras_nanode>Bucket",
    },
    keras.saving.serialize_keras_object(keras.layers.Dense(3)),
]

# What is no such argument, by its kind.
WRONG = {
    "positive integer": [0, -1, 1.5, None, *NOT_A_NUMBER],
    "integer or None": [0, -1, 1.5, *NOT_A_NUMBER],
    "integer of at least 0": [-1, 1.5, None, *NOT_A_NUMBER],
    "positive number": [0.0, -1.0, None, 10**400, *NOT_A_NUMBER],
    "number of at least 0": [-1.0, None, 10**400, *NOT_A_NUMBER],
    "fraction": [0.0, 1.5, -1, None, 10**400, *NOT_A_NUMBER],
    "boolean": [0, 1, "yes", None, [], np.ones(2)],
    "layer": ["dense", None, 3, keras.layers.Dense, lambda x: x, NOTHING],
    "basis": [
        "trigs",
        None,
        3,
        bases.Trigonometric,
        "trigonometric",
        [],
        NOTHING,
        *CONFIGS,
    ],
    "basis or None": ["trigs", 3, bases.Trigonometric, [], NOTHING, *CONFIGS],
    "solver": ["rk45", "", None, 4, Nothing, [], NOTHING, *CONFIGS],
    "adjoint": ["adjoints", None, 4, keras_nanode.Checkpoint, [], NOTHING, *CONFIGS],
    "steps": [0, -1, 2.5, "many", True, [], Adaptive, np.nan, NOTHING, *CONFIGS],
    "span": [
        *(None, 1.0, (0, 0), (0,), (0, 1, 2), (0, np.nan), "ab", (0, "b"), NOTHING),
        *([[0, 1], 2], [[0, 1], [1, 2]], [0, 10**400], 1j, SYMBOL),
    ],
    "span or None": [
        *(1.0, (0, 0), (0,), (0, 1, 2), (0, np.nan), "ab", "auto", (0, "b"), NOTHING),
        *([[0, 1], 2], [0, 10**400], 1j, SYMBOL),
    ],
    "domain": [None, 1.0, (1, 0), (0, 0), (0,), (0, np.inf), "ab", (0, "b"), NOTHING],
    "start": ["layers", None, 0, [], NOTHING],
    "normalization": ["batch", 3, [], NOTHING],
    "activation": ["tank", 3, [], NOTHING],
    "initializer": ["glorot", 3, [], NOTHING],
    "regularizer": ["l9", 3, [], NOTHING],
    "constraint": ["nonneg", 3, [], NOTHING],
    "kernel size": [0, -1, 1.5, "3", (3, 3, 3, 3), (), None, NOTHING],
    "image shape": [None, 3, (8, 8), (8, 8, 0), ("8", 8, 1), (8.5, 8, 1), NOTHING],
    "block": ["trigs", None, 3, [], bases.Bucket, NOTHING],
    "widths": [None, 8, (8, 8), (8, 8, 8, 0), ("8", 8, 8, 8), NOTHING],
    "function": [None, 3, "f", NOTHING],
    "state": [None, "y", NOTHING, 1j, [], {}, True, 3, [1, 2], np.ones(2, complex)],
    "times": [None, "t", 1.0, [0.0], [0, 0.5, 0.2], [0, np.nan], ["a", "b"], NOTHING],
    "knots": ["t", 1j, [[0.2]], 0.2, [0.5, 0.6], [2.0], [np.nan], ["a"], NOTHING],
    "args": [
        None,
        2.0,
        "ab",
        {"a": 1.0},
        np.ones(2),
        (NOTHING,),
        ("a",),
        (1j,),
        (SYMBOL,),
    ],
    "model": [None, "model", 3, NOTHING, keras.Sequential],
    "layers": [3, "flaw", [None], ["a", 3], [], NOTHING],
    "video model": [None, "model", 3, NOTHING, models.SVG],
    "seed": ["1", 1.5, [], NOTHING, -1],
    "seed or None": ["1", 1.5, [], NOTHING],
    "split": [None, 3, [], NOTHING],
    "frames": [None, "a", 3, np.ones(3), np.ones((4, 4, 1), int), NOTHING],
    "videos": [None, "a", 3, np.ones(3), np.ones((1, 2, 4, 4)), NOTHING],
    "mode": ["most", None, 3, [], NOTHING],
    "time": [None, "t", np.ones((2, 2)), NOTHING, 1j],
    "preset": ["papers", None, 3, [], NOTHING],
}

MAP = {
    "activation": "activation",
    "normalization": "normalization",
    "use_bias": "boolean",
    "kernel_initializer": "initializer",
    "bias_initializer": "initializer",
    "kernel_regularizer": "regularizer",
    "bias_regularizer": "regularizer",
    "kernel_constraint": "constraint",
    "bias_constraint": "constraint",
}
DENSE = {**MAP, "hidden_units": "integer or None"}
CONV = {**MAP, "hidden_filters": "integer or None", "kernel_size": "kernel size"}
FLOW = {"solver": "solver", "steps": "steps", "t_span": "span", "adjoint": "adjoint"}
VARYING = {**FLOW, "start": "start", "t_span": "span or None"}
DATA = {"batch_size": "positive integer", "seed": "seed"}
MOVING = {
    **DATA,
    "num_frames": "positive integer",
    "frame_size": "positive integer",
    "digit_size": "integer or None",
    "num_digits": "positive integer",
    "stochastic": "boolean",
    "train_videos": "positive integer",
    "test_videos": "positive integer",
}


def decay(t, y, *args):
    return -y


def dense():
    return keras.layers.Dense(3)


def ode():
    layer = layers.TrigDenseODE(2, steps=2)
    layer.build((None, 3))
    return layer


def plain_model():
    return keras.Sequential([keras.Input((3,)), ode()])


def flow_model():
    return keras.Sequential([keras.Input((3,)), layers.BucketDenseODE(2, steps=2)])


def stack_model():
    stack = layers.ResidualStack(layers.DenseBlock(), depth=2, shared=False)
    return keras.Sequential([keras.Input((3,)), stack])


def video_model():
    return models.SVG(
        (16, 16, 1), filters=(2, 2, 2, 2), feature_dim=2, latent_dim=1, rnn_units=2
    )


FRAME, VIDEO = np.ones((12, 12, 1)) / 2, np.ones((1, 2, 12, 12, 1)) / 2


# A name, what is called with what it needs, and the kind of each argument.
CALLS = {
    "bases.Constant": (bases.Constant, {}, {"domain": "domain"}),
    "bases.Bucket": (
        bases.Bucket,
        {"num_buckets": 3},
        {"num_buckets": "positive integer", "domain": "domain"},
    ),
    "bases.Polynomial": (
        bases.Polynomial,
        {"degree": 3},
        {"degree": "integer of at least 0", "domain": "domain"},
    ),
    "bases.Legendre": (
        bases.Legendre,
        {"degree": 3},
        {"degree": "integer of at least 0", "domain": "domain"},
    ),
    "bases.Cosine": (
        bases.Cosine,
        {"size": 3},
        {"size": "positive integer", "domain": "domain"},
    ),
    "bases.Trigonometric": (
        bases.Trigonometric,
        {"order": 3},
        {
            "order": "integer of at least 0",
            "period": "positive number",
            "domain": "domain",
        },
    ),
    "bases.BSpline": (
        bases.BSpline,
        {"size": 5},
        {
            "size": "positive integer",
            "degree": "integer of at least 0",
            "domain": "domain",
        },
    ),
    "bases.BSpline of knots": (
        lambda knots: bases.BSpline(5, knots=knots),
        {"knots": [0.5]},
        {"knots": "knots"},
    ),
    "bases.get": (bases.get, {"basis": "trig"}, {"basis": "basis"}),
    "Adaptive": (
        Adaptive,
        {},
        {
            "rtol": "number of at least 0",
            "atol": "number of at least 0",
            "max_steps": "positive integer",
        },
    ),
    "Checkpoint": (keras_nanode.Checkpoint, {}, {"num": "integer or None"}),
    "Reversible": (
        keras_nanode.Reversible,
        {"solver": "heun"},
        {"solver": "solver", "coupling": "fraction"},
    ),
    "odeint": (
        odeint,
        {"func": decay, "y0": np.ones(2), "t": [0.0, 1.0]},
        {
            "func": "function",
            "y0": "state",
            "t": "times",
            "args": "args",
            "solver": "solver",
            "steps": "steps",
            "adjoint": "adjoint",
            "return_stats": "boolean",
        },
    ),
    "layers.ODE": (layers.ODE, {"dynamics": dense()}, {"dynamics": "layer", **FLOW}),
    "layers.TimeVarying": (
        layers.TimeVarying,
        {"layer": dense(), "basis": "trig"},
        {"layer": "layer", "basis": "basis", "start": "start"},
    ),
    "layers.TimeAppended": (
        layers.TimeAppended,
        {"layer": dense()},
        {"layer": "layer"},
    ),
    "layers.Augment": (
        layers.Augment,
        {"channels": 2},
        {"channels": "positive integer"},
    ),
    "layers.ResidualStack": (
        layers.ResidualStack,
        {"block": dense(), "depth": 2},
        {"block": "layer", "depth": "positive integer", "shared": "boolean"},
    ),
    "layers.DenseBlock": (
        layers.DenseBlock,
        {},
        {**DENSE, "units": "integer or None"},
    ),
    "layers.ConvBlock": (
        layers.ConvBlock,
        {},
        {**CONV, "filters": "integer or None"},
    ),
    "layers.DenseODE": (
        layers.DenseODE,
        {"basis": "trig"},
        {**DENSE, **VARYING, "basis": "basis"},
    ),
    "layers.ConvODE": (
        layers.ConvODE,
        {"basis": "trig"},
        {**CONV, **VARYING, "basis": "basis"},
    ),
    "layers.BucketDenseODE": (
        layers.BucketDenseODE,
        {"num_buckets": 2},
        {**DENSE, **VARYING, "num_buckets": "positive integer"},
    ),
    "layers.PolyConvODE": (
        layers.PolyConvODE,
        {"degree": 2},
        {**CONV, **VARYING, "degree": "integer of at least 0"},
    ),
    "layers.TrigDenseODE": (
        layers.TrigDenseODE,
        {"order": 2},
        {
            **DENSE,
            **VARYING,
            "order": "integer of at least 0",
            "period": "positive number",
        },
    ),
    "ODE.weights_at": (lambda t: ode().weights_at(t), {"t": 0.5}, {"t": "time"}),
    "models.classifier": (
        models.classifier,
        {"input_shape": (8, 8, 1), "classes": 3, "filters": 4, "hidden_filters": 2},
        {
            "input_shape": "image shape",
            "classes": "positive integer",
            "block": "block",
            "basis": "basis or None",
            "steps": "positive integer",
            "filters": "positive integer",
            "hidden_filters": "positive integer",
            "stages": "positive integer",
            "stem_strides": "positive integer",
            "normalization": "normalization",
            "use_bias": "boolean",
            "solver": "solver",
            "adjoint": "adjoint",
            "start": "start",
            "t_span": "span",
        },
    ),
    "models.SVG": (
        models.SVG,
        {"frame_shape": (16, 16, 1), "filters": (2, 2, 2, 2), "block": "trig"},
        {
            "frame_shape": "image shape",
            "context_frames": "positive integer",
            "block": "block",
            "basis": "basis or None",
            "steps": "positive integer",
            "filters": "widths",
            "feature_dim": "positive integer",
            "latent_dim": "positive integer",
            "rnn_units": "positive integer",
            "beta": "number of at least 0",
            "normalization": "mode",
            "adjoint": "adjoint",
            "seed": "seed or None",
            "layout": "mode",
            "action_dim": "integer of at least 0",
            "t_span": "span",
        },
    ),
    "models.SVG.from_preset": (
        models.SVG.from_preset,
        {"preset": "paper"},
        {"preset": "preset"},
    ),
    "models.VideoGenerator": (
        lambda **arguments: models.VideoGenerator(
            **{"model": video_model(), **arguments}
        ),
        {"num_frames": 2},
        {
            "model": "video model",
            "num_frames": "positive integer",
            "num_samples": "positive integer",
        },
    ),
    "models.materialize": (
        models.materialize,
        {"model": plain_model()},
        {"model": "model", "steps": "integer or None"},
    ),
    "models.rebase": (
        models.rebase,
        {"model": flow_model(), "basis": "trig"},
        {
            "model": "model",
            "basis": "basis",
            "steps": "steps",
            "layers": "layers",
        },
    ),
    "models.rebase_error": (
        models.rebase_error,
        {"old": flow_model(), "new": flow_model()},
        {"old": "model", "new": "model"},
    ),
    "models.to_flow": (models.to_flow, {"model": stack_model()}, {"model": "model"}),
    "models.to_residual": (
        models.to_residual,
        {"model": models.to_flow(stack_model())},
        {"model": "model"},
    ),
    "datasets.digits": (datasets.digits, {}, {**DATA, "augment": "boolean"}),
    "datasets.moving_digits": (
        datasets.moving_digits,
        {"train_videos": 2, "test_videos": 2},
        MOVING,
    ),
    "metrics.psnr": (metrics.psnr, {"a": FRAME, "b": FRAME}, {"a": "frames"}),
    "metrics.ssim": (metrics.ssim, {"a": FRAME, "b": FRAME}, {"b": "frames"}),
    "metrics.best_of": (
        metrics.best_of,
        {"metric": metrics.psnr, "videos": VIDEO, "samples": VIDEO[:, None]},
        {
            "metric": "function",
            "videos": "videos",
            "samples": "videos",
            "mode": "mode",
        },
    ),
    "metrics.frechet_distance": (
        metrics.frechet_distance,
        {
            "videos": np.ones((2, 3)),
            "generated": np.ones((2, 3)),
            "features": np.asarray,
        },
        {"features": "function"},
    ),
}


def outcome(function, arguments, name, value):
    """None if a wrong argument is refused in words that name it, else what happened."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            function(**{**arguments, name: value})
    except (ValueError, TypeError) as error:
        text = str(error)
        if name in text and "Received:" in text and len(text) < 900:
            return None
        return f"raw {type(error).__name__}: {text[:300]}"
    except Exception as error:
        return f"raw {type(error).__name__}: {error!s:.300}"
    return "accepted"


@pytest.mark.parametrize("call", CALLS)
def test_wrong_arguments_are_refused_by_name(call):
    function, arguments, kinds = CALLS[call]
    function(**arguments)
    found = [
        (name, value, outcome(function, arguments, name, value))
        for name, kind in kinds.items()
        for value in WRONG[kind]
    ]
    bad = [f"{call}({name}={value!r}): {what}" for name, value, what in found if what]
    print(f"{call}: {len(found)} malformed uses, {len(bad)} not refused by name")
    assert not bad, "\n".join(bad)


def test_there_are_enough_malformed_uses():
    count = sum(len(WRONG[k]) for *_, kinds in CALLS.values() for k in kinds.values())
    print(f"{count} malformed uses of {len(CALLS)} public names")
    assert count >= 400
