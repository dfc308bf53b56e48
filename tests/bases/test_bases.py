import copy
import functools
import json
import pickle
import time

import keras
import numpy as np
import pytest
from cases import BASES, numbers, random
from keras import ops

from keras_nanode import bases, layers, odeint
from keras_nanode.bases.samples import sample


@keras.saving.register_keras_serializable("tests")
class Decay(bases.Basis):
    """A user's basis, written for one time as the documentation says."""

    size = 2

    def __call__(self, t):
        return ops.stack([ops.ones_like(t), ops.exp(-t)])

    def get_config(self):
        return {}


ALL = {**BASES, "user": Decay()}
TIMES = np.array([0.0, 0.1, 1 / 3, 0.5, 0.999])


def test_the_batteries_have_every_basis_with_a_name():
    kinds = {type(basis) for basis in BASES.values()}
    assert kinds >= {type(bases.get(name)) for name in bases.ALL}


def at(basis, t, dtype="float64"):
    return numbers(basis(ops.convert_to_tensor(t, dtype=dtype)))


@pytest.mark.parametrize("basis", ALL.values(), ids=ALL)
def test_z_has_size_k_at_one_time_and_at_many(basis):
    one_by_one = np.stack([at(basis, t) for t in TIMES])
    assert one_by_one.shape == (len(TIMES), basis.size)
    together = numbers(basis.values(ops.convert_to_tensor(TIMES)))
    np.testing.assert_allclose(together, one_by_one, rtol=1e-12)


def test_the_formulas_of_the_paper_in_double_precision():
    equal, t = functools.partial(np.testing.assert_allclose, rtol=1e-14), 0.3
    equal(at(bases.Constant(), t), [1])
    equal(at(bases.Bucket(4), t), [0, 1, 0, 0])
    equal(at(bases.Polynomial(3), t), [1, t, t**2, t**3])
    equal(
        at(bases.Trigonometric(2), t),
        [1, np.cos(t), np.sin(t), np.cos(2 * t), np.sin(2 * t)],
    )
    equal(
        at(bases.Trigonometric(1, period=1), t),
        [1, np.cos(2 * np.pi * t), np.sin(2 * np.pi * t)],
        # `keras.ops.cos` is a float32 function on JAX and PyTorch.
        rtol=1e-12 if keras.backend.backend() == "tensorflow" else 1e-6,
    )


# `keras.ops.cos` is a float32 function on JAX and PyTorch.
ROUNDING = 1e-12 if keras.backend.backend() == "tensorflow" else 2e-6
DOMAINS = [(0.0, 1.0), (-2.0, 3.0)]


@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize("make", [bases.Cosine, bases.Legendre])
def test_orthonormal_bases_by_quadrature(make, domain):
    """The mean of z_j z_k over the domain is 1 for j = k and 0 otherwise."""
    basis = make(8, domain=domain)
    x, weights = np.polynomial.legendre.leggauss(40)
    z = at(basis, domain[0] + (domain[1] - domain[0]) * (x + 1) / 2)
    gram = np.einsum("t,tj,tk->jk", weights / 2, z, z)
    np.testing.assert_allclose(gram, np.eye(basis.size), atol=10 * ROUNDING)


@pytest.mark.parametrize("domain", DOMAINS)
def test_legendre_polynomials_are_those_of_numpy(domain):
    x = np.linspace(-1, 1, 9)
    z = at(bases.Legendre(6, domain), domain[0] + (domain[1] - domain[0]) * (x + 1) / 2)
    scale = np.sqrt(2 * np.arange(7) + 1)
    expected = scale * np.polynomial.legendre.legvander(x, 6)
    np.testing.assert_allclose(z, expected, atol=1e-12)


@pytest.mark.parametrize("n", [1, 2, 10, 40])
@pytest.mark.parametrize("place", [0.0, 0.5])
def test_n_cosines_reach_any_weights_at_n_equal_times(n, place):
    z = at(bases.Cosine(n), (np.arange(n) + place) / n)
    # At the middles of the steps they are orthogonal, as the discrete transform is.
    assert np.linalg.cond(z) < (1.001 if place else 4 * n)


