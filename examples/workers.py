"""Workers that share every batch and keep the same weights, on each of the backends.

Your own training needs one of the last three classes, and the classes it inherits.
"""

import abc
import contextlib
import json
import math
import os
from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import Any

import fitting
import keras
import numpy as np

from keras_nanode import datasets

TRAINING_IMAGES = 1437


class Workers(abc.ABC):
    """This process as one of several.

    Args:
        index: Which of them it is.
        addresses: Of all, `"host:port"`.
        batch_size: The images of a batch, of all workers together.
    """

    def __init__(self, index: int, addresses: list[str], batch_size: int):
        self.index, self.count = index, len(addresses)
        self.join(addresses)
        self.data = datasets.digits(batch_size)
        self.steps = TRAINING_IMAGES // batch_size  # the last, smaller one is left out

    @abc.abstractmethod
    def join(self, addresses: list[str]) -> None:
        """Waits for the others."""

    def scope(self) -> AbstractContextManager:
        """Where the model is made, and its optimizer."""
        return contextlib.nullcontext()

    @abc.abstractmethod
    def share(self, model: keras.Model, values: list[np.ndarray]) -> None:
        """Gives the variables of every worker the values that worker 0 has."""

    @abc.abstractmethod
    def batches(self, epoch: int) -> Iterable[Any]:
        """The worker's share of each full batch: in an order that the epoch alone
        decides, so that it is the same for all workers, and after a new start."""

    @abc.abstractmethod
    def fit(
        self,
        model: keras.Model,
        epochs: int,
        callbacks: list[keras.callbacks.Callback],
    ) -> None:
        """As `model.fit`, from the epoch on that the model has reached."""

    def done(self, model: keras.Model) -> int:
        """How many epochs the model has been trained for."""
        updates = keras.ops.convert_to_numpy(model.optimizer.iterations)
        return int(updates) // self.steps


class _Looping(Workers):
    """Where Keras has no `fit` for several workers."""

    @abc.abstractmethod
    def prepare(self, model: keras.Model) -> Any:
        """`step(batch)`, which updates the model by a share of a batch."""

    def totals(self, model: keras.Model) -> dict[str, float]:
        """The metrics over all workers' shares."""
        return {name: float(x) for name, x in model.get_metrics_result().items()}

    def fit(self, model, epochs, callbacks):
        calls = keras.callbacks.CallbackList(
            callbacks,
            add_progbar=self.index == 0,
            model=model,
            verbose=2,
            epochs=epochs,
            steps=self.steps,
        )
        step = self.prepare(model)
        calls.on_train_begin()
        for epoch in range(self.done(model), epochs):
            model.reset_metrics()
            calls.on_epoch_begin(epoch)
            for index, batch in enumerate(self.batches(epoch)):
                step(batch)
                calls.on_train_batch_end(index)
            logs = self.totals(model)
            calls.on_epoch_end(epoch, logs)
            if not math.isfinite(logs["loss"]):
                break
        calls.on_train_end()


class TensorFlowWorkers(_Looping):
    """`MultiWorkerMirroredStrategy`, under which Keras 3 cannot `fit`."""

    def join(self, addresses):
        import tensorflow as tf

        task = {"type": "worker", "index": self.index}
        cluster = {"cluster": {"worker": addresses}, "task": task}
        os.environ["TF_CONFIG"] = json.dumps(cluster)
        self.strategy = tf.distribute.MultiWorkerMirroredStrategy()

    def scope(self):
        return self.strategy.scope()

    def share(self, model, values):
        import tensorflow as tf

        def from_first(values):
            context = tf.distribute.get_replica_context()
            is_first = context.replica_id_in_sync_group == 0
            # A sum of these and of the others' zeros.
            mine = [tf.where(is_first, value, tf.zeros_like(value)) for value in values]
            # One by one, for a sum of many has to be of one dtype.
            return [context.all_reduce("SUM", value) for value in mine]

        variables = fitting.variables(model)
        shared = tf.function(lambda: self.strategy.run(from_first, args=(values,)))
        for variable, value in zip(variables, shared(), strict=True):
            variable.assign(self.strategy.experimental_local_results(value)[0])

    def prepare(self, model):
        import tensorflow as tf

        return tf.function(
            lambda batch: self.strategy.run(model.train_step, args=(batch,))
        )

    def batches(self, epoch):
        import tensorflow as tf

        full = self.data.train_from(epoch).take(self.steps)
        sharding = tf.data.Options()
        by_image = tf.data.experimental.AutoShardPolicy.DATA
        sharding.experimental_distribute.auto_shard_policy = by_image
        full = full.with_options(sharding)
        return self.strategy.experimental_distribute_dataset(full)


