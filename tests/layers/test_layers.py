"""What the layers mean: against residual networks, NumPy and each other."""

import inspect

import keras
import numpy as np
import pytest
from cases import (
    BASES,
    IMAGE,
    LAYERS,
    SelfAttention,
    assert_close,
    compiled,
    layer_gradients,
    numbers,
    random,
)
from keras import ops

from keras_nanode import Checkpoint, bases, layers
from keras_nanode.tableaus import Tableau

# Residual networks are Euler's method.


@pytest.mark.parametrize("n", [1, 3, 7, 10])
@pytest.mark.parametrize("shared", [True, False])
def test_euler_over_0_to_n_is_a_residual_network(shared, n):
    block = layers.ConvBlock(hidden_filters=2, activation="tanh")
    stack = layers.ResidualStack(block, depth=n, shared=shared)
    stack.build(IMAGE)
    span = (0.0, float(n))
    if shared:
        basis = bases.Constant()
        stacked = [numbers(w)[None] for w in stack.weights]
    else:
        basis = bases.Bucket(n, domain=span)
        each = zip(*(b.weights for b in stack.blocks), strict=True)
        stacked = [np.stack([numbers(w) for w in slices]) for slices in each]
    pattern = layers.ConvBlock(hidden_filters=2, activation="tanh")
    ode = layers.ODE(layers.TimeVarying(pattern, basis), steps=n, t_span=span)
    ode.build(IMAGE)
    ode.set_weights(stacked)
    x = random(IMAGE)
    assert_close(numbers(ode(x)), numbers(stack(x)), 1e-5)

    in_ode, in_x = layer_gradients(ode, x)
    in_stack, in_x_of_stack = layer_gradients(stack, x)
    assert_close(in_x, in_x_of_stack, 1e-5)
    per_block = len(in_ode)
    for i, alpha in enumerate(in_ode):
        slices = [in_stack[i]] if shared else in_stack[i::per_block]
        assert_close(alpha, np.stack(slices), 1e-5)


# An independent oracle.


def rk4(f, y, t0, t1, n):
    h = (t1 - t0) / n
    for i in range(n):
        t = t0 + i * h
        k1 = f(t, y)
        k2 = f(t + h / 2, y + h / 2 * k1)
        k3 = f(t + h / 2, y + h / 2 * k2)
        k4 = f(t + h, y + h * k3)
        y = y + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return y


@pytest.mark.parametrize("t_span", [(0.0, 2.0), (1.5, -0.5)])
def test_a_trigonometric_dense_ode_is_what_numpy_says(t_span):
    ode = layers.TrigDenseODE(
        2, start="independent", solver="rk4", steps=6, t_span=t_span
    )
    x = random((4, 3))
    y = numbers(ode(x))
    kernel, bias = (numbers(w).astype("float64") for w in ode.weights)

    def f(t, y):
        z = np.array([1, np.cos(t), np.sin(t), np.cos(2 * t), np.sin(2 * t)])
        return np.tanh(y @ np.tensordot(z, kernel, 1) + z @ bias)

    np.testing.assert_allclose(y, rk4(f, x, *t_span, 6), atol=1e-5)


def test_time_appended_is_a_channel_of_time():
    layer = layers.TimeAppended(keras.layers.Dense(3))
    x = random((4, 3))
    y = numbers(layer(x, t=0.7))
    kernel, bias = map(numbers, layer.weights)
    expected = np.concatenate([x, np.full((4, 1), 0.7)], axis=1) @ kernel + bias
    np.testing.assert_allclose(y, expected, atol=1e-5)


@keras.saving.register_keras_serializable("tests")
class TimeDecay(keras.layers.Layer):
    """dx/dt = -2 t x: any layer with `call(x, t)` is a vector field."""

    def call(self, x, t):
        return -2.0 * t * x

    def compute_output_shape(self, input_shape, **_):
        return input_shape