def test_the_papers_waves_and_powers_are_nearly_collinear_where_others_are_not():
    """Directions above a tenth of the largest, at 10 Euler steps of (0, 1)."""
    times = np.arange(10) / 10

    def directions(basis):
        values = np.linalg.svd(at(basis, times), compute_uv=False)
        return int(np.sum(values > values[0] / 10))

    assert directions(bases.Trigonometric(10)) == 5
    assert directions(bases.Polynomial(10)) == 3
    assert directions(bases.Cosine(10)) == 10
    assert directions(bases.Legendre(10)) >= 8


SPLINES = {
    "cubic": bases.BSpline(7),
    "linear": bases.BSpline(4, degree=1),
    "knots": bases.BSpline(6, degree=2, knots=(0.1, 0.2, 0.7)),
    "one piece": bases.BSpline(4),
    "domain": bases.BSpline(6, degree=3, domain=(-1.0, 4.0)),
}


@pytest.mark.parametrize("basis", SPLINES.values(), ids=SPLINES)
def test_splines_are_those_of_scipy(basis):
    from scipy.interpolate import BSpline

    t0, t1 = basis.domain
    ends = [t0] * (basis.degree + 1), [t1] * (basis.degree + 1)
    clamped = np.array([*ends[0], *basis.knots, *ends[1]])
    times = np.linspace(t0, t1, 41)
    expected = BSpline.design_matrix(times, clamped, basis.degree).toarray()
    z = at(basis, times)
    np.testing.assert_allclose(z, expected, atol=1e-12)
    np.testing.assert_allclose(z.sum(axis=1), 1, rtol=1e-12)


@pytest.mark.parametrize("domain", DOMAINS)
def test_splines_of_degree_0_are_buckets(domain):
    spline, bucket = bases.BSpline(5, 0, domain=domain), bases.Bucket(5, domain)
    times = np.linspace(*domain, 31)
    np.testing.assert_array_equal(at(spline, times), at(bucket, times))
    np.testing.assert_allclose(spline.breakpoints, bucket.breakpoints, rtol=1e-15)
    assert spline.piecewise_constant and bucket.piecewise_constant


def test_knots_come_with_the_ends_or_without():
    inside = bases.BSpline(4, degree=1, knots=(0.2, 0.5))
    assert inside == bases.BSpline(4, degree=1, knots=(0.0, 0.2, 0.5, 1.0))
    assert inside == bases.BSpline(4, degree=1, knots=np.array([0.2, 0.5]))
    assert inside.breakpoints == (0.2, 0.5)
    assert bases.BSpline(4, degree=2, knots=(0.5,)).breakpoints == ()
    assert bases.BSpline(4, degree=1) == bases.BSpline(4, 1, knots=(1 / 3, 2 / 3))


@pytest.mark.parametrize("n", [7, 9, 12, 14, 100])
def test_buckets_begin_at_their_edges_also_in_float32(n):
    edges = (np.arange(n) / n).astype("float32")
    z = at(bases.Bucket(n), edges, "float32")
    assert z.argmax(axis=1).tolist() == list(range(n))


def test_buckets_divide_their_domain():
    basis = bases.Bucket(2, domain=(-1.0, 3.0))
    assert basis.breakpoints == (1.0,)
    assert at(basis, [-1.0, 0.99, 1.0, 3.0]).argmax(axis=1).tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize("basis", ALL.values(), ids=ALL)
def test_combine_is_the_sum_over_z(basis):
    alpha = random((basis.size, 3, 2), "float64")
    located = basis.locate(ops.convert_to_tensor(TIMES))
    theta = numbers(basis.combine(located, ops.convert_to_tensor(alpha)))
    z = numbers(basis.values(ops.convert_to_tensor(TIMES)))
    np.testing.assert_allclose(theta, np.einsum("tk,kij->tij", z, alpha), atol=1e-14)


@pytest.mark.parametrize("basis", ALL.values(), ids=ALL)
def test_combine_transpose_is_the_transpose_of_combine(basis):
    located = basis.locate(ops.convert_to_tensor(TIMES))
    alpha = ops.convert_to_tensor(random((basis.size, 3, 2), "float64"))
    cotangents = ops.convert_to_tensor(random((len(TIMES), 3, 2), "float64", seed=1))
    left = ops.sum(basis.combine(located, alpha) * cotangents)
    right = ops.sum(alpha * basis.combine_transpose(located, cotangents))
    np.testing.assert_allclose(numbers(left), numbers(right), rtol=1e-12)


