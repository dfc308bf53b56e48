"""Trains image classifiers that differ in one block and compares them.

Usage:

    python examples/train_classifier.py
    python examples/train_classifier.py --block trig poly bucket --order 5
    python examples/train_classifier.py --dataset cifar10 --data-dir ~/tfds \\
        --block bucket uncon_resnet --recipe full --output runs/cifar10

    python examples/train_classifier.py --block bucket --grow 2 4 8 16 --epochs 16

Without arguments, it trains on scikit-learn's digits, without a download. It compares
weights that are trigonometric functions of time (trig) with constant weights (auto),
with constant weights in a block so wide that it has as many (wide_auto), and with the
residual network that has a block in place of each step (uncon_resnet). Each is trained
in a separate process, so its peak memory is measured alone. The output folder gets two
pictures and, for each block, a folder with the model (`model.keras`), a SavedModel for
TensorFlow without Keras, the history of the training and a few weights over time.

The test set is the validation data of `fit`, and no epoch is selected by it. After an
interruption, the same command resumes after the last full epoch, with the same batches,
and ends with the same weights. It does not repeat finished training.
"""

import argparse
import itertools
import math
from pathlib import Path
from typing import Any, NamedTuple

import runs  # before what imports TensorFlow

# isort: split
import fitting
import keras
import numpy as np
import tensorflow as tf
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, PercentFormatter

from keras_nanode import bases, datasets, layers, models


class Recipe(NamedTuple):
    """What suits a dataset; an option of the same name has precedence.

    Attributes:
        stages, stem_strides, normalization: As in `models.classifier`.
        weight_decay: Of AdamW, for all but normalizations and biases.
        warmup_epochs: The rate rises from 0 before it falls with a cosine.
        augment: Whether images are shifted, and those of CIFAR mirrored.
    """

    order: int
    filters: int
    epochs: int
    batch_size: int
    learning_rate: float
    mixed_precision: bool = False
    stages: int = 1
    stem_strides: int = 2
    normalization: str | None = None
    weight_decay: float = 0.0
    warmup_epochs: int = 0
    augment: bool = True


QUICK = {
    "digits": Recipe(3, 32, 15, 32, 1e-2, normalization="group", augment=False),
    "mnist": Recipe(10, 64, 10, 128, 1e-3),
    "cifar10": Recipe(10, 256, 30, 128, 1e-3),
    "cifar100": Recipe(10, 256, 30, 128, 1e-3),
}
# Made for one GPU and the whole of the images.
CIFAR = Recipe(
    order=10,
    filters=256,
    epochs=200,
    batch_size=128,
    learning_rate=1e-3,
    mixed_precision=True,
    stages=3,
    stem_strides=1,
    normalization="group",
    weight_decay=0.05,
    warmup_epochs=5,
)
RECIPES = {"quick": QUICK, "full": {"cifar10": CIFAR, "cifar100": CIFAR}}
# The blocks of the library, and one of constant weights as many as those of trig.
WIDE = "wide_auto"
BLOCKS = (*models.BLOCKS, WIDE)
SOLVERS = ("euler", "midpoint", "heun", "ralston", "rk4")
ADJOINTS = ("checkpoint", "backsolve", "direct")

# How far the logits of a SavedModel may be from those of the model, as a part of the
# largest logit (or of 1): for logits up to 10, that is 1e-4 at most in float32. The two
# need not round alike, since Keras compiles `predict` with XLA on a GPU.
TOLERANCES = {"float32": 1e-5, "mixed_float16": 5e-3, "mixed_bfloat16": 2e-2}

PARTS = np.linspace(0, 1, 401)
# The weights that are pictured are evenly spaced when sorted by how much they vary. The
# colours, of the map viridis, go from light to dark.
RANKS = {
    "varies least": "#BDDF26",
    "20 %": "#4AC16D",
    "40 %": "#1F9E89",
    "60 %": "#31688E",
    "80 %": "#443983",
    "varies most": "#440154",
}

ADVICE = "More --steps, a smaller --order or fewer --filters make it more stable."
COLUMNS = {
    "test accuracy": "{:.1%}",
    "test loss": "{:.3f}",
    "parameters": "{:,}",
    "s/epoch": "{:.2f}",
    "peak MB": "{:,.0f}",
}
# Okabe and Ito's palette, which colour-blind people can tell apart. A block has the
# same colour in all pictures.
COLORS = {
    "trig": "#0072B2",
    "auto": "#D55E00",
    "wide_auto": "#8C510A",
    "poly": "#009E73",
    "bucket": "#CC79A7",
    "app": "#E69F00",
    "con_resnet": "#56B4E9",
    "uncon_resnet": "#000000",
}


# The command line


