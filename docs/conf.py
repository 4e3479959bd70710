"""The documentation site, built by Sphinx: ``sphinx-build -W --keep-going docs build/site``."""

from pathlib import Path

from docutils import nodes
from sphinx.addnodes import download_reference, pending_xref
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform

from nx47dask.version import __version__

ROOT = Path(__file__).resolve().parents[1]
REPOSITORY = "https://github.com/nx47dask/nx47dask"
INCLUDED = {"README": "index", "CONTRIBUTING": "contributing", "CHANGELOG": "changelog"}
"""Files at the root, and the pages that include them."""

project = "nx47dask"
version = release = __version__
html_title = f"nx47dask {__version__}"

extensions = ["myst_parser", "sphinx.ext.autodoc", "numpydoc"]
html_theme = "furo"
html_theme_options = {
    "source_repository": REPOSITORY,
    "source_branch": "main",
    "source_directory": "docs/",
}
html_copy_source = False
html_show_copyright = False
html_static_path = ["_static"]
html_css_files = ["wide.css"]

myst_heading_anchors = 3  # the anchors of GitHub, so that links to a section are checked
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the types are in the docstrings, in words
python_maximum_signature_line_length = 100
numpydoc_show_class_members = False  # the members follow, each with its docstring


class LinksOutOfDocs(SphinxTransform):
    """Send links to files beside ``docs/`` to the page that includes the file, or to the repository.

    A link to no file stays a warning.
    """

    default_priority = 400

    def apply(self, **_: object) -> None:
        for link in list(self.document.findall(pending_xref)):
            page = Path(link["reftarget"])  # MyST gives a Markdown file beside docs/ by its path without the suffix
            if link["refdomain"] == "doc" and page.is_absolute():
                if page.name in INCLUDED and page.parent == ROOT:
                    link["reftarget"] = INCLUDED[page.name]
                else:
                    _link_to_repository(link, page.with_name(f"{page.name}.md"))
            elif page.stem in INCLUDED and page.name == f"{page.stem}.md":  # from one included file to another
                link.attributes.update(refdomain="doc", reftarget=INCLUDED[page.stem], reftargetid=None)
        for link in list(self.document.findall(download_reference)):
            _link_to_repository(link, Path(self.env.srcdir, link["refdoc"]).parent / link["reftarget"])


def _link_to_repository(link: nodes.Element, file: Path) -> None:
    path = file.resolve().relative_to(ROOT).as_posix()
    link.replace_self(nodes.reference("", "", *link.children, refuri=f"{REPOSITORY}/blob/main/{path}"))


def setup(app: Sphinx) -> None:
    app.add_transform(LinksOutOfDocs)
