"""The same model with its weights over another basis of time, and with other steps."""

import warnings
from collections.abc import Sequence

import keras

from keras_nanode import bases, checks
from keras_nanode.bases import Basis
from keras_nanode.bases.projection import Projection, distance, in_place_of
from keras_nanode.copying.copies import copy_layer
from keras_nanode.copying.parts import all_layers
from keras_nanode.keywords import named_if_wrong
from keras_nanode.layers import ODE, TimeVarying
from keras_nanode.layers.block_odes import BlockODE
from keras_nanode.layers.step_counts import pieces_seen
from keras_nanode.models.carrying import Origin, Origins, carry_compilation, unchanged
from keras_nanode.models.svg import SVG
from keras_nanode.models.svg import rules as svg_rules
from keras_nanode.models.varying import (
    check_graph,
    chosen_in,
    flows_in,
    names_of,
    owners,
    paired,
    varying_in,
)
from keras_nanode.stepping import Adaptive, StepsLike, get_steps

# From here on, a model that was projected has to learn again (benchmarks/rebase.md).
_LARGE = 0.3


@named_if_wrong
def rebase(
    model: keras.Model,
    basis: str | Basis | None = None,
    steps: StepsLike = None,
    layers: str | keras.Layer | Sequence[str | keras.Layer] | None = None,
) -> keras.Model:
    """The same model, with its time-varying weights over another basis.

    The new weights theta(t) are the nearest to the old ones: the integral over the
    domain of the squared difference is as small as it can be. If the new basis contains
    the old one, as 8 buckets contain 4, they are equal. So a flow is refined, and with
    more `steps` made deeper, or compressed. All else is kept: other weights, names,
    what is trainable, the arguments of `compile`. The state of the optimizer is carried
    over:

    - the count of iterations, with which schedules of the learning rate go on;
    - what is a sum of steps, as the momentum of SGD and RMSprop, is projected as the
      weights are, so that theta moves on as it did;
    - means of gradients, as the first moment of Adam, become those of the new
      coefficients;
    - means of squared gradients, as Adam's second moment, too, as if gradients in
      different coefficients were independent. That they are not is lost: these take
      about 1 / (1 - beta_2) steps to be what they would have been.

    Args:
        model: A built functional or Sequential model, which may contain others, or
            `models.SVG`. It is left as it is.
        basis: The new basis or its name; None to keep the basis. A name, and a basis
            whose domain is (0, 1), are stretched to the times of each layer.
        steps: The new steps of the ODEs whose weights vary; None to keep them.
        layers: The layers to change, or their names; None for all. A layer stands for
            all in it.

    Returns:
        A new model, which shares nothing with `model`. A ready-made layer that is named
        after its basis becomes `DenseODE` or `ConvODE` over a basis of another class.

    Raises:
        ValueError: if `model` is none of these or has no time-varying weights (in
            `layers`), if neither `basis` nor `steps` is given, if the basis has another
            domain, or if there are pieces of it that no step sees.

    Warns:
        UserWarning: if a weight moves by more than 0.3 of its size, since the model
            then needs training.

    Example:

    >>> import keras
    >>> from keras_nanode import bases, layers, models
    >>> ode = layers.BucketDenseODE(2, steps=2)
    >>> model = keras.Sequential([keras.Input((4,)), ode])
    >>> deeper = models.rebase(model, bases.Bucket(4), steps=4)
    >>> deeper.layers[0].basis.size
    4
    >>> max(models.rebase_error(model, deeper)[ode.name].values()) < 1e-6
    True
    """
    _check(model=model)
    if basis is None and steps is None:
        raise ValueError(
            "Give the new `basis`, the new number of `steps`, or both. "
            "Received: basis=None, steps=None"
        )
    given = None if basis is None else bases.get(basis)
    steps = checks.configured("steps", steps)
    chosen = chosen_in(model, layers)
    targets = _targets(chosen, given)
    _check_steps(chosen, targets, steps)
    new = copy_layer(model, replace=_Replacing(chosen, targets, steps))
    origins = _origins(model, new, targets)
    origins.assign()
    carry_compilation(model, new, origins)
    _warn_if_far(rebase_error(model, new))
    return new


@named_if_wrong
def rebase_error(old: keras.Model, new: keras.Model) -> dict[str, dict[str, float]]:
    """How far the weights of a model moved when it was rebased.

    Args:
        old, new: The model, and what `models.rebase` made of it.

    Returns:
        For each ODE whose weights vary, and each time-varying layer outside of one, by
        its name, and for each of its weights theta by its name: the root of
        int |theta_new(t) - theta_old(t)|^2 dt over the domain, relative to that of
        int |theta_old(t)|^2 dt.

    Raises:
        ValueError: if the models do not have the same weights.

    Example:

    >>> import keras
    >>> from keras_nanode import bases, layers, models
    >>> ode = layers.BucketDenseODE(4, start="constant", name="flow")
    >>> model = keras.Sequential([keras.Input((3,)), ode])
    >>> smaller = models.rebase(model, "constant")
    >>> sorted(models.rebase_error(model, smaller)["flow"].values())
    [0.0, 0.0]
    """
    _check(old=old, new=new)
    names, before, after = names_of(old), owners(old), owners(new)
    errors: dict[str, dict[str, float]] = {}
    for v, w in paired(old, new):
        if id(v) in before and id(w) in after:
            layer, other = before[id(v)], after[id(w)]
            values = (keras.ops.convert_to_numpy(x) for x in (v, w))
            far = distance(layer.basis, other.basis, *values)
            errors.setdefault(names[id(layer)], {})[v.name] = far
    return errors