@pytest.mark.parametrize("basis", ALL.values(), ids=ALL)
def test_configuration_round_trip(basis):
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(basis)))
    assert bases.get(config) == basis
    assert hash(bases.get(config)) == hash(basis)
    assert repr(basis).startswith(type(basis).__name__)


def test_bases_of_other_sizes_differ():
    assert bases.Bucket(3) != bases.Bucket(4)
    assert bases.Constant() != bases.Bucket(1)


@pytest.mark.parametrize("name", ["size", "domain", "breakpoints", "unbounded", "own"])
@pytest.mark.parametrize("basis", [*BASES.values(), *bases.ALL.values()], ids=repr)
def test_a_basis_of_this_library_cannot_be_changed(basis, name):
    before = repr(basis), basis.size, basis.breakpoints
    with pytest.raises(
        AttributeError, match=f"`{name}`.*new basis.*Received: {name}=3"
    ):
        setattr(basis, name, 3)
    assert (repr(basis), basis.size, basis.breakpoints) == before
    for argument in basis.get_config():
        with pytest.raises(AttributeError, match=f"`{argument}` of a"):
            setattr(basis, argument, 3)


def test_copies_are_sealed_too_while_constructors_of_subclasses_and_users_bases_set():
    class Named(bases.Bucket):
        def __init__(self, name):
            super().__init__(3)
            self.name = name

    basis = Named("mine")
    assert (basis.name, basis.size) == ("mine", 3)
    with pytest.raises(AttributeError, match="`size` of a Named"):
        basis.size = 4
    for copied in (copy.deepcopy(BASES), pickle.loads(pickle.dumps(BASES))):
        assert copied == BASES
        with pytest.raises(AttributeError, match="cannot be changed"):
            copied["bucket"].num_buckets = 4
    own = Users()
    own.size = 3
    assert own.size == 3


