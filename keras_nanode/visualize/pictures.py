"""The four pictures."""

from typing import TYPE_CHECKING, Any

import numpy as np

from keras_nanode import checks
from keras_nanode.layers import ODE, TimeVarying
from keras_nanode.stepping import Status
from keras_nanode.visualize import drawing, solves

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST_LINES = 8  # in one panel of weights
_INTERVALS = 400  # of a weight over time
_GRID = 17  # arrows in each direction


def weights(layer: ODE | TimeVarying) -> "Figure":
    """The weights of a layer over time: a panel for each weight tensor.

    A panel has a line for each number in its tensor, or for 8 of them if there are
    more. These are evenly spaced in the order of how much they vary. Dotted lines mark
    the breakpoints of the basis.

    Args:
        layer: A built `layers.TimeVarying`, shown over the domain of its basis, or an
            ODE layer with such dynamics, shown over its `t_span`.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        ValueError: if `layer` is neither, its weights do not vary in time, or it is not
            built.
        ImportError: if matplotlib is not installed.

    Example:

    >>> import keras
    >>> from keras_nanode import layers, visualize
    >>> ode = layers.TrigDenseODE(2)
    >>> y = ode(keras.ops.ones((1, 2)))
    >>> [len(axes.lines) for axes in visualize.weights(ode).axes]
    [4, 2]
    """
    if not isinstance(layer, (ODE, TimeVarying)):
        raise checks.wrong("layer", layer, "an ODE layer, or a `layers.TimeVarying`")
    span, breakpoints = solves.span(layer), solves.breakpoints(layer)
    # Both sides of a jump.
    before = np.nextafter(np.asarray(breakpoints, "float32"), -np.float32(np.inf))
    times = np.sort([*np.linspace(*span, _INTERVALS + 1), *before, *breakpoints])
    found = solves.weights_at(layer, times)
    figure, panels = drawing.panels(len(found))
    for axes, (name, values) in zip(panels, found, strict=True):
        curves = values.reshape(len(times), -1)
        order = np.argsort(np.ptp(curves, axis=0), kind="stable")
        shown, title = np.arange(len(order)), name
        if len(order) > _MOST_LINES:
            ranks = np.linspace(0, len(order) - 1, _MOST_LINES).round().astype(int)
            shown, title = order[ranks], f"{name}: {_MOST_LINES} of {len(order):,}"
        for style, i in zip(drawing.line_styles(), shown, strict=False):
            index = ", ".join(map(str, np.unravel_index(i, values.shape[1:])))
            axes.plot(times, curves[:, i], label=f"[{index}]", **style)
        drawing.mark(axes, breakpoints)
        axes.set_title(title, fontsize="small")
        axes.set(xlabel="time", ylabel="weight", xlim=sorted(span))
        axes.legend(fontsize="x-small", ncols=2, framealpha=0.6)
    return figure


def trajectories(layer: ODE, inputs: Any) -> "Figure":
    """The states of a flow between its inputs and its outputs, a line for each row.

    States of one number are drawn over time, and those of two in their plane. Larger
    states are drawn in the plane in which they vary the most: their first two principal
    components, whose labels say how much of the variance they show. A circle is an
    input, and a square an output.

    Args:
        layer: An ODE layer.
        inputs: What the layer takes, `(batch, ...)`.

    Returns:
        A `matplotlib.figure.Figure`. Lines join the states after each step, or at 101
        times if steps are adaptive.

    Raises:
        ValueError: if `layer` is no ODE layer, or does not take the inputs.
        ImportError: if matplotlib is not installed.

    Example:

    >>> from keras_nanode import layers, visualize
    >>> figure = visualize.trajectories(layers.TrigDenseODE(2), [[1.0, 0.0]] * 3)
    >>> len(figure.axes[0].lines)
    3
    """
    times, path = solves.path(layer, solves.state(layer, inputs))
    figure, (axes,) = drawing.panels(1)
    if path.shape[-1] == 1:
        _over_time(axes, times, path)
        _name_rows(axes, path)
        return figure
    names = ["x₁", "x₂"]
    if path.shape[-1] > 2:
        path, shares = solves.principal(path)
        names = [
            f"component {i} ({share:.0%} of the variance)"
            for i, share in enumerate(shares, 1)
        ]
    drawing.curves(axes, path[..., 0], path[..., 1])
    axes.set(xlabel=names[0], ylabel=names[1])
    _name_rows(axes, path)
    return figure


def vector_field(layer: ODE, inputs: Any = None) -> "Figure":
    """The slopes that a flow follows, with trajectories on them.

    In one dimension, arrows show the direction (1, dx/dt) over time. In two, a panel
    shows dx/dt in the plane at the first, the middle and the last time; one panel
    suffices if the dynamics do not depend on time. Arrows are longer where the state is
    faster, and a diamond is a state at the panel's time.

    Args:
        layer: An ODE layer whose states are one or two numbers, `(batch, n)`.
        inputs: The first states of the trajectories, `(batch, n)`. None for numbers
            from -2 to 2: nine in one dimension, nine pairs of three in two. The limits
            are those of the trajectories, and 10 % more.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        ValueError: if `layer` is no ODE layer, if its states are larger, or if it is
            not built and `inputs` is None.
        ImportError: if matplotlib is not installed.

    Example:

    >>> from keras_nanode import layers, visualize
    >>> figure = visualize.vector_field(layers.TrigDenseODE(2), [[1.0, 0.0]])
    >>> [axes.get_title() for axes in figure.axes]
    ['t = 0', 't = 1.118', 't = 2.236']
    """
    state = solves.state(layer, solves.starts(layer) if inputs is None else inputs)
    size = state.shape[-1] if len(state.shape) == 2 else 0
    if size not in (1, 2):
        raise ValueError(
            "`vector_field` draws states of one or two numbers. For larger ones see "
            "`visualize.trajectories`. "
            f"Received: states of shape {tuple(state.shape)}"
        )
    times, path = solves.path(layer, state)
    limits = [_limits(path[..., i]) for i in range(size)]
    return (_over_line, _over_plane)[size - 1](layer, times, path, limits)


