"""The site: its code runs, each public name has a page, and questions find theirs."""

import doctest
import importlib
import os
import pkgutil
import re
import shutil
import subprocess
import sys
import urllib.parse
from pathlib import Path

import keras
import pytest

import keras_nanode

DOCS = Path(__file__).parents[2] / "docs"
PAGES = [path for path in sorted(DOCS.rglob("*.md")) if path.parent.name != "api"]
# What the code of a page starts from.
GIVEN = {
    "rebase.md": """
import numpy as np
import keras
from keras_nanode import bases, layers, models
flow = layers.DenseODE("bucket", solver="euler", steps=16, t_span=(0, 4))
model = keras.Sequential([keras.Input((3,)), flow, keras.layers.Dense(2)])
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
model.compile("adam", loss, metrics=["accuracy"])
x, y = np.ones((8, 3), "float32"), np.zeros(8, int)
""",
}
# A newcomer's questions, in the words that one types, and the page that answers.
QUESTIONS = {
    "keep trained layer weights": "faq",
    "loss nan": "faq",
    "export onnx": "guides/export",
    "first step slow": "faq",
    "slower than": "faq",
    "gpu slower than cpu": "faq",
    "which adjoint": "guides/solvers_and_adjoints",
    "memory training": "results/memory",
    "float64": "faq",
    "longer t_span": "faq",
    "states at my own times": "faq",
    "control input": "faq",
    "better than resnet": "faq",
    "dropout": "faq",
    "hf://": "faq",
    "install jax": "install",
    "torchdiffeq": "guides/migrating",
    "several machines": "guides/devices",
    "learning rate": "guides/time_and_scale",
    "stiff": "guides/solvers_and_adjoints",
    "TimeVarying": "api/keras_nanode.layers.TimeVarying",
    "weights over time": "faq",
}


def modules():
    """The parts of the package that say what is public in them."""
    yield keras_nanode
    for part in pkgutil.iter_modules(keras_nanode.__path__, "keras_nanode."):
        module = importlib.import_module(part.name)
        if hasattr(module, "__all__"):
            yield module


def test_each_public_name_has_a_page(tmp_path, monkeypatch):
    pytest.importorskip("sphinx")
    monkeypatch.syspath_prepend(DOCS)
    api_pages = importlib.import_module("api_pages")
    api_pages.write(tmp_path)
    written = {path.stem for path in tmp_path.glob("*.md")}
    expected = {
        f"{module.__name__}.{name}" for module in modules() for name in module.__all__
    }
    assert expected <= written
    for name in expected - {module.__name__ for module in modules()}:
        text = (tmp_path / f"{name}.md").read_text()
        assert re.search(rf"\{{py:\w+\}} {re.escape(name)}\b", text), name


def test_a_docstring_becomes_markdown(monkeypatch):
    pytest.importorskip("sphinx")
    monkeypatch.syspath_prepend(DOCS)
    api_pages = importlib.import_module("api_pages")
    doc = """Adds.

    Args:
        a, b: Numbers of
            any kind.

    More text.

    Example:

    >>> 1 + 1
    2

    References:
        - Peano
    """
    expected = """Adds.

**Args**

- `a, b`: Numbers of
    any kind.

More text.

**Example**

```pycon
>>> 1 + 1
2
```

**References**

- Peano
"""
    assert api_pages.markdown(doc) == expected
    linked = api_pages.linked(
        "`layers.ODE(f)` and\n```\n`layers.ODE`\n```\n`x`", "here"
    )
    link = "{py:obj}`layers.ODE(f) <keras_nanode.layers.ODE>`"
    assert linked == f"{link} and\n```\n`layers.ODE`\n```\n`x`"


def code_of(path):
    return re.findall(r"^```python\n(.*?)^```", path.read_text(), re.S | re.M)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Train the model again")  # as the guide says
@pytest.mark.parametrize(
    "path",
    [p for p in PAGES if code_of(p)],
    ids=lambda p: p.relative_to(DOCS).as_posix(),
)
def test_the_code_of_a_page_runs(path, tmp_path, monkeypatch):
    if path.name == "export.md" and keras.backend.backend() == "torch":
        pytest.skip("export it from TensorFlow")
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(GIVEN.get(path.name, ""), names)
    for block in code_of(path):
        if block.startswith(">>>"):
            case = doctest.DocTestParser().get_doctest(block, names, path.name, None, 0)
            assert not doctest.DocTestRunner().run(case, clear_globs=False).failed
            names.update(case.globs)
        else:
            exec(compile(block, path, "exec"), names)


@pytest.mark.parametrize("file", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_to_files_lead_somewhere(file):
    links = re.findall(r"\]\((?!https?:)([^)#]+)", (DOCS.parent / file).read_text())
    missing = [link for link in links if not (DOCS.parent / link).exists()]
    assert not missing
    assert links or file != "README.md"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The pages, without running the tutorials, which the build of CI does."""
    pytest.importorskip("myst_nb")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-q", "-D", "nb_execution_mode=off"]
    run = subprocess.run(
        [*command, str(DOCS), str(folder)], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr[-1000:]
    return folder


@pytest.mark.slower
def test_no_page_loads_anything_from_outside(site):
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 100
    for page in pages:
        loaded = re.findall(
            r"<(?:script|link|img|iframe|source)\b[^>]*?(?:src|href)=\"(.*?)\"",
            page.read_text(),
        )
        assert loaded, page
        outside = [url for url in loaded if re.match(r"(https?:)?//", url)]
        assert not outside, page
    styles = "".join(path.read_text() for path in site.rglob("*.css"))
    assert not re.search(r"url\([\"']?(https?:)?//", styles)
    assert not re.search(r"@import[^;]*//", styles)


@pytest.mark.slower
@pytest.mark.parametrize(("question", "page"), QUESTIONS.items())
def test_a_newcomer_finds_the_page(site, question, page, tmp_path):
    """Among the first five of the site's own search, in a browser."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        pytest.skip("chromium is not installed")
    found = results_of_search(browser, site, question, tmp_path)
    assert page in found[:5]


def results_of_search(browser, site, question, folder):
    query = urllib.parse.urlencode({"q": question})
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    run = subprocess.run(
        [
            *(browser, "--headless", "--disable-gpu", "--dump-dom", *sandbox),
            *("--virtual-time-budget=10000", f"--user-data-dir={folder}"),
            f"{(site / 'search.html').as_uri()}?{query}",
        ],
        capture_output=True,
        text=True,
        timeout=60,
    )
    listed = run.stdout.partition('id="search-results"')[2]
    links = re.findall(r"<li[^>]*><a href=\"([^\"#?]*)\.html[^\"]*\"", listed)
    return list(dict.fromkeys(link.removeprefix("./") for link in links))
