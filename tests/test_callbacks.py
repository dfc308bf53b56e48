"""What `fit` shows of adaptive steps, and that nothing else of Keras sees it."""

import keras
import numpy as np
import pytest
from cases import numbers, random
from keras import ops

from keras_nanode import Adaptive, bases, callbacks, layers, odeint
from keras_nanode.stepping import Status

X = random((8, 3))


def flow(**arguments):
    return layers.DenseODE(bases.Bucket(2), solver="bosh3", name="flow", **arguments)


def model_of(ode, **compilation):
    model = keras.Sequential([keras.Input((3,)), ode])
    model.compile(**{"optimizer": "sgd", "loss": "mse", **compilation})
    return model


def fit(model, x=X, **arguments):
    return model.fit(
        *(x, np.zeros_like(x), 4, 2),
        verbose=0,
        shuffle=False,
        callbacks=[callbacks.Evaluations(), *arguments.pop("callbacks", [])],
        **arguments,
    ).history


@pytest.mark.parametrize(
    "compilation",
    [
        {},
        {"jit_compile": keras.backend.backend() != "torch"},
        pytest.param({"run_eagerly": True}, marks=pytest.mark.slower),
    ],
    ids=["default", "xla", "eager"],
)
def test_fit_shows_the_evaluations(compilation):
    shown = []
    spy = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: shown.append(logs["flow_nfe"])
    )
    model = model_of(flow(), **compilation)
    history = fit(model, validation_data=(X, X), callbacks=[spy])
    assert set(history) == {"loss", "val_loss", "flow_nfe", "flow_failed"}
    assert len(shown) == 4 and history["flow_nfe"] == shown[1::2]
    # Two to start, three for each step, and one at the jump; the mean of two batches.
    for nfe in shown:
        assert nfe >= 2 + 3 * 2 + 1 and 2 * nfe == round(2 * nfe)
    assert history["flow_failed"] == [0, 0]


def test_the_progress_bar_shows_them(capsys):
    model = model_of(flow())
    model.fit(X, X, verbose=2, callbacks=[callbacks.Evaluations()])
    assert "flow_nfe: " in capsys.readouterr().out


@pytest.mark.parametrize("metrics", [[], ["mae"]])
def test_keras_returns_what_it_does_with_fixed_steps(metrics):
    """Numbers, lists and their lengths."""
    results = []
    for steps in (4, Adaptive()):
        model = model_of(flow(steps=steps), metrics=metrics)
        calls = (model.evaluate, model.train_on_batch, model.test_on_batch)
        given = [
            call(X, X, **({"verbose": 0} if i == 0 else {}))
            for i, call in enumerate(calls)
        ]
        results.append([np.shape(x) for x in given])
        results[-1] += [model.metrics_names, sorted(fit_without(model))]
    assert results[0] == results[1]


def fit_without(model):
    return model.fit(X, X, verbose=0).history


def test_fixed_steps_show_nothing():
    assert set(fit(model_of(flow(steps=4)))) == {"loss"}


def test_an_ode_inside_of_other_layers_is_found():
    class Wrapped(keras.Model):
        def __init__(self):
            super().__init__()
            inner = keras.Sequential([flow(), keras.layers.Dense(3)])
            self.parts = [inner]

        def call(self, x):
            return self.parts[0](x)

    model = Wrapped()
    model.compile("sgd", "mse")
    assert "flow_nfe" in fit(model)


def test_layers_of_one_name_are_told_apart():
    """As in two copies of an encoder."""
    models = [keras.Sequential([keras.Input((3,)), flow()]) for _ in range(2)]
    loose, tight = (model.layers[-1] for model in models)
    loose.steps, tight.steps = Adaptive(1e-1, 1e-1), Adaptive(1e-6, 1e-6)
    model = keras.Sequential([keras.Input((3,)), *models])
    model.compile("sgd", "mse")
    history = fit(model)
    expected = {"loss", "flow_nfe", "flow_failed", "flow_1_nfe", "flow_1_failed"}
    assert set(history) == expected
    assert history["flow_1_nfe"][0] > history["flow_nfe"][0]


def test_weights_go_from_adaptive_to_fixed_steps_and_back(tmp_path):
    model = model_of(flow())
    fit(model)
    for steps in (9, None):
        model.save_weights(tmp_path / "model.weights.h5")
        other = model_of(flow(steps=steps))
        other.load_weights(tmp_path / "model.weights.h5")
        for one, two in zip(other.get_weights(), model.get_weights(), strict=True):
            np.testing.assert_array_equal(one, two)
        model = other


