"""The pictures of `visualize` show what the layers compute."""

import subprocess
import sys

import keras
import numpy as np
import pytest
from cases import random

from keras_nanode import Adaptive, bases, layers, odeint, visualize

CIRCLE = [[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]]


@keras.saving.register_keras_serializable("test_visualize")
class Turn(keras.Layer):
    """The slope (-y, x), which turns the plane."""

    def call(self, inputs):
        x, y = keras.ops.split(inputs, 2, axis=-1)
        return keras.ops.concatenate([-y, x], axis=-1)


def turn(**arguments):
    return layers.ODE(Turn(), t_span=(0, np.pi / 2), **arguments)


def flow(size, basis=None, **arguments):
    ode = layers.DenseODE(basis or bases.Trigonometric(2), **arguments)
    ode(random((1, size)))
    return ode


def lines(axes):
    """The lines, without those at breakpoints."""
    return [x for x in axes.lines if len(set(x.get_xdata())) > 1]


def labels(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


def test_weights_has_a_line_for_each_weight():
    ode = flow(2, t_span=(0.0, 2.0))
    kernel, bias = visualize.weights(ode).axes
    assert kernel.get_title().endswith("kernel")
    assert bias.get_title().endswith("bias") and len(lines(bias)) == 2
    assert labels(kernel) == ["[0, 0]", "[0, 1]", "[1, 0]", "[1, 1]"]
    assert kernel.get_xlim() == (0, 2)
    expected = keras.ops.convert_to_numpy(ode.weights_at([0.0, 2.0])[0])
    for line, w in zip(lines(kernel), expected.reshape(2, 4).T, strict=True):
        np.testing.assert_allclose(line.get_ydata()[[0, -1]], w, rtol=1e-5)
    styles = {(x.get_color(), x.get_linestyle()) for x in lines(kernel)}
    assert len(styles) == 4 == len({style for _, style in styles})


def test_weights_shows_a_few_of_many_and_the_jumps():
    varying = layers.TimeVarying(
        keras.layers.Dense(4), bases.Bucket(2), start="independent"
    )
    varying(random((1, 3)), t=0.0)
    kernel, _ = visualize.weights(varying).axes
    assert kernel.get_title() == "kernel: 8 of 12"
    shown = lines(kernel)
    variations = [np.ptp(line.get_ydata()) for line in shown]
    assert len(shown) == 8 and variations == sorted(variations)
    (mark,) = (line for line in kernel.lines if line not in shown)
    assert set(mark.get_xdata()) == {0.5} and labels(kernel)[-1] == "breakpoint"
    # A jump is upright: no value between the two sides is drawn.
    assert all(len(np.unique(line.get_ydata())) == 2 for line in shown)


def test_trajectories_in_the_plane_follow_the_flow():
    (axes,) = visualize.trajectories(turn(solver="rk4", steps=20), CIRCLE).axes
    assert labels(axes) == ["row 0", "row 1", "row 2"]
    for line, start in zip(lines(axes), CIRCLE, strict=True):
        x, y = line.get_xdata(), line.get_ydata()
        assert len(x) == 21
        np.testing.assert_allclose((x[0], y[0]), start)
        np.testing.assert_allclose((x[-1], y[-1]), (-start[1], start[0]), atol=1e-5)
        np.testing.assert_allclose(np.hypot(x, y), np.hypot(*start), rtol=1e-5)


@pytest.mark.parametrize("steps", [5, "adaptive"])
def test_trajectories_of_numbers_end_where_the_layer_does(steps):
    ode = flow(1, bases.Bucket(5), solver="dopri5", steps=steps)
    x = np.linspace(-1, 1, 9)[:, None]
    (axes,) = visualize.trajectories(ode, x).axes
    ends = [line.get_ydata()[-1] for line in lines(axes)]
    expected = keras.ops.convert_to_numpy(ode(x.astype("float32")))[:, 0]
    np.testing.assert_allclose(ends, expected, atol=1e-4)
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("time", "x")
    assert axes.get_xlim() == pytest.approx(ode.t_span)
    assert axes.get_legend() is None  # of more than 8 rows


def test_trajectories_of_images_are_in_their_main_plane():
    ode = layers.TrigConvODE(1)
    (axes,) = visualize.trajectories(ode, random((3, 4, 4, 2))).axes
    assert len(lines(axes)) == 3
    assert "of the variance" in axes.get_xlabel()
    x, y = ([getattr(x, f"get_{k}data")() for x in lines(axes)] for k in "xy")
    assert np.var(x) > np.var(y) > 0
    assert abs(np.mean(x)) < 1e-5


def test_a_vector_field_in_the_plane():
    figure = visualize.vector_field(turn(solver="rk4", steps=20), CIRCLE)
    (axes,) = figure.axes  # it does not depend on time
    (arrows,) = (x for x in axes.collections if hasattr(x, "U"))
    x, y = arrows.get_offsets().T
    turned = np.stack([-y, x])
    ratio = np.stack([arrows.U, arrows.V]).ravel() @ turned.ravel() / np.sum(turned**2)
    np.testing.assert_allclose([arrows.U, arrows.V], ratio * turned, atol=1e-5)
    assert ratio > 0 and len(lines(axes)) == 3
    limits = (*axes.get_xlim(), *axes.get_ylim())
    np.testing.assert_allclose(limits, (-1.2, 1.2, -0.1, 1.1), atol=0.02)


def test_a_vector_field_that_varies_has_three_panels():
    ode = flow(2, t_span=(0.0, 1.0))
    figure = visualize.vector_field(ode)
    assert [axes.get_title() for axes in figure.axes] == ["t = 0", "t = 0.5", "t = 1"]
    arrows = [next(x for x in a.collections if hasattr(x, "U")) for a in figure.axes]
    assert not np.allclose(arrows[0].U, arrows[1].U)
    assert len(visualize.vector_field(flow(2, bases.Constant())).axes) == 1
    timed = layers.ODE(layers.TimeAppended(keras.layers.Dense(2)))
    assert len(visualize.vector_field(timed, CIRCLE).axes) == 3


def test_a_vector_field_over_time():
    ode = flow(1, t_span=(1.0, 0.0))
    (axes,) = visualize.vector_field(ode).axes
    assert len(lines(axes)) == 9 and axes.get_xlim() == (0, 1)
    (arrows,) = (x for x in axes.collections if hasattr(x, "U"))
    t, x = arrows.get_offsets().T
    first = x[t == 1.0].astype("float32")[:, None]
    slopes = keras.ops.convert_to_numpy(ode.dynamics(first, t=1.0))[:, 0]
    np.testing.assert_allclose((arrows.V / arrows.U)[t == 1.0], slopes, rtol=1e-3)


def test_steps_are_those_that_odeint_counts():
    def kick(t, y):
        return 10 * keras.ops.exp(-100 * (t - 0.6) ** 2) * keras.ops.ones_like(y)

    class Kick(keras.Layer):
        def call(self, x, t):
            return kick(t, x)

    steps, x = Adaptive(rtol=1e-6), np.zeros((2, 1), "float32")
    (axes,) = visualize.steps(layers.ODE(Kick(), "dopri5", steps), x).axes
    _, stats = odeint(
        kick, x, [0.0, 1.0], solver="dopri5", steps=steps, return_stats=True
    )
    counts = [int(stats[f"num_{kind}"]) for kind in ("accepted", "rejected")]
    accepted, rejected = axes.lines
    assert counts[1] > 0
    assert [len(line.get_xdata()) for line in axes.lines] == counts
    assert labels(axes) == [f"accepted: {counts[0]}", f"rejected: {counts[1]}"]
    assert axes.get_yscale() == "log"
    starts, lengths = accepted.get_data()
    np.testing.assert_allclose(starts + lengths, [*starts[1:], 1.0], atol=1e-5)
    assert set(np.float32(rejected.get_xdata())) <= set(np.float32(starts))


def test_steps_end_on_breakpoints():
    basis = bases.Bucket(3, domain=(0.0, 3.0))
    ode = flow(2, basis, solver="tsit5", steps=Adaptive())
    (axes,) = visualize.steps(ode, CIRCLE).axes
    accepted, _, *marks = axes.lines
    edges = [line.get_xdata()[0] for line in marks]
    np.testing.assert_allclose(edges, [1, 2])
    for edge in edges:
        assert np.isclose(accepted.get_xdata(), edge).any()


def test_steps_of_equal_length_and_steps_that_fail():
    (axes,) = visualize.steps(turn(steps=4), CIRCLE).axes
    np.testing.assert_allclose(axes.lines[0].get_ydata(), np.pi / 8)
    failing = turn(solver="dopri5", steps=Adaptive(1e-6, max_steps=2))
    (axes,) = visualize.steps(failing, CIRCLE).axes
    assert axes.get_title() == "ended early: MAX_STEPS"
    assert sum(len(line.get_xdata()) for line in axes.lines) == 2


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: visualize.weights(keras.layers.Dense(2)), "an ODE layer, or a"),
        (lambda: visualize.weights(turn()), "do not vary in time"),
        (lambda: visualize.weights(layers.TrigDenseODE(1)), "no weights before"),
        (lambda: visualize.trajectories(Turn(), CIRCLE), "`layer` must be an ODE"),
        (lambda: visualize.steps(turn(), "x"), "`inputs` must be a tensor"),
        (lambda: visualize.vector_field(turn()), "needs a built layer"),
        (lambda: visualize.vector_field(flow(3)), "one or two numbers"),
    ],
)
def test_errors_say_what_to_do(draw, message):
    with pytest.raises(ValueError, match=message) as error:
        draw()
    assert "Received: " in str(error.value)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="bdf needs it")
def test_steps_of_another_library_are_refused():
    pytest.importorskip("tensorflow_probability")
    with pytest.raises(ValueError, match="does not show its steps"):
        visualize.steps(turn(solver="bdf"), CIRCLE)


def test_without_matplotlib_an_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"keras_nanode\[visualize\]"):
        visualize.steps(turn(), CIRCLE)


def test_figures_are_not_kept_by_pyplot():
    pyplot = pytest.importorskip("matplotlib.pyplot")
    before = pyplot.get_fignums()
    visualize.weights(flow(2))
    assert pyplot.get_fignums() == before


def test_the_library_does_not_import_matplotlib():
    code = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "from keras_nanode import visualize\n"
        "visualize.steps"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
