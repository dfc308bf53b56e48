"""Models over another basis of time, with other steps, as flows and as stacks."""

import keras
import numpy as np
import pytest
from cases import EXPORTS, numbers, random
from keras import ops

from keras_nanode import bases, layers, models

START = {"start": "independent", "t_span": (0, 2)}


@keras.saving.register_keras_serializable("test_rebase")
class Turned(bases.Legendre):
    """Legendre's functions, turned: orthonormal, with the same span."""

    @property
    def turn(self):
        draws = np.random.default_rng(0).normal(size=(self.size, self.size))
        return np.linalg.qr(draws)[0]

    def __call__(self, t):
        z = super().__call__(t)
        turn = ops.convert_to_tensor(self.turn, dtype=z.dtype)
        return ops.sum(z[..., None] * turn, axis=-2)


def around(*stack, shape=(3,)):
    return keras.Sequential([keras.Input(shape), *stack])


def varying(basis=None, **kwargs):
    layer = keras.layers.Dense(3, "tanh")
    return layers.TimeVarying(layer, basis or bases.Bucket(2), "independent", **kwargs)


def nested():
    x = keras.Input((3,), name="x")
    inner = around(layers.ODE(varying(), steps=4, name="inner"))
    y = inner(keras.layers.Dropout(0.1)(keras.layers.Dense(3)(x)))
    shared = layers.BucketDenseODE(2, steps=4, **START)
    return keras.Model(x, keras.layers.Dense(2)(shared(shared(y))))


MODELS = {
    "an ODE": lambda: around(layers.ODE(varying(), steps=4)),
    "its layer": lambda: around(
        layers.DenseODE(bases.Bucket(2, (0, 2)), steps=4, start="independent")
    ),
    "named": lambda: around(
        layers.BucketConvODE(2, steps=4, normalization="layer", **START),
        shape=(4, 4, 2),
    ),
    "nested": nested,
    "in a layer": lambda: around(
        keras.layers.TimeDistributed(layers.ODE(varying(), steps=4)), shape=(2, 3)
    ),
    "a classifier": lambda: models.classifier(
        (6, 6, 1), 3, "bucket", bases.Bucket(2), 4, 4, 2, stages=2
    ),
}


def batch(model, size=4):
    return random((size, *model.input_shape[1:]), seed=3)


def trained(model, optimizer, epochs=3, **kwargs):
    x = batch(model, 16)
    y = random((16, *model.output_shape[1:]), seed=4)
    model.compile(optimizer, "mse", jit_compile=False, **kwargs)
    model.fit(x, y, batch_size=8, epochs=epochs, shuffle=False, verbose=0)
    return x, y


def check_same(new, old, tolerance=1e-6):
    x = batch(old)
    np.testing.assert_allclose(numbers(new(x)), numbers(old(x)), atol=tolerance)


@pytest.mark.parametrize("name", MODELS)
def test_any_model_over_a_basis_that_contains_the_old_one_is_the_same(name, tmp_path):
    model = MODELS[name]()
    finer = models.rebase(model, bases.Bucket(4))
    check_same(finer, model)
    assert type(finer) is type(model)
    assert [x.name for x in finer.layers] == [x.name for x in model.layers]
    assert [type(x) for x in finer.layers] == [type(x) for x in model.layers]
    assert not {id(v) for v in finer.weights} & {id(v) for v in model.weights}
    errors = models.rebase_error(model, finer)
    assert max(e for found in errors.values() for e in found.values()) < 1e-6
    check_same(models.rebase(finer, bases.Bucket(2)), model)
    # From a file, too, and into one.
    finer.save(tmp_path / "finer.keras")
    loaded = keras.saving.load_model(tmp_path / "finer.keras")
    check_same(loaded, model)
    check_same(models.rebase(loaded, bases.Bucket(2)), model)


@pytest.mark.filterwarnings("ignore:Train the model again")
@pytest.mark.parametrize("basis", ["trig", "legendre", "constant", bases.Cosine(3)])
def test_a_named_layer_over_a_basis_of_another_class(basis):
    layer = layers.BucketDenseODE(3, hidden_units=2, steps=6, solver="heun", **START)
    model = around(layer, keras.layers.Dense(2))
    new = models.rebase(model, basis, steps=12)
    found = new.layers[0]
    assert type(found) is layers.DenseODE
    assert found.basis == bases.get(basis).over((0, 2))
    assert (found.name, found.steps, found.t_span) == (layer.name, 12, (0, 2))
    assert found.solver == layer.solver
    back = models.rebase(new, basis, steps=6)
    check_same(back, models.rebase(new, steps=6))
    trained(new, "adam")


