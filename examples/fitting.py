"""Training that resumes after an interruption and reports its progress."""

import csv
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path

import runs  # before what imports TensorFlow

# isort: split
import keras
import numpy as np
import tensorflow as tf

SILENCE = 10  # seconds after which a line is due where no bar can be drawn


def fit(
    model: keras.Model,
    train_from: Callable[[int], tf.data.Dataset],
    test: tf.data.Dataset,
    folder: Path,
    epochs: int,
    begin: int = 0,
) -> list[float]:
    """Trains what is left from epoch `begin` on, and returns the seconds of each epoch.

    With `train_from(epoch)` to train on, whose first iteration is that epoch, and all
    variables as they were, it ends with the weights of a run that ran through.
    """
    backup = Backup(folder / (f"backup_{begin}.npz" if begin else "backup.npz"))
    done = backup.restore(model) or begin
    history = History(folder / "history.csv")
    model.fit(
        train_from(done),
        validation_data=test,
        initial_epoch=done,
        epochs=epochs,
        shuffle=False,  # the dataset shuffles itself
        callbacks=[history, keras.callbacks.TerminateOnNaN(), backup, Outlook()],
        verbose=1 if sys.stdout.isatty() else 2,
    )
    return history.seconds


class Backup(keras.callbacks.Callback):
    """Keeps all variables after each epoch, those of the optimizer and seeds too.

    Variables and epoch are one file, replaced at once. Those of
    `keras.callbacks.BackupAndRestore` are two: a run that is killed between them
    trains an epoch twice.
    """

    def __init__(self, file: Path):
        super().__init__()
        self.file = file

    def on_epoch_end(self, epoch, logs=None):
        with runs.replacing(self.file) as unfinished:
            np.savez(unfinished, *values(self.model), epochs=epoch + 1)

    def restore(self, model: keras.Model) -> int:
        """Brings a model to where it was, and returns after how many epochs."""
        model.optimizer.build(model.trainable_variables)
        for variable, value in zip(variables(model), self.values(model), strict=True):
            variable.assign(value)
        if not self.file.exists():
            return 0
        with np.load(self.file) as arrays:
            return int(arrays["epochs"])

    def values(self, model: keras.Model) -> list[np.ndarray]:
        """What its variables were after the last epoch, or are before the first."""
        if not self.file.exists():
            return values(model)
        with np.load(self.file) as arrays:
            return [arrays[f"arr_{index}"] for index in range(len(variables(model)))]


def variables(model: keras.Model) -> list[keras.Variable]:
    return [*model.variables, *model.optimizer.variables]


def values(model: keras.Model) -> list[np.ndarray]:
    return [keras.ops.convert_to_numpy(variable) for variable in variables(model)]


class History(keras.callbacks.Callback):
    """Writes each epoch to a CSV file and measures its seconds.

    Unlike `keras.callbacks.CSVLogger`, it replaces the row of an epoch that is trained
    again because the run was interrupted before its backup was written.
    """

    def __init__(self, file: Path):
        super().__init__()
        self.file = file
        self.seconds: list[float] = []

    def on_epoch_begin(self, epoch, logs=None):
        self.begin = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        self.seconds.append(time.perf_counter() - self.begin)
        header = ",".join(["epoch", *logs])
        lines = self.file.read_text().splitlines() if epoch else [header]
        row = ",".join(map(str, [epoch + 1, *logs.values()]))
        runs.write(self.file, "\n".join([*lines[: epoch + 1], row, ""]))


class Outlook(keras.callbacks.Callback):
    """Says soon that the training goes on, and after an epoch how long it will."""

    def on_train_begin(self, logs=None):
        print("The first step is slow: it compiles.")
        self.said = time.perf_counter()
        self.epochs = 0  # of this process
        self.steps = 0  # of the epoch
        self.compiled = math.nan  # when the first step had ended

    def on_train_batch_end(self, batch, logs=None):
        now = time.perf_counter()
        if math.isnan(self.compiled):
            self.compiled = now
        self.steps = batch + 1
        if now - self.said > SILENCE and not sys.stdout.isatty():
            print(f"step {self.steps} of {self.params['steps'] or '?'}")
            self.said = now

    def on_epoch_end(self, epoch, logs=None):
        self.epochs += 1
        self.said = time.perf_counter()
        left = self.params["epochs"] - epoch - 1
        if self.epochs == 1 and left:
            # Said when the next epoch begins, below the line of this one.
            self.left = left * (self.said - self.compiled)

    def on_epoch_begin(self, epoch, logs=None):
        if self.epochs == 1:
            print(f"About {duration(self.left)} of training left.")


def duration(seconds: float) -> str:
    if seconds < 100:
        return f"{math.ceil(seconds)} s"
    minutes = math.ceil(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes / 60:.1f} h"


# Afterwards


def mean_after_first(seconds: list[float]) -> float | None:
    """The mean seconds of an epoch without the first, which compiles."""
    return sum(seconds[1:]) / len(seconds[1:]) if seconds[1:] else None


def read_history(file: Path) -> list[dict[str, float]]:
    try:
        with file.open(newline="") as lines:
            return [
                {name: float(value) for name, value in row.items()}
                for row in csv.DictReader(lines)
            ]
    except (TypeError, ValueError):  # a row that was cut off, or no numbers
        runs.fail_damaged(file)


def check_finite(block: str, test_loss: float, folder: Path, advice: str) -> None:
    rows = read_history(folder / "history.csv")
    if math.isfinite(test_loss) and all(math.isfinite(row["loss"]) for row in rows):
        return
    for backup in folder.glob("backup*.npz"):
        backup.unlink()
    runs.fail(
        f"The training of {block} ended in NaN in epoch {len(rows)}. No model was "
        f"saved; the losses are in {folder / 'history.csv'}. {advice}"
    )
