"""Shared code of training runs: options, a folder, separate processes, a table.

Import it before anything that imports TensorFlow.
"""

import argparse
import contextlib
import errno
import fcntl
import json
import multiprocessing
import os
import resource
import signal
import sys
import threading
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
    import tensorflow as tf  # noqa: F401

# The options that may differ from one run to the next in the same folder.
FREE = ("block", "workers", "cluster", "index", "data_dir", "output")
# The backends on which Keras writes a SavedModel.
EXPORTING = ("tensorflow", "jax")
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

# What trains a block, and writes its folder, `results.json` last.
Train = Callable[[str, argparse.Namespace], None]
# What has it done, in one or more processes.
Start = Callable[[str, argparse.Namespace, Train], None]
Results = dict[str, dict[str, Any]]
# What tells and pictures what was trained.
Report = Callable[[Results, argparse.Namespace], None]


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
    before = read(file) if file.exists() else now
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


def lock(folder: Path, wait: bool = False) -> None:
    """Keeps other runs out of a folder until this process ends, however it ends."""
    folder.mkdir(parents=True, exist_ok=True)
    # Never closed: the lock is the system's, and is gone when the process is.
    file = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        raise ValueError(
            f"{folder} is in use by another run. Wait for its end, or choose another "
            "--output."
        ) from None


def make_folder(block: str, options: argparse.Namespace) -> Path:
    """The folder of a block, in that of the run with its options."""
    folder = options.output / block
    # A run that was killed has left a process that is about to see it and to end.
    lock(folder, wait=True)
    write(options.output / "options.json", json.dumps(settings(options)))
    return folder


def finish_folder(folder: Path, results: dict[str, Any]) -> None:
    write(folder / "results.json", json.dumps(results))
    for backup in folder.glob("backup*.npz"):
        backup.unlink()


def read(file: Path) -> dict[str, Any]:
    try:
        return json.loads(file.read_text())
    except ValueError:
        fail_damaged(file)


def fail_damaged(file: Path) -> NoReturn:
    fail(f"{file} is damaged. Delete the folder {file.parent} to begin anew.")


def write(file: Path, text: str) -> None:
    with replacing(file) as unfinished:
        unfinished.write_text(text)


@contextlib.contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """A file that takes the place of `file` when it is complete, and not before."""
    unfinished = file.with_name(f"unfinished-{file.name}")
    yield unfinished
    unfinished.replace(file)


# Processes


def run(
    train: Train,
    report: Report,
    parser: argparse.ArgumentParser,
    options: argparse.Namespace,
    start: Start | None = None,
) -> None:
    """Trains what was not trained before, and reports all of it."""
    # What this process prints shall not overtake what its children print.
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    start = start or train_in_own_process
    try:
        with told_when_full():
            take_folder(options, parser)
            results = {b: result(b, options, train, start) for b in options.block}
            report(results, options)
    except KeyboardInterrupt:
        sys.exit("\nInterrupted. The same command resumes after the last full epoch.")


def take_folder(options: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    try:
        lock(options.output)
        check_folder(options)
    except ValueError as error:
        parser.exit(2, f"{parser.prog}: error: {error}\n")


def result(
    block: str, options: argparse.Namespace, train: Train, start: Start
) -> dict[str, Any]:
    file = options.output / block / "results.json"
    if file.exists():
        print(f"\n{block}: was finished before, not trained again")
    else:
        print(f"\n{block}")
        start(block, options, train)
    return read(file)


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


def train_as_child(block: str, options: argparse.Namespace, train: Train) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the parent handles it
    threading.Thread(target=end_with_parent, daemon=True).start()
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    absl.logging.set_verbosity("error")
    with told_when_full():
        train(block, options)


def end_with_parent() -> None:
    """Else a killed run would train on and write beside the run that resumes it."""
    parent = multiprocessing.parent_process()
    if parent:
        parent.join()
        os._exit(1)


@contextlib.contextmanager
def told_when_full() -> Iterator[None]:
    """Ends the process with a line, in place of a traceback, when a disk is full."""
    try:
        yield
    except Exception as error:
        # Libraries raise errors of their own, but none without the system's words.
        words = {os.strerror(number) for number in FULL}
        if getattr(error, "errno", 0) in FULL or any(w in str(error) for w in words):
            fail(
                f"A file could not be written, the disk is full ({error}). Free some "
                "space; the same command then resumes after the last full epoch."
            )
        raise


def fail(message: object, code: int = 1) -> NoReturn:
    print(f"{Path(sys.argv[0]).name}: error: {message}", file=sys.stderr)
    sys.exit(code)


def peak_megabytes() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


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