def test_the_primitive_is_the_projection_and_keeps_the_layer():
    layer = varying(bases.Bucket(4), name="weights", dtype="float64")
    layer(random((2, 3)), t=0.1)
    found = layer.rebased(bases.Bucket(2))
    assert (found.name, found.variable_dtype, found.start) == (
        "weights",
        "float64",
        "independent",
    )
    for before, after in zip(layer.coefficients, found.coefficients, strict=True):
        pairs = numbers(before).reshape(2, 2, *before.shape[1:])
        np.testing.assert_allclose(numbers(after), pairs.mean(axis=1), rtol=1e-12)
    with pytest.raises(ValueError, match=r"no weights before it is built.*Received"):
        varying().rebased("trig")
    with pytest.raises(ValueError, match=r"over the same times.*Received: basis=Bu"):
        layer.rebased(bases.Bucket(2, (0, 3)))


def test_a_basis_used_outside_of_its_domain_is_projected_where_it_is_used():
    ode = layers.ODE(varying(bases.Polynomial(2)), "rk4", 5, (0.0, 2.0))
    model = around(ode)
    new = models.rebase(model, bases.Legendre(2))
    assert new.layers[0].dynamics.basis == bases.Legendre(2, (0.0, 2.0))
    check_same(new, model)


def test_only_the_chosen_layers_change():
    model = nested()
    for choice in ("inner", model.layers[3].layers[0], ["inner"]):
        new = models.rebase(model, bases.Bucket(4), steps=8, layers=choice)
        inner, other = new.layers[3].layers[0], new.layers[4]
        assert (inner.dynamics.basis.size, inner.steps) == (4, 8)
        assert (other.basis.size, other.steps) == (2, 4)
        assert list(models.rebase_error(model, new)) == ["inner", other.name]


def test_what_is_frozen_stays_frozen():
    model = nested()
    model.layers[1].trainable = False
    model.layers[4].trainable = False
    new = models.rebase(model, bases.Bucket(4))
    check_same(new, model)
    assert [w.trainable for w in new.weights] == [w.trainable for w in model.weights]
    assert [x.trainable for x in new.layers] == [x.trainable for x in model.layers]


# The optimizer


def loss(model, data):
    return model.evaluate(*data, batch_size=8, verbose=0)


def test_momentum_commutes_with_a_change_between_orthonormal_bases():
    def model_over(basis):
        return around(layers.DenseODE(basis, steps=4, start="independent"))

    model = model_over(bases.Legendre(2))
    data = trained(model, keras.optimizers.SGD(0.1, momentum=0.9))
    turned = models.rebase(model, Turned(2))
    finer = models.rebase(model, bases.Legendre(4))
    for new in (model, turned):
        new.fit(*data, batch_size=8, epochs=3, shuffle=False, verbose=0)
    check_same(turned, model, 2e-5)
    # One step: what the new functions learn is cut off on the way back.
    again = models.rebase(finer, bases.Legendre(2))
    for new in (again, finer):
        new.train_on_batch(data[0][:8], data[1][:8])
    check_same(models.rebase(finer, bases.Legendre(2)), again, 1e-5)


def test_momentum_moves_the_weights_on_as_it_did():
    model = around(layers.BucketDenseODE(2, steps=4, **START))
    trained(model, keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True))
    finer = models.rebase(model, bases.Bucket(4))
    (before, _), (after, _) = (m.optimizer.momentums for m in (model, finer))
    assert np.abs(numbers(before)).min() > 0
    np.testing.assert_allclose(numbers(after), np.repeat(numbers(before), 2, axis=0))


@pytest.mark.parametrize("basis", [bases.Bucket(8), bases.Bucket(2), bases.Cosine(6)])
def test_the_loss_does_not_jump_with_adam(basis):
    """At once, and after 20 steps beside the model that was not changed."""
    kwargs = {"start": "constant", "t_span": (0, 1)}
    model = around(layers.BucketDenseODE(4, steps=8, **kwargs), keras.layers.Dense(1))
    data = trained(model, keras.optimizers.Adam(1e-2), epochs=15)
    new = models.rebase(model, basis)
    assert int(numbers(new.optimizer.iterations)) == 30
    assert loss(new, data) <= 1.01 * loss(model, data)
    before = loss(new, data)
    new.train_on_batch(data[0][:8], data[1][:8])
    assert loss(new, data) <= 1.1 * before
    for each in (model, new):
        each.fit(*data, batch_size=8, epochs=10, shuffle=False, verbose=0)
    assert loss(new, data) <= 1.5 * loss(model, data)