def steps(layer: ODE, inputs: Any) -> "Figure":
    """The lengths of a flow's steps over time, on a logarithmic axis.

    A circle is a step that was taken, a cross one that was tried and rejected, each at
    its start. Dotted lines mark the breakpoints of the weights' basis, where adaptive
    steps end.

    Args:
        layer: An ODE layer with any solver but `"bdf"`.
        inputs: What the layer takes, `(batch, ...)`. All rows share their steps.

    Returns:
        A `matplotlib.figure.Figure`. If adaptive steps end before the last time, the
        title says why.

    Raises:
        ValueError: if `layer` is no ODE layer, if its solver is `"bdf"`, whose steps
            are another library's, or if it does not take the inputs.
        ImportError: if matplotlib is not installed.

    Example:

    >>> from keras_nanode import layers, visualize
    >>> ode = layers.TrigDenseODE(2, solver="dopri5", steps=10)
    >>> axes = visualize.steps(ode, [[1.0, 0.0]]).axes[0]
    >>> [text.get_text() for text in axes.get_legend().get_texts()]
    ['accepted: 10', 'rejected: 0']
    """
    state = solves.state(layer, inputs)
    starts, lengths, accepted, status = solves.attempts(layer, state)
    figure, (axes,) = drawing.panels(1)
    taken: dict[str, Any] = {
        "color": drawing.COLORS[0],
        "marker": "o",
        "drawstyle": "steps-post",
    }
    tried: dict[str, Any] = {"color": drawing.COLORS[1], "marker": "x", "linestyle": ""}
    for chosen, name, style in (
        (accepted, "accepted", taken),
        (~accepted, "rejected", tried),
    ):
        label = f"{name}: {np.sum(chosen)}"
        axes.plot(starts[chosen], lengths[chosen], label=label, **style)
    drawing.mark(axes, solves.breakpoints(layer))
    axes.set_yscale("log")
    title = "" if status == 0 else f"ended early: {Status(status).name}"
    axes.set(title=title, xlabel="time", ylabel="step", xlim=sorted(layer.t_span))
    axes.legend()
    return figure


def _over_line(layer: ODE, times: Any, path: Any, limits: list) -> "Figure":
    figure, (axes,) = drawing.panels(1)
    points = _grid(*limits[0])
    moments = _grid(*sorted(layer.t_span))
    slopes = [solves.slopes(layer, t, points[:, None])[:, 0] for t in moments]
    grid = np.meshgrid(moments, points)
    drawing.arrows(axes, grid, (np.ones_like(grid[0]), np.stack(slopes, 1)), equal=True)
    _over_time(axes, times, path)
    axes.set_ylim(limits[0])
    return figure


def _over_plane(layer: ODE, times: Any, path: Any, limits: list) -> "Figure":
    grid = np.meshgrid(*(_grid(*ends) for ends in limits))
    points = np.stack([x.ravel() for x in grid], axis=-1)
    moves = solves.depends_on_time(layer)
    figure, panels = drawing.panels(3 if moves else 1)
    for axes, i in zip(panels, (0, len(times) // 2, -1), strict=False):
        slopes = solves.slopes(layer, times[i], points).reshape(_GRID, _GRID, 2)
        drawing.arrows(axes, grid, (slopes[..., 0], slopes[..., 1]), equal=False)
        drawing.curves(axes, path[..., 0], path[..., 1])
        if moves:
            axes.plot(*path[i].T, "D", color="black", markeredgecolor="white", zorder=4)
            axes.set_title(f"t = {times[i]:.4g}")
        axes.set(xlabel="x₁", ylabel="x₂", xlim=limits[0], ylim=limits[1])
    return figure


def _over_time(axes: "Axes", times: Any, path: Any) -> None:
    rows = path[..., 0]
    drawing.curves(axes, np.broadcast_to(times[:, None], rows.shape), rows)
    axes.set(xlabel="time", ylabel="x", xlim=sorted((times[0], times[-1])))


def _name_rows(axes: "Axes", path: Any) -> None:
    if path.shape[1] <= _MOST_LINES:
        axes.legend(fontsize="small", framealpha=0.6)


def _limits(x: Any) -> tuple[float, float]:
    """Those of finite numbers, and 10 % more."""
    finite = x[np.isfinite(x)]
    low, high = (finite.min(), finite.max()) if finite.size else (-1.0, 1.0)
    margin = 0.1 * (high - low) or 1.0
    return float(low - margin), float(high + margin)


def _grid(first: float, last: float) -> np.ndarray:
    return np.linspace(first, last, _GRID)
