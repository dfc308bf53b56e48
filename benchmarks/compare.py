"""The cost of a training step here and in other libraries, on the same machine.

    benchmarks/peers/install.sh          # the peers' environments, once
    python benchmarks/compare.py [--quick]
    python benchmarks/compare.py --workloads conv-trig-100 --peers bare nanode

`peers/plan.py` says which peers run a workload, and in which variants. Each variant
runs in a separate process, with the same weights and inputs. Its solutions and
gradients are checked against those in float64. Rounds are interleaved: each runs all
variants once, except those that have failed. A timing is void if other programs used
the processor. It is then repeated, up to 4 tries in all. If every try is void, the last
one is kept and marked, and no median counts it. All peers have as many threads as there
are processors.

Writes `compare.md`, `compare.csv` and `compare.png`. With `--workloads`, the lines of
these workloads replace those of an earlier run. With `--append`, they are added. With
`--peers`, the tables are only printed, unless `--output` is given.
`--quick` uses tiny sizes, without the peers that need other environments.
"""

import argparse
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import memory
from peers import plan, reference, samples, summary, workloads
from peers.plan import Entrant
from peers.samples import Sample
from peers.worker import FOREIGN
from reporting import Failed, from_process

FOLDER = Path(__file__).parent
DATA = FOLDER / "build"
FILE = "compare.csv"
TRIES = 4
TIMEOUT = 300


def main() -> None:
    args = parse()
    every = workloads.QUICK if args.quick else workloads.ALL
    measured: list[Sample] = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) if args.quick else DATA
        for name in args.workloads or every:
            data = folder / f"{name}.npz"
            reference.prepare(every[name], data)
            found: list[Sample] = []
            for sample in measure(name, data, args):
                found.append(sample)
                if args.output and not args.quick:
                    # At once, so that what was interrupted is not lost.
                    append = args.append or len(found) > 1
                    samples.merge(args.output / FILE, [sample], append)
            measured += found
    print(summary.report(measured))
    if args.output and not args.quick:
        write(args.output)
    if args.quick and any(sample.failure for sample in measured):
        raise SystemExit(1)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("--quick", action="store_true", help="tiny sizes, nothing that is installed")
    add("--workloads", nargs="+", choices=plan.ENTRANTS)
    add("--peers", nargs="+", choices=plan.ENVIRONMENTS)
    add("--rounds", type=int, default=3)
    add("--append", action="store_true", help="add rounds to those of an earlier run")
    add("--output", type=Path, help="folder to write to; this one, unless --peers")
    args = parser.parse_args()
    if args.output is None and not args.peers:
        args.output = FOLDER
    if args.output:
        args.output.mkdir(parents=True, exist_ok=True)
    return args


def write(folder: Path) -> None:
    """The table and the picture of all that is in the CSV file."""
    known = list(samples.read(folder / FILE))
    (folder / "compare.md").write_text(f"# Comparison\n\n{summary.report(known)}")
    summary.plot(samples.rows(known), folder / "compare.png")


def measure(name: str, data: Path, args: argparse.Namespace) -> Iterator[Sample]:
    """The samples of a workload: of each round in turn, and then of the memory."""
    peers = args.peers or (plan.OURS if args.quick else plan.ENVIRONMENTS)
    entrants = [e for e in plan.ENTRANTS[name] if e.peer in peers]
    if args.quick:  # the first of each peer
        entrants = list({e.peer: e for e in reversed(entrants)}.values())
    failed: set[Entrant] = set()
    for number in range(1 if args.quick else args.rounds):
        for entrant in entrants:
            if entrant not in failed:
                sample = timed(name, entrant, number, data, args.quick)
                failed |= {entrant} if sample.failure else set()
                yield sample
    if name in plan.WEIGHED:
        for entrant in entrants:
            if entrant not in failed and entrant.peer not in plan.FLOORS:
                yield weighed(name, entrant, data, args.quick)


def timed(name: str, entrant: Entrant, number: int, data: Path, quick: bool) -> Sample:
    """One process; again if others used the processor, until it is given up."""
    for _ in range(TRIES):
        result = run(name, entrant, data, ["--quick"] if quick else [])
        if quick or result.get("foreign", 0) <= FOREIGN:
            break
        print(f"  void: others used {result['foreign']:.0%} of a core", flush=True)
        time.sleep(5)
    else:
        result = {"void": True, **result}
    return told(Sample.of(name, entrant, number, result))


def weighed(name: str, entrant: Entrant, data: Path, quick: bool) -> Sample:
    flags = ["--memory", "--quick"] if quick else ["--memory"]
    result = run(name, entrant, data, flags, memory.SETTINGS)
    return told(Sample.of(name, entrant, -1, result))


def told(sample: Sample) -> Sample:
    print(sample.line(), flush=True)
    return sample


def run(
    name: str,
    entrant: Entrant,
    data: Path,
    flags: list[str],
    settings: dict[str, str] | None = None,
) -> dict[str, Any]:
    """What the process prints, or why it failed."""
    interpreter = plan.python(entrant.peer)
    if not Path(interpreter).exists():
        return {"failure": f"no {interpreter}: run benchmarks/peers/install.sh"}
    command = [interpreter, "-m", f"peers.{entrant.peer}", str(data.resolve())]
    command += [name, entrant.variant, *flags]
    settings = {**environment(), **(settings or {})}
    try:
        found: dict[str, Any] = from_process(command, settings, TIMEOUT, FOLDER)
    except subprocess.TimeoutExpired:
        return {"failure": f"given up after {TIMEOUT} s"}
    except Failed as failure:
        return {"failure": failure.reason}
    return found


def environment() -> dict[str, str]:
    """The same threads for all, and no GPU."""
    threads = str(os.cpu_count())
    names = ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")
    return {
        **{name: threads for name in names},
        "KERAS_BACKEND": "tensorflow",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "CUDA_VISIBLE_DEVICES": "-1",
    }


if __name__ == "__main__":
    main()