def test_any_layer_with_a_time_argument():
    x = random((4, 3))
    y = numbers(layers.ODE(TimeDecay(), "rk4", 20, t_span=(0.0, 1.5))(x))
    np.testing.assert_allclose(y, x * np.exp(-(1.5**2)), rtol=1e-4)


def test_augment_appends_zeros():
    x = random((2, 5, 3))
    y = numbers(layers.Augment(2)(x))
    np.testing.assert_array_equal(y, np.concatenate([x, np.zeros((2, 5, 2))], -1))


def test_a_line_is_turned_around_in_the_plane():
    """h(x) = -x: no flow on a line reaches it, half a turn of the plane does."""
    ode = layers.DenseODE(
        "constant", activation="linear", use_bias=False, solver="rk4", steps=40
    )
    model = keras.Sequential([keras.Input((1,)), layers.Augment(1), ode])
    ode.set_weights([np.array([[[0.0, np.pi], [-np.pi, 0.0]]])])
    x = np.linspace(-2, 2, 9, dtype="float32")[:, None]
    np.testing.assert_allclose(numbers(model(x))[:, :1], -x, atol=1e-4)


@pytest.mark.parametrize(("shape", "rank"), [((2, 9, 3), 1), ((2, 4, 4, 4, 3), 3)])
def test_convolutions_take_their_rank_from_the_input(shape, rank):
    ode = layers.BucketConvODE(2, steps=2)
    assert ode(random(shape)).shape == shape
    assert ode.weights[0].shape == (2, *(3,) * rank, 3, 3)


@pytest.mark.parametrize("normalization", [None, "group", "layer"])
def test_the_bottleneck_is_three_pre_activated_maps(normalization):
    block = layers.ConvBlock(hidden_filters=2, normalization=normalization)
    x = random((1, 5, 5, 4))
    y = numbers(block(x))
    expected = x
    for norm, conv in zip(block.norms, block.maps, strict=True):
        expected = numbers(conv(np.maximum(numbers(norm(expected)), 0)))
    np.testing.assert_allclose(y, expected, atol=1e-5)
    assert [conv.kernel_size for conv in block.maps] == [(1, 1), (3, 3), (1, 1)]
    assert [conv.filters for conv in block.maps] == [2, 2, 4]


def test_the_maps_of_a_bottleneck_start_apart():
    block = layers.DenseBlock(hidden_units=3)
    block.build((None, 3))
    first, second, third = (numbers(dense.kernel) for dense in block.maps)
    for one, other in ((first, second), (second, third), (third, first)):
        assert np.abs(one - other).max() > 0.1


# Where a layer is built.


@keras.saving.register_keras_serializable("tests")
class Lazy(keras.Model):
    """Builds its ODE in its first call, as a subclassed model does."""

    def __init__(self, start, **kwargs):
        super().__init__(**kwargs)
        self.ode = layers.TrigDenseODE(2, hidden_units=2, steps=2, start=start)

    def call(self, x):
        return self.ode(x)


@pytest.mark.parametrize("start", ["constant", "independent"])
def test_a_layer_may_be_built_while_a_function_is_compiled(start):
    if keras.backend.backend() == "jax":
        pytest.skip("no layer of Keras can: its variables would hold tracers")
    x = ops.convert_to_tensor(random((4, 3)))
    ode = layers.TrigDenseODE(2, hidden_units=2, steps=2, start=start)
    first = numbers(compiled(lambda x: ode(x))(x))
    np.testing.assert_allclose(numbers(ode(x)), first, rtol=1e-5)
    assert np.std(numbers(ode.weights[0])) > 0


@pytest.mark.parametrize("start", ["constant", "independent"])
def test_a_layer_may_be_built_by_fit(start):
    model = Lazy(start)
    model.compile("sgd", "mse")
    history = model.fit(random((4, 3)), random((4, 3)), verbose=0).history
    assert np.isfinite(history["loss"]).all()
    assert np.std(numbers(model.weights[0])) > 0


# The start of the coefficients.


