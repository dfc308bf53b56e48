"""The image classifier of the paper's section 3.1."""

from collections.abc import Sequence

import keras

from keras_nanode import adjoints, bases, checks, solvers
from keras_nanode.keywords import named_if_wrong
from keras_nanode.layers import ODE, ConvBlock, ResidualStack, TimeAppended, TimeVarying
from keras_nanode.layers.horizon import flow_times
from keras_nanode.layers.starts import STARTS
from keras_nanode.models.choices import basis_of

# The blocks whose weights depend on time: three rows of the paper's Table 1, and more.
_BASES = {name: basis for name, basis in bases.ALL.items() if basis.size > 1}
BLOCKS = ("auto", "app", *_BASES, "con_resnet", "uncon_resnet")


@named_if_wrong
def classifier(
    input_shape: tuple[int, int, int],
    classes: int,
    block: str = "trig",
    basis: str | bases.Basis | None = None,
    steps: int = 10,
    filters: int = 256,
    hidden_filters: int = 64,
    *,
    stages: int = 1,
    stem_strides: int = 1,
    normalization: str | None = None,
    use_bias: bool = False,
    solver: solvers.SolverLike = "euler",
    adjoint: adjoints.AdjointLike = "checkpoint",
    start: str = "independent",
    t_span: str | Sequence[float] = "auto",
) -> keras.Model:
    """An image classifier: stem convolution, residual flow, pooling, logits.

    The flow is dx/dt = f(x, theta(t)) over `t_span`, or a residual network. f and the
    residual blocks are bottlenecks of three pre-activated convolutions (1x1, 3x3, 1x1).
    With the default widths, a set of weights theta has 69,632 numbers.

    Args:
        input_shape: `(height, width, channels)` of the images.
        classes: Positive integer, the number of logits.
        block: What the flow is. `"trig"`, `"bucket"`, `"poly"`, `"cosine"`,
            `"legendre"` and `"bspline"` have weights that depend on time. `"app"` sees
            the time as a channel. `"auto"` does not depend on time. `"con_resnet"` and
            `"uncon_resnet"` are residual networks of `steps` blocks, with shared and
            with separate weights.
        basis: The basis of a flow whose weights depend on time; None for the one that
            `bases.get(block)` gives. If its domain is (0, 1) or if it is a name, its
            domain becomes the flow's times, unless both it and `t_span` are given.
        steps: Positive integer, the solver's steps, or the depth of a residual network.
        filters: Positive integer, channels of the flow.
        hidden_filters: Positive integer, width of the bottleneck.
        stages: Positive integer, the number of flows. Before each but the first, a
            convolution halves the resolution.
        stem_strides: Positive integer, strides of the stem; 2 quarters the work.
        normalization: None, `"group"` or `"layer"`: in the blocks, where its weights
            depend on time as the others do. Both put a `LayerNormalization` before the
            pooling.
        use_bias: Boolean, whether the convolutions of the blocks have biases.
        solver, adjoint: As in `layers.ODE`; residual networks ignore them.
        start: As in `layers.TimeVarying`.
        t_span: As in `layers.ODE`; `"auto"` for the default of `layers.ConvODE`:
            (0, sqrt(m)), where m is the number of independent sets of weights that the
            flow passes: `steps`, or the size of the basis if that is smaller. m is 1 if
            weights are constant in time or start so. The end is 1 for polynomials t^k,
            which are large beyond. With an end at sqrt(m), random weights change the
            variance of the state by the same factor at any depth (arXiv 2206.06929),
            and the flow learns what a residual network learns. Over (0, steps) each
            Euler step has length 1, as a block of a residual network has. With as many
            buckets, `block="bucket"` is that network. Over (0, 1) the steps refine one
            flow, and each update of a weight moves the outputs by 1 / steps of that.

    Returns:
        A functional `keras.Model` from images `(batch, height, width, channels)` to
        float32 logits `(batch, classes)`.

    Raises:
        ValueError: if `block`, `solver` or `adjoint` is unknown, `basis` is not one
            that the block takes, `input_shape` is not three numbers, or a number is
            not positive.

    Example:

    >>> from keras_nanode import bases, models
    >>> model = models.classifier(
    ...     (8, 8, 1), 10, "trig", bases.Trigonometric(3), filters=16, hidden_filters=4
    ... )
    >>> model.output_shape
    (None, 10)

    References:
        - Time Dependence in Non-Autonomous Neural ODEs, arXiv 2005.01906, section 3.1
    """
    checks.integer("steps", steps)
    checks.one_of("start", start, STARTS)  # also where the block has no use for it
    automatic = isinstance(t_span, str) and t_span == "auto"
    given = None if automatic else checks.span("t_span", t_span)
    solver, adjoint = solvers.get(solver), adjoints.get(adjoint)
    found = basis_of(block, basis, BLOCKS, _BASES, given)
    varied, span = flow_times(found or "constant", given, start, solver, steps)
    expected = "(height, width, channels) of the images, without the batch"
    image_shape = checks.integers("input_shape", input_shape, expected, 3)
    for name, number in (
        ("classes", classes),
        ("filters", filters),
        ("hidden_filters", hidden_filters),
        ("stages", stages),
        ("stem_strides", stem_strides),
    ):
        checks.integer(name, number)

    def flow(stage: int) -> keras.Layer:
        pattern = ConvBlock(
            filters,
            hidden_filters=hidden_filters,
            normalization=normalization,
            use_bias=use_bias,
        )
        name = f"flow_{stage}"
        if block.endswith("resnet"):
            return ResidualStack(pattern, steps, block == "con_resnet", name=name)
        if block == "app":
            dynamics: keras.Layer = TimeAppended(pattern)
        elif found is not None:
            dynamics = TimeVarying(pattern, varied, start)
        else:
            dynamics = pattern
        return ODE(dynamics, solver, steps, span, adjoint, name=name)

    # Whatever Keras' default is, the images are (height, width, channels).
    layout = {"data_format": "channels_last"}
    images = keras.Input(image_shape)
    x = images
    for stage in range(stages):
        strides = 2 if stage else stem_strides
        x = keras.layers.Conv2D(filters, 3, strides, padding="same", **layout)(x)
        x = flow(stage)(x)
    if normalization:
        x = keras.layers.LayerNormalization()(x)
    x = keras.layers.Activation("relu")(x)
    x = keras.layers.GlobalAveragePooling2D(**layout)(x)
    logits = keras.layers.Dense(classes, dtype="float32")(x)
    return keras.Model(images, logits, name=f"{block}_classifier")
