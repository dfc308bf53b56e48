"""A training step of the paper's block on an accelerator: time and memory.

    python benchmarks/gpu.py --backend torch
    python benchmarks/gpu.py --backend jax

Needs Keras, NumPy and PyTorch or JAX, and downloads nothing. torchdiffeq or diffrax is
measured too if it is installed. Without an accelerator it runs on the CPU, at the
reduced size of `--quick`.

It measures the block of the paper's section 3.1 (256 channels at 32x32, a bottleneck of
64, trig of order 10, 128 images) with 10, 100 and 1,000 steps of Euler's method and
each adjoint, in float32 and mixed bfloat16, and the residual network of as many blocks.
Each runs in a separate process, since the counter of JAX's peak memory cannot be reset.
The most informative runs come first. Runs beyond `--minutes` are left out.

Writes `gpu-BACKEND.md`.
"""

import argparse
import dataclasses
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from peers import workloads
from peers.workloads import Workload
from reporting import Failed, environment, from_process, markdown_table

FOLDER = Path(__file__).parent
RESNET = "residual network"
PEERS = {"torch": "torchdiffeq", "jax": "diffrax"}
PEER_VARIANTS = {"torch": ("adjoint", "direct"), "jax": ("default",)}
ADJOINTS = ("checkpoint", "reversible", "backsolve", "direct")
FULL = Workload("conv", (128, 32, 32, 256), 64, ("trig", 10), "euler")
QUICK = Workload("conv", (2, 4, 4, 8), 4, ("trig", 2), "euler")
# What is left of a step if the arithmetic costs nothing.
SMALLEST = Workload("conv", (1, 1, 1, 8), 8, ("trig", 1), "euler")
DEEPEST = {RESNET: 100, "direct": 100}  # gigabytes beyond, and minutes to trace
WARM_UP, SECONDS, AT_LEAST, AT_MOST = 2, 5.0, 3, 50
TIMEOUT = 240


class Case(NamedTuple):
    """A line of the table."""

    who: str  # "keras_nanode", a peer, or the residual network
    variant: str
    steps: int
    dtype: str = "float32"
    smallest: bool = False


class Cost(NamedTuple):
    """Of a training step; of what is not known None."""

    ms: float
    mib: float | None
    kernels: int | None


def cases(backend: str, quick: bool) -> Iterator[Case]:
    """In the order in which they are measured."""
    depths = [2] if quick else [10, 100, 1000]
    dtypes = ["float32"] if quick else ["float32", "mixed_bfloat16"]
    ours = [("keras_nanode", adjoint) for adjoint in ADJOINTS]
    others = [(RESNET, "-")]
    if importlib.util.find_spec(PEERS[backend]):
        others += [(PEERS[backend], variant) for variant in PEER_VARIANTS[backend]]
    yield Case("keras_nanode", "checkpoint", 100, smallest=True)
    for steps in depths:
        for dtype in dtypes:
            for who, variant in [*ours, *others]:
                # Peers have no policy of their own.
                if who in PEERS.values() and dtype != "float32":
                    continue
                if steps <= min(DEEPEST.get(who, steps), DEEPEST.get(variant, steps)):
                    yield Case(who, variant, steps, dtype)


def main() -> None:
    args = parse()
    if args.one:
        print(
            json.dumps(measure(args.backend, Case(*json.loads(args.one)), args.quick))
        )
        return
    until = time.monotonic() + 60 * args.minutes
    found: dict[Case, Cost | str] = {}
    for case in cases(args.backend, args.quick):
        left = until - time.monotonic()
        found[case] = (
            measured_apart(args, case, left) if left > 0 else "no time was left"
        )
        print(*case, found[case], flush=True)
    text = report(args.backend, found, device_of(args.backend), args.quick)
    (args.output / f"gpu-{args.backend}.md").write_text(text)
    if args.quick and any(isinstance(cost, str) for cost in found.values()):
        sys.exit(1)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("--backend", choices=PEERS, required=True)
    add("--quick", action="store_true", help="tiny sizes, as on a CPU")
    add("--minutes", type=float, default=7.5, help="no more cases begin later")
    add("--output", type=Path, default=FOLDER, help="folder to write to")
    add("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    os.environ["KERAS_BACKEND"] = args.backend
    args.quick = args.quick or device_of(args.backend) == "CPU"
    return args


def device_of(backend: str) -> str:
    """The name of the accelerator that the backend sees, or "CPU"."""
    code = {
        "torch": "import torch; c = torch.cuda; "
        "print(c.get_device_name() if c.is_available() else 'CPU')",
        "jax": "import jax; d = jax.devices()[0]; "
        "print('CPU' if d.platform == 'cpu' else d.device_kind)",
    }[backend]
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True
    )
    return process.stdout.strip().splitlines()[-1]


