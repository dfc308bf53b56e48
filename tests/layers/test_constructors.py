"""What constructors take: their defaults, and no other word."""

import functools
import inspect
import re
import warnings

import keras
import numpy as np
import pytest
from cases import LAYERS, numbers, random
from keras import ops

from keras_nanode import Adaptive, bases, layers, odeint
from keras_nanode.keywords import OTHER_NAMES
from keras_nanode.layers.arguments import _OF_KERAS, arguments_of

X = random((4, 3))
IMAGES = random((2, 5, 5, 3))
# How each ODE layer is made with nothing but what it needs.
PLAIN = {
    "ODE": lambda **a: layers.ODE(keras.layers.Dense(3), **a),
    "DenseODE": lambda **a: layers.DenseODE("trig", **a),
    "ConvODE": lambda **a: layers.ConvODE("trig", **a),
    "BucketDenseODE": lambda **a: layers.BucketDenseODE(3, **a),
    "PolyDenseODE": lambda **a: layers.PolyDenseODE(3, **a),
    "TrigDenseODE": lambda **a: layers.TrigDenseODE(3, **a),
    "BucketConvODE": lambda **a: layers.BucketConvODE(3, **a),
    "PolyConvODE": lambda **a: layers.PolyConvODE(3, **a),
    "TrigConvODE": lambda **a: layers.TrigConvODE(3, **a),
}


def inputs(name):
    return IMAGES if "Conv" in name else X


def public():
    return {name: getattr(layers, name) for name in layers.__all__}


# Defaults.


@pytest.mark.parametrize("name", PLAIN)
def test_an_ode_needs_no_more_than_its_dynamics(name):
    ode = PLAIN[name]()
    assert ode(inputs(name)).shape == inputs(name).shape


@pytest.mark.parametrize(
    ("solver", "steps"),
    [("euler", 10), ("rk4", 10), ("alf", 10), ("dopri5", Adaptive())],
)
def test_solvers_without_an_estimate_take_ten_steps_by_default(solver, steps):
    assert layers.TrigDenseODE(2, solver=solver).steps == steps
    assert layers.ODE(keras.layers.Dense(3), solver).steps == steps


@pytest.mark.parametrize(
    ("pieces", "steps"), [(1, 10), (2, 10), (3, 12), (7, 14), (10, 10), (11, 11)]
)
@pytest.mark.parametrize("t_span", [(0.0, 1.0), (2.0, -1.0)])
def test_by_default_each_bucket_has_equally_many_steps(pieces, steps, t_span):
    ode = layers.BucketDenseODE(pieces, t_span=t_span)
    assert ode.steps == steps
    middles = t_span[0] + (t_span[1] - t_span[0]) * (np.arange(steps) + 0.5) / steps
    counts = np.bincount(
        [int(np.argmax(numbers(ode.basis(ops.convert_to_tensor(t))))) for t in middles],
        minlength=pieces,
    )
    assert set(counts) == {steps // pieces}


@pytest.mark.parametrize(
    ("pieces", "steps", "seen"), [(10, 3, 3), (4, 2, 2), (3, 2, 2)]
)
def test_steps_that_leave_a_bucket_out_are_warned_of(pieces, steps, seen):
    with pytest.warns(
        UserWarning,
        match=rf"{steps} steps of the ODE '.*' see {seen} of the {pieces} pieces.*"
        rf"multiple of {pieces} steps.*Received: steps={steps}",
    ):
        layers.BucketDenseODE(pieces, steps=steps)


@pytest.mark.parametrize(
    "make",
    [
        lambda: layers.BucketDenseODE(3, steps=4),
        lambda: layers.BucketDenseODE(10, solver="dopri5"),
        lambda: layers.TrigDenseODE(9, steps=1),
        lambda: layers.ConvODE("trig"),
        lambda: layers.DenseODE(bases.Bucket(4), steps=1, t_span=(0.0, 0.25)),
    ],
)
def test_steps_that_see_all_are_not_warned_of(make):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make()


def test_the_period_reaches_the_basis_and_the_file(tmp_path):
    ode = layers.TrigDenseODE(2, period=1.5, t_span=(1.0, -1.0))
    assert ode.basis == bases.Trigonometric(2, 1.5, domain=(-1.0, 1.0))
    model = keras.Sequential([keras.Input((3,)), ode])
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras").layers[0]
    assert (again.period, again.basis) == (1.5, ode.basis)


# Keywords.


def test_the_signatures_of_named_layers_list_every_argument():
    for name, parent in {
        "BucketDenseODE": layers.DenseODE,
        "TrigConvODE": layers.ConvODE,
    }.items():
        cls = public()[name]
        shown = set(inspect.signature(cls).parameters)
        assert set(inspect.signature(parent).parameters) - {"basis"} < shown
    assert list(inspect.signature(layers.TrigDenseODE).parameters)[0] == "order"
    assert inspect.signature(layers.TrigConvODE).parameters["activation"].default == (
        inspect.signature(layers.ConvODE).parameters["activation"].default
    )


@pytest.mark.parametrize("name", LAYERS)
def test_a_wrong_keyword_is_named_by_the_class_that_was_written(name):
    make, _ = LAYERS[name]
    with pytest.raises(
        ValueError, match=rf"`{name}` takes no argument `wrong`.*Received: wrong=1"
    ):
        public()[name](**make(), wrong=1)


@pytest.mark.parametrize("name", LAYERS)
def test_a_misspelt_keyword_is_told_the_right_one(name):
    cls = public()[name]
    for right in arguments_of(cls):
        wrong = right + "z"
        with pytest.raises(ValueError, match=rf"Did you mean `{right}`\?"):
            cls(**{wrong: None})


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        ({"method": "rk4"}, "Did you mean `solver`"),
        ({"num_steps": 3}, "Did you mean `steps`"),
        ({"t1": 3}, "Did you mean `t_span`"),
        ({"rtol": 1e-3}, r"Use `steps=keras_nanode.Adaptive\(rtol=...\)`"),
        ({"units": 3}, "keeps the width of its input.*`hidden_units`"),
        ({"filters": 3}, "keeps the width of its input.*`hidden_units`"),
        ({"basis": "trig"}, "Its arguments are order, period"),
    ],
)
def test_words_of_other_libraries_are_told_ours(wrong, hint):
    with pytest.raises(ValueError, match=f"`TrigDenseODE` takes no argument.*{hint}"):
        layers.TrigDenseODE(3, **wrong)


