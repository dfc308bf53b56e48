import keras
import numpy as np
import pytest
from cases import numbers, random
from keras import ops

from keras_nanode import bases, layers, models

SMALL = {"filters": 8, "hidden_filters": 4, "steps": 4}
SIZES = {**SMALL, "steps": 10}


def block_weights(**arguments):
    model = models.classifier((32, 32, 3), 10, **arguments)
    return model.get_layer("flow_0").count_params()


def test_the_papers_table_1():
    """Weights of the block; 69,632 in float32 are the paper's 2.8e-4 GB."""
    theta = 69_632
    assert block_weights(block="auto") == theta
    assert block_weights(block="con_resnet") == theta
    assert block_weights(block="uncon_resnet", steps=7) == 7 * theta
    assert block_weights(block="bucket", basis=bases.Bucket(10)) == 10 * theta
    hundred = block_weights(block="bucket", basis=bases.Bucket(100), steps=100)
    assert hundred == 100 * theta
    # The paper counts 20; its eq. 8 has 2 d + 1 functions.
    assert block_weights(block="trig", basis=bases.Trigonometric(10)) == 21 * theta
    assert block_weights(block="poly", basis=bases.Polynomial(4)) == 5 * theta
    # One channel more for the first 1x1 convolution.
    assert block_weights(block="app") == theta + 64


def test_defaults_are_those_of_the_papers_table():
    theta = 69_632
    assert block_weights(block="trig") == 21 * theta
    assert block_weights(block="bucket") == 10 * theta


@pytest.mark.parametrize("block", models.BLOCKS)
def test_every_block_trains_and_is_saved(block, tmp_path):
    basis = bases.Bucket(4) if block == "bucket" else None
    model = models.classifier(
        (8, 8, 1), 3, block, basis, **SMALL, normalization="group"
    )
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    x, y = random((8, 8, 8, 1)), np.arange(8) % 3
    losses = model.fit(x, y, epochs=2, verbose=0).history["loss"]
    assert np.isfinite(losses).all()
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(numbers(again(x)), numbers(model(x)), atol=1e-5)


def test_stages_and_strides_reduce_the_resolution():
    model = models.classifier((16, 16, 3), 5, stages=2, stem_strides=2, **SMALL)
    assert model.get_layer("flow_0").output.shape == (None, 8, 8, 8)
    assert model.get_layer("flow_1").output.shape == (None, 4, 4, 8)
    assert model.output_shape == (None, 5)


def test_normalization_depends_on_time_too():
    model = models.classifier((8, 8, 1), 3, normalization="layer", **SMALL)
    names = [w.path for w in model.get_layer("flow_0").weights]
    assert sum("gamma" in name for name in names) == 3
    assert all(w.shape[0] == 21 for w in model.get_layer("flow_0").weights)


@pytest.mark.parametrize("normalization", [None, "group"])
def test_the_flow_is_pre_activated_so_an_activation_comes_before_the_pooling(
    normalization,
):
    model = models.classifier((8, 8, 1), 3, normalization=normalization, **SMALL)
    kinds = [type(layer).__name__ for layer in model.layers]
    norms = ["LayerNormalization"] if normalization else []
    assert kinds == (
        ["InputLayer", "Conv2D", "ODE"]
        + [*norms, "Activation", "GlobalAveragePooling2D", "Dense"]
    )


def test_biases_are_an_option():
    def weights(use_bias):
        arguments = {"block": "auto", "use_bias": use_bias, **SMALL}
        return block_weights(**arguments)

    # Of two convolutions to 4 channels and one to 8.
    assert weights(True) - weights(False) == 4 + 4 + 8


def test_options_reach_the_solver():
    model = models.classifier(
        (8, 8, 1), 3, solver="rk4", adjoint="backsolve", start="independent", **SMALL
    )
    ode = model.get_layer("flow_0")
    assert isinstance(ode, layers.ODE)
    assert (ode.solver.name, ode.steps) == ("rk4", 4)
    assert type(ode.adjoint).__name__ == "Backsolve"
    assert ode.dynamics.start == "independent"


