"""The API reference: a page for each public name, out of its docstring.

Docstrings are Markdown with Google's sections, as in Keras. Words in backquotes that
are public names become links, here and on every other page of the site.
"""

import importlib
import inspect
import pathlib
import re
import textwrap

import keras
from sphinx.util import logging

# What is public: the names in `__all__` of these, or else those here.
MODULES = {
    "keras_nanode": None,
    "keras_nanode.layers": None,
    "keras_nanode.bases": None,
    "keras_nanode.models": None,
    "keras_nanode.datasets": None,
    "keras_nanode.metrics": None,
    "keras_nanode.callbacks": None,
    "keras_nanode.visualize": None,
    "keras_nanode.solvers": None,
    "keras_nanode.tableaus": ["ALL", "Tableau"],
    "keras_nanode.adjoints": None,
    "keras_nanode.stepping": None,
}
SECTIONS = (
    "Args|Attributes|Call arguments|Example|Input shape|Output shape|Raises"
    "|References|Returns|Warns"
)
_FENCE = re.compile(r"^ *(`{3,}|~{3,}).*?^ *\1`*~* *$", re.DOTALL | re.MULTILINE)
_SPAN = re.compile(r"(?<![`\[}])`([A-Za-z_][\w.]*)(?:\([^`\n]*\))?`(?!`)")


def public() -> dict[str, object]:
    """Public things by full name. A module is none: it has a page with its names."""
    found = {}
    for module, names in MODULES.items():
        module = importlib.import_module(module)
        for name in names or module.__all__:
            thing = getattr(module, name)
            if not inspect.ismodule(thing):
                found[f"{module.__name__}.{name}"] = thing
    return found


def write(folder: pathlib.Path) -> None:
    """Writes the pages, and leaves those alone that are as they should be."""
    pages = {"index.md": _index()}
    for module in MODULES:
        pages[f"{module}.md"] = _module_page(module)
    for name, thing in public().items():
        pages[f"{name}.md"] = page(name, thing)
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.md"):
        if old.name not in pages:
            old.unlink()
    for file, text in pages.items():
        path = folder / file
        if not path.exists() or path.read_text() != text:
            path.write_text(text)


def page(name: str, thing: object) -> str:
    title = f"# {name.removeprefix('keras_nanode.')}\n"
    first = next(key for key, other in public().items() if other is thing)
    if first != name and callable(thing):
        return f"{title}\n{_directive(name, thing, f'The same as `{first}`.')}\n"
    parts = [title, _directive(name, thing, _text(name, thing))]
    parts += [
        _directive(f"{name}.{key}", method, markdown(inspect.getdoc(method) or ""))
        for key, method in methods(thing)
    ]
    return "\n".join(parts)


def methods(thing: object) -> list[tuple[str, object]]:
    """What a class of ours has that a class of Keras has not, if it is documented."""
    if not inspect.isclass(thing):
        return []
    of_keras = {*dir(keras.Model), *dir(keras.callbacks.Callback), *dir(tuple)}
    return [
        (name, value)
        for name, value in inspect.getmembers(thing)
        if not name.startswith("_") and name not in of_keras
        if callable(value) or isinstance(value, property)
        if (value.__doc__ or "").strip() and not inspect.isclass(value)
    ]


def markdown(doc: str) -> str:
    """A docstring as Markdown: sections have bold names, and arguments a list."""
    pieces = re.split(rf"^({SECTIONS}):$", inspect.cleandoc(doc), flags=re.MULTILINE)
    parts = [_examples(pieces[0])]
    for name, body in zip(pieces[1::2], pieces[2::2], strict=True):
        lines = body.strip("\n").splitlines()
        inside = [line for line in lines if not line or line.startswith(" ")]
        ended = len(lines)
        if name != "Example":  # text that is not indented stands behind the section
            ended = len(lines) if len(inside) == len(lines) else _first_outside(lines)
        text = textwrap.dedent("\n".join(lines[:ended]))
        if name in ("Args", "Attributes", "Call arguments", "Raises", "Warns"):
            text = re.sub(r"^(\w[\w, *]*):\s", r"- `\1`: ", text, flags=re.MULTILINE)
        parts += [f"**{name}**", _examples(text), _examples("\n".join(lines[ended:]))]
    return "\n\n".join(part.strip("\n") for part in parts if part.strip()) + "\n"


def link_names(app, docname, source) -> None:
    if not docname.startswith("tutorials/"):  # which are scripts
        source[0] = linked(source[0], docname)


def link_included_names(app, path, docname, source) -> None:
    source[0] = linked(source[0], docname)


