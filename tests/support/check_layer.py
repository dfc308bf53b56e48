"""What every public layer must do, as one function.

`test_check_layer.py` proves it with broken layers that it has to reject.
"""

import inspect
import json

import keras
import numpy as np
from cases import compiled, layer_gradients, numbers, random
from keras import ops, tree

# A time that bfloat16 rounds up to 0.5, into the next of two buckets.
TIME = 0.4999


def check_layer(cls, arguments, shape, folder):
    """Raises an AssertionError at the first promise that the layer breaks.

    Args:
        cls: The layer's class.
        arguments: A function without arguments that gives new ones for `cls`.
        shape: An input's shape.
        folder: A path to save in.
    """
    for check in checks_of(cls, arguments):
        keras.utils.set_random_seed(0)
        keras.config.set_dtype_policy("float32")
        check(cls, arguments, shape, folder)


def _call(layer, x):
    return layer(x, **_time(layer))


def _time(layer):
    """The further argument of a layer that takes a time."""
    parameters = inspect.signature(layer.call).parameters
    return {"t": ops.convert_to_tensor(TIME, "float32")} if "t" in parameters else {}


def _same_weights(source, *targets):
    for target in targets:
        target.set_weights([numbers(w) for w in source.weights])


def _attributes_and_configuration(cls, arguments, shape, folder):
    layer = cls(**arguments(), name="a_name")
    own = [n for n in inspect.signature(cls).parameters if n not in ("args", "kwargs")]
    assert all(hasattr(layer, name) for name in own)
    config = json.loads(json.dumps(layer.get_config()))
    assert config["name"] == "a_name"
    again = cls.from_config(config)
    assert json.loads(json.dumps(again.get_config())) == config
    stored = json.loads(json.dumps(keras.saving.serialize_keras_object(layer)))
    assert stored["registered_name"] == f"keras_nanode>{cls.__name__}"
    restored = keras.saving.deserialize_keras_object(stored)
    assert type(restored) is cls
    assert json.loads(json.dumps(restored.get_config())) == config


def _shapes(cls, arguments, shape, folder):
    layer = cls(**arguments())
    layer.build(shape)
    assert layer.built
    built = [w.shape for w in layer.weights]
    promised = cls(**arguments()).compute_output_shape((None, *shape[1:]))
    symbolic = cls(**arguments())
    output = _call(symbolic, keras.Input(shape[1:]))
    assert tuple(output.shape) == tuple(promised)
    y = _call(layer, random(shape))
    assert [w.shape for w in layer.weights] == built
    assert [w.shape for w in symbolic.weights] == built
    assert (None, *y.shape[1:]) == tuple(promised)
    assert y.shape[0] == shape[0]


def _dtypes(cls, arguments, shape, folder):
    reference = cls(**arguments())
    x = random(shape)
    y = numbers(_call(reference, x))
    for policy in ("mixed_bfloat16", "float64"):
        keras.config.set_dtype_policy(policy)
        layer = cls(**arguments())
        layer.build(shape)
        _same_weights(reference, layer)
        exact = ops.convert_to_tensor(random(shape, "float64"))
        output = _call(layer, ops.cast(exact, layer.compute_dtype))
        allowed = {layer.compute_dtype}
        if keras.backend.backend() != "tensorflow" and policy == "float64":
            # Many functions of `keras.ops` give float32 for float64 there.
            allowed.add("float32")
        assert keras.backend.standardize_dtype(output.dtype) in allowed
        assert {w.dtype for w in layer.weights} <= {layer.variable_dtype}
        if policy == "float64" and keras.backend.backend() == "tensorflow":
            exact = numbers(output)
            rounded = exact.astype("float32").astype("float64")
            assert np.any(exact != rounded), "computes in float32"
        output = numbers(ops.cast(output, "float32"))
        assert np.abs(output - y).max() < 0.05 * np.abs(y).max(), "the time is rounded"