@pytest.mark.parametrize("basis", BASES.values(), ids=BASES)
def test_a_constant_start_is_the_layer_itself_at_all_times(basis):
    dense = keras.layers.Dense(64, kernel_initializer=keras.initializers.HeNormal(1))
    layer = layers.TimeVarying(dense, basis)
    layer.build((None, 64))
    kernel, bias = (numbers(w) for w in layer.weights_at([0.01, 0.4, 0.99]))
    for at_t in kernel:
        np.testing.assert_allclose(at_t, kernel[0], atol=1e-5)
    expected = numbers(keras.initializers.HeNormal(1)((64, 64)))
    np.testing.assert_allclose(kernel[0], expected, atol=1e-5)
    assert not bias.any()


@pytest.mark.parametrize("basis", BASES.values(), ids=BASES)
def test_an_independent_start_keeps_the_variance_of_the_initializer(basis):
    layer = layers.TimeVarying(keras.layers.Dense(128), basis, "independent")
    layer.build((None, 128))
    times = (np.arange(50) + 0.5) / 50
    (kernel, _) = (numbers(w) for w in layer.weights_at(times))
    # Glorot's variance for 128 inputs and 128 outputs is 1 / 128.
    variance = kernel.reshape(50, -1).var(axis=1) * 128
    # That of a sum of independent slices, scaled to 1 on average over the domain.
    z = numbers(basis.values(ops.convert_to_tensor(times, "float32")))
    expected = np.sum(z**2, axis=1)
    np.testing.assert_allclose(variance, expected / expected.mean(), rtol=0.1)
    if basis.size > 1:
        assert np.corrcoef(kernel[0].ravel(), kernel[-1].ravel())[0, 1] < 0.9


def test_slices_of_a_seeded_initializer_are_independent_and_reproducible():
    def coefficients():
        dense = keras.layers.Dense(32, kernel_initializer=keras.initializers.Ones())
        dense.kernel_initializer = keras.initializers.GlorotUniform(seed=4)
        layer = layers.TimeVarying(dense, bases.Bucket(3), "independent")
        layer.build((None, 32))
        return numbers(layer.coefficients[0])

    first = coefficients()
    np.testing.assert_array_equal(first, coefficients())
    assert abs(np.corrcoef(first.reshape(3, -1)) - np.eye(3)).max() < 0.2


def test_weights_that_are_not_random_start_constant():
    norm = keras.layers.LayerNormalization()
    layer = layers.TimeVarying(norm, bases.Trigonometric(2), "independent")
    layer.build((None, 4))
    gamma, beta = (numbers(w) for w in layer.weights_at([0.0, 0.3, 1.0]))
    np.testing.assert_allclose(gamma, 1, atol=1e-5)
    np.testing.assert_allclose(beta, 0, atol=1e-5)


def test_regularizers_and_constraints_apply_to_each_slice():
    dense = keras.layers.Dense(
        3,
        kernel_regularizer=keras.regularizers.OrthogonalRegularizer(),
        kernel_constraint=keras.constraints.UnitNorm(axis=0),
    )
    layer = layers.TimeVarying(dense, bases.Bucket(2), "independent")
    layer.build((None, 4))
    kernel = layer.coefficients[0]
    each = [keras.regularizers.OrthogonalRegularizer()(k) for k in numbers(kernel)]
    np.testing.assert_allclose(numbers(layer.losses[0]), sum(map(float, each)), 1e-5)
    kernel.assign(kernel.constraint(kernel.value))
    np.testing.assert_allclose(np.linalg.norm(numbers(kernel), axis=1), 1, rtol=1e-4)


def test_frozen_weights_of_the_pattern_are_kept_and_saved(tmp_path):
    frozen = keras.layers.Dense(3, trainable=False)
    pattern = keras.Sequential([frozen, keras.layers.Dense(3)])
    model = keras.Sequential(
        [
            keras.Input((3,)),
            layers.ODE(layers.TimeVarying(pattern, bases.Bucket(2)), steps=2),
        ]
    )
    assert [w.shape for w in model.trainable_weights] == [(2, 3, 3), (2, 3)]
    assert [w.shape for w in model.non_trainable_weights] == [(3, 3), (3,)]
    x = random((4, 3))
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(numbers(again(x)), numbers(model(x)), rtol=1e-6)


