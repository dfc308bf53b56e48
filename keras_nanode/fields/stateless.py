"""Layers and functions as pure functions of everything that gets a gradient."""

import copy
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

# How much is drawn by the layers of Keras that draw random numbers.
_RATES = ("rate", "dropout", "recurrent_dropout", "stddev")


def value_of(variable: keras.Variable) -> Any:
    """A variable's value as a tensor, in the dtype it is stored in, and without a
    gradient if the variable is frozen."""
    # Copied, since TensorFlow would use the variable itself as the tensor. A variable
    # that is read inside a custom gradient would have to be an argument of it.
    value = ops.cast(ops.copy(variable.value), variable.dtype)
    # Without this, TensorFlow's tape would still track a frozen variable in eager mode.
    return value if variable.trainable else ops.stop_gradient(value)


def split_variables(layer: keras.Layer) -> tuple[list, list]:
    """The variables of a layer that a model which has it trains, and the others.

    For a model each variable's own flag counts, so that a part of a frozen layer that
    was thawed is trained. The layer alone would say that nothing of it is.
    """
    variables = layer.variables
    others = [v for v in variables if not v.trainable]
    return [v for v in variables if v.trainable], others


class LayerFunction:
    """A built Keras layer as a pure function of its trainable weights.

    Args:
        layer: The layer.
        weights: Which variables are its weights; None for the trainable ones.
        state: Pairs of each of the other variables and its value; None reads them now.

    Raises:
        ValueError: if the layer draws random numbers, or when a call of it updates a
            variable or adds a loss.
    """

    def __init__(
        self,
        layer: keras.Layer,
        weights: list | None = None,
        state: list[tuple] | None = None,
    ):
        self.layer = layer
        trainable, others = split_variables(layer)
        self._weights = trainable if weights is None else weights
        if state is None:
            state = [(v, value_of(v)) for v in others]
        self._state, self._closes_over, self._callee = state, True, layer
        if drawn := _drawn_from(layer, [variable for variable, _ in state]):
            raise ValueError(_impure(layer, f"updates {drawn[0].path!r}"))

    @property
    def constants(self) -> list:
        """The values of the variables that are not its weights."""
        return [value for _, value in self._state]

    def with_constants(self, constants: list, closes_over: bool) -> "LayerFunction":
        """The function with other constants. If it must not close over a trainable
        variable, a call that reads one raises a ValueError."""
        variables = [variable for variable, _ in self._state]
        function = copy.copy(self)
        function._state = list(zip(variables, constants, strict=True))
        function._closes_over = closes_over
        return function

    def calling(self, callee: keras.Layer) -> "LayerFunction":
        """The function that calls an alias of the layer."""
        function = copy.copy(self)
        function._callee = callee
        return function

    @property
    def scale(self) -> Callable[[list, Any], list] | None:
        """`scale(weights, h)` gives weights that make the outputs h times as large.

        None if the outputs are not known to be linear in any weights, or if h times
        these might vanish in a lower precision.
        """
        layer = self.layer
        linear = {id(v) for v in getattr(layer, "linear_variables", ())}
        found = [id(v) in linear for v in self._weights]
        if not linear or sum(found) < len(linear):  # frozen, or quantized
            return None
        if layer.compute_dtype != layer.variable_dtype:
            return None

        def scale(weights, h):
            return [
                (h if isinstance(h, float) else ops.cast(h, w.dtype)) * w
                if is_linear
                else w
                for w, is_linear in zip(weights, found, strict=True)
            ]

        return scale

    def __call__(self, weights: list, *args: Any, **named: Any) -> Any:
        given = list(zip(self._weights, weights, strict=True))
        scope = _Watching(given + self._state, collect_losses=True)
        scope.stranger = None if self._closes_over else self.layer.name
        with scope:
            outputs = self._callee(*args, **named)
        if scope.updated:
            raise ValueError(_impure(self.layer, f"updates {scope.updated[0]!r}"))
        if scope.losses:
            raise ValueError(_impure(self.layer, "adds a loss"))
        return outputs