def test_adam_starts_from_gradients_of_the_new_coefficients():
    model = around(layers.BucketDenseODE(2, steps=4, **START))
    trained(model, keras.optimizers.Adam(1e-2))
    with pytest.warns(UserWarning, match="Train the model again: 2 of its weights"):
        coarser = models.rebase(model, "constant", steps=4)
    for old, new in zip(
        model.optimizer._momentums, coarser.optimizer._momentums, strict=True
    ):
        # A shift of the constant shifts both buckets.
        total = numbers(old).sum(axis=0, keepdims=True)
        np.testing.assert_allclose(numbers(new), total, rtol=1e-4, atol=1e-8)
    for old, new in zip(
        model.optimizer._velocities, coarser.optimizer._velocities, strict=True
    ):
        total = numbers(old).sum(axis=0, keepdims=True)
        np.testing.assert_allclose(numbers(new), total, rtol=1e-4)


@pytest.mark.parametrize(
    "optimizer",
    [
        "adamax",
        "adagrad",
        "adadelta",
        "ftrl",
        "lion",
        "nadam",
        keras.optimizers.RMSprop(1e-3, momentum=0.5, centered=True),
        keras.optimizers.Adam(1e-3, amsgrad=True, use_ema=True),
        keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(1e-3, momentum=0.5)),
    ],
    ids=lambda x: getattr(x, "name", x),
)
def test_other_optimizers_go_on(optimizer):
    """Each slot has a value that training gave it, and none is lost."""
    model = around(layers.BucketDenseODE(2, steps=4, **START))
    data = trained(model, optimizer)
    finer = models.rebase(model, bases.Bucket(4))
    assert type(finer.optimizer) is type(model.optimizer)
    pairs = zip(finer.optimizer.variables, model.optimizer.variables, strict=True)
    for new, old in pairs:
        assert (numbers(new) != 0).any() == (numbers(old) != 0).any(), new.name
    finer.fit(*data, verbose=0)


def distance(y, y_pred):
    return ops.mean(abs(y - y_pred), axis=-1)


def test_schedules_functions_and_exempt_weights_are_kept():
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([4], [0.1, 0.01])
    optimizer = keras.optimizers.AdamW(schedule, weight_decay=0.1)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    model = around(layers.BucketDenseODE(2, steps=4, **START))
    x, y = batch(model, 16), batch(model, 16)
    metric = keras.metrics.MeanMetricWrapper(distance, name="distance")
    model.compile(
        optimizer,
        distance,
        metrics=[metric, "mae"],
        run_eagerly=True,
        jit_compile=False,
    )
    model.fit(x, y, batch_size=4, epochs=2, verbose=0)
    new = models.rebase(model, bases.Bucket(4))
    assert float(numbers(new.optimizer.learning_rate)) == pytest.approx(0.01)
    assert new.run_eagerly
    decays = {v.name: new.optimizer._use_weight_decay(v) for v in new.weights}
    assert sorted(decays.values()) == [False, True]
    scores, expected = (
        m.evaluate(x, y, verbose=0, return_dict=True) for m in (new, model)
    )
    assert scores.keys() == expected.keys() >= {"distance", "mae", "loss"}
    assert scores == pytest.approx(expected, rel=1e-5)


@pytest.mark.skipif(not EXPORTS, reason="Keras writes no SavedModel on PyTorch")
def test_a_rebased_model_is_exported(tmp_path):
    import tensorflow as tf

    model = models.rebase(MODELS["an ODE"](), "legendre", steps=8)
    x = batch(model)
    model.export(str(tmp_path), verbose=False)
    loaded = tf.saved_model.load(str(tmp_path))
    np.testing.assert_allclose(loaded.serve(x).numpy(), numbers(model(x)), atol=1e-5)


def svg(block, **kwargs):
    sizes = {"filters": (2, 2, 2, 2), "feature_dim": 2, "latent_dim": 2}
    return models.SVG((16, 16, 1), block=block, rnn_units=2, **sizes, **kwargs)


def test_a_video_model_over_another_basis():
    model = svg("bucket", basis=bases.Bucket(1), seed=1)
    assert svg("auto").steps == 3
    new = models.rebase(model, bases.Cosine(2))
    assert (new.block, new.basis) == ("cosine", bases.Cosine(2))
    context, noise = np.zeros((1, 2, 16, 16, 1), "float32"), np.ones((1, 1, 2, 2))
    found, expected = (
        numbers(m.generate(context, 2, noise=noise.astype("float32")))
        for m in (new, model)
    )
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert models.rebase(new, "constant").block == "auto"


