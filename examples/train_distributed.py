"""Trains an image classifier on several workers that share every batch.

Usage:

    python examples/train_distributed.py
    python examples/train_distributed.py --workers 1 2 4 --batch-size 64 --epochs 20

Without arguments: a classifier with weights that vary in time, on scikit-learn's
digits, by one process of this machine and then by two. They compute the same: the table
shows by how much their weights differ. On one machine more processes are no faster, for
they share its processor, on which alone they compute.

On a cluster, start this script on every machine, with the environment variable
TF_CONFIG:

    TF_CONFIG='{"cluster": {"worker": ["10.0.0.1:2222", "10.0.0.2:2222"]},
                "task": {"type": "worker", "index": 0}}' \\
        python examples/train_distributed.py --output runs/cluster

`cluster` lists the address and a free port of every worker, and is the same for all of
them; `index` is the place of this machine in the list. Each reads all of the data and
takes its share of every batch. Worker 0 writes the history, the model and, after each
epoch, a backup; the others need no folder.

When a worker is lost, the others end with an error. Start all of them again, as
schedulers of clusters do by themselves and as this script does on one machine: they
resume after the last full epoch, with the same batches, and nothing is lost.
"""

import argparse
import json
import math
import multiprocessing
import os
import socket
import time
from pathlib import Path

import runs  # before what imports TensorFlow

# isort: split
import fitting
import keras
import numpy as np
import tensorflow as tf

from keras_nanode import datasets, layers

SEED = 0
TRAINING_IMAGES = 1437
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
    if "TF_CONFIG" in os.environ:
        count = len(json.loads(os.environ["TF_CONFIG"])["cluster"]["worker"])
        train(block_of(count), options)
        return
    options.block = [block_of(count) for count in dict.fromkeys(options.workers)]
    runs.run(train, report, parser, options, start_workers)


def argument_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n")[0], allow_abbrev=False
    )
    add = parser.add_argument
    add(
        "--workers",
        nargs="+",
        type=runs.count_from(1),
        default=[1, 2],
        help="how many processes, one number after the other; default: 1 2",
    )
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
    for index in range(count):
        task = {"type": "worker", "index": index}
        config = json.dumps({"cluster": {"worker": addresses}, "task": task})
        # One GPU cannot be that of two workers.
        os.environ |= {"TF_CONFIG": config, "CUDA_VISIBLE_DEVICES": "-1"}
        process = multiprocessing.get_context("spawn").Process(
            target=runs.train_as_child, args=(block, options, train)
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
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    with strategy.scope():
        model = build(options)
    is_chief = strategy.cluster_resolver.task_id == 0
    callbacks: list[keras.callbacks.Callback] = []
    if is_chief:
        folder = runs.make_folder(block, options)
        history = fitting.History(folder / "history.csv")
        backup = fitting.Backup(folder / "backup.npz")
        backup.restore(model)
        callbacks = [history, backup, fitting.Outlook()]
    fit(model, strategy, options, callbacks, is_chief)
    if is_chief:
        finish(model, folder, history.seconds, options)


def build(options: argparse.Namespace) -> keras.Model:
    """The model: to be made within the scope of the strategy, as its optimizer is."""
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(16, 3, padding="same"),
            layers.TrigConvODE(3, activation="tanh", steps=5),
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


def fit(
    model: keras.Model,
    strategy: tf.distribute.Strategy,
    options: argparse.Namespace,
    callbacks: list[keras.callbacks.Callback],
    is_chief: bool,
) -> None:
    """What `model.fit` does, which in Keras 3 cannot run under this strategy."""
    steps = TRAINING_IMAGES // options.batch_size
    calls = keras.callbacks.CallbackList(
        callbacks,
        add_progbar=is_chief,
        model=model,
        verbose=2,
        epochs=options.epochs,
        steps=steps,
    )

    @tf.function
    def step(batch):
        strategy.run(model.train_step, args=(batch,))

    share(model, strategy)  # what worker 0 has from its last backup
    calls.on_train_begin()
    done = int(keras.ops.convert_to_numpy(model.optimizer.iterations)) // steps
    for epoch in range(done, options.epochs):
        model.reset_metrics()
        calls.on_epoch_begin(epoch)
        for index, batch in enumerate(batches(epoch, strategy, options)):
            step(batch)
            calls.on_train_batch_end(index)
        logs = {name: float(x) for name, x in model.get_metrics_result().items()}
        calls.on_epoch_end(epoch, logs)
        if not math.isfinite(logs["loss"]):
            break
    calls.on_train_end()


def share(model: keras.Model, strategy: tf.distribute.Strategy) -> None:
    """Gives every worker the weights of worker 0: a sum of them and zeros."""

    def from_first(values):
        context = tf.distribute.get_replica_context()
        is_first = context.replica_id_in_sync_group == 0
        mine = [tf.where(is_first, value, tf.zeros_like(value)) for value in values]
        # One by one, for a sum of many has to be of one dtype.
        return [context.all_reduce("SUM", value) for value in mine]

    variables = fitting.variables(model)
    values = [keras.ops.convert_to_numpy(variable) for variable in variables]
    shared = tf.function(lambda: strategy.run(from_first, args=(values,)))
    for variable, value in zip(variables, shared(), strict=True):
        variable.assign(strategy.experimental_local_results(value)[0])


def batches(
    epoch: int, strategy: tf.distribute.Strategy, options: argparse.Namespace
) -> tf.distribute.DistributedDataset:
    """The worker's share of each full batch: in an order that the epoch alone decides,
    so that it is the same for all workers, and after a new start."""
    data = datasets.digits(options.batch_size)
    full = data.train_from(epoch).take(TRAINING_IMAGES // options.batch_size)
    sharding = tf.data.Options()
    by_image = tf.data.experimental.AutoShardPolicy.DATA
    sharding.experimental_distribute.auto_shard_policy = by_image
    return strategy.experimental_distribute_dataset(full.with_options(sharding))


def finish(
    model: keras.Model, folder: Path, seconds: list[float], options: argparse.Namespace
) -> None:
    """Writes the folder of worker 0, `results.json` last."""
    file = folder / "model.keras"
    model.save(file)
    # Without the strategy, and so without the other workers.
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
