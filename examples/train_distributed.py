"""Trains an image classifier on several workers that share every batch.

Usage:

    python examples/train_distributed.py
    python examples/train_distributed.py --backend torch --workers 1 2 4 --epochs 20

Without arguments, it trains a classifier with time-varying weights on scikit-learn's
digits, first with one process on this machine and then with two. Both compute the same:
the table shows by how much their weights differ. More processes on one machine are not
faster, since they only use its processor and share it. `workers.py` has the code for
each backend: TensorFlow's strategy, Keras' DataParallel on JAX, PyTorch's
DistributedDataParallel.

On a cluster, start this script once for every worker, each with its index in the list:

    python examples/train_distributed.py --backend jax --output runs/cluster \\
        --cluster 10.0.0.1:2222 10.0.0.2:2222 --index 0

With Slurm, `srun` starts all of them. The first node's name and a free port are enough
for JAX and PyTorch. TensorFlow needs the true address of each node:

    hosts=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed 's/$/:2222/')
    srun bash -c "python examples/train_distributed.py --output runs/cluster \\
        --cluster ${hosts//$'\\n'/ } --index \\$SLURM_PROCID"

On Kubernetes, an Indexed Job with a headless Service called `workers` gives every pod
the variable JOB_COMPLETION_INDEX and the name JOB-INDEX.workers:

    python examples/train_distributed.py --output /shared/run \\
        --cluster train-0.workers:2222 train-1.workers:2222 \\
        --index $JOB_COMPLETION_INDEX

Each worker reads all of the data and takes its share of every batch. Worker 0 writes
the history, the model and, after each epoch, a backup. The others need no folder.

If a worker is lost, the others end with an error, or wait. Stop them and start all
again. `srun --kill-on-bad-exit` or a Job's restart policy does that on a cluster, and
this script does it on one machine. The workers resume after the last full epoch, with
the same batches, and nothing is lost.
"""

import argparse
import multiprocessing
import os
import socket
import sys
import time
from pathlib import Path

# Before Keras is imported, which is when it is decided.
if "--backend" in sys.argv[:-1]:
    os.environ["KERAS_BACKEND"] = sys.argv[sys.argv.index("--backend") + 1]

import runs  # before what imports TensorFlow

# isort: split
import fitting
import keras
import numpy as np
from workers import BACKENDS, TRAINING_IMAGES

from keras_nanode import datasets, layers

SEED = 0
# How often all workers on this machine start anew if one is killed.
RESTARTS = 3
COLUMNS = {
    "test accuracy": "{:.1%}",
    "test loss": "{:.3f}",
    "parameters": "{:,}",
    "s/epoch": "{:.2f}",
    "weights differ": "{:.1e}",
}
ADVICE = "A smaller --learning-rate makes it more stable."


# The command line


def main() -> None:
    parser = argument_parser()
    options = parser.parse_args()
    if (options.index is None) != (options.cluster is None):
        parser.error("--cluster and --index go together: who all are, and who this is")
    if options.batch_size > TRAINING_IMAGES:
        parser.error(
            f"a batch has at most the {TRAINING_IMAGES} images that there are. "
            f"Received: --batch-size {options.batch_size}"
        )
    counts = [len(options.cluster)] if options.cluster else options.workers
    for count in counts:
        if options.batch_size % count:
            parser.error(
                f"{count} workers need a batch that they can divide. "
                f"Received: --batch-size {options.batch_size}"
            )
    if options.cluster:
        train(block_of(counts[0]), options)
        return
    options.block = [block_of(count) for count in dict.fromkeys(counts)]
    runs.run(train, report, parser, options, start_workers)


def argument_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n")[0], allow_abbrev=False
    )
    add = parser.add_argument
    add(
        "--backend",
        choices=BACKENDS,
        default=keras.backend.backend(),
        help="default: Keras' own",
    )
    add(
        "--workers",
        nargs="+",
        type=runs.count_from(1),
        default=[1, 2],
        help="how many processes, one number after the other; default: 1 2",
    )
    add("--cluster", nargs="+", help="host:port of every worker, where each is started")
    add("--index", type=runs.count_from(0), help="which of --cluster this one is")
    count = runs.count_from(1)
    add("--epochs", type=count, default=5, help="default: 5")
    add("--batch-size", type=count, default=64, help="of all workers; default: 64")
    add("--learning-rate", type=float, default=0.05, help="default: 0.05")
    add("--output", type=Path, default=Path("runs/distributed"), help="a folder")
    return parser