# Errors


def test_what_cannot_be_rebased_says_why():
    model = MODELS["an ODE"]()
    with pytest.raises(ValueError, match=r"`basis`, the new number of `steps`.*Rec"):
        models.rebase(model)
    with pytest.raises(ValueError, match=r"no layer whose weights are functions.*Rec"):
        models.rebase(around(keras.layers.Dense(2)), "trig")
    with pytest.raises(
        ValueError, match=r"functional or Sequential model that is.*Rec"
    ):
        models.rebase(keras.Sequential([layers.ODE(varying())]), "trig")
    with pytest.raises(ValueError, match=r"over the same times.*domain=\(0.0, 1.0\)"):
        models.rebase(model, bases.Bucket(4, (0, 3)))
    with pytest.raises(
        ValueError, match=r"see 4 of the 8 pieces.*a multiple of 8.*Rec"
    ):
        models.rebase(model, bases.Bucket(8))
    with pytest.raises(ValueError, match=r"see 1 of the 2.*Received: steps=1"):
        models.rebase(model, steps=1)
    with pytest.raises(ValueError, match=r"`layers` must be.*\['ode.*Received: .*'od'"):
        models.rebase(model, "trig", layers="od")
    other = around(layers.ODE(varying(), steps=4), keras.layers.Dense(2))
    with pytest.raises(ValueError, match=r"differ in the bases.*Received: .*2 weights"):
        models.rebase_error(model, other)


class Maker(keras.layers.Layer):
    """Makes a layer with varying weights by itself."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inner = layers.BucketDenseODE(2, steps=4, **START)

    def build(self, input_shape):
        self.inner.build(input_shape)

    def call(self, x):
        return self.inner(x)


def test_a_layer_that_makes_another_is_named():
    model = around(Maker())
    with pytest.raises(ValueError, match=r"is made by the layer around it.*Received"):
        models.rebase(model, bases.Bucket(4))


def test_a_model_that_is_not_compiled_stays_so():
    assert not models.rebase(MODELS["an ODE"](), "trig").compiled


# From and to residual networks


def stack(depth=3, **kwargs):
    block = layers.DenseBlock(hidden_units=4, normalization="layer")
    return layers.ResidualStack(block, depth, shared=False, **kwargs)


@pytest.mark.parametrize(
    "optimizer",
    [keras.optimizers.SGD(0.005, momentum=0.9), keras.optimizers.Adam(1e-2)],
)
def test_a_residual_network_is_a_flow_and_trains_alike(optimizer):
    model = around(keras.layers.Dense(4), stack(name="flow"), keras.layers.Dense(2))
    data = trained(model, optimizer)
    flow = models.to_flow(model)
    check_same(flow, model)
    assert flow.get_layer("flow").dynamics.basis == bases.Bucket(3, (0, 3))
    again = models.to_residual(flow)
    for new in (model, flow, again):
        new.fit(*data, batch_size=8, epochs=2, shuffle=False, verbose=0)
    check_same(flow, model, 1e-4)
    check_same(again, model, 1e-4)
    assert again.get_layer("flow").depth == 3
    check_same(models.to_residual(flow), flow)
    # From there to any basis, and to a residual network twice as deep and half as fast.
    longer = models.rebase(flow, bases.Bucket(6), steps=6)
    assert longer.get_layer("flow").steps == 6


def test_what_is_no_stack_or_flow_is_refused():
    plain = around(keras.layers.Dense(3))
    shared = around(layers.ResidualStack(layers.DenseBlock(), 2, shared=True))
    for model in (plain, shared):
        with pytest.raises(
            ValueError, match=r"no layer to convert.*ResidualStack.*Rec"
        ):
            models.to_flow(model)
    flows = [
        layers.BucketDenseODE(2, steps=2, t_span=(0, 1)),
        layers.BucketDenseODE(2, steps=4, t_span=(0, 4)),
        layers.BucketDenseODE(2, steps=2, t_span=(0, 2), solver="heun"),
        layers.TrigDenseODE(2, steps=2, t_span=(0, 2)),
    ]
    for ode in flows:
        with pytest.raises(ValueError, match=r"no layer to convert.*Euler's.*Received"):
            models.to_residual(around(ode))
    frozen = around(stack())
    frozen.trainable = False
    with pytest.raises(ValueError, match=r"must be trainable.*Received: 36 frozen"):
        models.to_flow(frozen)
    with pytest.raises(ValueError, match=r"functional or Sequential model.*Received"):
        models.to_flow(keras.Sequential([stack()]))
