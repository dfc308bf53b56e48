"""Models whose ODEs are unrolled into plain Keras layers."""

import dataclasses
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_nanode import checks
from keras_nanode.copying.copies import cloned, copy_layer, is_graph
from keras_nanode.copying.parts import all_layers
from keras_nanode.copying.trainable import flags, set_flags
from keras_nanode.fields.dynamics import takes_time
from keras_nanode.fields.stateless import split_variables
from keras_nanode.integrate import as_state, time_dtype
from keras_nanode.keywords import named_if_wrong
from keras_nanode.layers import (
    ODE,
    Augment,
    ConvBlock,
    DenseBlock,
    ResidualStack,
    TimeAppended,
    TimeVarying,
)
from keras_nanode.layers.arguments import is_ours
from keras_nanode.models.carrying import compile_arguments
from keras_nanode.models.varying import check_graph
from keras_nanode.stepping import Problem, get_steps
from keras_nanode.stepping.fixed import FixedSteps
from keras_nanode.stepping.step import Step

_UNROLLED = (ODE, ResidualStack, ConvBlock, DenseBlock, Augment)


@named_if_wrong
def materialize(model: keras.Model, steps: int | None = None) -> keras.Model:
    """A plain Keras model that computes what `model` does, for runtimes without loops.

    Every layer of this library becomes a functional model of the same name, made of
    Keras' own layers and operations. An ODE becomes a chain of evaluations of its
    dynamics, each a frozen copy of the layer with the weights theta(t) of that time.
    The result can be saved, loaded and exported where this library is not installed.
    Other layers are copied too: the result shares no weight with `model`.

    Args:
        model: A built functional or Sequential model. It may contain others.
        steps: Positive integer, the number of equal steps for ODEs with adaptive steps,
            which a model without loops cannot choose; None if there are no such ODEs.
            Other ODEs keep their own number.

    Returns:
        A model of the same kind, equal to `model` up to rounding (ODEs with adaptive
        steps up to the error of `steps` equal ones). Its size grows with the number of
        steps. Stages with equal weights share them, unless the dynamics take the time
        as an input, as `TimeAppended` does.

    Raises:
        ValueError: if `model` is not functional or Sequential or not built, if steps
            are adaptive and no `steps` is given, if a layer that is not of this library
            holds one that is, or if a layer makes a mask.

    Example:

    >>> import keras
    >>> from keras_nanode import layers, models
    >>> ode = layers.TrigDenseODE(2, solver="heun", steps=3)
    >>> model = keras.Sequential([keras.Input((4,)), ode])
    >>> plain = models.materialize(model)
    >>> type(plain.layers[0]).__module__.split(".")[0]
    'keras'
    >>> x = keras.ops.ones((2, 4))
    >>> bool(keras.ops.max(abs(plain(x) - model(x))) < 1e-5)
    True
    """
    check_graph("model", model)
    if steps is not None:
        checks.integer("steps", steps)
    _check_masks(model)
    copies: list = []

    def plain(layer):
        if is_graph(layer):
            return cloned(layer, plain)
        if isinstance(layer, ODE):
            return _opened(layer, _input_shape(layer), steps)
        _check_plain(layer)
        copy = type(layer).from_config(layer.get_config())
        if is_ours(type(layer)):
            copy.build(_input_shape(layer))
            copy.set_weights(layer.get_weights())
            return _opened(copy, _input_shape(layer), steps)
        copies.append((layer, copy))
        return copy

    result = plain(model)
    for layer, copy in copies:
        copy.set_weights(layer.get_weights())
        set_flags(copy, flags(layer))
    if model.compiled:
        result.compile(**compile_arguments(model))
    return result


def _input_shape(layer):
    return layer.get_build_config()["input_shape"]


def _check_masks(model):
    """Refuses masks, which the operations between layers would lose."""
    for layer in all_layers(model):
        makes = isinstance(layer, keras.layers.Masking)
        if makes or getattr(layer, "mask_zero", False):
            raise ValueError(
                f"The layer {layer.name!r} makes a mask, which a materialized model "
                "would lose on its way. Export the model as it is, with its loop; or "
                "build it again without masks, and set its weights. "
                f"Received: a model with {type(layer).__name__}"
            )


def _check_plain(layer):
    """Refuses a layer if it holds layers of this library that are not unrolled."""
    if isinstance(layer, _UNROLLED):
        return
    for found in all_layers(layer):
        if is_ours(type(found)):
            raise ValueError(
                f"The layer {found.name!r} of keras_nanode cannot be made plain where "
                "it is. Layers of functional and Sequential models can, the dynamics "
                "of ODEs and the blocks of residual stacks, of the types "
                f"{[t.__name__ for t in _UNROLLED]}. "
                f"Received: {type(found).__name__} in the {type(layer).__name__} "
                f"{layer.name!r}"
            )