def test_logits_are_float32_under_mixed_precision():
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = models.classifier((8, 8, 1), 3, **SMALL)
    assert model.output.dtype == "float32"
    assert model.get_layer("flow_0").output.dtype == "bfloat16"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"block": "ode"}, "'uncon_resnet'.*Received: block='ode'"),
        (
            {"block": "auto", "basis": bases.Bucket(2)},
            r"block='auto' do not depend on time.*Received: basis=Bucket\(",
        ),
        (
            {"block": "trig", "basis": bases.Bucket(2)},
            r"takes a `keras_nanode.bases.Trigonometric`.*Received: basis=Bucket\(",
        ),
        ({"stages": 0}, "Received: stages=0"),
        ({"hidden_filters": 0}, "at least 1. Received: hidden_filters=0"),
        ({"stem_strides": 1.5}, "Received: stem_strides=1.5"),
        ({"steps": 0}, "Received: steps=0"),
        ({"solver": "rk5", "block": "con_resnet"}, "Received: solver='rk5'"),
        ({"adjoint": "magic", "block": "con_resnet"}, "Received: adjoint='magic'"),
        ({"input_shape": (8, 8)}, r"without the batch. Received: input_shape=\(8, 8\)"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        models.classifier(**{"input_shape": (8, 8, 1), "classes": 3, **arguments})


@pytest.mark.parametrize("block", models.BLOCKS)
@pytest.mark.parametrize("normalization", [None, "layer"])
def test_keras_default_of_channels_first_changes_no_classifier(block, normalization):
    x = random((2, 12, 8, 3))
    outputs = []
    for image_data_format in ("channels_last", "channels_first"):
        keras.config.set_image_data_format(image_data_format)
        keras.utils.set_random_seed(1)
        model = models.classifier(
            (12, 8, 3),
            5,
            block,
            bases.Bucket(4) if block == "bucket" else None,
            normalization=normalization,
            stages=2,
            **SMALL,
        )
        outputs.append(numbers(model(x)))
    np.testing.assert_array_equal(*outputs)


def test_buckets_over_0_to_n_learn_as_the_residual_network(tmp_path):
    """From the same weights, 20 updates: it is the same network."""
    n, x, y = 4, random((16, 8, 8, 3)), np.arange(16) % 3
    sizes = {**SMALL, "steps": n, "normalization": "group"}
    flow = models.classifier(
        (8, 8, 3),
        3,
        "bucket",
        bases.Bucket(n, (0, n)),
        t_span=(0, n),
        start="independent",
        **sizes,
    )
    stack = models.classifier((8, 8, 3), 3, "uncon_resnet", **sizes)
    for source, target in zip(stack.layers, flow.layers, strict=True):
        weights = source.get_weights()
        if source.name == "flow_0":
            blocks = [block.get_weights() for block in source.blocks]
            weights = [np.stack(slices) for slices in zip(*blocks, strict=True)]
        target.set_weights(weights)
    curves = []
    for model in (flow, stack):
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.Adam(3e-3), loss)
        curves.append(
            model.fit(x, y, batch_size=16, epochs=20, verbose=0).history["loss"]
        )
    assert curves[1][-1] < 0.9 * curves[1][0]
    np.testing.assert_allclose(*curves, atol=1e-4)


def test_a_default_basis_covers_the_flow():
    for block in ("bucket", "cosine", "legendre", "trig"):
        model = models.classifier((8, 8, 1), 3, block, t_span=(0, 10), **SIZES)
        assert model.get_layer("flow_0").dynamics.basis.domain == (0, 10)
        assert model.get_layer("flow_0").t_span == (0, 10)


@pytest.mark.parametrize(
    ("block", "basis", "start", "end"),
    [
        ("bucket", bases.Bucket(5), "independent", 5**0.5),
        ("trig", None, "independent", 10**0.5),
        ("trig", None, "constant", 1),
        ("auto", None, "independent", 1),
        ("poly", None, "independent", 1),
        ("poly", bases.Polynomial(2), "independent", 1),
    ],
)
def test_by_default_a_flow_ends_at_the_root_of_its_independent_weights(
    block, basis, start, end
):
    model = models.classifier((8, 8, 1), 3, block, basis, start=start, **SIZES)
    flow = model.get_layer("flow_0")
    assert flow.t_span == (0, end)
    if block != "auto":
        assert flow.dynamics.basis.domain == (0, end)
        assert type(flow.dynamics.basis) is type(bases.get(basis or block))


@pytest.mark.parametrize("block", [b for b in models.BLOCKS if b in bases.ALL])
def test_by_default_no_update_of_all_coefficients_is_a_large_one(block):
    """Adam moves each by up to its rate, and so a weight by that times sum |z_k|."""
    model = models.classifier((8, 8, 1), 3, block, **SIZES)
    basis = model.get_layer("flow_0").dynamics.basis
    z = numbers(basis(ops.linspace(*basis.domain, 50)))
    assert np.abs(z).sum(-1).max() <= 4 * basis.size


@pytest.mark.parametrize("steps", [10, 40, 100])
def test_a_deep_flow_starts_with_the_variance_of_its_input(steps):
    """However many steps: Marion et al., arXiv 2206.06929."""
    for block in ("bucket", "cosine", "trig", "auto", "poly", "legendre", "bspline"):
        model = models.classifier(
            *((8, 8, 4), 3, block, None, steps),
            filters=32,
            hidden_filters=8,
            normalization="group",
        )
        flow, x = model.get_layer("flow_0"), random((8, 8, 8, 32))
        ratio = numbers(flow(x)).var() / numbers(x).var()
        assert 1 / 2 < ratio < 2, block