def _drawn_from(layer: keras.Layer, variables: list) -> list:
    """Those of the variables that a layer may draw random numbers from.

    On PyTorch, not all draws update one of them, and none does in a symbolic call.
    """
    seeds = [v for v in variables if v.path.endswith("seed_generator_state")]
    parts = layer._flatten_layers() if seeds else ()
    unused = {id(seed) for part in parts for seed in _unused_seeds(part)}
    return [seed for seed in seeds if id(seed) not in unused]


def _unused_seeds(part: keras.Layer) -> list:
    """The states of a layer's random numbers if all its rates are 0, as those of a
    recurrent cell without dropout."""
    rates = [getattr(part, name) for name in _RATES if hasattr(part, name)]
    if not rates or any(rate != 0 for rate in rates):
        return []
    own = vars(part).values()
    return [x.state for x in own if isinstance(x, keras.random.SeedGenerator)]


class Trial(keras.StatelessScope):
    """Calls `note(variable)` for each variable that is read within, also where the
    layer is a function of it."""

    def __init__(self, note: Callable[[keras.Variable], None]):
        super().__init__()
        self.note = note

    def get_current_value(self, variable):
        self.note(variable)
        return super().get_current_value(variable)


class _Watching(keras.StatelessScope):
    """Records which variables a call updates. They need not be the layer's own: Keras
    has one for random numbers without a seed.

    Attributes:
        stranger: The name of a layer that must not read trainable variables of others,
            or None.
    """

    stranger: str | None = None

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.updated: list[str] = []

    def get_current_value(self, variable):
        if isinstance(self.original_scope, Trial):
            self.original_scope.note(variable)
        value = super().get_current_value(variable)
        if value is None and self.stranger and variable.trainable:
            raise ValueError(
                f"The dynamics {self.stranger!r} read a trainable variable that is not "
                "theirs, which would get no gradient. Make its layer an attribute of "
                'the dynamics, so that Keras finds it; or use `adjoint="direct"`. '
                f"Received: variable={variable.path!r}"
            )
        return value

    def add_update(self, update):
        super().add_update(update)
        self.updated.append(update[0].path)


class PlainFunction:
    """A function that reads no trainable Keras variable and updates none.

    What it closes over gets no gradient. Only for a variable can this be detected.

    Args:
        func: The function.

    Raises:
        ValueError: when a call reads a trainable variable or updates one.
    """

    def __init__(self, func: Callable):
        self.func = func

    def __call__(self, *args):
        with _NoVariables():
            return self.func(*args)


class _NoVariables(keras.StatelessScope):
    def get_current_value(self, variable):
        if variable.trainable:
            raise ValueError(
                "`func` reads a trainable variable that is not among its arguments, "
                "which would get no gradient. If `func` calls a Keras layer, pass the "
                "layer itself as `func`; or pass the variable's value in `args`; "
                'or use `adjoint="direct"`. '
                f"Received: variable={variable.path!r}"
            )
        # As it would have been without this scope.
        outer = self.original_scope
        return outer.get_current_value(variable) if outer else None

    def add_update(self, update):
        raise ValueError(
            "`func` must be a pure function, since a solver evaluates it several times "
            "a step and again for the gradient, but a call of it updates a variable. "
            f"Received: variable={update[0].path!r}"
        )


def _impure(layer: keras.Layer, deed: str) -> str:
    return (
        f"The dynamics {layer.name!r} of an ODE must be a pure function, since a "
        "solver evaluates it several times a step and again for the gradient, but a "
        f"call of it {deed}. Use GroupNormalization or LayerNormalization instead of "
        "BatchNormalization, or, in a layer that is trained already, keep its "
        "statistics as they are with `trainable = False` of each BatchNormalization "
        "alone. Put Dropout, noise and activity regularizers outside of the ODE. "
        f"Received: {type(layer).__name__}"
    )
