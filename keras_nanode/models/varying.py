"""The time-varying layers of a model, and what it calls them."""

from collections.abc import Iterator, Sequence

import keras

from keras_nanode.copying.copies import is_graph
from keras_nanode.copying.parts import all_layers
from keras_nanode.layers import ODE, TimeVarying


def check_graph(name: str, model: keras.Model, others: str = "") -> None:
    """Raises a ValueError unless a model is functional or Sequential, and built."""
    if not is_graph(model):
        raise ValueError(
            f"`{name}` must be a functional or Sequential model that is built{others}: "
            "call it on a batch, or start it with a `keras.Input`. "
            f"Received: {name}={model!r} of type {type(model).__name__}"
        )


def varying_in(layers: list[keras.Layer]) -> list[TimeVarying]:
    return [x for x in layers if isinstance(x, TimeVarying) and x.built]


def flows_in(layers: list[keras.Layer]) -> list[tuple[ODE, list[TimeVarying]]]:
    """The ODEs whose weights vary, and the layers in them that make them vary."""
    flows = [(x, varying_in(all_layers(x))) for x in layers if isinstance(x, ODE)]
    return [(ode, within) for ode, within in flows if within]


def owners(model: keras.Model) -> dict[int, TimeVarying]:
    """The layers that coefficients belong to, by the ids of these."""
    found = varying_in(all_layers(model))
    return {id(c): layer for layer in found for c in layer.coefficients}


def names_of(model: keras.Model) -> dict[int, str]:
    """A name for each time-varying layer, by its id: that of the ODE around it, if it
    has one, with its own if that is not enough."""
    inside = all_layers(model)
    names = {id(x): x.name for x in varying_in(inside)}
    around = {id(x): ode.name for ode, within in flows_in(inside) for x in within}
    for key, name in around.items():
        alone = list(around.values()).count(name) == 1
        names[key] = name if alone else f"{name}/{names[key]}"
    return names


def chosen_in(
    model: keras.Model,
    layers: str | keras.Layer | Sequence[str | keras.Layer] | None,
) -> list[keras.Layer]:
    """The layers that `layers` stands for, with all that is in them."""
    inside = all_layers(model)
    if layers is not None:
        given = layers if isinstance(layers, (list, tuple)) else [layers]
        kept: dict[int, keras.Layer] = {}
        for choice in given:
            found = [x for x in inside if x is choice or x.name == choice]
            if not found:
                with_weights = sorted(set(names_of(model).values()))
                raise ValueError(
                    "`layers` must be layers of the model, or their names. Those whose "
                    f"weights vary are {with_weights}. Received: layers={layers!r}"
                )
            kept.update((id(y), y) for x in found for y in all_layers(x))
        inside = list(kept.values())
    if not varying_in(inside):
        raise ValueError(
            "The model has no layer whose weights are functions of time, or none in "
            "`layers`: put `layers.TimeVarying` around the dynamics of an ODE. "
            f"Received: the layers {[x.name for x in model.layers]}, layers={layers!r}"
        )
    return inside


def paired(
    old: keras.Model, new: keras.Model
) -> Iterator[tuple[keras.Variable, keras.Variable]]:
    """The weights of two models that differ in their bases and steps alone."""
    both = [model.weights for model in (old, new)]
    known = [owners(model) for model in (old, new)]
    shapes = [
        [tuple(w.shape)[1:] if id(w) in own else tuple(w.shape) for w in weights]
        for weights, own in zip(both, known, strict=True)
    ]
    if shapes[0] != shapes[1]:
        raise ValueError(
            "The models must differ in the bases of their time-varying weights alone. "
            f"Received: {old.name!r} with {len(both[0])} weights, {new.name!r} with "
            f"{len(both[1])}, or these of other shapes"
        )
    return zip(*both, strict=True)
