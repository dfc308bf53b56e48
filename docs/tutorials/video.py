"""
Title: Video
Author: The authors of keras_nanode
Date created: 2026/12/01
Last modified: 2026/12/01
Description: A model that sees two frames and draws several futures, with flows inside.
"""

"""
## The model

`models.SVG` predicts videos: stochastic video generation with a learned prior (Denton
and Fergus, 2018). An encoder turns each frame into features, an LSTM predicts the next
features from these and from a random latent, and a decoder draws the frame. With
`block="trig"`, flows whose weights vary in time replace convolutions in encoder and
decoder, as in the paper on time-dependent weights.
"""

import keras
import numpy as np
from matplotlib.figure import Figure

from keras_nanode import datasets, metrics, models

keras.utils.set_random_seed(0)

"""
## Data

A digit moves in a dark square and is reflected at its walls. The videos are generated
from scikit-learn's digits, without a download.
"""

FRAMES, GIVEN = 8, 2
data = datasets.moving_digits(
    batch_size=8,
    num_frames=FRAMES,
    num_digits=1,
    frame_size=32,
    digit_size=14,
    train_videos=1_200,
    test_videos=32,
)


def show(rows):
    """Videos `(frames, 32, 32, 1)` by name, one below the other."""
    figure = Figure(figsize=(FRAMES, 1.1 * len(rows)), layout="constrained")
    panels = figure.subplots(len(rows), 1, squeeze=False)[:, 0]
    for axes, (name, video) in zip(panels, rows.items(), strict=True):
        film = np.concatenate(np.pad(video[..., 0], [(0, 0), (0, 0), (0, 2)]), axis=1)
        axes.imshow(film, cmap="gray", vmin=0, vmax=1)
        axes.set_title(name, fontsize="small", loc="left")
        axes.set_axis_off()
    return figure


test = np.concatenate([keras.ops.convert_to_numpy(x) for x in data.test])
show({f"video {i}": test[i] for i in range(3)})

"""
## Training

The loss is the squared error of the frames plus the divergence between what a
posterior, which has seen the frame, and the prior, which has not, say about the latent.
`fit` takes videos alone. We make everything small, for minutes on two cores.
"""

model = models.SVG(
    data.frame_shape,
    context_frames=GIVEN,
    block="trig",
    steps=3,
    filters=(4, 8, 16, 32),
    feature_dim=64,
    rnn_units=64,
)
model.compile(keras.optimizers.Adam(4e-3), jit_compile=False)
history = model.fit(data.train, epochs=2, shuffle=False, verbose=0).history
print(f"{model.count_params():,} parameters")
for epoch, (mse, kl) in enumerate(
    zip(history["mse"], history["kl_nats"], strict=True), 1
):
    print(f"epoch {epoch}: mse {mse:.4f}, KL {kl:.2f} nats")

"""
## Several futures for one past

`generate` gives samples, `(batch, samples, frames, ...)`. Among five, `best_of` finds
the one that is nearest to the truth, which is how such models are scored. To know what
the number means, compare with a prediction that needs no model: the last given frame,
again and again.
"""

SAMPLES = 5
samples = model.generate(test[:, :GIVEN], FRAMES - GIVEN, SAMPLES)
samples = np.clip(keras.ops.convert_to_numpy(samples), 0, 1)
truth = test[:, GIVEN:]
still = np.repeat(test[:, GIVEN - 1 : GIVEN], FRAMES - GIVEN, axis=1)


def error(predicted):
    return np.mean((predicted - truth) ** 2)


print(f"mean squared error, last frame repeated: {error(still):.4f}")
print(f"mean squared error, a dark frame:        {error(0 * truth):.4f}")
print(f"mean squared error, a sample:            {error(samples[:, 0]):.4f}")
best = metrics.best_of(metrics.psnr, truth, samples)
print(f"PSNR of the best of {SAMPLES} samples: {best.values.mean():.1f} dB")

"""
The first two frames of each row are given. The prediction is better than both guesses
in the squared error, and blurred: after so short a training the model knows about where
the digit is, and not yet what it looks like. The samples hardly differ, which the KL
above says too: with nearly 0 nats the latent carries nothing yet.
`examples/train_video.py` trains longer.
"""


def after(video, predicted):
    return np.concatenate([video[:GIVEN], predicted])


show(
    {
        "truth": test[0],
        "sample 1": after(test[0], samples[0, 0]),
        "sample 2": after(test[0], samples[0, 1]),
        "last frame repeated": after(test[0], still[0]),
    }
)