class _ByIndex(Workers):
    """Workers that take every `count`-th image of a batch."""

    def batches(self, epoch):
        mine = slice(self.index, None, self.count)
        for images, labels in self.data.train_from(epoch).take(self.steps):
            yield images[mine], labels[mine]


class JaxWorkers(_ByIndex):
    """`keras.distribution.DataParallel`, in `model.fit`.

    Coefficients that are too large for one device are divided by a layout:

        mesh = keras.distribution.DeviceMesh((1, 2), ["batch", "model"])
        layout = keras.distribution.LayoutMap(mesh)
        layout[r".*/time_varying\\w*/\\w+_kernel"] = (None, None, None, None, "model")
        keras.distribution.ModelParallel(layout_map=layout, batch_dim_name="batch")
    """

    def join(self, addresses):
        if self.count > 1:
            keras.distribution.initialize(addresses[0], self.count, self.index)
        self.parallel = keras.distribution.DataParallel(auto_shard_dataset=False)

    def scope(self):
        return self.parallel.scope()

    def share(self, model, values):
        from jax.experimental import multihost_utils

        for variable, value in zip(fitting.variables(model), values, strict=True):
            variable.assign(multihost_utils.broadcast_one_to_all(value))

    def fit(self, model, epochs, callbacks):
        done = self.done(model)
        with self.scope():
            model.fit(
                (
                    batch
                    for epoch in range(done, epochs)
                    for batch in self.batches(epoch)
                ),
                steps_per_epoch=self.steps,
                initial_epoch=done,
                epochs=epochs,
                callbacks=[*callbacks, keras.callbacks.TerminateOnNaN()],
                verbose=0 if self.index else 2,
            )


class TorchWorkers(_ByIndex, _Looping):
    """`DistributedDataParallel` around the Keras model, which is a torch module."""

    def join(self, addresses):
        from torch import distributed

        distributed.init_process_group(
            "gloo", f"tcp://{addresses[0]}", rank=self.index, world_size=self.count
        )

    def share(self, model, values):
        from torch import distributed

        for variable, value in zip(fitting.variables(model), values, strict=True):
            variable.assign(value)
            distributed.broadcast(variable.value.data, 0)

    def prepare(self, model):
        import torch

        parallel = torch.nn.parallel.DistributedDataParallel(model)
        weights = model.trainable_variables

        def step(batch):
            images, labels = map(keras.ops.convert_to_tensor, batch)
            parallel.zero_grad()
            logits = parallel(images, training=True)
            loss = model.compute_loss(y=labels, y_pred=logits)
            loss.backward()  # which also averages the gradients over the workers
            with torch.no_grad():
                model.optimizer.apply([w.value.grad for w in weights], weights)
            model.metrics[0].update_state(loss.detach(), sample_weight=len(labels))
            model.compute_metrics(images, labels, logits.detach())

        return step

    def totals(self, model):
        from torch import distributed

        for metric in model.metrics:
            for variable in metric.variables:
                distributed.all_reduce(variable.value.data)
        return super().totals(model)


BACKENDS: dict[str, type[Workers]] = {
    "tensorflow": TensorFlowWorkers,
    "jax": JaxWorkers,
    "torch": TorchWorkers,
}
