"""Where ready-made flows end and how they start, so that they learn."""

import warnings

import keras
import numpy as np
import pytest
from cases import BASES, numbers, random
from keras import ops

from keras_nanode import Adaptive, bases, layers, models, odeint
from keras_nanode.bases.growth import largest_sum

ROOT = {n: n**0.5 for n in range(1, 30)}
SMALL = {"filters": 4, "hidden_filters": 2}

# What is made with defaults, and where it ends.
ENDS = {
    "trig of order 2, 10 steps": (lambda: layers.TrigDenseODE(2), ROOT[5]),
    "trig of order 2, 4 steps": (lambda: layers.TrigConvODE(2, steps=4), ROOT[4]),
    "trig by name": (lambda: layers.ConvODE("trig"), ROOT[10]),
    "cosine by name, 20 steps": (lambda: layers.DenseODE("cosine", steps=20), ROOT[10]),
    "buckets, 12 steps by default": (lambda: layers.BucketDenseODE(12), ROOT[12]),
    "buckets": (lambda: layers.BucketConvODE(3, solver="rk4"), ROOT[3]),
    "a basis": (lambda: layers.ConvODE(bases.Legendre(4)), ROOT[5]),
    "adaptive": (lambda: layers.TrigDenseODE(12, solver="dopri5"), ROOT[25]),
    "adaptive buckets": (
        lambda: layers.BucketDenseODE(7, solver="bosh3", steps=Adaptive(1e-2)),
        ROOT[7],
    ),
    "powers of t": (lambda: layers.PolyDenseODE(3), 1),
    "powers of t by name": (lambda: layers.ConvODE("poly"), 1),
    "constant": (lambda: layers.DenseODE("constant"), 1),
    "constant at first": (lambda: layers.TrigDenseODE(2, start="constant"), 1),
    "as a layer at first": (lambda: layers.DenseODE("bucket", start="layer"), 1),
}


@pytest.mark.parametrize(("make", "end"), ENDS.values(), ids=ENDS)
def test_a_ready_made_flow_ends_at_the_root_of_its_independent_weights(make, end):
    ode = make()
    assert ode.t_span == (0, end)
    assert ode.basis.domain == (0, end)
    again = type(ode).from_config(ode.get_config())
    assert (again.t_span, again.basis, again.start, again.steps) == (
        (ode.t_span, ode.basis, ode.start, ode.steps)
    )


@pytest.mark.parametrize(
    ("block", "options"),
    [
        ("trig", {}),
        ("cosine", {"steps": 4}),
        ("poly", {}),
        ("bucket", {"start": "constant"}),
        ("bspline", {"t_span": (0, 0.5)}),
    ],
)
def test_layers_and_the_classifier_decide_alike(block, options):
    options = {"steps": 10, **options}
    network = models.classifier((8, 8, 1), 3, block, **SMALL, **options)
    flow, ode = network.get_layer("flow_0"), layers.ConvODE(block, **options)
    for name in ("t_span", "steps"):
        assert getattr(ode, name) == getattr(flow, name)
    for name in ("start", "basis"):
        assert getattr(ode, name) == getattr(flow.dynamics, name)


def test_the_papers_flow_is_a_line():
    ode = layers.TrigDenseODE(2, t_span=(0, 1), start="constant", steps=3)
    plain = layers.ODE(
        layers.TimeVarying(
            layers.DenseBlock(), bases.Trigonometric(2), start="constant"
        ),
        steps=3,
    )
    x = random((4, 3))
    plain.build(x.shape)
    ode.build(x.shape)
    ode.set_weights(plain.get_weights())
    assert (ode.t_span, ode.basis) == (plain.t_span, plain.dynamics.basis)
    np.testing.assert_allclose(numbers(ode(x)), numbers(plain(x)), rtol=1e-6)


def test_steps_that_are_set_later_refine_the_same_flow():
    ode = layers.TrigDenseODE(2, steps=4, solver="rk4")
    x = random((4, 3))
    coarse = numbers(ode(x))
    ode.steps = 40
    assert ode.t_span == (0, 2)
    np.testing.assert_allclose(numbers(ode(x)), coarse, atol=1e-2)
    again = layers.TrigDenseODE.from_config(ode.get_config())
    assert (again.t_span, again.basis, again.steps) == ((0, 2), ode.basis, 40)


class Fading(bases.Basis):
    """Two functions over a domain that nobody can choose."""

    size = 2
    domain = (0.0, 3.0)

    def __call__(self, t):
        return ops.stack([ops.ones_like(t), ops.exp(-t)])

    def get_config(self):
        return {}


def test_a_basis_with_a_domain_of_its_own_sets_the_times():
    assert layers.DenseODE(bases.Bucket(4, (-1, 3))).t_span == (-1, 3)
    assert layers.DenseODE(Fading()).t_span == (0, 3)
    network = models.classifier((8, 8, 1), 3, "bucket", bases.Bucket(4, (0, 4)), 4)
    assert network.get_layer("flow_0").t_span == (0, 4)


# Names.


@pytest.mark.parametrize("name", bases.ALL)
@pytest.mark.parametrize("t_span", [(0, 0.5), (1, -1)])
def test_the_domain_of_a_name_is_the_flows_times(name, t_span):
    ode = layers.DenseODE(name, t_span=t_span)
    assert ode.basis == bases.ALL[name].over(sorted(t_span))
    assert ode.t_span == t_span
    again = layers.DenseODE.from_config(ode.get_config())
    assert (again.basis, again.t_span) == (ode.basis, t_span)