def test_names():
    sizes = {name: basis.size for name, basis in bases.ALL.items()}
    assert sizes == {
        **{"constant": 1, "bucket": 10, "poly": 11, "trig": 21},
        **{"cosine": 10, "legendre": 11, "bspline": 10},
    }
    assert all(bases.get(name) is basis for name, basis in bases.ALL.items())
    basis = bases.Bucket(3)
    assert bases.get(basis) is basis


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: bases.get("fourier"), "'trig'.*Received: basis='fourier'"),
        (lambda: bases.Bucket(0), "at least 1. Received: num_buckets=0"),
        (lambda: bases.Bucket(2.5), "integer.*Received: num_buckets=2.5"),
        (lambda: bases.Polynomial(-1), "at least 0. Received: degree=-1"),
        (lambda: bases.Trigonometric(True), "Received: order=True"),
        (lambda: bases.Trigonometric(1, period=0), "positive.*Received: period=0"),
        (lambda: bases.Trigonometric(1, period=10**400), "finite.*Received: period=10"),
        (lambda: bases.Bucket(2, domain=(1, 0)), r"t0 < t1.*Received: domain=\(1, 0\)"),
        (lambda: bases.Constant(domain=(0, np.inf)), "finite.*Received: domain="),
        (lambda: bases.Bucket(2, domain=(0, 1, 2)), r"two.*domain=\(0, 1, 2\)"),
        (lambda: bases.Bucket(2, domain=5), "two.*Received: domain=5"),
        (lambda: bases.Cosine(0), "at least 1. Received: size=0"),
        (lambda: bases.Legendre(-1), "at least 0. Received: degree=-1"),
        (lambda: bases.BSpline(3), "at least 4. Received: size=3"),
        (lambda: bases.BSpline(4, 1, (0.5, 0.2)), r"2 increasing times.*\(0.5, 0.2\)"),
        (lambda: bases.BSpline(4, 1, (0.5,)), "with the domain's ends or without"),
        (lambda: bases.BSpline(4, 1, (0.5, 1.0)), r"inside the domain \(0.0, 1.0\)"),
        (lambda: bases.BSpline(5, 2, [[0.2, 0.4]]), r"2 increasing.*\[\[0.2, 0.4\]\]"),
        (lambda: bases.BSpline(4, 2, 0.5), "1 increasing times.*knots=0.5"),
        (lambda: bases.BSpline(3, 1, (0.5,), (1, 0)), "t0 < t1"),
        (lambda: bases.get(["trig"]), r"'trig'.*Received: basis=\['trig'\]"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


class Users(bases.Basis):
    """A basis that may break a promise."""

    size = 2

    def __init__(self, z=lambda t: [1 + 0 * t, t], **attributes):
        self.z = z
        vars(self).update(attributes)

    def __call__(self, t):
        z = self.z(t)
        return ops.stack(z) if isinstance(z, list) else z

    def get_config(self):
        return {}


@pytest.mark.parametrize(
    ("basis", "message"),
    [
        (Users(size=3), r"must give z\(t\) of shape \(3,\).*z\(0\) of shape \(2,\)"),
        (Users(size=0), "`size` must be.*Received: size=0"),
        (Users(size=None), "`size` must be.*Received: size=None"),
        (Users(size=10**9), "`size` must be.*at most 4096.*size=1000000000"),
        (
            Users(lambda t: [t, t / 0]),
            "must be finite in the whole domain.*Received: z",
        ),
        (Users(lambda t: [t, ops.log(t - 1)]), "must be finite in the whole domain"),
        (Users(breakpoints=(0.5, 0.2)), r"increasing times inside.*\(0.5, 0.2\)"),
        (Users(breakpoints=(0.5, 1.5)), r"increasing times inside.*\(0.5, 1.5\)"),
        (Users(breakpoints=(0.0, 0.5)), "increasing times inside"),
        (Users(breakpoints=0.5), "increasing times inside"),
        (Users(breakpoints=("a",)), "increasing times inside"),
        (Users(domain=(1.0, 0.0)), "`domain` must be"),
        (
            Users(lambda t: [1 + 0 * t, ops.log(0.9 - t)]),
            r"with its ends.*z\(1\)=.*nan",
        ),
        (Users(lambda t: [1 + 0 * t, ops.log(t)]), r"with its ends.*z\(0\)=.*-inf"),
        (Users(lambda t: [1 + 0 * t, 0 / ops.relu(t**2 - 0.05)]), r"with its ends"),
        (Users(lambda t: [t, ops.log((t - 0.2) ** 2 - 1e-3)]), "with its ends.*nan"),
        (
            Users(lambda t: ops.cast(ops.stack([t, t]), "int32")),
            "floating.*dtype int32",
        ),
        (Users(lambda t: ops.stack([t, t]) > 0.3), "floating.*dtype bool"),
        (
            Users(lambda t: ops.cast(ops.stack([t, t]), "complex64")),
            "floating.*dtype complex64",
        ),
        (Users(piecewise_constant=True), "constant between `breakpoints`.*Received: z"),
        (
            Users(
                lambda t: [1 + 0 * t, ops.relu(t - 0.5)],
                breakpoints=(0.5,),
                piecewise_constant=True,
            ),
            "constant between `breakpoints`.*Received: z",
        ),
    ],
)
def test_a_users_basis_is_checked_when_a_layer_is_built_with_it(basis, message):
    layer = layers.TimeVarying(keras.layers.Dense(3), basis)
    with pytest.raises(ValueError, match=f"Users does not keep.*{message}"):
        layer.build((None, 3))
    assert not layer.built


WITHOUT_TIMES = [
    {"domain": 3},
    {"domain": None},
    {"domain": (0.0, "b")},
    {"domain": (0.0, 1.0, 2.0)},
    {"breakpoints": 0.5},
    {"breakpoints": None},
    {"breakpoints": ("a",)},
]


def solve(layer):
    return odeint(layer, np.ones((1, 3)), [0, 1])


@pytest.mark.parametrize("wrong", WITHOUT_TIMES, ids=str)
@pytest.mark.parametrize("make", [layers.ODE, solve], ids=["ODE", "odeint"])
def test_so_are_its_times_wherever_they_are_read_first(make, wrong):
    layer = layers.TimeVarying(keras.layers.Dense(3), Users(**wrong))
    name = next(iter(wrong))
    with pytest.raises(
        ValueError, match=f"Users does not.*`{name}`.*Received: {name}="
    ):
        make(layer)


def test_a_layer_that_calls_something_else_its_basis_is_no_concern_of_an_ode():
    dense = keras.layers.Dense(3)
    dense.basis = "radial"
    assert layers.ODE(dense)(np.ones((1, 3))).shape == (1, 3)


def test_a_piecewise_constant_basis_of_a_user_is_taken():
    basis = Users(
        lambda t: [1 + 0 * t, ops.cast(t >= 0.3, t.dtype)],
        breakpoints=(0.3,),
        piecewise_constant=True,
    )
    layer = layers.TimeVarying(keras.layers.Dense(3), basis)
    assert layer(np.ones((1, 3)), t=0.5).shape == (1, 3)


def test_a_users_basis_that_keeps_its_promises_is_taken():
    basis = Users(breakpoints=(0.25,), domain=(-1, 2))
    layer = layers.TimeVarying(keras.layers.Dense(3), basis)
    assert layer(np.ones((1, 3)), t=0.5).shape == (1, 3)


class Beside(bases.Basis):
    """A user's basis of many functions: a given one, and waves."""

    def __init__(self, first, size):
        self.first, self.size = first, size

    def __call__(self, t):
        waves = ops.sin(t * ops.arange(1, self.size, dtype=t.dtype))
        return ops.concatenate([ops.reshape(self.first(t), (1,)), waves])

    def get_config(self):
        return {"size": self.size}


STARTS = {
    **ALL,
    "many buckets": bases.Bucket(4096),
    "many waves": bases.Trigonometric(2047),
    "many cosines": bases.Cosine(1000, (-2.0, 3.0)),
    "fast waves": bases.Trigonometric(2, period=1 / 256),
    "many splines": bases.BSpline(1000),
    "high splines": bases.BSpline(1000, degree=20),
    "high powers": bases.Polynomial(100),
    "high Legendre": bases.Legendre(100),
    "a constant": Beside(lambda t: 0 * t - 4, 600),
    "two parts of 1": Users(lambda t: [t, 1 - t]),
    "parts of 1": Users(lambda t: [ops.cos(t) ** 2, ops.sin(t) ** 2 / 2]),
}


@pytest.mark.parametrize("name", STARTS)
def test_weights_start_at_those_of_the_layer_at_all_times(name):
    basis, dense = STARTS[name], keras.layers.Dense(3)
    dense.build((None, 3))
    started = time.perf_counter()
    layer = layers.TimeVarying(dense, basis)
    layer.build((None, 3))
    assert time.perf_counter() - started < 30
    first, last = basis.domain
    times = first + (last - first) * np.array([0, 0.1, 1 / 3, 0.5, 0.77, 1])
    theta = numbers(layer.weights_at(times)[0])
    own = np.broadcast_to(numbers(dense.kernel), theta.shape)
    np.testing.assert_allclose(theta, own, atol=1e-5)


def test_many_functions_without_a_simple_combination_are_refused_at_once():
    layer = layers.TimeVarying(keras.layers.Dense(3), Beside(ops.exp, 600))
    with pytest.raises(ValueError, match="Make one of them constant.*size=600"):
        layer.build((None, 3))


@pytest.mark.parametrize("basis", [bases.Bucket(1025), bases.Cosine(4096)], ids=repr)
def test_many_independent_draws_are_refused_at_once(basis):
    layer = layers.TimeVarying(keras.layers.Dense(3), basis, "independent")
    with pytest.raises(ValueError, match="at most 1024 times.*Received: start="):
        layer.build((None, 3))


@pytest.mark.parametrize("size", [129, 257, 1025, 4096])
def test_independent_draws_are_scaled_by_the_mean_over_the_whole_domain(size):
    """The mean of sum_k z_k(t)^2 of hat functions is 2/3, at their middles 1/2."""
    z = sample(bases.BSpline(size, degree=1))
    assert np.mean(np.sum(z**2, axis=1)) == pytest.approx(2 / 3, rel=0.05)
    assert z.size <= 2**21
