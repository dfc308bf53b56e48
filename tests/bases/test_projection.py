"""A change of basis, compared with least squares at dense times."""

import keras
import numpy as np
import pytest
from cases import BASES, numbers

from keras_nanode import bases
from keras_nanode.bases.projection import Projection, distance, in_place_of

SPAN = (0.0, 2.0)
DENSE = SPAN[0] + (SPAN[1] - SPAN[0]) * (np.arange(40_000) + 0.5) / 40_000
SPLINE = bases.BSpline(5, 2, (0.5, 1.2), domain=SPAN)

# The second contains the first.
CONTAINED = {
    "buckets": (bases.Bucket(4, SPAN), bases.Bucket(8, SPAN)),
    "waves": (bases.Trigonometric(2, 2.0, SPAN), bases.Trigonometric(3, 2.0, SPAN)),
    "short waves": (
        bases.Trigonometric(1, 0.02, SPAN),
        bases.Trigonometric(2, 0.02, SPAN),
    ),
    "powers": (bases.Polynomial(3, SPAN), bases.Polynomial(4, SPAN)),
    "powers to Legendre": (bases.Polynomial(3, SPAN), bases.Legendre(3, SPAN)),
    "Legendre": (bases.Legendre(20, SPAN), bases.Legendre(25, SPAN)),
    "cosines": (bases.Cosine(4, SPAN), bases.Cosine(5, SPAN)),
    "a knot": (SPLINE, bases.BSpline(6, 2, (0.5, 0.8, 1.2), domain=SPAN)),
    "steps as splines": (bases.Bucket(4, SPAN), bases.BSpline(4, 0, domain=SPAN)),
    **{
        f"constant to {name}": (bases.Constant(SPAN), basis.over(SPAN))
        for name, basis in BASES.items()
    },
}
OTHERS = {
    "buckets to fewer": (bases.Bucket(8, SPAN), bases.Bucket(4, SPAN)),
    "buckets that do not nest": (bases.Bucket(5, SPAN), bases.Bucket(3, SPAN)),
    "buckets to waves": (bases.Bucket(5, SPAN), bases.Trigonometric(2, 2.0, SPAN)),
    "waves to buckets": (bases.Trigonometric(3, 0.7, SPAN), bases.Bucket(6, SPAN)),
    "splines to powers": (SPLINE, bases.Polynomial(3, SPAN)),
    "Legendre to splines": (bases.Legendre(6, SPAN), SPLINE),
}


def z(basis):
    return numbers(basis.values(keras.ops.convert_to_tensor(DENSE)))


def coefficients(basis, *shape):
    return np.random.default_rng(0).normal(size=(basis.size, *shape))


@pytest.mark.parametrize("name", CONTAINED)
def test_a_basis_that_contains_the_old_one_gives_the_same_functions(name):
    old, new = CONTAINED[name]
    before = coefficients(old, 2, 3)
    change = Projection(old, new, 1e-15)
    after = change.of_weights(before)
    expected, found = (
        np.tensordot(z(b), c, axes=1) for b, c in ((old, before), (new, after))
    )
    np.testing.assert_allclose(found, expected, atol=1e-9)
    assert distance(old, new, before, after) < 1e-10
    again = Projection(new, old, 1e-15).of_weights(after)
    np.testing.assert_allclose(again, before, atol=1e-8)


@pytest.mark.parametrize("name", OTHERS)
def test_else_it_is_least_squares_at_dense_times(name):
    old, new = OTHERS[name]
    before = coefficients(old, 2)
    theta = z(old) @ before
    expected = np.linalg.lstsq(z(new), theta, rcond=None)[0]
    change = Projection(old, new, 1e-15)
    after = change.of_weights(before)
    np.testing.assert_allclose(after, expected, atol=2e-3)
    far = np.linalg.norm(z(new) @ expected - theta) / np.linalg.norm(theta)
    assert far > 0.05
    np.testing.assert_allclose(distance(old, new, before, after), far, rtol=1e-3)
    assert distance(old, old, before, 3 * before) == pytest.approx(2)


@pytest.mark.parametrize("name", [*CONTAINED, *OTHERS])
def test_gradients_of_theta_that_the_old_basis_has_are_the_gradients(name):
    """The gradient in alpha_k is int z_k(t) g(t) dt."""
    old, new = {**CONTAINED, **OTHERS}[name]
    g = z(old) @ coefficients(old)
    of_old, of_new = (z(b).T @ g / len(DENSE) for b in (old, new))
    change = Projection(old, new, 1e-15)
    np.testing.assert_allclose(change.of_gradients(of_old), of_new, atol=2e-3)


def test_squares_of_buckets():
    """Half of a bucket gets half of the squared gradient, two get the sum of theirs."""
    one = np.full(4, 3.0)
    finer = Projection(bases.Bucket(4), bases.Bucket(8)).of_squares(one)
    np.testing.assert_allclose(finer, np.full(8, 1.5))
    coarser = Projection(bases.Bucket(4), bases.Bucket(2)).of_squares(one)
    np.testing.assert_allclose(coarser, np.full(2, 6.0))


def test_squares_of_functions_that_are_new_are_those_of_the_others():
    old, new = bases.Legendre(2), bases.Legendre(4)
    found = Projection(old, new).of_squares(np.array([1.0, 2.0, 6.0]))
    np.testing.assert_allclose(found, [1, 2, 6, 3, 3], rtol=1e-5)


def test_the_same_basis_changes_nothing():
    before = coefficients(SPLINE, 3)
    change = Projection(SPLINE, SPLINE)
    for method in (change.of_weights, change.of_gradients, change.of_squares):
        assert np.array_equal(method(before), before)


def test_a_basis_is_stretched_if_it_has_no_domain_of_its_own():
    old = bases.Bucket(4, SPAN)
    assert in_place_of(old, bases.Cosine(3), SPAN) == bases.Cosine(3, SPAN)
    with pytest.raises(ValueError, match=r"same times.*domain=\(0.0, 2.0\).*Received:"):
        in_place_of(old, bases.Cosine(3, (0, 3)), SPAN)