def measured_apart(args: argparse.Namespace, case: Case, seconds: float) -> Cost | str:
    """The cost, or why there is none."""
    command = [sys.executable, __file__, "--backend", args.backend]
    command += ["--quick"] if args.quick else []
    command += ["--one", json.dumps(case)]
    try:
        return Cost(*from_process(command, timeout=min(TIMEOUT, seconds + 60)))
    except subprocess.TimeoutExpired:
        return "given up"
    except Failed as failure:
        return failure.reason


# In a process of its own


def measure(backend: str, case: Case, quick: bool) -> Cost:
    import keras

    keras.config.set_dtype_policy(case.dtype)
    step = make_step(backend, case, quick)
    engine: Any = {"torch": Torch, "jax": Jax}[backend]()
    for _ in range(WARM_UP):
        step()
    engine.wait()
    engine.forget_peak()
    times: list[float] = []
    begin = time.perf_counter()
    while len(times) < AT_LEAST or (
        len(times) < AT_MOST and time.perf_counter() - begin < (0 if quick else SECONDS)
    ):
        before = time.perf_counter()
        step()
        engine.wait()
        times.append(1e3 * (time.perf_counter() - before))
    return Cost(statistics.median(times), engine.peak(), engine.kernels(step))


def make_step(backend: str, case: Case, quick: bool) -> Callable[[], object]:
    size = SMALLEST if case.smallest else QUICK if quick else FULL
    workload = dataclasses.replace(size, steps=case.steps)
    if backend == "torch":
        import torch

        # What the peers make without saying where.
        torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    x, coefficients = workloads.draw(workload)
    if case.who in PEERS.values():
        peer = importlib.import_module(f"peers.{case.who}")
        return peer.make_step(workload, case.variant, x, coefficients)
    ours = importlib.import_module(f"peers.nanode_{backend}")
    if case.who != RESNET:
        return ours.make_step(workload, case.variant, x, coefficients)
    import keras

    from keras_nanode import layers

    block = layers.ConvBlock(hidden_filters=workload.hidden)
    stack = layers.ResidualStack(block, case.steps)
    network = keras.Sequential([keras.Input(workload.shape[1:]), stack])
    return ours.training_step(network, x)


class Torch:
    def __init__(self):
        import torch

        self.torch, self.has_gpu = torch, torch.cuda.is_available()

    def wait(self):
        if self.has_gpu:
            self.torch.cuda.synchronize()

    def forget_peak(self):
        if self.has_gpu:
            self.torch.cuda.reset_peak_memory_stats()

    def peak(self):
        return self.torch.cuda.max_memory_allocated() / 2**20 if self.has_gpu else None

    def kernels(self, step):
        """Kernels launched in a step; on a CPU operations."""
        kinds = self.torch.profiler.ProfilerActivity
        chosen = [kinds.CPU, kinds.CUDA] if self.has_gpu else [kinds.CPU]
        with self.torch.profiler.profile(activities=chosen) as profile:
            step()
            self.wait()
        prefix = "cudaLaunchKernel" if self.has_gpu else "aten::"
        events = profile.key_averages()
        return sum(event.count for event in events if event.key.startswith(prefix))


class Jax:
    """Its steps wait by themselves, and each process has one peak."""

    def wait(self):
        pass

    def forget_peak(self):
        pass

    def peak(self):
        import jax

        found = jax.devices()[0].memory_stats()
        return found["peak_bytes_in_use"] / 2**20 if found else None

    def kernels(self, step):
        return None


def report(
    backend: str, found: dict[Case, Cost | str], device: str, quick: bool
) -> str:
    size = QUICK if quick else FULL
    batch, *image, width = size.shape
    text = (
        f"Milliseconds and peak memory of a training step: {batch} states of "
        f"{image[0]}x{image[1]}x{width}, bottleneck of {size.hidden}, Euler's method. "
        "`reversible` is reversible Heun. Memory is that of the process by the "
        "framework's counter, weights included. Kernels are those launched in a step "
        "(on a CPU operations), counted by PyTorch's profiler."
    )
    header = ("", "variant", "steps", "dtype", "ms", "MiB", "kernels")
    rows, overhead = [], ""
    for case, cost in found.items():
        who, variant, steps, dtype, smallest = case
        if isinstance(cost, str):
            rows.append((who, variant, steps, dtype, cost, "-", "-"))
        elif smallest:
            overhead = (
                "A step of Euler's method takes, for a state that costs nothing, twice "
                f"forwards and with its gradient, {1e3 * cost.ms / steps:.0f} us"
            )
            if cost.kernels:
                overhead += f" and {cost.kernels / steps:.0f} kernels or operations"
        else:
            memory = "-" if cost.mib is None else f"{cost.mib:,.0f}"
            kernels = "-" if cost.kernels is None else f"{cost.kernels:,}"
            rows.append((who, variant, steps, dtype, f"{cost.ms:.1f}", memory, kernels))
    title = f"# The paper's block with {backend} on {device}"
    packages = ("keras", backend, "keras_nanode")
    about = environment(packages, device)
    return (
        "\n\n".join([title, about, text, f"{overhead}.", markdown_table(header, rows)])
        + "\n"
    )


if __name__ == "__main__":
    main()