# Any layer.


ANY = {
    "Conv2D": (lambda: keras.layers.Conv2D(4, 3, padding="same"), IMAGE),
    "DepthwiseConv2D": (lambda: keras.layers.DepthwiseConv2D(3, padding="same"), IMAGE),
    "Dense": (lambda: keras.layers.Dense(3, activation="tanh"), (4, 3)),
    "EinsumDense": (
        lambda: keras.layers.EinsumDense("abc,cd->abd", (None, 3), bias_axes="d"),
        (2, 5, 3),
    ),
    "SelfAttention": (SelfAttention, (2, 5, 4)),
    "Sequential": (
        lambda: keras.Sequential(
            [keras.layers.Dense(5, "tanh"), keras.layers.Dense(3)]
        ),
        (4, 3),
    ),
}


@pytest.mark.parametrize("name", ANY)
def test_any_layer_varies_in_time_trains_and_is_saved(name, tmp_path):
    make, shape = ANY[name]
    # The bias of attention's keys has no effect and so no gradient at all: softmax
    # does not see it. With the other slices drawn anew every other weight has one.
    varying = layers.TimeVarying(make(), bases.Bucket(2), "independent")
    ode = layers.ODE(varying, "heun", 4)
    model = keras.Sequential([keras.Input(shape[1:]), ode])
    model.compile("sgd", "mse")
    x = random(shape)
    in_weights, _ = layer_gradients(ode, x)
    for weight, gradient in zip(ode.trainable_weights, in_weights, strict=True):
        assert np.isfinite(gradient).all()
        if not weight.name.endswith("key_bias"):
            assert (np.abs(gradient).reshape(2, -1).max(axis=1) > 1e-7).all()
    assert np.isfinite(model.fit(x, x + 1, verbose=0).history["loss"]).all()
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(
        again.predict(x, verbose=0), model.predict(x, verbose=0), rtol=1e-5
    )


# What only time can reach.


def fit_linear_flow(basis):
    """The error of x' = W(t) x as a model of x -> (-x_1 / 2, -2 x_2)."""
    ode = layers.DenseODE(
        basis,
        activation="linear",
        use_bias=False,
        solver="rk4",
        steps=20,
        t_span=(0.0, 1.0),
    )
    model = keras.Sequential([keras.Input((2,)), ode])
    ode.set_weights([random(ode.weights[0].shape, seed=1)])
    model.compile(keras.optimizers.Adam(0.03), "mse")
    x = random((256, 2), seed=1)
    y = x * np.array([-0.5, -2.0], "float32")
    repeated = np.tile(x, (500, 1)), np.tile(y, (500, 1))
    model.fit(*repeated, batch_size=256, shuffle=False, verbose=0)
    return model.evaluate(x, y, batch_size=256, verbose=0)


@pytest.mark.slower
@pytest.mark.parametrize("basis", [bases.Bucket(2), bases.Trigonometric(2)], ids=repr)
def test_time_dependent_weights_reach_a_map_without_a_logarithm(basis):
    assert fit_linear_flow(basis) < 1e-4


@pytest.mark.slower
def test_constant_weights_do_not_reach_it():
    assert fit_linear_flow(bases.Constant()) > 0.2


# Precision.


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_the_state_stays_float32_under_mixed_precision(policy):
    """1,000 steps of 1e-4 are lost in a half-precision state near 1."""
    keras.config.set_dtype_policy(policy)

    ode = layers.DenseODE(
        "constant",
        activation="linear",
        kernel_initializer="zeros",
        bias_initializer=keras.initializers.Constant(0.1),
        steps=1000,
    )
    # As the layer before gives it.
    x = ops.ones((1, 2), policy.removeprefix("mixed_"))
    ode.build(x.shape)
    y = compiled(ode)(x)
    assert keras.backend.standardize_dtype(y.dtype) == policy.removeprefix("mixed_")
    np.testing.assert_allclose(numbers(ops.cast(y, "float32")), 1.1, rtol=5e-3)


