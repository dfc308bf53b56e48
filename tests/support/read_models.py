"""Reads models and writes what they compute: `python read_models.py FOLDER`.

For each `FOLDER/NAME.keras` and the input in `NAME.npz`, the file `NAME.BACKEND.npz`
gets the output `y` and the gradients of sum(y^2) in the weights and the input.
"""

import sys
from pathlib import Path

import settings  # noqa: F401  Before a backend is imported.  # isort: skip

import keras
import numpy as np
from cases import layer_gradients, numbers

import keras_nanode  # noqa: F401  Registers what the files hold.


def main(folder: Path):
    for file in sorted(folder.glob("*.keras")):
        model = keras.saving.load_model(file, compile=False)
        x = np.load(file.with_suffix(".npz"))["x"]
        in_weights, in_x = layer_gradients(model, x)
        found = {f"gradient_{i}": g for i, g in enumerate(in_weights)}
        name = file.with_suffix(f".{keras.backend.backend()}.npz")
        np.savez(name, y=numbers(model(x)), gradient_x=in_x, **found)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
