"""What every peer's process does: check, time or weigh one step, and say so in JSON."""

import argparse
import gc
import json
import os
import platform
import resource
import statistics
import time
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import memory
import numpy as np

from peers import workloads

# A step as peers make it: () -> y, gradient of x, gradients of the coefficients (or a
# function that gives them), finished and as anything that NumPy can read. Only y where
# nothing is trained, and nothing of the floor.
Step = Callable[[], Sequence[Any]]

WARM_UP_SECONDS = 0.5
SECONDS = 4.0
AT_LEAST, AT_MOST = 3, 300
# Processors that others used meanwhile, on average, that make a timing void.
FOREIGN = 0.1
MEMORY_STEPS = 3


def main(make_step: Callable[..., Step], packages: Sequence[str]) -> None:
    """The command line of a peer's process.

    Args:
        make_step: Of a workload, the variant's name, x and the coefficients.
        packages: Whose versions to tell.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("workload")
    parser.add_argument("variant")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    every = workloads.QUICK if args.quick else workloads.ALL
    workload = every[args.workload]
    data = dict(np.load(args.data))
    x, coefficients = data["x"], [v for k, v in data.items() if k[0] == "c"]
    step = make_step(workload, args.variant, x, coefficients)
    result: dict[str, Any] = {}
    if args.memory:
        step()
        result["memory"] = weigh(step)
    else:
        result |= check(step(), data)
        result |= clock(step, 0.05 if args.quick else SECONDS)
    versions = {name: metadata.version(name) for name in packages}
    result["versions"] = {"python": platform.python_version(), **versions}
    print(json.dumps(result))


def check(results: Sequence[Any], data: dict[str, np.ndarray]) -> dict[str, float]:
    """Relative errors in the Euclidean norm, of coefficients the largest."""
    if not results:
        return {}
    y, *gradients = results
    errors = {"error_y": _error(y, data["y"])}
    if gradients:
        in_x, in_coefficients = gradients
        if callable(in_coefficients):
            in_coefficients = in_coefficients()
        exact = [v for k, v in data.items() if k.startswith("dc")]
        pairs = zip(in_coefficients, exact, strict=True)
        errors["error_dx"] = _error(in_x, data["dx"])
        errors["error_dc"] = max(_error(*pair) for pair in pairs)
    return errors


def _error(found, exact: np.ndarray) -> float:
    return float(np.linalg.norm(np.asarray(found) - exact) / np.linalg.norm(exact))


def clock(step: Step, seconds: float) -> dict[str, float]:
    """The median of several steps in milliseconds, and what others took meanwhile."""
    start = time.perf_counter()
    count = 0
    while count < 2 or time.perf_counter() - start < min(WARM_UP_SECONDS, seconds):
        before = time.perf_counter()
        step()
        one, count = time.perf_counter() - before, count + 1
    times = []
    gc.collect()
    begin, others = time.perf_counter(), foreign_seconds()
    for _ in range(min(AT_MOST, max(AT_LEAST, int(seconds / one)))):
        before = time.perf_counter()
        step()
        times.append(1e3 * (time.perf_counter() - before))
    others = foreign_seconds() - others
    return {
        "ms": statistics.median(times),
        "least_ms": min(times),
        "steps": len(times),
        "foreign": others / (time.perf_counter() - begin),
    }


def foreign_seconds() -> float:
    """Processor time that all others have used, or the host has taken, so far."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    user, nice, system, _, _, irq, softirq, steal, *_ = map(int, fields)
    used = (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
    own = resource.getrusage(resource.RUSAGE_SELF)
    return used - own.ru_utime - own.ru_stime


def weigh(step: Step) -> float:
    """The largest resident memory of a step above what was before it, in MiB."""
    memory.fill_holes()
    peaks = []
    for _ in range(MEMORY_STEPS):
        gc.collect()
        before = memory.status("VmRSS")
        memory.reset_peak()
        step()
        peaks.append(memory.status("VmHWM") - before)
    return statistics.median(peaks)
