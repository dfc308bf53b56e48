"""Vector fields dy/dt from a user's Keras layer or function."""

import inspect
from collections.abc import Callable, Collection, Container
from typing import Any

import keras
from keras import ops

from keras_nanode import backend, checks, tree
from keras_nanode.bases import Basis
from keras_nanode.copying.alias import alias
from keras_nanode.fields.arguments import NO_ARGUMENTS, Arguments
from keras_nanode.fields.masks import passing_on, with_mask
from keras_nanode.fields.stateless import (
    LayerFunction,
    PlainFunction,
    split_variables,
    value_of,
)
from keras_nanode.fields.vector_field import VectorField
from keras_nanode.fields.weights import BasisWeights, FixedWeights, Parts, Weights
from keras_nanode.tree import Structure

_OF_KERAS = ("training", "mask")
_HALF = ("float16", "bfloat16")


class WeightsOverTime:
    """What a solver needs of a layer whose weights are combined over a basis.

    Attributes:
        basis: The functions of time.
        coefficients: A variable of shape `(K, *w.shape)` for each weight w.
    """

    basis: Basis
    coefficients: list[keras.Variable]

    def function(self) -> LayerFunction:
        """The layer as a pure function of one set of weights and the state."""
        raise NotImplementedError


class Flow:
    """A layer that solves an ODE itself.

    Attributes:
        name: What the layer is called.
        dynamics: The layer that it integrates.
    """

    name: str
    dynamics: keras.Layer


def takes_time(layer: keras.Layer) -> bool:
    """Whether a layer is called with a time: its `call` has an argument `t`
    or `time`."""
    return _time(inspect.signature(layer.call).parameters) is not None


def needs_time(layer: keras.Layer) -> bool:
    """Whether a layer cannot be called with one input alone, for want of a time."""
    parameters = inspect.signature(layer.call).parameters.values()
    needed = [p.name for p in parameters if p.default is p.empty]
    return len(needed) > 1 and _time(needed) is not None


def _time(parameters: Container[str]) -> str | None:
    return next((name for name in checks.TIME if name in parameters), None)


