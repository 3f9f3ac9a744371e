# SPDX-License-Identifier: Apache-2.0
"""How the documentation is built: `sphinx-build -c docs -W -n --keep-going . build/docs`.

The source folder is the root of the repository, not `docs`: so README, changelog and benchmarks are pages as well, and every
relative link between the files, which has to lead somewhere on GitHub, does so here, too, and is checked.
"""

from __future__ import annotations

import re
import shutil
from importlib import metadata
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform
from sphinx.util.matching import patfilter

project = "pytest-compilepool"
author = "the developers of pytest-compilepool"
try:
    version = release = metadata.version(project)
except metadata.PackageNotFoundError:
    version = release = ""

extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
root_doc = "docs/index"
# Nobody looks through environments, caches and builds.
exclude_patterns = [".*", "build", "dist", "cells", "**/__pycache__", "**/.*"]
include_patterns = ["*.md", "docs/**", "benchmarks/**", "examples/**"]

myst_heading_anchors = 3  # as GitHub makes them
highlight_language = "none"  # of blocks that name none: output of commands

html_theme = "furo"
html_title = project
html_static_path = ["_static"]
html_css_files = ["narrow.css"]
html_show_copyright = html_show_sphinx = html_copy_source = False
templates_path = ["_templates"]
# The first page is docs/index.html; whoever asks for the site itself is sent there.
html_additional_pages = {"index": "to-the-first-page.html"}


class FilesAsTheyAre(SphinxTransform):
    """A link to a file that is no page leads to a copy at the same place in the site, which a browser opens.

    As a download it would get a folder with a number for a name, and a page such as the matrix could not be looked at.
    """

    default_priority = 500

    def apply(self, **kwargs: Any) -> None:
        """Turn the downloads of one document into plain links."""
        for node in [*self.document.findall(addnodes.download_reference)]:
            if "://" in node["reftarget"]:
                continue
            file, _ = self.env.relfn2path(node["reftarget"], self.env.docname)
            up = "../" * self.env.docname.count("/")
            link = nodes.reference("", "", *node.children, internal=True, refuri=up + file, copied=file)
            node.replace_self(link)


def copy_files(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Copy what a page links to. Called for each page that is written."""
    for node in doctree.findall(nodes.reference):
        if "copied" in node and app.builder.format == "html":
            target = Path(app.outdir, node["copied"])
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(Path(app.srcdir, node["copied"]), target)


def without_empty_parts(app: Sphinx, docname: str, source: list[str]) -> None:
    """Take patterns that find no page out of the table of contents: a part may be there before its first page is."""
    if docname != root_doc:
        return

    def finds(pattern: str) -> bool:
        whole = pattern[1:] if pattern.startswith("/") else f"docs/{pattern}"
        return any(patfilter(app.env.found_docs, whole))

    lines = source[0].splitlines()
    source[0] = "\n".join(line for line in lines if not re.fullmatch(r"\S+\*", line) or finds(line))


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.add_transform(FilesAsTheyAre)
    app.connect("doctree-resolved", copy_files)
    app.connect("source-read", without_empty_parts)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