def block_of(workers: int) -> str:
    return f"{workers} worker{'s' if workers > 1 else ''}"


# The processes


def start_workers(block: str, options: argparse.Namespace, train: runs.Train) -> None:
    """Trains with workers on this machine, which start anew if one is killed."""
    count = int(block.split()[0])
    for _ in range(RESTARTS + 1):
        killed = run_workers(count, block, options, train)
        if killed is None:
            return
        print(f"worker {killed} was killed: all start again from the last backup")
    runs.fail(f"A worker was killed {RESTARTS + 1} times. The same command resumes.")


def run_workers(
    count: int, block: str, options: argparse.Namespace, train: runs.Train
) -> int | None:
    """Runs the workers to their end, or until one was killed, and returns which."""
    addresses, workers = [f"127.0.0.1:{port}" for port in free_ports(count)], []
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"  # one GPU cannot be that of two workers
    for index in range(count):
        own = argparse.Namespace(
            **vars(options) | {"cluster": addresses, "index": index}
        )
        process = multiprocessing.get_context("spawn").Process(
            target=runs.train_as_child, args=(block, own, train)
        )
        process.start()
        print(f"worker {index} is process {process.pid}")
        workers.append(process)
    try:
        while any(w.is_alive() for w in workers) and not any(
            w.exitcode for w in workers
        ):
            time.sleep(0.1)
        codes = [worker.exitcode or 0 for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
            worker.join()
    killed = [index for index, code in enumerate(codes) if code < 0]
    if any(codes) and not killed:
        runs.fail(f"The training with {block} failed.")
    return killed[0] if killed else None


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


# Training, in each of the processes


def train(block: str, options: argparse.Namespace) -> None:
    keras.utils.set_random_seed(SEED)
    kind = BACKENDS[options.backend]
    workers = kind(options.index, options.cluster, options.batch_size)
    with workers.scope():
        model = build(options)
    callbacks: list[keras.callbacks.Callback] = []
    values = fitting.values(model)
    if options.index == 0:
        folder = runs.make_folder(block, options)
        history = fitting.History(folder / "history.csv")
        backup = fitting.Backup(folder / "backup.npz")
        values = backup.values(model)
        callbacks = [history, backup, fitting.Outlook()]
    # Not by worker 0 before: all give a variable that they share its value at once.
    workers.share(model, values)
    workers.fit(model, options.epochs, callbacks)
    if options.index == 0:
        finish(model, folder, history.seconds, options)


def build(options: argparse.Namespace) -> keras.Model:
    """The model: to be made within the scope of the workers, as its optimizer is."""
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(16, 3, padding="same"),
            # A short flow: rounding, which differs with the workers, grows little.
            layers.TrigConvODE(
                3, activation="tanh", steps=5, t_span=(0, 1), start="constant"
            ),
            keras.layers.Flatten(),
            keras.layers.Dense(10),
        ]
    )
    model.compile(
        keras.optimizers.SGD(options.learning_rate, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.optimizer.build(model.trainable_variables)
    return model


def finish(
    model: keras.Model, folder: Path, seconds: list[float], options: argparse.Namespace
) -> None:
    """Writes the folder of worker 0, `results.json` last."""
    file = folder / "model.keras"
    model.save(file)
    # Without the other workers.
    alone = keras.models.load_model(file)
    test = datasets.digits(options.batch_size).test
    scores = alone.evaluate(test, return_dict=True, verbose=0)
    fitting.check_finite(folder.name, scores["loss"], folder, ADVICE)
    results = {
        "test accuracy": scores["accuracy"],
        "test loss": scores["loss"],
        "parameters": model.count_params(),
        "s/epoch": fitting.mean_after_first(seconds),
    }
    runs.finish_folder(folder, results)
    accuracy = f"{scores['accuracy']:.1%} of the test images are recognised"
    print(f"{folder.name}: {accuracy}; the model is {file}")


# The report


def report(results: runs.Results, options: argparse.Namespace) -> None:
    print(
        f"\ndigits: {options.epochs} epochs, batches of {options.batch_size} images\n"
    )
    weights = {block: weights_of(options.output / block) for block in results}
    first = next(iter(weights.values()))
    for block, values in results.items():
        values["weights differ"] = np.abs(weights[block] - first).max()
    print(runs.table(results, COLUMNS, "trained by"))


def weights_of(folder: Path) -> np.ndarray:
    model = keras.models.load_model(folder / "model.keras")
    return np.concatenate([weight.ravel() for weight in model.get_weights()])


if __name__ == "__main__":
    main()
