"""The comparison's own reference, its plan, and a run of it on tiny sizes."""

import math
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

BACKEND = keras.backend.backend()
FOLDER = Path(__file__).parents[2] / "benchmarks"
sys.path.append(str(FOLDER))

from peers import plan, reference, samples, targets, workloads  # noqa: E402
from peers.plan import Entrant  # noqa: E402
from peers.samples import Sample  # noqa: E402

TRAINED = [name for name, w in workloads.QUICK.items() if w.training]


@pytest.mark.parametrize("name", TRAINED)
def test_the_reference_gradient_is_that_of_finite_differences(name):
    workload = workloads.QUICK[name]
    inputs, coefficients = workloads.draw(workload)
    given = [inputs.astype("float64"), *(c.astype("float64") for c in coefficients)]
    found = reference.solve(workload, given[0], given[1:])
    gradients = [found["dx"], *(v for k, v in found.items() if k.startswith("dc"))]
    rng = np.random.default_rng(1)
    along = [rng.normal(size=x.shape) for x in given]

    def loss(s):
        x, *c = (x + s * d for x, d in zip(given, along, strict=True))
        return np.mean(reference.solve(workload, x, c)["y"] ** 2)

    slope = (loss(1e-6) - loss(-1e-6)) / 2e-6
    exact = sum((g * d).sum() for g, d in zip(gradients, along, strict=True))
    assert slope == pytest.approx(exact, rel=1e-6)


def test_every_target_is_of_what_is_measured():
    for target in targets.TARGETS:
        assert target.ours in plan.ENTRANTS[target.workload]
        assert set(target.theirs) & set(plan.ENTRANTS[target.other or target.workload])


def test_every_workload_of_the_plan_exists():
    assert set(plan.ENTRANTS) == set(workloads.ALL)
    assert set(workloads.QUICK) <= set(workloads.ALL)


def sample(peer: str, variant: str, ms: float, **values) -> Sample:
    return Sample("mlp-adaptive", peer, variant, 0, ms, **values)


MEASURED = [
    sample("nanode", "all states", 11.0),
    sample("nanode", "all states", 12.0),
    sample("nanode", "all states", 500.0, void=True),
    sample("nanode", "all states", 13.0),
    sample("bare", "f + vjp", 10.0),
    sample("tfp", "backsolve", 24.0),
    sample("torchode", "autodiff", math.nan, failure="no torch"),
]


def test_a_row_is_the_median_of_the_rounds_that_nobody_disturbed():
    row = samples.rows(MEASURED)["mlp-adaptive"][Entrant("nanode", "all states")]
    assert (row.ms, row.spread) == (12.0, 2 / 12)


def test_targets_are_judged_by_the_ratio_of_medians():
    assert list(targets.judge(samples.rows(MEASURED))) == [
        "mlp-adaptive: nanode all states / bare f + vjp <= 1.15: measured 1.2: NOT MET",
        "mlp-adaptive: nanode all states / tfp backsolve <= 0.85: measured 0.5: met",
    ]


def test_other_workloads_stay_in_the_file(tmp_path):
    path = tmp_path / "compare.csv"
    other = Sample("tiny", "bare", "f", 0, 1.0, failure="a, b")
    samples.merge(path, [other, *MEASURED], append=False)
    again = samples.merge(path, MEASURED[:1], append=False)
    assert [s.workload for s in again] == ["mlp-adaptive", "tiny"]
    assert repr(list(samples.read(path))) == repr(again)  # NaN is not equal to itself
    assert again[1].failure == "a, b"
    assert len(samples.merge(path, MEASURED[:1], append=True)) == 3


@pytest.mark.slower
def test_a_quick_run_checks_every_workload():
    command = [sys.executable, str(FOLDER / "compare.py"), "--quick"]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    lines = [line for line in run.stdout.splitlines() if " nanode checkpoint: " in line]
    timed = [line for line in lines if line.endswith(tuple("0123456789n"))]
    assert [line.split()[0] for line in timed] == list(workloads.QUICK)
    for line in timed:
        errors = [float(e) for e in line.split("errors ")[1].split(", ")]
        assert errors[0] < 1e-4 and not errors[1] > 1e-3


@pytest.mark.slower
@pytest.mark.skipif(BACKEND == "tensorflow", reason="of JAX and PyTorch")
def test_the_step_on_an_accelerator_runs_on_a_cpu_too(tmp_path):
    command = [sys.executable, str(FOLDER / "gpu.py"), "--backend", BACKEND]
    options = ["--quick", "--output", str(tmp_path)]
    subprocess.run([*command, *options], check=True)
    table = (tmp_path / f"gpu-{BACKEND}.md").read_text()
    assert table.count("keras_nanode  ") == 4
    assert table.count("residual network") == 1


@pytest.mark.slower
@pytest.mark.parametrize(
    ("script", "options", "lines"),
    [
        ("initialization", ["--depths", "2"], 8),
        ("serving", ["--repeats", "1", "--filters", "8"], 9),
        ("first_step", ["--depths", "2", "--rounds", "1"], 8),
        ("held_inputs", [], 5),
    ],
)
def test_a_benchmark_runs_at_a_size_that_takes_no_time(
    script, options, lines, tmp_path
):
    command = [sys.executable, str(FOLDER / f"{script}.py")]
    subprocess.run([*command, *options, "--output", str(tmp_path)], check=True)
    (_, _, *rows) = [
        line
        for line in (tmp_path / f"{script}.md").read_text().splitlines()
        if line.startswith("|")
    ]
    assert len(rows) == lines
    assert any(character.isdigit() for character in rows[0])