# Failures.


@keras.saving.register_keras_serializable("tests")
class Explosive(keras.layers.Layer):
    """dx/dt = w x^2, which is infinite at t = 1 / (w x) for w x > 1."""

    def build(self, input_shape):
        self.w = self.add_weight(shape=(), initializer="ones")

    def call(self, x):
        return self.w * x * x

    def compute_output_shape(self, input_shape):
        return input_shape


def explosive(**compilation):
    ode = layers.ODE(Explosive(), "bosh3", Adaptive(max_steps=200), name="flow")
    return model_of(ode, **compilation)


BATCHES = np.concatenate([np.full((4, 3), -0.5), np.full((4, 3), 2.0)]).astype("f4")
compiled_backends = pytest.mark.skipif(
    keras.backend.backend() == "torch", reason="runs eagerly, and raises an error"
)


@compiled_backends
def test_a_failure_in_a_compiled_step_says_which_layer_and_why():
    model = explosive(optimizer=keras.optimizers.SGD(0.1))
    with pytest.warns(RuntimeWarning) as warned:
        history = fit(model, BATCHES)
    ours = [w for w in warned if w.category is RuntimeWarning]
    first, *later = (str(warning.message) for warning in ours)
    assert "'flow' ended before the last time, first in batch 2 of epoch 1" in first
    assert "Received: status=" in first
    assert any(Status.NON_FINITE.message in message for message in later)
    assert np.isnan(history["loss"]).all()
    # The weights are NaN after that batch, and so are all batches of the next epoch.
    assert history["flow_failed"] == [1, 2]


@pytest.mark.parametrize("eager", [False, True])
@pytest.mark.filterwarnings("ignore:The adaptive steps:RuntimeWarning")
def test_a_failed_batch_can_be_skipped(eager):
    """The weights are those of training without that batch."""
    scaled = keras.optimizers.LossScaleOptimizer(
        keras.optimizers.SGD(0.1), initial_scale=1.0
    )
    model = explosive(optimizer=scaled, run_eagerly=eager)
    alone = explosive(optimizer="sgd")
    alone.compile(keras.optimizers.SGD(0.1), "mse")
    assert fit(model, BATCHES)["flow_failed"] == [1, 1]
    fit(alone, BATCHES[:4])
    (w,), (expected,) = model.get_weights(), alone.get_weights()
    np.testing.assert_allclose(w, expected, rtol=1e-6)
    assert np.isfinite(w) and w != 1
    if eager and keras.backend.backend() != "jax":
        with pytest.raises(RuntimeError, match="adaptive steps of the layer 'flow'"):
            model.layers[0](BATCHES, training=True)


def test_shapes_alone_need_no_solve():
    """Keras on PyTorch asks for them, first on its meta device and then with ones."""

    def solved(x):
        return odeint(lambda t, y: y * y, x, [0.0, 1.0, 2.0], return_stats=True)[0][-1]

    class Solves(keras.layers.Layer):
        def call(self, x):
            return solved(x)

    explosive_from_ones = layers.ODE(Explosive(), "bosh3", Adaptive(max_steps=50))
    head = keras.layers.Dense(1)
    model = keras.Sequential([explosive_from_ones, Solves(), head])
    model.compile("sgd", "mse")
    x = np.full((8, 3), 0.1, "float32")
    assert np.isfinite(model.fit(x, x[:, :1], verbose=0).history["loss"]).all()


def test_a_failure_in_eager_mode_is_an_error():
    model = explosive(run_eagerly=True)
    if keras.backend.backend() == "jax":
        pytest.skip("`fit` compiles nothing but has no eager mode of its own")
    with pytest.raises(RuntimeError, match="adaptive steps of the layer 'flow'"):
        fit(model, BATCHES)


def test_the_tally_counts_and_forgets():
    ode = layers.ODE(Explosive(), "bosh3", Adaptive(max_steps=50), name="flow")
    ode(ops.convert_to_tensor(BATCHES[:4]), training=True)
    ode(ops.convert_to_tensor(BATCHES[:4]), training=False)
    one = ode.tally.evaluations()
    assert one >= 8 and ode.tally.failures() == {}
    ode(ops.convert_to_tensor(BATCHES[:4]), training=True)
    assert ode.tally.evaluations() == one
    ode.tally.reset()
    assert ode.tally.evaluations() == 0
    assert numbers(ode.weights[0]) == 1 and len(ode.weights) == 1
