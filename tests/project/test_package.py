"""What holds for the package as a whole."""

import ast
import doctest
import graphlib
import importlib
import inspect
import pathlib
import re

import keras
import numpy as np
import pytest

import keras_nanode

ROOT = pathlib.Path(keras_nanode.__file__).parent
MODULES = sorted(ROOT.rglob("*.py"))
README = (ROOT.parent / "README.md").read_text()
DOCS = ROOT.parent / "docs"
EXAMPLES = "".join(
    path.read_text()
    for folder in ("examples", "docs/tutorials")
    for path in (ROOT.parent / folder).glob("*.py")
)


def by_hand(page):
    """Whether it is not generated, as those of the API are."""
    return page.parent.name != "api"


# Blocks of code and words in backquotes, for the prose has words such as "ODE" anyway.
CODE = EXAMPLES + "".join(
    block or word
    for page in (README, *(x.read_text() for x in DOCS.rglob("*.md") if by_hand(x)))
    for block, word in re.findall(r"```python(.*?)```|(`[^`\n]+`)", page, re.DOTALL)
)

# Each part may import those before it.
ORDER = (
    "tree",
    "checks",
    "given_times",
    "keywords",
    "copying",
    "order_conditions",
    "tableaus",
    "backend",
    "bases",
    "arrays",
    "structures",
    "fields",
    "solvers",
    "stepping",
    "adjoints",
    "integrate",
    "output_times",
    "odeint",
    "layers",
    "models",
)
# Nobody imports these, which import no more than is named here.
LEAVES = {
    "callbacks": ("copying", "layers"),
    "datasets": (),
    "metrics": ("backend",),
    # Of the steps that were tried, the loop alone knows the rejected ones.
    "visualize": (
        *("backend", "bases", "fields", "integrate", "layers", "odeint"),
        *("stepping", "structures"),
    ),
}
WITH_EXAMPLES = ("bases", "callbacks", "layers", "metrics", "models", "visualize")
BACKENDS = {"tensorflow", "jax", "torch", "openvino"}


