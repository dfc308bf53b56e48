import json

import keras
import numpy as np
import pytest
from cases import BASES, numbers, random
from keras import ops

from keras_nanode import bases


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


def at(basis, t, dtype="float64"):
    return numbers(basis(ops.convert_to_tensor(t, dtype=dtype)))


@pytest.mark.parametrize("basis", ALL.values(), ids=ALL)
def test_z_has_size_k_at_one_time_and_at_many(basis):
    one_by_one = np.stack([at(basis, t) for t in TIMES])
    assert one_by_one.shape == (len(TIMES), basis.size)
    together = numbers(basis.values(ops.convert_to_tensor(TIMES)))
    np.testing.assert_allclose(together, one_by_one, rtol=1e-12)


def test_the_formulas_of_the_paper():
    t = 0.3
    np.testing.assert_allclose(at(bases.Constant(), t), [1])
    np.testing.assert_allclose(at(bases.Bucket(4), t), [0, 1, 0, 0])
    np.testing.assert_allclose(at(bases.Polynomial(3), t), [1, t, t**2, t**3])
    np.testing.assert_allclose(
        at(bases.Trigonometric(2), t),
        [1, np.cos(t), np.sin(t), np.cos(2 * t), np.sin(2 * t)],
    )
    np.testing.assert_allclose(
        at(bases.Trigonometric(1, period=1), t),
        [1, np.cos(2 * np.pi * t), np.sin(2 * np.pi * t)],
        # `keras.ops.cos` is a float32 function on JAX and PyTorch.
        rtol=1e-12 if keras.backend.backend() == "tensorflow" else 1e-6,
    )


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
def test_spread_is_the_transpose_of_combine(basis):
    located = basis.locate(ops.convert_to_tensor(TIMES))
    alpha = ops.convert_to_tensor(random((basis.size, 3, 2), "float64"))
    cotangents = ops.convert_to_tensor(random((len(TIMES), 3, 2), "float64", seed=1))
    left = ops.sum(basis.combine(located, alpha) * cotangents)
    right = ops.sum(alpha * basis.spread(located, cotangents))
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


def test_names():
    assert [bases.get(name).size for name in sorted(bases.ALL)] == [10, 1, 11, 21]
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
        (lambda: bases.Bucket(2, domain=(1, 0)), r"t0 < t1.*Received: domain=\(1, 0\)"),
        (lambda: bases.Constant(domain=(0, np.inf)), "finite.*Received: domain="),
        (lambda: bases.Bucket(2, domain=(0, 1, 2)), r"two.*domain=\(0, 1, 2\)"),
        (lambda: bases.Bucket(2, domain=5), "two.*Received: domain=5"),
        (lambda: bases.get(["trig"]), r"'trig'.*Received: basis=\['trig'\]"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()