def test_names_of_bases_in_models_have_the_flows_times_too():
    network = models.classifier(
        (8, 8, 1), 3, "cosine", "cosine", t_span=(0, 3.2), **SMALL
    )
    assert network.get_layer("flow_0").dynamics.basis == bases.Cosine(10, (0, 3.2))
    sizes = {"filters": (2, 2, 2, 2), "feature_dim": 2, "rnn_units": 2, "steps": 10}
    video = models.SVG(
        (16, 16, 1), block="bucket", basis="bucket", t_span=(0, 3), **sizes
    )
    assert video.basis == bases.Bucket(10, (0, 3))


def test_a_basis_is_told_how_it_covers_the_times():
    dynamics = layers.TimeVarying(keras.layers.Dense(3), "cosine")
    for make in (
        lambda: layers.ODE(dynamics, t_span=(0, 3.2)),
        lambda: layers.DenseODE(bases.Cosine(10), t_span=(3.2, 0)),
    ):
        with pytest.raises(
            ValueError, match=r"`Cosine\(size=10, domain=\(0.0, 3.2\)\)`.*Received"
        ):
            make()
    with pytest.raises(ValueError, match=r"attribute `domain = \(0.0, 4.0\)`"):
        layers.DenseODE(Fading(), t_span=(0, 4))


@pytest.mark.parametrize("basis", BASES.values(), ids=BASES)
def test_a_stretched_basis_is_the_same_at_the_same_fraction(basis):
    longer = basis.over((-1, 2))
    assert longer.domain == (-1, 2)
    if basis.size > 1 and isinstance(basis, (bases.Polynomial, bases.Trigonometric)):
        return  # their formulas are of t itself
    times = np.linspace(0, 1, 8, dtype="float32") * 0.999
    np.testing.assert_allclose(
        numbers(longer.values(ops.convert_to_tensor(3 * times - 1))),
        numbers(basis.values(ops.convert_to_tensor(times))),
        atol=1e-5,
    )


# Warnings.


@pytest.mark.parametrize(
    "make",
    [
        lambda: layers.DenseODE("poly", t_span=(0, 3.2)),
        lambda: layers.DenseODE(bases.Polynomial(10), t_span=(0, -3.2)),
        lambda: layers.PolyConvODE(5, t_span=(0, 3.2), start="constant"),
        lambda: layers.ODE(
            layers.TimeVarying(keras.layers.Dense(3), "poly"), t_span=(0, 3.2)
        ),
        lambda: models.classifier((8, 8, 1), 3, "poly", t_span=(0, 3.2), **SMALL),
    ],
)
def test_weights_that_get_very_large_are_warned_of_once(make):
    with pytest.warns(UserWarning, match="very large.*t_span=.*Polynomial") as caught:
        make()
    assert sum(w.category is UserWarning for w in caught) == 1


@pytest.mark.parametrize("name", bases.ALL)
def test_no_basis_is_large_in_its_own_domain(name):
    for basis in (bases.ALL[name], bases.ALL[name].over((0, 5))):
        if name != "poly" or basis.domain == (0, 1):
            assert largest_sum(basis, basis.domain) <= basis.size**1.5 + 1e-3
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        layers.DenseODE(name)


def test_orthonormal_functions_of_the_highest_degree_are_not_warned_of():
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        layers.DenseODE(bases.Legendre(100), steps=40)


@pytest.mark.parametrize(
    ("make", "times", "functions"),
    [
        (lambda: layers.TrigDenseODE(32, steps=5), 5, 65),
        (lambda: layers.TrigConvODE(32), 10, 65),
        (lambda: layers.PolyDenseODE(64, steps=4, solver="heun"), 5, 65),
        (lambda: layers.DenseODE(bases.BSpline(32), steps=2, solver="rk4"), 5, 32),
        (lambda: layers.DenseODE(bases.Cosine(32), 8, steps=2), 2, 32),
        (lambda: layers.DenseODE(bases.Cosine(32), steps=2, solver="midpoint"), 4, 32),
        (
            lambda: layers.ODE(
                layers.TimeVarying(keras.layers.Dense(3), bases.Legendre(40)), steps=3
            ),
            3,
            41,
        ),
    ],
)
def test_far_more_functions_than_times_are_warned_of(make, times, functions):
    with pytest.warns(
        UserWarning,
        match=rf"at {times} times.*{functions} functions.*not of units.*Received: step",
    ):
        make()


# Flows in place of their dynamics.


def test_a_flow_is_no_dynamics_of_odeint():
    ode = layers.TrigDenseODE(1, steps=2)
    model = keras.Sequential([keras.layers.Dense(3), keras.Sequential([ode])])
    flows = ode, layers.ODE(keras.layers.Dense(3)), ode.call, ode.inverse, model
    for flow in flows:
        with pytest.raises(
            ValueError, match=r"`odeint\(layer.dynamics, y0, t\)`.*Received: func=<"
        ):
            odeint(flow, np.ones((2, 3), "float32"), [0.0, 1.0])
    assert odeint(ode.dynamics, random((2, 3)), [0.0, 1.0]).shape == (2, 2, 3)
