"""What a model made from another one takes over: weights, compilation, optimizer."""

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_nanode import tree

Arrays = list[np.ndarray]

# What optimizers of Keras keep for each weight, by the ends of the names, and how a
# change of coefficients acts on it: as on a weight, or a step of it; as on its
# gradient; as on squares of gradients; as on their size. Others start anew.
_KINDS = {
    "average": "weights",
    "gradient_accumulator": "gradients",
    "momentum": "gradients",
    "velocity": "squares",
    "velocity_hat": "squares",
    "norm": "sizes",
    "accumulator": "squares",
    "linear": "gradients",
    "average_gradient": "gradients",
    "accumulated_grad": "squares",
    "accumulated_delta_var": "step squares",
}
# Their momentum is a sum of steps, not of gradients.
_STEPPING = (keras.optimizers.SGD, keras.optimizers.RMSprop)


class Origin(NamedTuple):
    """Where a weight comes from.

    Attributes:
        variables: Those of the old model.
        take: `take(kind, arrays)` gives the new array from theirs, where the kind is
            "weights", "gradients", "squares" or "step squares".
    """

    variables: list[keras.Variable]
    take: Callable[[str, Arrays], np.ndarray]


class Origins:
    """Where each weight of a new model comes from."""

    def __init__(self):
        self.weights: list[tuple[keras.Variable, Origin]] = []

    def add(self, new: keras.Variable, origin: Origin) -> None:
        self.weights.append((new, origin))

    def assign(self) -> None:
        for new, (olds, take) in self.weights:
            new.assign(take("weights", _arrays(olds)))


def _same(kind: str, arrays: Arrays) -> np.ndarray:
    return arrays[0]


def unchanged(old: keras.Variable) -> Origin:
    return Origin([old], _same)


def compile_arguments(model: keras.Model) -> dict[str, Any]:
    """What compiles another model as this one, with an optimizer and metrics that are
    new. Functions need not be registered: they are taken as they are."""
    given = dict(model._compile_config.config)
    for name in ("metrics", "weighted_metrics"):
        given[name] = _new_metrics(given[name])
    if (optimizer := model.optimizer) is not None:
        optimizer = type(optimizer).from_config(optimizer.get_config())
    # The old optimizer is wrapped by now, if it is to be.
    return {**given, "optimizer": optimizer, "auto_scale_loss": False}


def carry_compilation(old: keras.Model, new: keras.Model, origins: Origins) -> None:
    """Compiles `new` as `old`, and carries the state of the optimizer over."""
    if not old.compiled:
        return
    new.compile(**compile_arguments(old))
    if old.optimizer is None:
        return
    _exempt(old.optimizer, new.optimizer, origins)
    if old.optimizer.built:
        new.optimizer.build(new.trainable_variables)
        _carry_state(old.optimizer, new.optimizer, origins)


def _new_metrics(metrics: Any) -> Any:
    """Metrics have state, which models do not share."""

    def new(metric):
        if not isinstance(metric, keras.Metric):
            return metric
        if type(metric) is keras.metrics.MeanMetricWrapper:  # of any function
            own = {"name": metric.name, "dtype": metric.dtype}
            return type(metric)(metric._fn, **own, **metric._fn_kwargs)
        return type(metric).from_config(metric.get_config())

    return tree.map_structure(new, metrics)


def _inner(optimizer: Any) -> Any:
    return getattr(optimizer, "inner_optimizer", optimizer)


def _exempt(old: Any, new: Any, origins: Origins) -> None:
    """Weights that do not decay still do not."""
    decays = getattr(_inner(old), "_use_weight_decay", None)
    if not getattr(_inner(old), "weight_decay", None) or decays is None:
        return
    still = [w for w, (olds, _) in origins.weights if not any(map(decays, olds))]
    if still:
        _inner(new).exclude_from_weight_decay(var_list=still)


def _carry_state(old: Any, new: Any, origins: Origins) -> None:
    before = _Slots(old, [v for _, origin in origins.weights for v in origin.variables])
    after = _Slots(new, [v for v, _ in origins.weights])
    steps = isinstance(_inner(old), _STEPPING)
    for name, slot in after.others.items():
        if name in before.others:
            slot.assign(before.others[name])
    taken = {id(v): olds for v, olds in origins.weights}
    for (name, owner), slot in after.known.items():
        olds, take = taken[owner]
        found = [before.known.get((name, id(v))) for v in olds]
        if not any(slot is None for slot in found):
            kind = "weights" if steps and name == "momentum" else _KINDS[name]
            slot.assign(_taken(kind, take, _arrays(found)))


def _taken(kind: str, take: Callable, arrays: Arrays) -> np.ndarray:
    if kind == "sizes":
        return np.sqrt(take("squares", [x**2 for x in arrays]))
    return take(kind, arrays)


class _Slots:
    """The variables of an optimizer.

    Attributes:
        known: Those of which it is known what they are, by the ends of their names and
            the ids of the weights that they are for.
        others: Those that are for no weight, by name.
    """

    def __init__(self, optimizer: Any, weights: list[keras.Variable]):
        self.known: dict[tuple[str, int], keras.Variable] = {}
        self.others: dict[str, keras.Variable] = {}
        prefixes = [(f"{w.path.replace('/', '_')}_", id(w)) for w in weights]
        for slot in optimizer.variables:
            # Layers may have one path: then the slots are in the order of the weights.
            fits = [
                (name, owner)
                for prefix, owner in prefixes
                if (name := slot.name.removeprefix(prefix)) in _KINDS
                and name != slot.name
                and (name, owner) not in self.known
            ]
            if fits:
                self.known[fits[0]] = slot
            else:
                self.others[slot.name] = slot


def _arrays(variables: list) -> Arrays:
    return [keras.ops.convert_to_numpy(v) for v in variables]
