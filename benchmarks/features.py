"""The features that work on each backend, from tests: the table of docs/backends.md.

    python benchmarks/features.py
    python benchmarks/features.py --backends jax --output docs/backends.md

Runs the tests of each feature under every `KERAS_BACKEND`. A cell is `yes` if one
passed and none failed, else `fails`. If all were skipped, it gives the reason. With
`--output`, the table replaces the one in that file, and needs all backends.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from xml.etree import ElementTree

from reporting import markdown_table

ROOT = Path(__file__).parents[1]
BACKENDS = {"tensorflow": "TensorFlow", "jax": "JAX", "torch": "PyTorch"}
PYTEST = (sys.executable, "-m", "pytest", "-m", "")  # whatever takes long, too
MARKS = ("<!-- features -->\n", "\n<!-- /features -->")

# The tests, named as pytest does, that show a feature; without brackets, in all cases.
FEATURES: dict[str, tuple[str, ...]] = {
    "layers train in `fit` and are saved in `.keras` files": (
        "models/test_classifier.py::test_every_block_trains_and_is_saved[trig]",
        "properties/test_keras_citizens.py::test_models_learn_with_the_callbacks_of_keras",
    ),
    "a file gives the same outputs and gradients on the other backends": (
        "properties/test_other_backends.py::test_backends_agree",
    ),
    "exact gradients by `checkpoint` and `reversible`": (
        "adjoints/test_adjoints.py::test_exact_adjoints_agree_with_direct[rk4-trig-float32]",
        "adjoints/test_adjoints.py::test_exact_adjoints_agree_with_direct[alf-bucket-float64]",
    ),
    "adaptive steps, counted in `fit`": (
        "stepping/test_adaptive.py::test_scipy_agrees",
        "test_callbacks.py::test_fit_shows_the_evaluations[default]",
    ),
    "`tf.function` computes what eager mode does": (
        "properties/test_compilation.py::test_compiled_functions_agree_with_eager_ones"
        "[checkpoint-graph]",
    ),
    "`jit_compile=True` computes what eager mode does": (
        "properties/test_compilation.py::test_compiled_functions_agree_with_eager_ones"
        "[checkpoint-jit_compile]",
    ),
    "compiled once, not for every batch": (
        "properties/test_compilation.py::test_three_blocks_are_not_traced_again_by_the_next_batch",
    ),
    "`mixed_float16`, `mixed_bfloat16`": (
        "layers/test_layers.py::test_the_state_stays_float32_under_mixed_precision",
        "models/test_classifier.py::test_logits_are_float32_under_mixed_precision",
    ),
    '`quantize("int8")`, saved too': (
        "properties/test_keras_citizens.py::test_quantization_takes_the_layers_of_keras_and_spares"
        "_coefficients",
    ),
    'second derivatives by `adjoint="direct"`': (
        "properties/test_second_derivatives.py::test_the_gradient_of_a_gradient_is_exact",
        "properties/test_second_derivatives.py::test_a_gradient_penalty_trains",
    ),
    "`models.materialize`": (
        "models/test_materialize.py::test_a_classifier_is_unrolled[trig]",
        "models/test_materialize.py::test_it_loads_without_this_library",
    ),
    "export as a SavedModel": (
        "project/test_export.py::test_a_saved_model_is_served[bucket]",
        "project/test_export.py::test_adaptive_steps_are_served",
        "stepping/test_adaptive.py::test_jax_exports_no_report_of_the_evaluations",
    ),
    "export to LiteRT": (
        "project/test_export.py::test_litert_holds_the_loop[bucket]",
        "project/test_export.py::test_litert_holds_the_loop[adaptive]",
    ),
    "export to ONNX": (
        "project/test_export.py::test_onnx_holds_the_loop[trig]",
        "project/test_export.py::test_onnx_holds_the_loop[adaptive direct]",
    ),
    "`MirroredStrategy`": (
        "properties/test_distribution.py::test_two_replicas_of_a_mirrored_strategy",
    ),
    "several processes or machines": (
        "project/test_example_distributed.py::test_two_workers_learn_what_one_learns",
    ),
    "`keras.distribution.DataParallel`": (
        "properties/test_distribution.py::test_two_devices_of_a_distribution[data_parallel]",
    ),
    "video models learn, are saved and generate": (
        "models/test_svg.py::test_a_block_learns_and_is_saved",
    ),
}


def main() -> None:
    args = parse()
    columns = [run(backend) for backend in args.backends]
    text = table([BACKENDS[backend] for backend in args.backends], columns)
    print(text)
    if args.output:
        args.output.write_text(replaced(args.output.read_text(), text))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, default=[*BACKENDS])
    parser.add_argument("--output", type=Path, help="a file that has the table")
    args = parser.parse_args()
    if args.output and args.backends != [*BACKENDS]:
        parser.error("--output needs all backends: leave --backends out")
    return args


def node_ids() -> list[str]:
    """The tests of all features."""
    return [f"tests/{test}" for tests in FEATURES.values() for test in tests]


def run(backend: str) -> dict[str, str]:
    """What the tests of each feature say on a backend."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "results.xml"
        process = subprocess.run(
            [*PYTEST, f"--junitxml={file}", *node_ids()],
            cwd=ROOT,
            env={**os.environ, "KERAS_BACKEND": backend},
            stdout=subprocess.PIPE,
            text=True,
        )
        print(process.stdout, file=sys.stderr)
        # 1 says that tests failed, which is a result; others that none ran.
        if process.returncode not in (0, 1):
            raise SystemExit(f"pytest failed on {backend}.")
        cases = [*ElementTree.parse(file).iter("testcase")]
    return {name: cell(cases, tests) for name, tests in FEATURES.items()}


def cell(cases: Iterable[ElementTree.Element], tests: Sequence[str]) -> str:
    """`yes`, `fails`, or why all cases of the tests were skipped."""
    mine = [case for case in cases if any(is_of(case, test) for test in tests)]
    if not mine or any(
        c.find(x) is not None for c in mine for x in ("failure", "error")
    ):
        return "fails"
    skipped = [case.find("skipped") for case in mine]
    reasons = [element.get("message", "") for element in skipped if element is not None]
    return "; ".join(dict.fromkeys(reasons)) if len(reasons) == len(mine) else "yes"


def is_of(case: ElementTree.Element, test: str) -> bool:
    """Whether a case of JUnit's file is the test, or the test with some parameters."""
    file, name = test.split("::")
    found = case.get("name", "")
    same = case.get("classname") == f"tests.{file.removesuffix('.py')}"
    return same and name in (found, found.partition("[")[0])


def table(header: Sequence[str], columns: Sequence[dict[str, str]]) -> str:
    rows = [[name, *(column[name] for column in columns)] for name in FEATURES]
    return markdown_table(["", *header], rows)


def replaced(text: str, table: str) -> str:
    """`text` with another table between the marks."""
    between = re.compile("(?s)(?<={}).*?(?={})".format(*map(re.escape, MARKS)))
    if len(between.findall(text)) != 1:
        raise SystemExit(
            f"The file has no lines {MARKS[0].strip()} and {MARKS[1].strip()}"
        )
    return between.sub(lambda _: table, text)


if __name__ == "__main__":
    main()
