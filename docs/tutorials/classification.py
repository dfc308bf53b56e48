"""
Title: Classification, against residual networks
Author: The authors of keras_nanode
Date created: 2026/12/01
Last modified: 2026/12/01
Description: Three blocks in the same network for digits, with one recipe.
"""

"""
## The question

A residual network adds blocks, x ← x + f(x, Wᵢ). A flow with Euler steps adds them too,
x ← x + h f(x, W(t)). What differs is how the weights of the steps are tied to each
other. We train three networks that are alike but for this:

- `uncon_resnet`: ten residual blocks, each with weights of its own;
- `trig`: a flow whose weights are trigonometric functions of time, ten Euler steps;
- `auto`: the same flow with constant weights, the usual neural ODE.

The data are scikit-learn's digits, 1,437 images of 8x8 pixels to learn from and 360 for
the test. They need no download.
"""

import keras
import numpy as np
from matplotlib.figure import Figure

from keras_nanode import bases, datasets, models, visualize

EPOCHS, SEED = 6, 0

"""
`models.classifier` builds the network of the paper: a convolution, the block, a pooling
and a dense layer. We make it small.
"""


def train(block):
    keras.utils.set_random_seed(SEED)
    data = datasets.digits(batch_size=64, augment=False, seed=SEED)
    network = models.classifier(
        data.input_shape,
        data.classes,
        block,
        bases.Trigonometric(3) if block == "trig" else None,
        steps=10,
        filters=32,
        hidden_filters=8,
        stem_strides=2,
        normalization="group",
    )
    model = keras.Sequential(
        [
            keras.Input(data.input_shape),
            keras.layers.Rescaling(4.0, offset=-2.0),
            network,
        ]
    )
    rate = keras.optimizers.schedules.CosineDecay(0.01, EPOCHS * len(data.train))
    model.compile(
        keras.optimizers.Adam(rate),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    history = model.fit(
        data.train,
        validation_data=data.test,
        epochs=EPOCHS,
        shuffle=False,
        verbose=0,
    )
    return network, history.history


"""
Every block gets the same rate, which falls to zero with a cosine, the same batches and
the same number of epochs.
"""

BLOCKS = ("uncon_resnet", "trig", "auto")
results = {block: train(block) for block in BLOCKS}
print(f"{'block':14}{'parameters':>11}{'test accuracy':>15}")
for block, (network, history) in results.items():
    accuracy = history["val_accuracy"][-1]
    print(f"{block:14}{network.count_params():11,}{accuracy:15.1%}")

"""
One image of the test set is 0.28 points, and another seed moves a number by a point or
more. After these few epochs the residual network, which has the most weights, is ahead,
and constant weights are far behind. They need more updates: after 15 epochs of smaller
batches the table of digits in the results has 96.7 to 98.3 % for the first, 97.2 to
98.1 % for the second and 94.2 to 96.9 % for the third, over three seeds.
`benchmarks/learning.md` has CIFAR-10, where the first two are level.

The error on the test images over the epochs, on a logarithmic axis:
"""

figure = Figure(figsize=(6.4, 3.6), layout="constrained")
axes = figure.subplots()
for (block, (_, history)), style, color in zip(
    results.items(),
    ("-", "--", "-."),
    ("#000000", "#0072B2", "#D55E00"),
    strict=True,
):
    errors = 1 - np.array(history["val_accuracy"])
    axes.plot(range(1, EPOCHS + 1), errors, style, color=color, label=block)
axes.set(xlabel="epoch", ylabel="test error", yscale="log")
axes.grid(alpha=0.3)
axes.legend()
figure

"""
## The weights that were learned

`get_layer("flow_0")` is the block. Its kernels are functions of time: eight of the
numbers of each, from the one that varies least to the one that varies most.
"""

flow = results["trig"][0].get_layer("flow_0")
visualize.weights(flow)

"""
## How many steps?

The flow was trained with ten Euler steps. Is it a flow, which smaller steps only make
more exact, or did it learn the steps? We ask the trained network with other step
numbers, without training it again.
"""

network = results["trig"][0]
images, labels = (
    np.concatenate(parts)
    for parts in zip(
        *[
            tuple(map(keras.ops.convert_to_numpy, batch))
            for batch in datasets.digits(augment=False).test
        ],
        strict=True,
    )
)
for steps in (5, 10, 20, 40):
    flow.steps = steps
    logits = keras.ops.convert_to_numpy(network(4 * images - 2))
    accuracy = np.mean(np.argmax(logits, axis=-1) == labels)
    print(f"{steps:3d} Euler steps: {accuracy:.1%}")
flow.steps = 10

"""
The accuracy hardly moves: what this network has learned is close to a flow. That is not
so for every network. With large steps, which come with `t_span=(0, n)`, it learns the
steps themselves. So ask before you change their number.
"""