@keras.saving.register_keras_serializable("tests")
class TimeDtype(keras.layers.Layer):
    """Gives 1 where the time has its full precision, else 0."""

    def call(self, x, t):
        exact = keras.backend.standardize_dtype(t.dtype) == "float32"
        return ops.ones_like(x) if exact else ops.zeros_like(x)

    def compute_output_shape(self, input_shape, **_):
        return input_shape


def test_time_is_not_rounded_for_a_users_layer():
    keras.config.set_dtype_policy("mixed_bfloat16")
    y = layers.ODE(TimeDtype(), steps=2)(np.zeros((1, 2), "float32"))
    assert numbers(ops.cast(y, "float32")).tolist() == [[1.0, 1.0]]


@keras.saving.register_keras_serializable("tests")
class Forced(keras.layers.Layer):
    """A layer with a weight of its own, and a time: w x cos(t)."""

    def build(self, input_shape):
        self.w = self.add_weight(shape=input_shape[-1:], initializer="ones", name="w")

    def call(self, x, t):
        return self.w * x * ops.cast(ops.cos(t), x.dtype)

    def compute_output_shape(self, input_shape, **_):
        return input_shape


POLICIES = ["float32", "float64", "bfloat16", "mixed_float16", "mixed_bfloat16"]


@pytest.mark.parametrize("solver", ["euler", "dopri5"])
@pytest.mark.parametrize("policy", POLICIES)
def test_a_layer_with_weights_and_a_time_has_any_dtype_policy(policy, solver):
    keras.config.set_dtype_policy(policy)
    ode = layers.ODE(Forced(), solver)
    x = ops.ones((2, 3), keras.DTypePolicy(policy).compute_dtype)
    y = numbers(ops.cast(ode(x), "float32"))
    steps = np.prod(1 + 0.1 * np.cos(np.arange(10) / 10))
    exact = steps if solver == "euler" else np.exp(np.sin(1))
    np.testing.assert_allclose(y, exact, rtol=3e-2)
    in_weights, _ = layer_gradients(ode, numbers(ops.cast(x, "float32")))
    assert in_weights[0].shape == (3,)
    assert 0 < float(in_weights[0][0]) < 1e3


@pytest.mark.parametrize("training", [None, True, False])
@pytest.mark.parametrize("name", LAYERS)
def test_every_layer_is_told_whether_it_trains(name, training):
    """As `keras.layers.Dense` may be, on symbolic inputs and on values."""
    arguments, shape = LAYERS[name]
    layer = getattr(layers, name)(**arguments())
    time = {"t": 0.3} if "t" in inspect.signature(layer.call).parameters else {}
    x = keras.Input(shape[1:])
    model = keras.Model(x, layer(x, training=training, **time))
    given = random(shape)
    y = numbers(layer(given, training=training, **time))
    np.testing.assert_allclose(numbers(model(given)), y, rtol=1e-5, atol=1e-6)


# Bad input.


class DropsOut(keras.layers.Layer):
    """Draws by itself."""

    def __init__(self):
        super().__init__()
        self.seeds = [keras.random.SeedGenerator()]

    def call(self, x):
        return keras.random.dropout(x, 0.1, seed=self.seeds[0])


@pytest.mark.parametrize(
    "impure",
    [
        lambda: keras.layers.BatchNormalization(),
        lambda: keras.layers.Dropout(0.5),
        lambda: keras.Sequential([keras.layers.Dense(3), keras.layers.Dropout(0.5)]),
        DropsOut,
        lambda: keras.layers.GaussianNoise(0.1),
        lambda: keras.layers.AlphaDropout(0.1),
        lambda: keras.layers.Dense(3, activity_regularizer="l2"),
        lambda: layers.TimeVarying(keras.layers.Dropout(0.5), bases.Bucket(2)),
        lambda: layers.TimeVarying(keras.layers.BatchNormalization(), bases.Bucket(2)),
    ],
)
def test_impure_dynamics_are_refused_when_built(impure):
    with pytest.raises(
        ValueError, match="must be a pure function.*Use GroupNormalization.*Received"
    ) as caught:
        layers.ODE(impure(), steps=2).build((None, 3))
    assert "_Traced" not in str(caught.value)