def _opened(
    layer: keras.Layer, shape: tuple[int | None, ...], steps: int | None = None
) -> keras.Layer:
    """A plain layer with the same name, weights and outputs."""
    _check_plain(layer)
    if not is_ours(type(layer)):
        return layer
    x = keras.Input(shape[1:], dtype=layer.compute_dtype)
    if isinstance(layer, ODE):
        y = _unrolled(layer, x, steps)
    elif isinstance(layer, ResidualStack):
        y = _stacked(layer, x)
    else:
        # A symbolic call: what it calls becomes the layers of a functional model.
        y = layer.call(x)
    return keras.Model(x, y, name=layer.name, trainable=layer.trainable)


def _stacked(stack: ResidualStack, x: keras.KerasTensor) -> keras.KerasTensor:
    blocks: dict = {}
    for block in stack.blocks:
        if id(block) not in blocks:
            inner = keras.Input(x.shape[1:], dtype=x.dtype)
            y = _opened(block, x.shape)(inner)
            blocks[id(block)] = keras.Model(
                inner, y, name=f"block_{len(blocks)}", trainable=block.trainable
            )
        x = x + blocks[id(block)](x)
    return x


def _unrolled(ode: ODE, x: keras.KerasTensor, steps: int | None) -> keras.KerasTensor:
    """x(t1) from a symbolic x(t0)."""
    number: Any = ode.steps
    if ode.is_adaptive:
        if steps is None:
            raise ValueError(
                f"The ODE {ode.name!r} chooses its steps, which a model without loops "
                "cannot. Give their number, for example `materialize(model, steps=20)`."
                f" Received: steps=None, and the layer's {ode.steps}"
            )
        number = get_steps(ode.solver, steps)
    field, params = ode.field()
    state = as_state(x)
    field = dataclasses.replace(field, func=_Stages(ode, x.shape))
    times = np.array(ode.t_span)
    problem = Problem(field, ode.solver, times, time_dtype(state))
    plan = FixedSteps(problem, number, number)
    h, times, located, jumps = plan.batch(0)
    # Python numbers, since a tensor would be an input of the symbolic graph.
    h, times = (ops.convert_to_numpy(x).tolist() for x in (h, times))
    prepared = field.weights.prepare(params, located)
    for i in range(number):
        jump = None if jumps is None else bool(jumps[i])
        theta = field.weights.at(prepared, i, jump is not None)
        step = Step(problem, h[i], times[i], theta, jump).absorb_h()
        if i == 0:
            state = ode.solver.start(step.slopes(step.theta), state)
        state = step.take(state, step.theta)
    return _cast(ode.solver.value(state), ode.compute_dtype)


class _Stages:
    """The dynamics of an ODE as plain layers, one for each set of weights.

    If the time is an input of the dynamics, there is one for each time as well. This is
    not so for `TimeVarying`, where the time only sets the weights.
    """

    def __init__(self, ode: ODE, shape: tuple[int | None, ...]):
        self.dynamics, self.shape = ode.dynamics, shape
        self.varies = isinstance(ode.dynamics, TimeVarying)
        self.takes_time = takes_time(ode.dynamics) and not self.varies
        self.known: dict = {}

    def __call__(self, t, y, theta):
        weights = [ops.convert_to_numpy(w) for w in theta[0]]
        time = {"t": t} if self.takes_time else {}
        key = (*time.values(), *(w.tobytes() for w in weights))
        if key not in self.known:
            name = f"stage_{len(self.known)}"
            self.known[key] = self._stage(weights, time, y.dtype, name)
        return self.known[key](y)

    def _stage(self, weights, time, dtype, name):
        y = keras.Input(self.shape[1:], dtype=dtype)
        x = _cast(y, self.dynamics.compute_dtype)
        layer = self._frozen(weights, x, time)
        if isinstance(layer, TimeAppended):
            x, time, layer = layer.appended(x, **time), {}, layer.layer
        dx = _opened(layer, x.shape)(x, **time)
        return keras.Model(y, _cast(dx, dtype), name=name)

    def _frozen(self, weights, x, time):
        """A frozen copy of the layer with these weights."""
        source = self.dynamics
        layer = source.copy_of_layer() if self.varies else copy_layer(source)
        layer(x, **time)
        state = source.constants if self.varies else split_variables(source)[1]
        for variables, values in zip(
            split_variables(layer), (weights, state), strict=True
        ):
            for variable, value in zip(variables, values, strict=True):
                variable.assign(value)
        layer.trainable = False
        return layer


def _cast(x, dtype):
    return x if x.dtype == dtype else ops.cast(x, dtype)
