"""In a `tf.function`, AutoGraph converts what the user wrote, and nothing of ours."""

import functools
import inspect
import re
import sys
import tempfile

import keras
import numpy as np
import pytest

from keras_nanode import bases, layers, metrics, odeint

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="AutoGraph is TensorFlow's"
)
EULER = {"solver": "euler", "steps": 3}


@pytest.fixture
def converted(tmp_path, monkeypatch):
    """The names of the functions that AutoGraph has converted in this test, each of
    which it writes to a file. It must not warn of any."""
    import tensorflow as tf

    warnings = []
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(tf.get_logger(), "warning", lambda *m: warnings.append(m))

    def names():
        assert not [m for m in warnings if "AutoGraph" in str(m)]
        texts = [path.read_text() for path in tmp_path.glob("*.py")]
        return {re.findall(r"\btf__(\w+)", text)[0] for text in texts}

    return names


def turning(t, y):
    if t > 0.5:
        return -y
    return y


class Turning:
    def __call__(self, t, y):
        return turning(t, y)

    def slope(self, t, y):
        return turning(t, y)


FORMS = {
    "function": turning,
    "lambda": lambda t, y: turning(t, y),
    "partial": functools.partial(turning),
    "object": Turning(),
    "method": Turning().slope,
}


@pytest.mark.parametrize(
    ("form", "adjoint"),
    [*((form, "checkpoint") for form in FORMS), ("function", "direct")],
)
def test_a_condition_on_a_tensor_is_that_of_eager_mode(form, adjoint):
    import tensorflow as tf

    func, y = FORMS[form], tf.constant([1.0, 2.0])

    def gradient(y):
        with tf.GradientTape() as tape:
            tape.watch(y)
            end = odeint(func, y, [0.0, 1.0], **EULER, adjoint=adjoint)[-1]
        return end, tape.gradient(end, y)

    for found, expected in zip(tf.function(gradient)(y), gradient(y), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_without_autograph_a_condition_on_a_tensor_is_refused_as_in_map_fn():
    import tensorflow as tf

    def solve(y):
        return odeint(turning, y, [0.0, 1.0], **EULER)

    with pytest.raises(tf.errors.OperatorNotAllowedInGraphError):
        tf.function(solve, autograph=False)(tf.ones(2))


def test_nothing_of_this_library_is_converted(converted):
    import tensorflow as tf

    x = tf.ones((2, 3))
    dense, image = keras.layers.Dense(3), tf.ones((1, 12, 12, 1))
    ode, basis = layers.TrigDenseODE(2, **EULER), bases.Bucket(3)
    dense(x), ode(x)

    @tf.function
    def use(x, t):
        moments = tf.stack([basis(t), basis.values(t[None])[0]])
        ends = odeint(dense, x, [0.0, 1.0], **EULER), ode.inverse(ode(x))
        return moments, ends, ode.weights_at(0.3), metrics.psnr(image, image)

    def f(t, y):
        return -y

    @tf.function
    def solve(x):
        return odeint(f, x, [0.0, 1.0], **EULER)

    use(x, tf.constant(0.3)), solve(x)
    assert converted() == {"use", "solve", "f"}


def test_every_function_carries_the_mark_that_autograph_reads():
    """Also those of classes, so that no entry is forgotten."""
    import tensorflow as tf

    mark = vars(tf.autograph.experimental.do_not_convert(print))
    assert mark
    seen = set()
    for name, module in list(sys.modules.items()):
        # Those two are imported to make a pipeline, and nobody calls them in a graph.
        if name.endswith((".datasets.pipelines", ".datasets.streams")):
            continue
        if name.partition(".")[0] != "keras_nanode":
            continue
        owners = [module, *(c for c in vars(module).values() if inspect.isclass(c))]
        for owner in owners:
            for thing in vars(owner).values():
                thing = getattr(thing, "__func__", thing)
                if inspect.isfunction(thing) and thing.__module__ == name:
                    assert mark.items() <= vars(thing).items(), thing
                    seen.add(thing.__name__)
    assert {"odeint", "inverse", "weights_at", "generate", "psnr"} <= seen