def in_time(layer):
    return layers.TimeVarying(layer, bases.Bucket(2))


RECURRENT = [keras.layers.LSTM, keras.layers.GRU, keras.layers.SimpleRNN]


def both_ways(layer):
    return keras.layers.Bidirectional(layer, merge_mode="ave")


@pytest.mark.parametrize("around", [lambda layer: layer, both_ways, in_time])
@pytest.mark.parametrize("kind", RECURRENT)
def test_recurrent_layers_without_dropout_are_pure(kind, around, tmp_path):
    dynamics = around(kind(3, return_sequences=True))
    model = keras.Sequential([keras.Input((5, 3)), layers.ODE(dynamics, steps=2)])
    model.compile("sgd", "mse")
    x = random((4, 5, 3))
    before = [numbers(w) for w in model.trainable_variables]
    model.fit(x, x + 1, verbose=0)
    for weight, old in zip(model.trainable_variables, before, strict=True):
        assert not np.array_equal(numbers(weight), old), weight.path
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(numbers(again(x)), numbers(model(x)), rtol=1e-5)


@pytest.mark.parametrize("argument", ["dropout", "recurrent_dropout"])
@pytest.mark.parametrize("around", [lambda layer: layer, both_ways, in_time])
@pytest.mark.parametrize("kind", RECURRENT)
def test_recurrent_layers_with_dropout_are_refused_when_built(kind, around, argument):
    dynamics = around(kind(3, return_sequences=True, **{argument: 0.1}))
    with pytest.raises(ValueError, match="must be a pure function.*updates"):
        layers.ODE(dynamics, steps=2).build((None, None, 3))


class Rematerialized(keras.layers.Layer):
    """A layer that computes its hidden layer again for the gradient."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.hidden, self.last = keras.layers.Dense(4, "tanh"), keras.layers.Dense(3)

    def build(self, input_shape):
        self.hidden.build(input_shape)
        self.last.build((*input_shape[:-1], 4))

    def call(self, x):
        return keras.remat(lambda x: self.last(self.hidden(x)))(x)

    def compute_output_shape(self, input_shape):
        return input_shape


def in_scope(make):
    with keras.RematScope(mode="full"):
        return make()


class RematerializedBefore(Rematerialized):
    """The same, by a function that was made before it is built."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.again = keras.remat(lambda x: self.last(self.hidden(x)))

    def call(self, x):
        return self.again(x)


REMATERIALIZED = {
    "before": lambda: layers.ODE(RematerializedBefore(), steps=2),
    "remat": lambda: layers.ODE(Rematerialized(), steps=2),
    "deeper": lambda: layers.ODE(keras.Sequential([Rematerialized()]), steps=2),
    "in time": lambda: layers.ODE(in_time(Rematerialized()), steps=2),
    "TimeVarying": lambda: in_time(Rematerialized()),
    "scope": lambda: layers.ODE(in_scope(lambda: keras.layers.Dense(3)), steps=2),
    "scope in time": lambda: in_time(in_scope(lambda: keras.layers.Dense(3))),
    "ready-made": lambda: in_scope(lambda: layers.TrigDenseODE(2, hidden_units=4)),
}


@pytest.mark.parametrize("name", REMATERIALIZED)
def test_rematerialization_inside_is_refused_when_built(name):
    with pytest.raises(ValueError, match="must not use remat.*Received: .*emat"):
        REMATERIALIZED[name]().build((None, 3))


def test_rematerialization_that_reads_no_weights_is_not_refused():
    x = random((4, 3))
    gradients = []
    for activation in (ops.tanh, keras.remat(ops.tanh)):
        dense = keras.layers.Dense(3, activation=activation, kernel_initializer="ones")
        ode = layers.ODE(dense, "heun", 2)
        ode.build(x.shape)
        gradients.append(layer_gradients(ode, x))
    for got, desired in zip(*gradients, strict=True):
        assert_close(got, desired, 1e-6)


