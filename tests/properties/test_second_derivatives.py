"""With `adjoint="direct"` a gradient can be differentiated; else an error says so."""

import keras
import numpy as np
import pytest
from cases import ADJOINTS, compiled, gradient, numbers, random
from keras import ops

from keras_nanode import Adaptive, layers, odeint

FIXED = {"solver": "rk4", "steps": 20}
ADAPTIVE = {"solver": "dopri5", "steps": Adaptive(1e-9, 1e-9)}


def tensor(values):
    return ops.convert_to_tensor(np.array(values, "float64"))


def flow(y, rate=1.0, **options):
    """y' = rate y^2 / 2 over one unit of time: y / (1 - rate y / 2)."""
    return odeint(lambda t, y, r: r * y * y / 2, y, [0.0, 1.0], (rate,), **options)[-1]


@pytest.mark.parametrize("options", [FIXED, ADAPTIVE], ids=["fixed", "adaptive"])
def test_the_gradient_of_a_gradient_is_exact(options):
    def slope(y):
        return gradient(lambda y: ops.sum(flow(y, adjoint="direct", **options)), y)

    def second(y):
        return gradient(lambda y: ops.sum(slope(y) ** 2), y)

    y = np.array([0.3, -0.5, 0.6])
    exact = 2 * (1 - y / 2) ** -5
    np.testing.assert_allclose(numbers(second(tensor(y))), exact, rtol=1e-6)
    np.testing.assert_allclose(numbers(compiled(second)(tensor(y))), exact, rtol=1e-6)


# What the gradient in y of a function of (y, rate, factor) is differentiated in.
SOURCES = ("state", "argument", "cotangent")
REFUSING = {
    f"{adjoint}-{kind}": {"adjoint": adjoint, **options}
    for adjoint in ADJOINTS
    for kind, options in (("fixed", FIXED), ("adaptive", ADAPTIVE))
    if adjoint not in ("direct", "reversible")
} | {"reversible": {"adjoint": "reversible", "solver": "alf", "steps": 4}}


def penalty(options, source):
    """A function of one source, a part of which has a gradient whatever the adjoint."""
    chosen = SOURCES.index(source)
    x = [tensor([0.3, -0.5]), tensor(1.2), tensor(2.0)]

    def f(value):
        y, rate, factor = (value if i == chosen else x[i] for i in range(3))
        slope = gradient(lambda y: ops.sum(factor * flow(y, rate, **options)), y)
        return ops.sum(slope**2) + ops.sum(value**2)

    return lambda: gradient(f, x[chosen])


MESSAGE = 'only `adjoint="direct"` allows. Use that. Received: adjoint='


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("options", REFUSING.values(), ids=REFUSING)
def test_other_adjoints_say_what_to_use(options, source):
    """And leave no term out in silence."""
    # TensorFlow's own way to forbid a gradient is a LookupError.
    with pytest.raises((ValueError, LookupError), match=MESSAGE):
        penalty(options, source)()


@pytest.mark.parametrize("options", REFUSING.values(), ids=REFUSING)
def test_they_say_so_when_compiled(options):
    # TensorFlow derives the error's class from its own and the original.
    with pytest.raises(Exception, match=MESSAGE):
        compiled(penalty(options, "state"))()


def test_a_gradient_penalty_trains():
    """An input gradient of norm 1, of a model with an ODE in the middle."""
    model = keras.Sequential(
        [
            keras.Input((3,)),
            layers.TrigDenseODE(
                1,
                solver="heun",
                steps=3,
                t_span=(0, 1),
                start="constant",
                adjoint="direct",
            ),
            keras.layers.Dense(1),
        ]
    )
    x = ops.convert_to_tensor(random((16, 3)))
    state = [v.value for v in model.non_trainable_variables]
    weights = [ops.copy(v.value) for v in model.trainable_variables]

    def penalty(weights):
        slope = gradient(
            lambda x: ops.sum(model.stateless_call(weights, state, x)[0]),
            # For PyTorch a leaf.
            ops.copy(x),
        )
        return ops.mean((ops.sqrt(ops.sum(slope**2, axis=1)) - 1) ** 2)

    def descend(weights):
        # The bias of the last layer has no part in the slope.
        slopes = gradient(lambda w: penalty([*w, weights[-1]]), weights[:-1])
        return [w - 0.1 * g for w, g in zip(weights, slopes, strict=False)]

    first = float(numbers(penalty(weights)))
    step = compiled(descend)
    for _ in range(30):
        moved = [ops.convert_to_tensor(numbers(w)) for w in step(weights)]
        weights = [*moved, weights[-1]]
    assert first > 0.01
    assert float(numbers(penalty(weights))) < first / 20