def main() -> None:
    parser = argument_parser()
    runs.run(train, report, parser, chosen(parser, parser.parse_args()))


def chosen(
    parser: argparse.ArgumentParser, options: argparse.Namespace
) -> argparse.Namespace:
    """The options, with the recipe's values for those that were left out."""
    recipes = RECIPES[options.recipe]
    if options.dataset not in recipes:
        parser.error(
            f"--recipe {options.recipe} is for {' and '.join(recipes)}. "
            f"Received: --dataset {options.dataset}"
        )
    defaults = recipes[options.dataset]._asdict()
    if options.grow is None:
        return runs.completed(options, {**defaults, "grow": []})
    if options.block != ["bucket"] or options.order is not None:
        parser.error("--grow is for --block bucket, and stands for --order and --steps")
    options.order = options.steps = options.grow[0]
    return runs.completed(options, defaults)


def argument_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n")[0], allow_abbrev=False
    )
    add = parser.add_argument
    add("--dataset", choices=QUICK, default="digits", help="default: digits")
    add(
        "--seed",
        type=runs.count_from(0),
        default=0,
        help="of the first weights and the order of the images; default: 0",
    )
    add("--data-dir", type=Path, help="folder of TFDS datasets; digits needs none")
    add(
        "--block",
        nargs="+",
        choices=BLOCKS,
        default=["trig", "auto", WIDE, "uncon_resnet"],
        help="what to train, one after the other; default: trig auto wide_auto "
        "uncon_resnet",
    )
    add(
        "--order",
        type=runs.count_from(0),
        help="harmonics of trig, degree of poly and legendre, number of bucket, cosine "
        "and bspline; default: 3 for digits, 10 for others",
    )
    add(
        "--steps",
        type=runs.count_from(1),
        default=10,
        help="steps of the solver, blocks of a residual network; default: 10",
    )
    add(
        "--grow",
        type=runs.count_from(1),
        nargs="+",
        metavar="N",
        help="for --block bucket: train with so many buckets and steps, one number "
        "after the other, each for an equal part of the epochs, as in --grow 2 4 8 16",
    )
    add("--solver", choices=SOLVERS, default="euler", help="default: euler")
    add("--adjoint", choices=ADJOINTS, default="checkpoint", help="default: checkpoint")
    add(
        "--recipe",
        choices=RECIPES,
        default="quick",
        help="full: for one GPU, CIFAR in 200 epochs: three stages, normalization, "
        "AdamW with warm-up, mixed precision; default: quick",
    )
    runs.add_counts(parser, ("filters", "epochs", "batch_size"), QUICK)
    add(
        "--mixed-precision",
        action=argparse.BooleanOptionalAction,
        help="compute in float16 if TensorFlow sees a GPU, else in bfloat16, which "
        "processors are faster with; weights and ODE states remain float32; default: "
        "only with --recipe full",
    )
    add(
        "--output",
        type=Path,
        default=Path("runs/classifier"),
        help="folder of the results; default: runs/classifier",
    )
    return parser


# Training


def train(block: str, options: argparse.Namespace) -> None:
    """Trains one block and writes its folder, `results.json` last."""
    keras.utils.set_random_seed(options.seed)
    if options.mixed_precision:
        has_gpu = bool(tf.config.list_physical_devices("GPU"))
        keras.config.set_dtype_policy("mixed_float16" if has_gpu else "mixed_bfloat16")
    try:
        data = load(options)
        model = build(block, options, data)
    except (ImportError, ValueError) as error:
        runs.fail(error, code=2)
    folder = runs.make_folder(block, options)

    model, seconds = fit(model, data, folder, options)
    scores = model.evaluate(data.test, return_dict=True, verbose=0)
    fitting.check_finite(block, scores["loss"], folder, ADVICE)
    results = {
        "test accuracy": scores["accuracy"],
        "test loss": scores["loss"],
        "parameters": model.count_params(),
        "s/epoch": fitting.mean_after_first(seconds),
        "peak MB": runs.peak_megabytes(),
    }
    model.save(folder / "model.keras")
    np.savetxt(folder / "weights.csv", weights_over_time(model), delimiter=",")
    export(model, data.test, folder / "saved_model")
    runs.finish_folder(folder, results)