@pytest.mark.skipif(
    keras.backend.backend() == "jax", reason="makes no variables in a trace"
)
def test_rematerialization_around_a_build_is_not_refused():
    ode = layers.ODE(keras.layers.Dense(3), "heun", 2)

    @keras.remat
    def around(x):
        if not ode.built:
            ode.build(x.shape)
        return ode(x)

    x = random((4, 3))
    assert_close(numbers(around(ops.convert_to_tensor(x))), numbers(ode(x)), 1e-6)


def test_random_numbers_without_a_seed_are_refused():
    """Keras draws them from a variable that is not the layer's. In a compiled loop
    every step would have the same."""
    noisy = keras.layers.Lambda(
        lambda x: x + keras.random.normal((3,)), output_shape=(3,)
    )
    words = {"jax": "seeded random ops"}  # Keras' own
    expected = words.get(keras.backend.backend(), "must be a pure function.*updates")
    with pytest.raises(ValueError, match=f"(?s){expected}"):
        layers.ODE(noisy, steps=2)(random((4, 3)))


def test_frozen_batch_normalization_is_pure():
    norm = keras.layers.BatchNormalization(trainable=False)
    x = random((4, 3))
    y = numbers(layers.ODE(norm, steps=1)(x, training=True))
    np.testing.assert_allclose(y, x + x / np.sqrt(1.001), rtol=1e-4)


def test_a_block_with_frozen_statistics_learns_the_rest():
    norm = keras.layers.BatchNormalization(trainable=False)
    block = keras.Sequential([keras.Input((3,)), keras.layers.Dense(3), norm])
    ode = layers.ODE(block, steps=2)
    ode(random((4, 3)), training=True)
    assert [v.name for v in ode.trainable_variables] == ["kernel", "bias"]


@pytest.mark.parametrize("dtype", ["int32", "bool", "uint8"])
def test_a_state_of_integers_is_refused(dtype):
    with pytest.raises(ValueError, match=f"floating dtype.*Received: dtype='{dtype}'"):
        layers.ODE(keras.layers.Dense(3), dtype=dtype)


def dense_ode(**arguments):
    return layers.DenseODE(**{"basis": "cosine", "steps": 2, **arguments})


