"""Trains small models on the same batches alone or with others, and saves the weights.

    python train_jointly.py HOW FILE

HOW is `alone`, `mirrored` (`tf.distribute.MirroredStrategy` over two devices), `worker`
(one of the workers that TF_CONFIG names), `data_parallel` (over all devices of JAX) or
`model_parallel` (over them too, each with a part of the coefficients). Devices of other
processes count too, if Keras' variables KERAS_DISTRIBUTION_... name these.
Devices are made before a backend starts: hence a script of its own.
"""

import contextlib
import os
import sys

import keras
import numpy as np

from keras_nanode import Adaptive, callbacks, layers

BATCHES, BATCH_SIZE = 6, 16
CHANNELS = 4  # as many as two devices can share


def strategy_for(how):
    import tensorflow as tf

    if how == "worker":
        return tf.distribute.MultiWorkerMirroredStrategy()
    cpu = tf.config.list_physical_devices("CPU")[0]
    two = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(cpu, two)
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


def distribution_for(how):
    if how == "data_parallel":
        return keras.distribution.DataParallel()
    devices = keras.distribution.list_devices()
    mesh = keras.distribution.DeviceMesh((1, len(devices)), ["batch", "model"])
    layout = keras.distribution.LayoutMap(mesh)
    layout[r".*/time_varying\w*/\w+_kernel"] = (None, None, None, None, "model")
    return keras.distribution.ModelParallel(
        layout_map=layout, batch_dim_name="batch", auto_shard_dataset=False
    )


def build(ode):
    model = keras.Sequential(
        [keras.Input((8, 8, CHANNELS)), ode, keras.layers.GlobalAveragePooling2D()]
    )
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), "mse", metrics=["mae"])
    # With variables that a step does not have to make, it is traced once.
    model.optimizer.build(model.trainable_variables)
    return model


ODES = {
    "fixed": lambda: layers.TrigConvODE(
        2, hidden_filters=4, activation="tanh", solver="heun", steps=4, name="ode"
    ),
    # Two halves of a batch choose other steps than the whole: so tight that it does
    # not show in the weights.
    "adaptive": lambda: layers.BucketConvODE(
        2, activation="tanh", solver="dopri5", steps=Adaptive(1e-6, 1e-6), name="ode"
    ),
}


def train_on(dataset, model, strategy):
    """What `fit` does, which Keras cannot under MultiWorkerMirroredStrategy."""
    import tensorflow as tf

    @tf.function
    def step(batch):
        strategy.run(model.train_step, args=(batch,))

    shown = callbacks.Evaluations()
    shown.set_model(model)
    shown.on_epoch_begin(0)
    for batch in strategy.experimental_distribute_dataset(dataset):
        step(batch)
    logs = {name: float(value) for name, value in model.get_metrics_result().items()}
    shown.on_epoch_end(0, logs)
    return logs


def divided(weight):
    """Whether each device of JAX has half of it."""
    shards = weight.value.addressable_shards
    return all(2 * shard.data.size == weight.value.size for shard in shards)


def whole(model):
    """The weights of a model, also those that other processes have parts of."""
    if keras.distribution.distribution() is None:
        return model.get_weights()
    from jax.experimental import multihost_utils

    values = [weight.value for weight in model.weights]
    return [multihost_utils.process_allgather(x, tiled=True) for x in values]


def main(how, file):
    strategy, replicas = None, 1
    if how.endswith("_parallel"):
        if "KERAS_DISTRIBUTION_JOB_ADDRESSES" in os.environ:
            keras.distribution.initialize()
        distribution = distribution_for(how)
        keras.distribution.set_distribution(distribution)
        replicas = distribution.device_mesh.devices.size
    elif how != "alone":
        strategy = strategy_for(how)
        replicas = strategy.num_replicas_in_sync
    rng = np.random.default_rng(0)
    x = rng.normal(size=(BATCHES * BATCH_SIZE, 8, 8, CHANNELS)).astype("float32")
    y = rng.normal(size=(BATCHES * BATCH_SIZE, CHANNELS)).astype("float32")
    saved = {"replicas": replicas}
    for name, ode in ODES.items():
        keras.utils.set_random_seed(0)
        with strategy.scope() if strategy else contextlib.nullcontext():
            model = build(ode())
        start = whole(model)
        if how == "worker":
            import tensorflow as tf

            dataset = tf.data.Dataset.from_tensor_slices((x, y)).batch(BATCH_SIZE)
            logs = train_on(dataset, model, strategy)
        else:
            shown = [callbacks.Evaluations()]
            history = model.fit(
                x, y, BATCH_SIZE, shuffle=False, verbose=0, callbacks=shown
            )
            logs = {key: value[0] for key, value in history.history.items()}
        for i, (weight, old) in enumerate(zip(whole(model), start, strict=True)):
            saved[f"{name}/weight/{i}"] = weight
            saved[f"{name}/moved/{i}"] = weight - old
        if how == "model_parallel":
            assert all(divided(w) for w in model.weights if "kernel" in w.path)
        saved |= {f"{name}/log/{key}": value for key, value in logs.items()}
    np.savez(file, **saved)


if __name__ == "__main__":
    main(*sys.argv[1:])
