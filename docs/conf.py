"""How the site is built. CONTRIBUTING.md has the command."""

import os
import pathlib
import sys

HERE = pathlib.Path(__file__).parent
# The readers of pages are modules beside this file, and the package is the clone's.
sys.path[:0] = [str(HERE), str(HERE.parent)]
# Kernels of tutorials are processes of their own.
os.environ["PYTHONPATH"] = os.pathsep.join(
    [str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
)

import api_pages  # noqa: E402
import drawing  # noqa: E402

import keras_nanode  # noqa: E402

project = "keras_nanode"
author = "The authors of keras_nanode"
version = release = keras_nanode.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.githubpages",  # GitHub's pages serve folders with an underscore then
    "sphinx_copybutton",
    "sphinx_design",
]
exclude_patterns = ["*.py", "**/__pycache__"]  # those here are no pages
nitpicky = True
toc_object_entries_show_parents = "hide"

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3

# Tutorials run in every build, and an error in one ends it.
nb_custom_formats = {".py": "script_pages.read"}
nb_execution_mode = "force"
nb_execution_timeout = 180
nb_execution_raise_on_error = True
# What TensorFlow says of the machine is no part of a tutorial.
nb_output_stderr = "remove"
nb_merge_streams = True

copybutton_exclude = ".linenos, .gp, .go"

html_theme = "pydata_sphinx_theme"
html_title = "keras_nanode"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_search_scorer = str(HERE / "scorer.js")
# Pages without others beside them need no list of these.
_ALONE = ("install", "faq", "how_it_works", "backends", "contributing", "changelog")
html_sidebars = {page: [] for page in _ALONE}
html_show_sourcelink = False
html_theme_options = {
    "navbar_align": "left",
    "header_links_before_dropdown": 8,
    "navigation_with_keys": False,
    "show_prev_next": True,
    "secondary_sidebar_items": ["page-toc"],
}

# Where the site is published, with a slash at the end: then pages name their address,
# and a switch lists the versions in _static/versions.json. No page needs it to be read.
html_baseurl = os.environ.get("DOCS_URL", "")
if html_baseurl:
    html_theme_options |= {
        "switcher": {
            "json_url": f"{html_baseurl}_static/versions.json",
            "version_match": release,
        },
        "navbar_end": ["version-switcher", "theme-switcher"],
        "check_switcher": False,  # which would ask the network during the build
    }


def setup(app):
    api_pages.write(HERE / "api")
    drawing.write(HERE / "_generated")
    app.connect("source-read", api_pages.link_names)
    app.connect("include-read", api_pages.link_included_names)