def _graph(cls, arguments, shape, folder):
    layer = cls(**arguments())
    x = ops.convert_to_tensor(random(shape))
    y = numbers(_call(layer, x))
    graph = numbers(compiled(lambda x: _call(layer, x))(x))
    np.testing.assert_allclose(graph, y, atol=1e-6 * np.abs(y).max())


def _training(cls, arguments, shape, folder):
    layer = cls(**arguments())
    inputs = keras.Input(shape[1:])
    time = {"t": TIME} if _time(layer) else {}
    model = keras.Model(inputs, layer(inputs, **time))
    model.compile(keras.optimizers.SGD(0.1), "mse")
    before = [numbers(w) for w in layer.trainable_weights]
    x = random(shape)
    # Away from the output, lest a gradient happens to be small.
    target = 3 + numbers(model(x))
    history = model.fit(x, target, epochs=1, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    for weight, old in zip(layer.trainable_weights, before, strict=True):
        assert not np.array_equal(numbers(weight), old), f"{weight.path} did not move"
        assert np.isfinite(numbers(weight)).all()


def _gradients(cls, arguments, shape, folder):
    """Present, finite, and those of the backend through the unrolled solve."""
    keras.config.set_dtype_policy("float64")
    layer = cls(**arguments())
    layer.build(shape)
    x = random(shape, "float64")
    actual = layer_gradients(layer, x, **_time(layer))
    assert all(np.isfinite(g).all() for g in tree.flatten(actual))
    if "adjoint" not in layer.get_config():
        return
    # `keras.layers` compute float64 in float32 on JAX and PyTorch.
    tolerance = 1e-10 if keras.backend.backend() == "tensorflow" else 2e-5
    pair = []
    for adjoint in ("checkpoint", "direct"):
        other = cls(**{**arguments(), "adjoint": adjoint})
        other.build(shape)
        _same_weights(layer, other)
        pair.append(layer_gradients(other, x))
    for a, b in zip(*map(tree.flatten, pair), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * np.abs(b).max())


def _files(cls, arguments, shape, folder):
    layer = cls(**arguments())
    inputs = keras.Input(shape[1:])
    time = {"t": TIME} if _time(layer) else {}
    model = keras.Model(inputs, layer(inputs, **time))
    x = random(shape)
    y = numbers(model(x))
    model.save(folder / "model.keras")
    loaded = keras.models.load_model(folder / "model.keras")
    np.testing.assert_allclose(numbers(loaded(x)), y, rtol=1e-6)
    model.save_weights(folder / "model.weights.h5")
    keras.utils.set_random_seed(1)
    clone = keras.models.clone_model(model)
    clone.load_weights(folder / "model.weights.h5")
    np.testing.assert_allclose(numbers(clone(x)), y, rtol=1e-6)


def _seeds(cls, arguments, shape, folder):
    x = random(shape)
    outputs = []
    for _ in range(2):
        keras.utils.set_random_seed(3)
        outputs.append(numbers(_call(cls(**arguments()), x)))
    np.testing.assert_array_equal(*outputs)


def _company(cls, arguments, shape, folder):
    layer = cls(**arguments())
    x = random(shape)
    y = numbers(layer(x))
    model = keras.Sequential([keras.Input(shape[1:]), layer])
    np.testing.assert_allclose(numbers(model(x)), y, atol=1e-6)
    distributed = keras.layers.TimeDistributed(layer)
    over_time = numbers(distributed(np.stack([x, x], axis=1)))
    np.testing.assert_allclose(over_time[:, 1], y, atol=1e-5)


CHECKS = (
    _attributes_and_configuration,
    _shapes,
    _seeds,
    _files,
    _dtypes,
    _graph,
    _training,
    _gradients,
    _company,
)


def checks_of(cls, arguments):
    """Those that a layer can be asked: one that builds no weights learns nothing, and
    one that is called with a time goes into no Sequential."""
    layer = cls(**arguments())
    out = {_company} if _time(layer) else set()
    if cls.build is keras.Layer.build:
        out |= {_training, _gradients}
    return [check for check in CHECKS if check not in out]
