"""Pictures of videos and their predictions: film strips and animations."""

import io
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

GAP = 2  # pixels between frames
INCHES = 0.5  # the side of a frame
MILLISECONDS = 250  # that an animation shows a frame


class Prediction(NamedTuple):
    """A few videos and what a model made of their first frames.

    Attributes:
        truth: uint8 `(videos, frames, height, width, channels)`.
        samples: uint8 `(videos, samples, predicted frames, height, width, channels)`,
            the best first.
    """

    truth: np.ndarray
    samples: np.ndarray

    def rows(self) -> np.ndarray:
        """The truth and the samples after their context, `(videos, rows, ...)`."""
        given = self.truth.shape[1] - self.samples.shape[2]
        truth = self.truth[:, None]
        context = np.repeat(truth[:, :, :given], self.samples.shape[1], axis=1)
        return np.concatenate(
            [truth, np.concatenate([context, self.samples], axis=2)], axis=1
        )


def read(file: Path) -> Prediction:
    with np.load(file) as arrays:
        return Prediction(arrays["truth"], arrays["samples"])


def labels(prediction: Prediction) -> list[str]:
    others = prediction.samples.shape[1] - 1
    return ["truth", "best sample", *["another sample"] * others]


def strips(predictions: dict[str, Prediction], title: str) -> Figure:
    """Each video as rows over time, the predictions of the blocks side by side."""
    videos, rows, frames = next(iter(predictions.values())).rows().shape[:3]
    size = (2 + INCHES * frames * len(predictions), 1 + INCHES * rows * videos)
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(videos, len(predictions), squeeze=False)
    for column, (block, prediction) in enumerate(predictions.items()):
        given = frames - prediction.samples.shape[2]
        for video, axes in enumerate(panels[:, column]):
            show(
                axes, prediction.rows()[video], labels(prediction) if not column else []
            )
            # Left of it is what was given.
            width = prediction.truth.shape[3] + GAP
            axes.axvline(given * width - GAP / 2 - 0.5, color="#D55E00", linewidth=2)
        panels[0, column].set_title(block)
    figure.suptitle(title)
    return figure


def animate(predictions: dict[str, Prediction], title: str, file: Path) -> None:
    """Writes a GIF of all videos at once, the blocks side by side."""
    films = {block: p.rows().swapaxes(0, 1) for block, p in predictions.items()}
    first = next(iter(predictions.values()))
    given = first.truth.shape[1] - first.samples.shape[2]
    pages = [
        page(
            {block: film[:, :, time] for block, film in films.items()},
            labels(first),
            f"{title}\nframe {time + 1}, {'given' if time < given else 'predicted'}",
        )
        for time in range(first.truth.shape[1])
    ]
    durations = [MILLISECONDS] * (len(pages) - 1) + [4 * MILLISECONDS]
    pages[0].save(
        file, save_all=True, append_images=pages[1:], duration=durations, loop=0
    )


def page(films: dict[str, np.ndarray], names: list[str], title: str) -> Image.Image:
    """One moment: the rows `(rows, videos, ...)` of each block as a panel."""
    rows, videos = next(iter(films.values())).shape[:2]
    size = (1.5 + 2 * INCHES * videos * len(films), 1 + 2 * INCHES * rows)
    figure = Figure(figsize=size, layout="constrained")
    for axes, (block, film) in zip(
        figure.subplots(1, len(films), squeeze=False).flat, films.items(), strict=True
    ):
        show(axes, film, names)
        axes.set_title(block)
        names = []
    figure.suptitle(title)
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=70)
    return Image.open(buffer).convert("P", palette=Image.Palette.ADAPTIVE)


def show(axes: Axes, frames: np.ndarray, names: list[str]) -> None:
    """A table of frames `(rows, columns, height, width, channels)`, its rows named."""
    tiles = tiled(frames)
    axes.imshow(tiles, interpolation="nearest")
    height = frames.shape[2] + GAP
    axes.set_xticks([])
    axes.set_yticks([i * height + height / 2 for i in range(len(names))], names)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def tiled(frames: np.ndarray) -> np.ndarray:
    """One image `(height, width, 3)` of a table of frames, with white gaps."""
    gaps = [(0, 0), (0, 0), (0, GAP), (0, GAP), (0, 0)]
    padded = np.pad(in_colour(frames), gaps, constant_values=255)
    rows, columns, height, width, channels = padded.shape
    image = padded.swapaxes(1, 2).reshape(rows * height, columns * width, channels)
    return image[:-GAP, :-GAP]


def in_colour(frames: np.ndarray) -> np.ndarray:
    """Frames as red, green and blue; of other than 3 channels the first as grey."""
    grey = frames.shape[-1] != 3
    return np.repeat(frames[..., :1], 3, axis=-1) if grey else frames
