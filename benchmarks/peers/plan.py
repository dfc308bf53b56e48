"""Who does which workload, and in which environment."""

import sys
from pathlib import Path
from typing import NamedTuple

from peers.workloads import DEPTHS

FOLDER = Path(__file__).parents[1]


class Entrant(NamedTuple):
    """A peer, and the way it is used."""

    peer: str
    variant: str


ADJOINTS = ("checkpoint", "all states", "backsolve", "direct")
XLA = " XLA"  # ends a variant in a `tf.function(jit_compile=True)`
# Where each peer runs: in this environment, or in one that `install.sh` makes.
ENVIRONMENTS = {
    "bare": "",
    "bare_torch": "torch",
    "bare_jax": "jax",
    "nanode": "",
    "nanode_torch": "torch",
    "nanode_jax": "jax",
    "keras_resnet": "",
    "torchdiffeq": "torch",
    "torchode": "torch",
    "diffrax": "jax",
    "tfp": "tfp",
}
# What the evaluations alone take, on each engine.
FLOORS = ("bare", "bare_torch", "bare_jax")
LAYOUTS = ("adjoint", "adjoint channels_last", "direct", "direct channels_last")


def _each(peer: str, *variants: str) -> list[Entrant]:
    return [Entrant(peer, variant) for variant in variants]


_BARE = _each("bare", "f + vjp", "f", "vjp")
_NANODE = _each("nanode", *ADJOINTS)
# Not of convolutions, which in a loop take XLA's CPU 20 times as long.
_NANODE_XLA = _each("nanode", *(adjoint + XLA for adjoint in ADJOINTS[:3]))
# On the engines of torchdiffeq and of diffrax.
_ENGINES = [
    *_each("bare_torch", "f + vjp"),
    *_each("bare_jax", "f + vjp"),
    *_each("nanode_torch", *ADJOINTS),
    *_each("nanode_jax", *ADJOINTS[:3]),
]
_REVERSIBLE = _each("nanode", "reversible")
_RESNET = _each("keras_resnet", "layers")
_DIFFRAX = _each("diffrax", "default", "backsolve", "direct")
_CONV = _each("bare", "f + vjp") + _NANODE + _REVERSIBLE + _RESNET
# Convolutions in a loop take JAX's CPU seconds a step: two of its adjoints will do.
_CONV_PEERS = [
    *(_CONV + _each("torchdiffeq", *LAYOUTS) + _DIFFRAX[:2]),
    *_each("bare_torch", "f + vjp"),
    *_each("nanode_torch", *ADJOINTS),
    *_each("nanode_jax", "checkpoint"),
]
_TORCHDIFFEQ = _each("torchdiffeq", "adjoint", "direct")
_ADAPTIVE = [
    *(_BARE + _NANODE + _NANODE_XLA + _TORCHDIFFEQ + _DIFFRAX + _ENGINES),
    *_each("torchode", "autodiff"),
    *_each("tfp", "backsolve", "backsolve" + XLA),
]

ENTRANTS: dict[str, list[Entrant]] = {
    "conv-trig-10": _CONV_PEERS,
    "conv-trig-50": _CONV,
    "conv-trig-100": _BARE[1:] + _CONV_PEERS,
    "conv-trig-400": _CONV,
    # Neither as many blocks nor as many stored steps: gigabytes, and minutes to trace.
    "conv-trig-1000": _each("nanode", "checkpoint", "backsolve", "reversible"),
    "paper-block": _CONV_PEERS,
    "dense-bucket": [
        *(_BARE + _NANODE + _NANODE_XLA + _TORCHDIFFEQ + _DIFFRAX + _ENGINES)
    ],
    "mlp-adaptive": _ADAPTIVE,
    "tiny": _ADAPTIVE,
    **{f"K-bucket-{k}": _each("nanode", *ADJOINTS[:2]) for k in (1, 10, 100, 1000)},
    **{f"K-trig-{n}": _each("nanode", *ADJOINTS[:2]) for n in (1, 30)},
    "predict": _each("nanode", "checkpoint") + _RESNET,
}
DEPTH_NAME = {f"conv-trig-{n}": n for n in DEPTHS}
WEIGHED = tuple(DEPTH_NAME)  # whose memory is measured too
PICTURED = (
    *("conv-trig-10", "conv-trig-100", "paper-block"),
    *("dense-bucket", "mlp-adaptive", "tiny"),
)
OURS = ("bare", "nanode", "keras_resnet")


def python(peer: str) -> str:
    """The interpreter that a peer runs in."""
    name = ENVIRONMENTS[peer]
    return str(FOLDER / f".venv-{name}" / "bin" / "python") if name else sys.executable