def test_the_hints_name_arguments_that_there_are():
    of_layers = {name for cls in public().values() for name in arguments_of(cls)}
    known = of_layers | set(inspect.signature(odeint).parameters)
    assert {name for ours in OTHER_NAMES.values() for name in ours} <= known


def solve(**arguments):
    return odeint(lambda t, y: -y, np.ones(2, "float32"), [0.0, 1.0], **arguments)


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        ({"method": "rk4"}, r"Did you mean `solver`\? Received: method='rk4'"),
        (
            {"rtol": 1e-3},
            r"Use `steps=keras_nanode.Adaptive\(rtol=...\)`. Received: rtol",
        ),
        ({"atol": 1e-3}, r"Use `steps=keras_nanode.Adaptive\(atol=...\)`"),
        ({"max_steps": 10}, r"Use `steps=keras_nanode.Adaptive\(max_steps=...\)`"),
        ({"num_steps": 3}, "Did you mean `steps`"),
        ({"t_eval": 3}, "Did you mean `t`"),
        ({"t_span": (0, 1)}, "Did you mean `t`"),
        ({"dynamics": None}, "Did you mean `func`"),
        ({"full_output": True}, "Did you mean `return_stats`"),
        ({"adjoints": "direct"}, "Did you mean `adjoint`"),
        ({"wrong": 1}, "Its arguments are func, y0, t, args, .*return_stats. Received"),
    ],
)
def test_odeint_is_told_the_right_keyword_as_layers_are(wrong, hint):
    with pytest.raises(ValueError, match=f"`odeint` takes no argument.*{hint}"):
        solve(**wrong)
    assert solve(steps=Adaptive(1e-3, 1e-3)).shape == (2, 2)


def test_layers_take_what_every_layer_of_keras_takes():
    own = set(inspect.signature(keras.Layer.__init__).parameters)
    assert set(_OF_KERAS) - {"input_shape", "input_dim"} == own - {
        *("self", "kwargs", "autocast")  # an ODE's state is never cast
    }


def test_a_subclass_of_a_users_own_has_arguments_of_its_own():
    class Wide(layers.TrigDenseODE):
        def __init__(self, width, **kwargs):
            super().__init__(1, hidden_units=width, **kwargs)
            self.width = width

    ode = Wide(width=4, steps=2)
    ode.width = 5
    assert (ode.hidden_units, ode.width) == (4, 5)
    assert layers.TrigDenseODE.from_config(ode.get_config()).hidden_units == 4


# What was given stays.


@pytest.mark.parametrize("name", LAYERS)
def test_arguments_are_attributes_that_cannot_be_changed_unnoticed(name):
    make, _ = LAYERS[name]
    layer = public()[name](**make())
    for argument in arguments_of(type(layer)):
        value = getattr(layer, argument)
        setter = getattr(getattr(type(layer), argument, None), "fset", None)
        if setter is None:
            with pytest.raises(
                AttributeError, match=rf"`{argument}` of a {name} cannot be changed"
            ):
                setattr(layer, argument, value)
    layer.trainable = False
    layer.an_attribute_of_the_user = 1


@pytest.mark.parametrize("name", LAYERS)
def test_the_way_to_change_an_argument_that_a_message_tells_is_one(name):
    layer = public()[name](**LAYERS[name][0]())
    for argument in filter(functools.partial(hasattr, layer), layer._given):
        try:
            setattr(layer, argument, getattr(layer, argument))
        except AttributeError as error:
            advice = re.search(r"`(type\(layer\)\.from_config\(.*?\))`", str(error))[1]
            given = re.search(r"'(\w+)': \.\.\.", advice)[1]
            assert given == argument or f"It follows from `{given}`" in str(error)
            names = {"layer": layer, "value": getattr(layer, given)}
            again = eval(advice.replace("...", "value"), names)
            assert type(again) is type(layer)
            assert getattr(again, given) == names["value"]


def test_what_a_class_makes_from_its_own_arguments_says_so():
    for layer, argument, value, message in (
        (layers.TrigDenseODE(2), "basis", bases.Legendre(4), "`order`, `period`"),
        (layers.BucketConvODE(2), "basis", bases.Legendre(4), "`num_buckets`"),
        (layers.PolyDenseODE(2), "dynamics", None, "`degree`, `hidden_units`, .*`ODE`"),
    ):
        with pytest.raises(
            AttributeError, match=f"It follows from {message}.*Received"
        ):
            setattr(layer, argument, value)
