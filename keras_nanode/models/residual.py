"""Residual networks as flows whose weights are buckets of time, and back."""

import functools
from collections.abc import Callable

import keras
import numpy as np

from keras_nanode import bases
from keras_nanode.copying.copies import copy_layer
from keras_nanode.copying.parts import all_layers
from keras_nanode.keywords import named_if_wrong
from keras_nanode.layers import ODE, ResidualStack, TimeVarying
from keras_nanode.models.carrying import (
    Arrays,
    Origin,
    Origins,
    carry_compilation,
    unchanged,
)
from keras_nanode.models.varying import check_graph


@named_if_wrong
def to_flow(model: keras.Model) -> keras.Model:
    """The same model with its residual stacks as flows over buckets of time.

    A `layers.ResidualStack` of n separate blocks x + f_i(x) is n Euler steps of length
    1: an ODE over (0, n) whose weights are those of f_i in the i-th of n buckets. Its
    outputs are equal up to rounding. It trains alike, since the state of the optimizer
    is carried over. From there, `models.rebase` leads to any basis.

    Args:
        model: A built functional or Sequential model. It is left as it is. Stacks with
            `shared=True` stay.

    Returns:
        A new model, compiled as the old one, which shares nothing with it. Each flow
        has the name of its stack.

    Raises:
        ValueError: if `model` is neither, or has no stack of separate blocks.

    Example:

    >>> import keras
    >>> from keras_nanode import layers, models
    >>> stack = layers.ResidualStack(layers.DenseBlock(), depth=3, shared=False)
    >>> model = keras.Sequential([keras.Input((4,)), stack])
    >>> flow = models.to_flow(model)
    >>> flow.layers[0].dynamics.basis
    Bucket(num_buckets=3, domain=(0.0, 3.0))
    >>> x = keras.ops.ones((2, 4))
    >>> bool(keras.ops.max(abs(flow(x) - model(x))) < 1e-5)
    True
    """
    return _converted(
        model,
        lambda x: isinstance(x, ResidualStack) and not x.shared,
        _flow,
        _flow_origins,
        "`layers.ResidualStack` with `shared=False`",
    )


@named_if_wrong
def to_residual(model: keras.Model) -> keras.Model:
    """The same model with its flows over buckets as residual stacks: undoes `to_flow`.

    Args:
        model: A built functional or Sequential model. It is left as it is. Flows that
            are not n Euler steps of length 1 with a bucket for each stay:
            `models.rebase(model, bases.Bucket(n), steps=n)` makes them so over (0, n).

    Returns:
        A new model, compiled as the old one, which shares nothing with it, with the
        state of the optimizer.

    Raises:
        ValueError: if `model` is neither, or has no such flow.

    Example:

    >>> import keras
    >>> from keras_nanode import layers, models
    >>> ode = layers.BucketDenseODE(3, steps=3, t_span=(0, 3), name="flow")
    >>> model = keras.Sequential([keras.Input((4,)), ode])
    >>> models.to_residual(model).get_layer("flow").depth
    3
    """
    return _converted(
        model,
        _is_residual,
        _stack,
        _stack_origins,
        "`layers.ODE` with Euler's method over (0, n), n steps and weights over "
        "`bases.Bucket(n)`",
    )


def _is_residual(layer: keras.Layer) -> bool:
    if not (isinstance(layer, ODE) and isinstance(layer.dynamics, TimeVarying)):
        return False
    basis, steps = layer.dynamics.basis, layer.steps
    return (
        layer.solver.name == "euler"
        and isinstance(basis, bases.Bucket)
        and basis.size == steps
        and tuple(basis.domain) == tuple(layer.t_span)
        and bool(np.isclose(np.diff(layer.t_span)[0], steps))
    )


def _converted(
    model: keras.Model,
    is_source: Callable,
    convert: Callable,
    origins_of: Callable,
    expected: str,
) -> keras.Model:
    check_graph("model", model)
    if not any(map(is_source, all_layers(model))):
        raise ValueError(
            f"The model has no layer to convert, which is a {expected}. "
            f"Received: the layers {[x.name for x in model.layers]}"
        )
    pairs: list[tuple[keras.Layer, keras.Layer]] = []

    def replace(layer, copy):
        if not is_source(layer):
            return None
        new = convert(layer, copy)
        pairs.append((layer, new))
        return new

    new = copy_layer(model, replace=replace)
    origins = Origins()
    for layer, converted in pairs:
        origins_of(origins, layer, converted)
    seen = {id(v) for _, origin in origins.weights for v in origin.variables}
    made = {id(w) for w, _ in origins.weights}
    before = [v for v in model.weights if id(v) not in seen]
    after = [w for w in new.weights if id(w) not in made]
    for v, w in zip(before, after, strict=True):
        origins.add(w, unchanged(v))
    origins.assign()
    carry_compilation(model, new, origins)
    return new


def _flow(stack: ResidualStack, copy: Callable) -> ODE:
    basis = bases.Bucket(stack.depth, (0, stack.depth))
    policy = stack.dtype_policy
    dynamics = TimeVarying(copy_layer(stack.block), basis, dtype=policy)
    return ODE(dynamics, "euler", stack.depth, basis.domain, **_kept(stack))


def _stack(flow: ODE, copy: Callable) -> ResidualStack:
    block = flow.dynamics.copy_of_layer()
    return ResidualStack(block, flow.steps, shared=False, **_kept(flow))


def _kept(layer: keras.Layer) -> dict:
    return {"name": layer.name, "dtype": layer.dtype_policy}


def _flow_origins(origins: Origins, stack: ResidualStack, flow: ODE) -> None:
    weights = [block.variables for block in stack.blocks]
    _check_trainable(stack, [v for of_block in weights for v in of_block])
    for new, *olds in zip(flow.dynamics.coefficients, *weights, strict=True):
        origins.add(new, Origin(olds, _stacked))


def _stack_origins(origins: Origins, flow: ODE, stack: ResidualStack) -> None:
    _check_trainable(flow, flow.dynamics.variables)
    for i, block in enumerate(stack.blocks):
        for new, old in zip(block.variables, flow.dynamics.coefficients, strict=True):
            origins.add(new, Origin([old], functools.partial(_slice, i)))


def _check_trainable(layer: keras.Layer, variables: list) -> None:
    """Weights that are frozen do not vary in time."""
    frozen = [v.path for v in variables if not v.trainable]
    if frozen:
        raise ValueError(
            f"All weights of {layer.name!r} must be trainable. Set its `trainable` to "
            "True, and freeze the new layer after the conversion. "
            f"Received: {len(frozen)} frozen weights, such as {frozen[0]!r}"
        )


def _stacked(kind: str, arrays: Arrays) -> np.ndarray:
    return np.stack(arrays)


def _slice(i: int, kind: str, arrays: Arrays) -> np.ndarray:
    return arrays[0][i]