def _check(**named: keras.Model) -> None:
    for name, model in named.items():
        if not isinstance(model, SVG):
            check_graph(name, model, ", or an `SVG`")


# What is to change


def _targets(chosen: list[keras.Layer], basis: Basis | None) -> dict[int, Basis]:
    """The new basis of each chosen layer, by the layer's id."""
    layers = varying_in(chosen)
    if basis is None:
        return {id(x): x.basis for x in layers}
    spans = {id(x): x.basis.domain for x in layers}
    for ode, within in flows_in(chosen):
        for x in within:
            # A basis that is defined everywhere may be used outside of its domain.
            (t0, t1), (first, last) = spans[id(x)], sorted(ode.t_span)
            spans[id(x)] = (min(t0, first), max(t1, last))
    return {id(x): in_place_of(x.basis, basis, spans[id(x)]) for x in layers}


def _check_steps(
    chosen: list[keras.Layer], targets: dict[int, Basis], steps: StepsLike
) -> None:
    """Refuses steps with which weights are never used."""
    for ode, within in flows_in(chosen):
        number = ode.steps if steps is None else get_steps(ode.solver, steps)
        if isinstance(number, Adaptive):
            continue
        for x in within:
            if id(x) not in targets:
                continue
            basis = targets[id(x)]
            seen, count = pieces_seen(basis, ode.t_span, number)
            if seen < count:
                raise ValueError(
                    f"{number} steps of the ODE {ode.name!r} see {seen} of the {count} "
                    "pieces that the new basis has between breakpoints: the weights of "
                    f"the others would never be used. Give `steps`, a multiple of "
                    f"{count}. Received: steps={steps!r}, basis={basis!r}"
                )


class _Replacing:
    """Copies of layers over new bases and with new steps, for `copy_layer`."""

    def __init__(self, chosen, targets, steps):
        self.targets, self.steps = targets, steps
        self.flows = {id(ode) for ode, _ in flows_in(chosen)}

    def __call__(self, layer, copy):
        if isinstance(layer, SVG):
            return self._svg(layer)
        if isinstance(layer, TimeVarying) and id(layer) in self.targets:
            return layer.over(self.targets[id(layer)])
        if id(layer) not in self.flows:
            return None
        steps = layer.steps if self.steps is None else self.steps
        steps = get_steps(layer.solver, steps)
        if isinstance(layer, BlockODE):
            return layer.over(self.targets[id(layer.dynamics)], steps)
        config = keras.Layer.get_config(layer)
        return ODE(
            copy(layer.dynamics),
            layer.solver,
            steps,
            layer.t_span,
            layer.adjoint,
            **{name: config[name] for name in ("name", "trainable")},
            dtype=layer.dtype_policy,
        )

    def _svg(self, model: SVG) -> SVG | None:
        new = [
            self.targets[id(x)]
            for x in varying_in(all_layers(model))
            if id(x) in self.targets
        ]
        if not new:
            return None
        basis, blocks = new[0], {type(b): n for n, b in svg_rules.BASES.items()}
        changes = {"block": "auto", "basis": None}
        if not isinstance(basis, bases.Constant):
            block = blocks.get(type(basis), model.block)
            changes = {"block": block, "basis": basis}
        steps = model.steps if self.steps is None else self.steps
        return SVG.from_config({**model.get_config(), **changes, "steps": steps})


# What the new model takes over


def _origins(old: keras.Model, new: keras.Model, targets: dict[int, Basis]) -> Origins:
    before, after = owners(old), owners(new)
    changes: dict[tuple[Basis, Basis, str], Projection] = {}
    origins = Origins()
    for v, w in paired(old, new):
        layer = before.get(id(v))
        target = targets.get(id(layer))
        if layer is None or target is None:
            origins.add(w, unchanged(v))
            continue
        if after[id(w)].basis != target:
            raise ValueError(
                f"The layer {layer.name!r} is made by the layer around it, whose copy "
                "has the old basis. Pass it as an argument to that layer, or leave it "
                f"out of `layers`. Received: {layer.path!r}"
            )
        key = (layer.basis, target, v.dtype)
        change = changes.setdefault(key, Projection.of(*key))
        origins.add(w, Origin([v], change.take))
    return origins


def _warn_if_far(errors: dict[str, dict[str, float]]) -> None:
    far = {
        f"{layer}/{name}": round(error, 2)
        for layer, of_layer in errors.items()
        for name, error in of_layer.items()
        if error > _LARGE
    }
    if far:
        shown = dict(sorted(far.items(), key=lambda item: -item[1])[:3])
        warnings.warn(
            f"Train the model again: {len(far)} of its weights moved by more than "
            f"{_LARGE} of their size, as far as {shown}. Models that start constant or "
            "were grown move less.",
            stacklevel=4,
        )