def linked(text: str, docname: str) -> str:
    """Text in which public names in backquotes, outside of code, are links.

    Links to the files of `benchmarks/`, which GitHub follows, lead to their pages.
    """
    text = re.sub(r"\]\(engines/compare\.md\)", "](/results/engines.md)", text)
    text = re.sub(r"\]\([./]*benchmarks/(\w+)\.md\)", r"](/results/\1.md)", text)
    parts, last = [], 0
    for fence in _FENCE.finditer(text):
        # Directives hold text, and other fences code.
        code = not re.match(r" *`{3,}\{py:", fence[0])
        parts.append(_linked(text[last : fence.start()], docname))
        parts.append(fence[0] if code else _linked(fence[0], docname))
        last = fence.end()
    return "".join([*parts, _linked(text[last:], docname)])


def _linked(text, docname):
    def link(match):
        name = _full_name(match[1], docname)
        return f"{{py:obj}}`{match[0][1:-1]} <{name}>`" if name else match[0]

    return _SPAN.sub(link, text)


def _full_name(word, docname):
    """The full name of a public thing. A word in a public module has to be one."""
    names = _NAMES
    for name in (word, f"keras_nanode.{word}", _SHORT.get(word)):
        if name in names:
            return name
    first, _, rest = word.removeprefix("keras_nanode.").partition(".")
    if rest and f"keras_nanode.{first}" in MODULES and not rest.endswith(("py", "md")):
        thing = importlib.import_module(f"keras_nanode.{first}")
        for part in rest.split("."):
            thing = getattr(thing, part, None)
        if thing is None:
            logging.getLogger(__name__).warning(
                "keras_nanode has no %s.%s", first, rest, location=docname
            )
    return None


def _names() -> set[str]:
    found = public()
    inner = {f"{name}.{key}" for name, x in found.items() for key, _ in methods(x)}
    return {*found, *inner}


_NAMES = _names()
# The names of classes say enough: each is of one thing.
_SHORT = {
    name.rpartition(".")[2]: name
    for name, thing in reversed(public().items())
    if inspect.isclass(thing)
}


def _first_outside(lines):
    return next(i for i, x in enumerate(lines) if x and not x.startswith(" "))


def _examples(text):
    """Examples in fences. One goes on to the next empty line."""
    pattern = r"(?:^>>> .*\n(?:.+\n)*\n?)+"
    fenced = re.sub(
        pattern,
        lambda m: f"```pycon\n{m[0].rstrip()}\n```\n\n",
        text.rstrip() + "\n",
        flags=re.MULTILINE,
    )
    return fenced.rstrip()


def _text(name, thing):
    if callable(thing) and (inspect.isclass(thing) or inspect.isroutine(thing)):
        return markdown(inspect.getdoc(thing) or "")
    if isinstance(thing, dict):
        names = ", ".join(f"`{key}`" for key in thing)
        return f"The known names, each with what it stands for: {names}.\n"
    if isinstance(thing, (tuple, list)):
        return "The known names: " + ", ".join(f"`{key}`" for key in thing) + ".\n"
    text = str(thing).replace("typing.", "").replace("keras_nanode.", "")
    return f"What an argument may be, as a type:\n\n```python\n{text}\n```\n"


def _directive(name, thing, body):
    if inspect.isclass(thing):
        kind = "class"
    elif isinstance(thing, property):
        kind = "property"
    elif callable(thing) and inspect.isroutine(thing):
        kind = "method" if name.removeprefix("keras_nanode.").count(".") > 1 else None
        kind = kind or "function"
    else:
        kind = "data"
    shown = kind in ("class", "function", "method")
    return f"````{{py:{kind}}} {name}{_signature(thing) if shown else ''}\n{body}````\n"


def _signature(thing):
    """Names and defaults. The text says what an argument may be."""
    try:
        given = inspect.signature(thing)
    except ValueError:
        return "()"
    parameters = [
        p.replace(annotation=p.empty)
        for p in given.parameters.values()
        if p.name != "self"
    ]
    return str(inspect.Signature(parameters))


def _index():
    lines = ["# API reference\n", "Each public name has a page.\n"]
    for module in MODULES:
        lines += [f"- [{module}]({module}.md): {_first_sentence(module)}"]
    return "\n".join([*lines, "", _toctree(MODULES)])


def _module_page(module):
    lines = [f"# {module}\n", f"{_first_sentence(module)}\n"]
    names = [name for name in public() if name.rpartition(".")[0] == module]
    lines += ["| name | |", "|---|---|"]
    for name in names:
        doc = markdown(_text(name, public()[name])).partition("\n\n")[0]
        doc = " ".join(doc.split()).replace("|", "\\|")
        sentence = re.split(r"(?<=\.) (?=[A-Z])", doc)[0]
        lines.append(f"| [`{name.rpartition('.')[2]}`]({name}.md) | {sentence} |")
    return "\n".join([*lines, "", _toctree(names)])


def _first_sentence(module):
    return (importlib.import_module(module).__doc__ or "").partition("\n")[0]


def _toctree(names):
    return "\n".join(["```{toctree}", ":hidden:", "", *names, "```", ""])
