"""Panels, and what is drawn on them."""

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from keras_nanode import checks

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette, which colour-blind people can tell apart, without its yellow.
COLORS = "#0072B2 #D55E00 #009E73 #CC79A7 #E69F00 #56B4E9 #000000".split()
_STYLES = ("-", "--", "-.", ":")


def panels(number: int) -> tuple["Figure", list["Axes"]]:
    """A figure with a number of axes, in rows of three at most."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "`keras_nanode.visualize` needs the optional package `matplotlib`. Install "
            f"it with {checks.installation('visualize')}."
        ) from error
    columns = min(number, 3)
    rows = math.ceil(number / columns)
    size = (6.4 if columns == 1 else 4 * columns, 3.6 * rows)
    figure = Figure(figsize=size, layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for unused in axes[number:]:
        unused.remove()
    for used in axes[:number]:
        used.spines[["top", "right"]].set_visible(False)
        used.grid(alpha=0.3)
    return figure, axes[:number]


def line_styles() -> Iterator[dict]:
    """Colours and kinds of lines: 28 of them differ."""
    kinds = zip(itertools.cycle(COLORS), itertools.cycle(_STYLES), strict=False)
    return ({"color": color, "linestyle": style} for color, style in kinds)


def mark(axes: "Axes", times: Sequence[float]) -> None:
    """Dotted lines at the breakpoints."""
    for i, t in enumerate(times):
        label = None if i else "breakpoint"
        axes.axvline(t, color="0.4", linestyle=":", linewidth=1, label=label)


def curves(axes: "Axes", x: np.ndarray, y: np.ndarray) -> None:
    """A line for each column of `(times, rows)`, from a circle to a square."""
    for i, style in zip(range(x.shape[1]), line_styles(), strict=False):
        axes.plot(x[:, i], y[:, i], label=f"row {i}", linewidth=1.5, **style)
        for marker, end in (("o", 0), ("s", -1)):
            axes.scatter(
                x[end, i],
                y[end, i],
                s=22,
                color=style["color"],
                marker=marker,
                zorder=3,
            )


def arrows(
    axes: "Axes", grid: Sequence[np.ndarray], slopes: Sequence[np.ndarray], equal: bool
) -> None:
    """Directions on a regular grid, of equal lengths or as long as they are fast."""
    cells = [np.ptp(x) / (len(x) - 1) for x in grid]
    relative = [slope / cell for slope, cell in zip(slopes, cells, strict=True)]
    speed = np.hypot(*relative)
    unit = np.where(speed > 0, speed, 1) if equal else (speed.max() or 1)
    drawn = [0.9 * cell * x / unit for cell, x in zip(cells, relative, strict=True)]
    axes.quiver(
        *(*grid, *drawn),
        color="0.55",
        angles="xy",
        scale_units="xy",
        scale=1,
        pivot="mid",
        width=0.003,
    )
