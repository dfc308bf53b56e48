"""The drawing of "How it works"."""

import pathlib

from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

# Where each noun stands, and what it is.
NOUNS = {
    "vector field": (
        0.0,
        2.0,
        "f(x, θ(t)): a layer or a function,\nand its weights in time",
    ),
    "solver": (0.0, 1.0, "one step of a method,\nits vjp and its inverse"),
    "stepping": (1.0, 1.5, "chooses the steps\nand takes them"),
    "adjoint": (
        2.0,
        1.5,
        "keeps states on the way there,\nand goes back for the gradient",
    ),
}
ARROWS = [
    ("vector field", "stepping", "slopes"),
    ("solver", "stepping", "steps"),
    ("stepping", "adjoint", "states"),
]
_WIDTH, _HEIGHT, _GAP = 0.74, 0.56, 1.1


def write(folder: pathlib.Path) -> None:
    folder.mkdir(exist_ok=True)
    figure().savefig(folder / "nouns.svg", metadata={"Date": None}, transparent=True)


def figure() -> Figure:
    figure = Figure(figsize=(9, 3.4))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    for noun, (x, y, words) in NOUNS.items():
        box = FancyBboxPatch(
            (x * _GAP, y),
            _WIDTH,
            _HEIGHT,
            boxstyle="round,pad=0.02",
            facecolor="#e8f0f7",
            edgecolor="#33658a",
        )
        axes.add_patch(box)
        middle = x * _GAP + _WIDTH / 2
        axes.text(middle, y + 0.42, noun, ha="center", va="center", weight="bold")
        axes.text(middle, y + 0.19, words, ha="center", va="center", fontsize=8.5)
    for start, end, words in ARROWS:
        (x0, y0, _), (x1, y1, _) = NOUNS[start], NOUNS[end]
        head = (x1 * _GAP - 0.03, y1 + _HEIGHT / 2)
        tail = (x0 * _GAP + _WIDTH + 0.03, y0 + _HEIGHT / 2)
        axes.annotate("", head, tail, arrowprops={"arrowstyle": "->", "lw": 1.4})
        axes.text(
            (head[0] + tail[0]) / 2,
            (head[1] + tail[1]) / 2 + (0.1 if head[1] <= tail[1] else -0.16),
            words,
            ha="center" if head[1] == tail[1] else "left",
            color="#33658a",
            fontsize=9,
        )
    axes.set_xlim(-0.08, 2 * _GAP + _WIDTH + 0.08)
    axes.set_ylim(0.9, 2.68)
    return figure
