"""What training runs share: processes of their own, resuming, histories.

Import it before anything that imports TensorFlow.
"""

import argparse
import contextlib
import csv
import json
import math
import multiprocessing
import os
import resource
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NoReturn


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Drops what is written to stderr, by C++ as well."""
    stderr, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(nothing)


os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# No level keeps TensorFlow from telling at its import how it was compiled.
with silenced():
    import absl.logging
    import keras
    import tensorflow as tf

# The options that may differ from one run to the next in the same folder.
FREE = ("block", "workers", "data_dir", "output")
# The backends on which Keras writes a SavedModel.
EXPORTING = ("tensorflow", "jax")

# What trains a block, and writes its folder, `results.json` last.
Train = Callable[[str, argparse.Namespace], None]
# What has it done, in one or more processes.
Start = Callable[[str, argparse.Namespace, Train], None]
Results = dict[str, dict[str, Any]]


# The command line


def count_from(least: int) -> Callable[[str], int]:
    def count(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(
                f"must be an integer of at least {least}. Received: {text}"
            )
        return int(text)

    return count


def add_counts(
    parser: argparse.ArgumentParser, names: Iterable[str], recipes: dict[str, Any]
) -> None:
    """Options that are counts, each with a default in every recipe."""
    for name in names:
        values = (f"{getattr(r, name)} for {data}" for data, r in recipes.items())
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            type=count_from(1),
            help=f"default: {', '.join(values)}",
        )


def completed(
    options: argparse.Namespace, defaults: dict[str, Any]
) -> argparse.Namespace:
    """The options, with `defaults` for those that were left out."""
    given = {name: value for name, value in vars(options).items() if value is not None}
    distinct = {"block": list(dict.fromkeys(options.block))}
    return argparse.Namespace(**{"data_dir": None} | defaults | given | distinct)


# The output folder


def settings(options: argparse.Namespace) -> dict[str, Any]:
    """All that must be equal for a run to continue another."""
    chosen = {name: value for name, value in vars(options).items() if name not in FREE}
    return {**chosen, "backend": keras.backend.backend()}


def check_folder(options: argparse.Namespace) -> None:
    file, now = options.output / "options.json", settings(options)
    before = json.loads(file.read_text()) if file.exists() else now
    differing = [name for name in now if before.get(name) != now[name]]
    if differing:
        had, has = (
            ", ".join(f"{name}={values.get(name)}" for name in differing)
            for values in (before, now)
        )
        raise ValueError(
            f"{options.output} holds a run with other options ({had}). Repeat those to "
            "continue it, choose another --output, or delete the folder. "
            f"Received: {has}"
        )


def make_folder(block: str, options: argparse.Namespace) -> Path:
    """The folder of a block, in that of the run with its options."""
    folder = options.output / block
    folder.mkdir(parents=True, exist_ok=True)
    (options.output / "options.json").write_text(json.dumps(settings(options)))
    return folder


def finish_folder(folder: Path, results: dict[str, Any]) -> None:
    (folder / "results.json").write_text(json.dumps(results))
    shutil.rmtree(folder / "backup")


# Processes


def train_in_own_process(block: str, options: argparse.Namespace, train: Train) -> None:
    """Trains where no earlier model has raised the peak of the memory."""
    process = multiprocessing.get_context("spawn").Process(
        target=train_as_child, args=(block, options, train)
    )
    process.start()
    try:
        process.join()
    finally:
        process.kill()
        process.join()
    if process.exitcode and process.exitcode < 0:
        fail(f"The training of {block} was killed by signal {-process.exitcode}.")
    if process.exitcode:
        sys.exit(process.exitcode)


def all_results(
    train: Train,
    parser: argparse.ArgumentParser,
    options: argparse.Namespace,
    start: Start = train_in_own_process,
) -> Results:
    """What training each block gave, now or in an earlier run."""
    # What this process prints shall not overtake what its children print.
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    try:
        check_folder(options)
    except ValueError as error:
        parser.error(str(error))
    try:
        return {b: result(b, options, train, start) for b in options.block}
    except KeyboardInterrupt:
        sys.exit("\nInterrupted. The same command resumes after the last full epoch.")


def result(
    block: str, options: argparse.Namespace, train: Train, start: Start
) -> dict[str, Any]:
    file = options.output / block / "results.json"
    if file.exists():
        print(f"\n{block}: was finished before, not trained again")
    else:
        print(f"\n{block}")
        start(block, options, train)
    return json.loads(file.read_text())


def train_as_child(block: str, options: argparse.Namespace, train: Train) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles it
    threading.Thread(target=end_with_parent, daemon=True).start()
    absl.logging.set_verbosity("error")
    train(block, options)


def end_with_parent() -> None:
    """Else a killed run would train on and write beside the run that resumes it."""
    parent = multiprocessing.parent_process()
    if parent:
        parent.join()
        os._exit(1)


def fail(message: object, code: int = 1) -> NoReturn:
    print(f"{Path(sys.argv[0]).name}: error: {message}", file=sys.stderr)
    sys.exit(code)


def peak_megabytes() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


# Training


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
        unfinished = self.file.with_suffix(".tmp")
        unfinished.write_text("\n".join([*lines[: epoch + 1], row, ""]))
        unfinished.replace(self.file)


class Backup(keras.callbacks.BackupAndRestore):
    """Takes the backup before the last if the run was killed while it wrote the last.

    Keras does so on an OSError alone, which is not all that half a file can raise.
    """

    def __init__(self, folder: Path):
        # It stays until all that follows `fit` is written too.
        super().__init__(str(folder), double_checkpoint=True, delete_checkpoint=False)

    def on_train_begin(self, logs=None):
        try:
            super().on_train_begin(logs)
        except (OSError, RuntimeError, LookupError, ValueError):
            folder = Path(self.backup_dir)
            for broken in {*folder.iterdir()} - {*folder.glob("*.bkp")}:
                broken.unlink()
            for earlier in folder.glob("*.bkp"):
                earlier.rename(earlier.with_suffix(""))
            super().on_train_begin(logs)


def fit(
    model: keras.Model,
    train: tf.data.Dataset,
    test: tf.data.Dataset,
    folder: Path,
    **options,
) -> list[float]:
    """Trains what is left to train and returns the seconds of each epoch."""
    history = History(folder / "history.csv")
    nan = keras.callbacks.TerminateOnNaN()
    model.fit(
        train,
        validation_data=test,
        shuffle=False,  # the dataset shuffles itself
        callbacks=[history, nan, Backup(folder / "backup")],
        verbose=1 if sys.stdout.isatty() else 2,
        **options,
    )
    return history.seconds


def mean_after_first(seconds: list[float]) -> float | None:
    """The mean seconds of an epoch without the first, which compiles."""
    return sum(seconds[1:]) / len(seconds[1:]) if seconds[1:] else None


def read_history(file: Path) -> list[dict[str, float]]:
    with file.open(newline="") as lines:
        return [
            {name: float(value) for name, value in row.items()}
            for row in csv.DictReader(lines)
        ]


def check_finite(block: str, test_loss: float, folder: Path, advice: str) -> None:
    rows = read_history(folder / "history.csv")
    if math.isfinite(test_loss) and all(math.isfinite(row["loss"]) for row in rows):
        return
    shutil.rmtree(folder / "backup")
    fail(
        f"The training of {block} ended in NaN in epoch {len(rows)}. No model was "
        f"saved; the losses are in {folder / 'history.csv'}. {advice}"
    )


# The table


def table(results: Results, columns: dict[str, str], title: str = "block") -> str:
    """The results of each block as a line; `columns` has their names and formats."""
    rows: list[Iterable[str]] = [[title, *columns]]
    for block, values in results.items():
        shown = (
            "-" if values[name] is None else form.format(values[name])
            for name, form in columns.items()
        )
        rows.append([block, *shown])
    cells = [list(row) for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    cells.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "  ".join([first.ljust(widths[0]), *map(str.rjust, others, widths[1:])])
        for first, *others in cells
    )