def part(name):
    return name.removeprefix("keras_nanode").strip(".").split(".")[0]


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module == "keras_nanode":
            yield from (f"keras_nanode.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield node.module


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_one_way(path):
    here = path.relative_to(ROOT).with_suffix("").parts[0]
    for name in imports(path):
        top = name.split(".")[0]
        assert not name.startswith("keras.src")
        # Input pipelines are tf.data's on every backend.
        assert top not in BACKENDS or here in ("backend", "datasets"), name
        if top != "keras_nanode" or here == "__init__":
            continue
        there = part(name)
        if here in LEAVES or there == here:
            assert there in (here, "checks", *LEAVES.get(here, ()))
        else:
            assert ORDER.index(there) < ORDER.index(here), f"{here} imports {there}"


def test_no_imports_go_in_a_circle():
    """Also through those inside of functions. Importing a name from a package imports
    the file that the package has it from."""
    files = {}
    for path in MODULES:
        parts = path.relative_to(ROOT.parent).with_suffix("").parts
        files[".".join(parts).removesuffix(".__init__")] = path

    def sources(path):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    yield source(node.module, alias.name)

    def source(module, name):
        if f"{module}.{name}" in files:
            return f"{module}.{name}"
        if module in files and files[module].name == "__init__.py":
            for node in ast.parse(files[module].read_text()).body:
                if isinstance(node, ast.ImportFrom) and node.module in files:
                    if name in [alias.asname or alias.name for alias in node.names]:
                        return source(node.module, name)
        return module

    graph = {
        module: set(sources(path)) & set(files) - {module}
        for module, path in files.items()
    }
    list(graphlib.TopologicalSorter(graph).static_order())  # or a CycleError


def test_the_measured_tests_exist():
    """`tests/seconds.txt` names tests by file and function, which may be renamed."""
    folder = ROOT.parent
    lines = (folder / "tests" / "seconds.txt").read_text().splitlines()
    names = {re.match(r"[\d.]+ (.+?)::(\w+)", line).groups() for line in lines}
    for file, function in sorted(names):
        assert f"def {function}(" in (folder / file).read_text(), (file, function)


def public():
    modules = [keras_nanode, *(getattr(keras_nanode, m) for m in keras_nanode.__all__)]
    for module in modules:
        if inspect.ismodule(module):
            for name in getattr(module, "__all__", ()):
                yield module.__name__, name
    yield from (("keras_nanode.bases", type(b).__name__) for b in _bases().values())
    yield "keras_nanode.bases", "Basis"
    yield "keras_nanode.tableaus", "Tableau"


def _bases():
    return keras_nanode.bases.ALL


@pytest.mark.parametrize(("module", "name"), sorted(set(public())))
def test_public_names_are_documented_and_used(module, name):
    thing = getattr(importlib.import_module(module), name)
    assert re.search(rf"\b{name}\b", CODE), "used in no example"
    if not callable(thing):
        return
    doc = inspect.getdoc(thing)
    assert doc and "\n" in doc
    if (
        module.endswith(
            (".layers", ".bases", ".models", ".metrics", ".callbacks", ".visualize")
        )
        or name == "odeint"
    ):
        examples = doctest.DocTestParser().get_examples(doc)
        assert any(x.want for x in examples) or "Attributes:" in doc
    if module.endswith(".layers"):
        for section in ("Args:", "Input shape:", "Output shape:", "Raises:", "Example"):
            assert section in doc, section


@pytest.mark.parametrize(("module", "name"), sorted(set(public())))
def test_public_names_are_typed(module, name):
    thing = getattr(importlib.import_module(module), name)
    if not callable(thing) or not hasattr(thing, "__module__"):
        return
    if not thing.__module__.startswith("keras_nanode"):
        return
    given = inspect.signature(thing)
    for parameter in given.parameters.values():
        known = parameter.annotation is not parameter.empty
        assert known or parameter.name == "self", parameter
    if not inspect.isclass(thing):
        assert given.return_annotation is not given.empty


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_and_functions_stay_small(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 300
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            lines = body[-1].end_lineno - body[0].lineno + 1 if body else 0
            assert lines <= 60, node.name


def test_the_readme_has_two_commands_and_its_first_code_is_short():
    assert len(re.findall(r"```bash\n", README)) == 2
    assert len(quick_start().splitlines()) <= 20
    compile(quick_start(), "README.md", "exec")


@pytest.mark.slower
def test_the_model_of_the_quick_start_reads_digits(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(quick_start(), names)
    assert "accuracy" in capsys.readouterr().out
    loaded = keras.models.load_model("digits.keras")
    scores = loaded.evaluate(names["data"].test, return_dict=True, verbose=0)
    assert scores["accuracy"] >= 0.9


def test_the_quick_start_is_a_file_too():
    file = ROOT.parent / "examples" / "digits.py"
    assert file.read_text().endswith(quick_start())


def test_the_parts_and_the_stage_of_the_guides():
    (parts,) = code_of((DOCS / "how_it_works.md").read_text())
    (stage,) = code_of((DOCS / "guides" / "which_layer.md").read_text())
    names = {}
    exec(parts, names)
    assert names["y"].shape == names["x"].shape == (4, 3)
    shapes = [names[name].shape for name in ("kernels", "biases", "path", "decay")]
    assert shapes == [(3, 3, 3), (3, 3), (5, 4, 3), (5, 4, 3)]
    x_again = keras.ops.convert_to_numpy(names["x_again"])
    np.testing.assert_allclose(x_again, names["x"], atol=1e-3)
    exec(stage, names)
    flow, x = names["stage"], np.ones((1, 4, 4, 8), "float32")
    stack = keras_nanode.layers.ResidualStack(
        keras_nanode.layers.ConvBlock(hidden_filters=64, normalization="group"), 10
    )
    assert flow(x).shape == stack(x).shape
    assert flow.count_params() == stack.count_params()


def quick_start() -> str:
    """The README's code."""
    (code,) = code_of(README)
    return code


def code_of(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page, re.DOTALL)