@pytest.mark.parametrize(
    "t_span",
    [keras.Variable([0.0, 2.0]), ops.convert_to_tensor([0, 2]), np.arange(0, 3, 2)],
)
def test_a_span_is_kept_as_two_numbers_however_it_is_given(t_span):
    ode = dense_ode(t_span=t_span)
    assert ode.t_span == (0.0, 2.0)
    assert [type(t) for t in ode.t_span] == [float, float]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: dense_ode(steps=0), "integer of at least 1. Received: steps=0"),
        (lambda: dense_ode(steps=2.5), "Received: steps=2.5"),
        (lambda: dense_ode(steps="adaptive"), "'euler' has no error.*'adaptive'"),
        (lambda: dense_ode(solver="rk5"), "'ralston'.*Received: solver='rk5'"),
        (lambda: dense_ode(basis="x"), "'bucket'.*Received: basis='x'"),
        (lambda: dense_ode(adjoint="x"), "'direct'.*Received: adjoint='x'"),
        (lambda: dense_ode(start="x"), "'independent'.*Received: start='x'"),
        (lambda: dense_ode(t_span=(1.0, 1.0)), r"Received: t_span=\(1.0, 1.0\)"),
        (lambda: dense_ode(t_span=(0.0, 1.0, 2.0)), "two different, finite times"),
        (lambda: dense_ode(t_span=0.5), "two different, finite times"),
        (lambda: dense_ode(normalization="batch"), "Received: normalization='batch'"),
        (lambda: layers.BucketDenseODE(2, steps=2, t_span=(1, 1)), "t_span"),
        (
            lambda: dense_ode(basis=bases.Bucket(2), t_span=(2.0, 0.0)),
            r"not defined on all of `t_span`.*`domain=\(0.0, 2.0\)`.*Received",
        ),
        (lambda: layers.ODE("dense", steps=1), "`dynamics` must be a Keras layer"),
        (lambda: layers.TimeVarying(3, "trig"), "`layer` must be a Keras layer"),
        (lambda: layers.TimeAppended(None), "`layer` must be a Keras layer"),
        (lambda: layers.ResidualStack("x", 2), "`block` must be a Keras layer"),
        (lambda: layers.ResidualStack(layers.DenseBlock(), 0), "Received: depth=0"),
        (lambda: layers.Augment(0), "Received: channels=0"),
        (lambda: dense_ode(hidden_units=0), "at least 1. Received: hidden_units=0"),
        (lambda: layers.ConvBlock(filters=2.5), "integer.*Received: filters=2.5"),
        (lambda: dense_ode().build((None, None)), "number of channels"),
        (
            lambda: layers.ODE(keras.layers.Dense(4), steps=1).build((None, 3)),
            r"x with shape \(None, 3\), dx/dt with shape \(None, 4\)",
        ),
        (
            lambda: layers.ResidualStack(keras.layers.Dense(4), 1).build((None, 3)),
            r"input with shape \(None, 3\), output with shape \(None, 4\)",
        ),
        (
            lambda: layers.TrigConvODE(1, steps=1).build((None, 3)),
            r"1, 2 or 3 spatial axes.*Received: input_shape=\(None, 3\)",
        ),
        (
            lambda: layers.TrigDenseODE(1, steps=1).build((3,)),
            r"\(batch, ..., channels\).*Received: input_shape=\(3,\)",
        ),
        (
            lambda: dense_ode()(np.ones((2, 3), "int32")),
            "must be floating.*keras.ops.cast.*Received: dtype=int32",
        ),
        (
            lambda: dense_ode()(keras.Input((3,), dtype="int32")),
            "must be floating.*Received: dtype=int32",
        ),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("t_span", [(0.0, 5.0), (2.0, -1.0)])
def test_smooth_bases_go_beyond_their_domain(t_span):
    """With the values of their formulas there."""
    t = t_span[1]
    formulas = {
        "constant": [1],
        "poly": [1, t, t**2],
        "trig": [1, np.cos(t), np.sin(t), np.cos(2 * t), np.sin(2 * t)],
    }
    for basis, z in formulas.items():
        ode = dense_ode(basis=BASES[basis], t_span=t_span, start="independent")
        ode.build((None, 3))
        kernel = numbers(ode.dynamics.coefficients[0])
        expected = np.tensordot(z, kernel, 1)
        np.testing.assert_allclose(numbers(ode.weights_at(t)[0]), expected, rtol=1e-4)


# Configuration.


def test_objects_as_arguments_survive_a_file(tmp_path):
    ssp3 = Tableau("ssp3", 3, ((), (1.0,), (0.25, 0.25)), (1 / 6, 1 / 6, 2 / 3))
    ode = layers.TrigDenseODE(
        2,
        solver=ssp3,
        steps=4,
        t_span=(1.0, 0.0),
        adjoint=Checkpoint(2),
        kernel_regularizer="l2",
    )
    model = keras.Sequential([keras.Input((3,)), ode])
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras").layers[0]
    assert loaded.solver.tableau == ssp3
    assert loaded.adjoint == Checkpoint(2)
    assert loaded.t_span == (1.0, 0.0)
    assert loaded.basis == bases.Trigonometric(2)
    assert loaded.losses


def test_masks_pass_through():
    model = keras.Sequential(
        [keras.layers.Masking(), dense_ode(), keras.layers.LSTM(2)]
    )
    x = random((2, 5, 3))
    x[1, 3:] = 0
    y = numbers(model(x))
    np.testing.assert_allclose(y[1], numbers(model(x[1:, :3]))[0], atol=1e-5)