def fit(
    model: keras.Model,
    data: datasets.ImageDataset,
    folder: Path,
    options: argparse.Namespace,
) -> tuple[keras.Model, list[float]]:
    """Trains the model, and refines it in between if it is to grow."""
    parts = max(1, len(options.grow))
    ends = [options.epochs * part // parts for part in range(parts + 1)]
    seconds: list[float] = []
    for part, (begin, end) in enumerate(itertools.pairwise(ends)):
        if part:
            size = options.grow[part]
            model = models.rebase(model, bases.Bucket(size), steps=size)
        seconds += fitting.fit(model, data.train_from, data.test, folder, end, begin)
    return model, seconds


def span_of(options: argparse.Namespace) -> str | tuple[float, float]:
    """The times of a flow that grows are those of its last size."""
    return (0.0, math.sqrt(options.grow[-1])) if options.grow else "auto"


def load(options: argparse.Namespace) -> datasets.ImageDataset:
    given = {name: getattr(options, name) for name in ("batch_size", "augment", "seed")}
    if options.dataset == "digits":
        return datasets.digits(**given)
    return getattr(datasets, options.dataset)(options.data_dir, **given)


def build(
    block: str, options: argparse.Namespace, data: datasets.ImageDataset
) -> keras.Model:
    width = max(1, options.filters // 4)
    if block == WIDE:
        network = as_large_as(network_of("trig", width, options, data), options, data)
    else:
        network = network_of(block, width, options, data)
    images = keras.Input(data.input_shape)
    # From [0, 1] to [-2, 2]: about mean 0 and variance 1.
    scaled = keras.layers.Rescaling(4.0, offset=-2.0)(images)
    model = keras.Model(images, network(scaled), name=block)
    model.compile(
        optimizer(options, len(data.train)),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


def optimizer(options: argparse.Namespace, batches: int) -> keras.optimizers.Optimizer:
    """AdamW whose rate rises in the first epochs and then falls to 0."""
    warmup = options.warmup_epochs * batches
    rate = keras.optimizers.schedules.CosineDecay(
        0.0 if warmup else options.learning_rate,
        options.epochs * batches - warmup,
        warmup_target=options.learning_rate if warmup else None,
        warmup_steps=warmup,
    )
    adam = keras.optimizers.AdamW(rate, options.weight_decay)
    # Coefficients have the names of the weights that they give.
    adam.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return adam


def network_of(
    block: str, width: int, options: argparse.Namespace, data: datasets.ImageDataset
) -> keras.Model:
    """The classifier with a block whose bottleneck is `width` channels wide."""
    return models.classifier(
        data.input_shape,
        data.classes,
        block,
        basis_of(block, options),
        options.steps,
        options.filters,
        width,
        stages=options.stages,
        stem_strides=options.stem_strides,
        normalization=options.normalization,
        solver=options.solver,
        adjoint=options.adjoint,
        t_span=span_of(options),
    )


def basis_of(block: str, options: argparse.Namespace) -> bases.Basis | None:
    """The basis of weights that depend on time; its first argument is its order."""
    if block not in bases.ALL:
        return None
    kind: Any = type(bases.get(block))
    basis = kind(options.order)
    return basis.over(span_of(options)) if options.grow else basis


def as_large_as(
    other: keras.Model, options: argparse.Namespace, data: datasets.ImageDataset
) -> keras.Model:
    """A classifier with constant weights, as nearly as many as the other's."""

    def size(width: int) -> int:
        return network_of("auto", width, options, data).count_params()

    # A polynomial of degree 2 in the width, because of the convolution in the middle.
    widths = (1, 2, 3)
    square, line, rest = np.polyfit(widths, [size(width) for width in widths], 2)
    width = round(max(np.roots([square, line, rest - other.count_params()]).real))
    return network_of("auto", width, options, data)


def export(model: keras.Model, test: tf.data.Dataset, folder: Path) -> None:
    """Writes a SavedModel and compares what it says about the test set."""
    backend = keras.backend.backend()
    if backend not in runs.EXPORTING:
        print(f"SavedModel: skipped, Keras cannot write one on the {backend} backend")
        return
    # Convolutions in TensorFlow's 10 bits for float32 on GPUs would hide an error.
    tf.config.experimental.enable_tensor_float_32_execution(False)
    model.export(str(folder), verbose=False)
    loaded = tf.saved_model.load(str(folder))  # its variables live as long as it does
    expected = model.predict(test, verbose=0)
    served = [loaded.serve(images).numpy() for images, _ in test]
    difference = np.abs(np.concatenate(served) - expected).max()
    tolerance = TOLERANCES[keras.config.dtype_policy().name]
    allowed = tolerance * max(1, np.abs(expected).max())
    print(
        f"SavedModel: the logits of the test set differ by {difference:.1e} at most "
        f"(allowed: {allowed:.1e})"
    )
    if not difference <= allowed:
        runs.fail(f"{folder} does not compute what the model does.")


def weights_over_time(model: keras.Model) -> np.ndarray:
    """PARTS of the first flow and a few of its weights there, as columns.

    The weights are from its 3x3 convolution, from the one that varies the least to the
    one that varies the most.
    """
    flow = model.layers[-1].get_layer("flow_0")
    kernels = kernel_over_time(flow).reshape(len(PARTS), -1)
    by_variation = np.argsort(np.ptp(kernels, axis=0), kind="stable")
    chosen = np.linspace(0, len(by_variation) - 1, len(RANKS)).round().astype(int)
    return np.column_stack([PARTS, kernels[:, by_variation[chosen]]])


def kernel_over_time(flow: keras.Layer) -> np.ndarray:
    """The 3x3 kernel of the block at PARTS of the flow."""
    if isinstance(flow, layers.ResidualStack):
        parts = flow.blocks
    elif isinstance(flow.dynamics, layers.TimeVarying):
        times = PARTS * flow.t_span[1]
        return kernel_among(flow.dynamics.weights_at(times), axes=5)
    else:
        parts = [flow.dynamics]
    kernels = [kernel_among(part.trainable_variables, axes=4) for part in parts]
    current = np.minimum((PARTS * len(parts)).astype(int), len(parts) - 1)
    return np.stack(kernels)[current]


def kernel_among(weights: list, axes: int) -> np.ndarray:
    """The second of the block's three kernels, between norms and biases."""
    kernels = [w for w in weights if len(w.shape) == axes]
    return keras.ops.convert_to_numpy(kernels[1])


# The report


def report(results: runs.Results, options: argparse.Namespace) -> None:
    precision = "mixed precision" if options.mixed_precision else "float32"
    print(
        f"\n{options.dataset}: {options.epochs} epochs, {options.filters} filters, "
        f"{options.steps} steps of {options.solver}, adjoint {options.adjoint}, "
        f"{precision}\n"
    )
    print(runs.table(results, COLUMNS))
    pictures = {
        "training.png": training_picture(options),
        "weights.png": weights_picture(options),
    }
    for name, picture in pictures.items():
        picture.savefig(options.output / name, dpi=130)
    print(f"\nPictures: {', '.join(str(options.output / name) for name in pictures)}")


def training_picture(options: argparse.Namespace) -> Figure:
    """The test error and loss of each block after each epoch, on logarithmic axes."""
    figure = Figure(figsize=(9.5, 3.9), layout="constrained")
    titles = {"error": "Test error", "loss": "Test loss"}
    panels = dict(zip(titles, figure.subplots(1, 2), strict=True))
    for block in options.block:
        rows = fitting.read_history(options.output / block / "history.csv")
        epochs = [row["epoch"] for row in rows]
        curves = {
            "error": [1 - row["val_accuracy"] for row in rows],
            "loss": [row["val_loss"] for row in rows],
        }
        for metric, axes in panels.items():
            axes.plot(epochs, curves[metric], color=COLORS[block], marker=".")
    for metric, axes in panels.items():
        axes.set(title=titles[metric], xlabel="epoch")
        axes.set_yscale("log", nonpositive="mask")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        tidy(axes)
    panels["error"].yaxis.set_major_formatter(PercentFormatter(1))
    panels["loss"].yaxis.set_major_formatter("{x:g}")
    handles = [
        Line2D([], [], color=COLORS[block], label=block) for block in options.block
    ]
    add_legend(figure, handles)
    figure.suptitle(f"Training on {options.dataset}")
    return figure


def weights_picture(options: argparse.Namespace) -> Figure:
    """The blocks whose weights vary, or all if none does."""
    weights = {
        block: np.loadtxt(options.output / block / "weights.csv", delimiter=",").T
        for block in options.block
    }
    constant = [b for b, (_, *curves) in weights.items() if not np.ptp(curves, 1).any()]
    shown = [b for b in weights if b not in constant] or constant
    columns = math.ceil(math.sqrt(len(shown)))
    rows = math.ceil(len(shown) / columns)
    figure = Figure(figsize=(2 + 3.6 * columns, 1.2 + 3 * rows), layout="constrained")
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes, block in zip(panels, shown, strict=False):
        times, *curves = weights[block]
        for curve, color in zip(curves, RANKS.values(), strict=True):
            axes.plot(times, curve, color=color, linewidth=1.8)
        axes.set(title=block, xlabel="part of the flow", ylabel="weight")
        tidy(axes)
    for axes in panels[len(shown) :]:
        axes.remove()
    handles = [
        Line2D([], [], color=color, label=label) for label, color in RANKS.items()
    ]
    add_legend(figure, handles)
    title = "Six weights of the 3x3 convolution, as functions of time"
    if constant and shown != constant:
        title += f"\n(constant: {', '.join(constant)})"
    figure.suptitle(title)
    return figure


def add_legend(figure: Figure, handles: list[Line2D]) -> None:
    figure.legend(handles=handles, loc="outside right center", frameon=False)


def tidy(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.3)


if __name__ == "__main__":
    main()