def arrangement(layer: keras.Layer, num_args: int = 0) -> Callable:
    """How to call a layer.

    Returns `arrange(t, y, *args)`, which gives the layer's first input and a dict of
    the other inputs by name.

    If the layer's first input is called `t` or `time`, it takes (t, y, *args).
    Otherwise it takes (y, *args), and the time as the input of that name if it has one.

    Raises:
        ValueError: if the layer's `call` does not take this number of inputs.
    """
    parameters = inspect.signature(layer.call).parameters
    time = _time(parameters)
    own = [p for p in parameters.values() if p.name not in _OF_KERAS]
    names = [p.name for p in own if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    needed = [p.name for p in own if p.name in names and p.default is p.empty]
    given = 1 + num_args + (time is not None)
    undecided = any(p.kind is p.VAR_POSITIONAL for p in own)
    if undecided or not len(needed) <= given <= len(names):
        more = f" and the {num_args} entries of `args`" if num_args else ""
        raise ValueError(
            f"The layer {layer.name!r} cannot be called with the state{more}, nor with "
            "the time beside: its `call` must take call(y), call(y, t) or call(t, y), "
            f"where the time is called `t`{', and `args` behind' if num_args else ''}. "
            f"Received: {type(layer).__name__} with call{inspect.signature(layer.call)}"
        )
    rest = [name for name in names if name != time]

    def arrange(t, y, *args):
        values = dict(zip(rest, (y, *args), strict=False))
        if time is not None:
            values[time] = t
        return values.pop(names[0]), values

    return arrange


def _with_exact_time(layer: keras.Layer) -> Any:
    """The layer, without the cast of its inputs to half precision: that would move a
    time, even into a wrong bucket. Keras still casts the layer's weights."""
    if layer.compute_dtype in _HALF and takes_time(layer):
        return alias(layer, _convert_input_args=False)
    return layer


def vector_field(
    layer: keras.Layer,
    closes_over: bool,
    arguments: Arguments = NO_ARGUMENTS,
    mask: Any = None,
) -> tuple[VectorField, tuple]:
    """The built layer as a vector field, and its parameters. The parts of theta are the
    layer's weights and the arguments.

    Args:
        layer: The layer.
        closes_over: Whether it may read trainable variables of other layers.
        arguments: The arguments it takes besides t and y.
        mask: A mask that is attached to every state that the layer is called with.
    """
    arrange = arrangement(layer, len(arguments))
    over_time = isinstance(layer, WeightsOverTime)
    if isinstance(layer, WeightsOverTime):
        whole, variables = layer.function(), layer.coefficients
        weights: Weights = BasisWeights(layer.basis)
    else:
        whole, variables = LayerFunction(layer), split_variables(layer)[0]
        weights = FixedWeights()

    whole = whole.calling(passing_on(_with_exact_time(whole.layer), mask))
    takes_mask = "mask" in inspect.signature(whole.layer.call).parameters
    dtype = layer.compute_dtype
    # Casting the time to half precision would move it.
    time_dtype = "float64" if dtype == "float64" else "float32"

    def bind(constants):
        mask, state, others = constants
        function = whole.with_constants(state, closes_over)

        def func(t, y, theta, *others):
            weights, *rest = theta
            args = arguments.filled(tuple(rest), others)
            x, *args = tree.map_structure(lambda x: _cast(x, dtype), [y, *args])
            t = ops.cast(t, time_dtype)
            x = with_mask(x, *mask)
            # Weights that depend on time were already evaluated at t, in theta.
            first, named = (x, {}) if over_time else arrange(t, x, *args)
            if mask and named and takes_mask:
                # With several inputs, Keras would look for a mask named after each.
                (named["mask"],) = mask
            dy = function(weights, first, **named)
            return as_slope(y, dy, f"The dynamics {layer.name!r}")

        # A mask is one more tensor that the layer sees.
        func = backend.shielded(func, None if mask else function.layer)
        return arguments.bound(func, others)

    constants = [] if mask is None else [mask], whole.constants, arguments.others
    parts = Parts(weights, *arguments.weights)
    field = VectorField.of(bind, constants, parts, whole.scale)
    return field, ([value_of(v) for v in variables], *arguments.params)


def _cast(x, dtype):
    return ops.cast(x, dtype) if keras.backend.is_float_dtype(x.dtype) else x


def function_field(
    func: Callable, closes_over: bool, arguments: Arguments
) -> tuple[VectorField, tuple]:
    """`func(t, y, *args)` as a vector field, and its parameters. The parts of theta
    are the arguments.

    Args:
        func: The function.
        closes_over: Whether it may read trainable variables that it is not given.
        arguments: The arguments it takes besides t and y.
    """
    checks.function_of_time(func, len(arguments))
    func = backend.converted(func)
    plain = func if closes_over else PlainFunction(func)

    def run(t, y, theta, *others):
        try:
            return as_slope(y, plain(t, y, *arguments.filled(theta, others)))
        except TypeError as error:
            if not _is_of_numbers(y):
                raise
            raise ValueError(
                f"`func` failed with a y of scalars in a {type(y).__name__}, as y0 is: "
                f"{error}. {_ONE_VECTOR} Received: y {_outline(y)}"
            ) from error

    shielded = backend.shielded(run)
    field = VectorField.of(
        lambda others: arguments.bound(shielded, others),
        arguments.others,
        Parts(*arguments.weights),
    )
    return field, arguments.params


_ONE_VECTOR = "For one vector give `y0` as an array, such as `numpy.array(y0)`."


def _is_of_numbers(y: Structure) -> bool:
    """Whether y is a list of scalars, which a function may take for a vector."""
    return isinstance(y, (list, tuple)) and not any(
        len(getattr(x, "shape", ())) for x in tree.flatten(y)
    )


def as_slope(y: Structure, dy: Structure, source: str = "`func`") -> Structure:
    """Casts dy/dt to y's dtypes, if it is floating and has y's structure and shapes."""
    try:
        tree.assert_same_structure(y, dy)
    except (TypeError, ValueError):
        hint = f" {_ONE_VECTOR}" if _is_of_numbers(y) else ""
        raise ValueError(
            f"{source} must give dy/dt in the structure of y.{hint} Received: y "
            f"{_outline(y)}, dy/dt {_outline(dy)}"
        ) from None
    return tree.map_structure(lambda y, dy: _slope(y, dy, source), y, dy)


def _slope(y, dy, source):
    if isinstance(dy, float):
        # Keras would round it to float32, even if the state is float64.
        dy = ops.convert_to_tensor(dy, y.dtype)
    dtype = getattr(dy, "dtype", None)
    if dtype is None:
        raise ValueError(
            f"{source} must give dy/dt, a floating tensor in the shape of y. "
            f"Received: y with shape {tuple(y.shape)}, dy/dt={dy!r}"
        )
    dtype = keras.backend.standardize_dtype(dtype)
    if not keras.backend.is_float_dtype(dtype):
        raise ValueError(
            f"{source} must give dy/dt as a floating tensor, because the state is "
            "floating. Cast it; split a complex one into a real and an imaginary axis "
            "of y. "
            f"Received: y with dtype={keras.backend.standardize_dtype(y.dtype)}, "
            f"dy/dt with dtype={dtype}"
        )
    has_rank = getattr(dy.shape, "rank", 0) is not None
    if has_rank and not same_shape(y.shape, dy.shape):
        raise ValueError(
            f"{source} must give dy/dt in the shape of y. Received: y with shape "
            f"{tuple(y.shape)}, dy/dt with shape {tuple(dy.shape)}"
        )
    # A loop's state must keep its dtype, whatever t and `args` promote it to.
    dy = ops.cast(dy, y.dtype)
    # In a graph, the output of TensorFlow's `numpy_function` has no rank.
    return dy if has_rank else ops.reshape(dy, ops.shape(y))


def same_shape(first: Collection[int | None], second: Collection[int | None]) -> bool:
    """Whether two shapes agree in all axes that are known."""
    return len(first) == len(second) and all(
        None in (a, b) or a == b for a, b in zip(first, second, strict=True)
    )


def _outline(structure: Structure) -> str:
    """Describes a structure by the types of its leaves."""
    return str(tree.map_structure(lambda x: type(x).__name__, structure))
