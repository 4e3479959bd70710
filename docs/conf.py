"""The documentation site, built by Sphinx: ``sphinx-build -W --keep-going docs build/site``."""

from pathlib import Path

from docutils import nodes
from sphinx.addnodes import download_reference
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform

from nx47dask.version import __version__

ROOT = Path(__file__).resolve().parents[1]

project = "nx47dask"
version = release = __version__
html_title = f"nx47dask {__version__}"

extensions = ["myst_parser", "sphinx.ext.autodoc", "numpydoc"]
html_theme = "furo"
html_theme_options = {
    "source_repository": "https://github.com/nx47dask/nx47dask",
    "source_branch": "main",
    "source_directory": "docs/",
}
html_copy_source = False
html_static_path = ["_static"]
html_css_files = ["wide.css"]

myst_heading_anchors = 3  # the anchors of GitHub, so that links to a section are checked
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the types are in the docstrings, in words
python_maximum_signature_line_length = 100
numpydoc_show_class_members = False  # the members follow, each with its docstring


class RepositoryLinks(SphinxTransform):
    """Send links to files beside ``docs/`` to the repository; a link to no file stays a warning."""

    default_priority = 400

    def apply(self, **_: object) -> None:
        repository = f"{html_theme_options['source_repository']}/blob/{html_theme_options['source_branch']}"
        for link in list(self.document.findall(download_reference)):
            target = (Path(self.env.srcdir) / link["refdoc"]).parent / link["reftarget"]
            path = target.resolve().relative_to(ROOT).as_posix()
            link.replace_self(nodes.reference("", "", *link.children, refuri=f"{repository}/{path}"))


def setup(app: Sphinx) -> None:
    app.add_transform(RepositoryLinks)
