# SPDX-License-Identifier: Apache-2.0
"""The site is built without a warning, and no link in it is dead. Links to elsewhere are looked at and not followed."""

from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 300
"""It takes 7 s of CPU; several times that where others want the same CPUs."""

LINKING = {
    "a": "href",
    "link": "href",
    "img": "src",
    "script": "src",
    "object": "data",
    "source": "src",
    "iframe": "src",
}
"""The attribute of each tag that leads elsewhere."""


class Page(HTMLParser):
    """What a page links to, and what can be linked to in it."""

    def __init__(self, file):
        super().__init__()
        self.links, self.anchors = [], set()
        self.feed(file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        told = dict(attributes)
        self.anchors |= {told[name] for name in ("id", "name") if told.get(name)}
        if told.get(LINKING.get(tag, "")) is not None:
            self.links.append(told[LINKING[tag]])


class Site:
    """A folder of pages. reached: every file that one comes to from index.html; dead: `PAGE: LINK: why`."""

    def __init__(self, folder):
        self.folder, self.pages, self.reached, self.dead = folder.resolve(), {}, set(), []
        to_see = [self.folder / "index.html"]
        while to_see:
            file = to_see.pop()
            if file in self.reached:
                continue
            self.reached.add(file)
            if file.suffix == ".html":
                to_see += [target for link in self.page(file).links if (target := self._target(file, link))]

    def page(self, file):
        if file not in self.pages:
            self.pages[file] = Page(file)
        return self.pages[file]

    def _target(self, file, link):
        """The file that it leads to; None where it leads elsewhere or nowhere."""
        parts = urlsplit(link)
        if parts.scheme or parts.netloc:
            well_formed = parts.scheme == "https" and re.fullmatch(r"[a-z0-9-]+(\.[a-z0-9-]+)+", parts.netloc)
            if parts.scheme not in ("data", "mailto") and (not well_formed or re.search(r"[\s<>\"]", link)):
                self._tell(file, link, "no address")
            return None
        target = (file.parent / unquote(parts.path)).resolve() if parts.path else file
        if not target.is_relative_to(self.folder) or not target.is_file():
            self._tell(file, link, "no such file")
            return None
        if (
            parts.fragment
            and target.suffix == ".html"
            and unquote(parts.fragment) not in self.page(target).anchors
        ):
            self._tell(file, link, "no such anchor")
        return target

    def _tell(self, file, link, why):
        self.dead.append(f"{file.relative_to(self.folder)}: {link}: {why}")


def test_it_is_whole(tmp_path):
    for name in ("sphinx", "myst_parser", "furo"):
        pytest.importorskip(name, reason=f"{name} is not installed (dependency group docs)")
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-q",
        "-c",
        "docs",
        "-W",
        "-n",
        "--keep-going",
        "-d",
        tmp_path / "trees",
    ]
    built = subprocess.run(
        [*command, ".", tmp_path / "site"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    assert built.stderr == ""

    site = Site(tmp_path / "site")
    assert site.dead == []
    reached = {file.relative_to(site.folder).as_posix() for file in site.reached}
    pages = [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "benchmarks").rglob("*.md"),
        *(ROOT / "examples").rglob("*.md"),
    ]
    for page in pages:
        assert page.relative_to(ROOT).with_suffix(".html").as_posix() in reached
    # What one looks at rather than reads, wherever it was copied to.
    names = {Path(name).name for name in reached}
    pictures = [
        *(ROOT / "benchmarks").glob("*.svg"),
        *(ROOT / "docs").rglob("*.svg"),
        *(ROOT / "docs").rglob("*.png"),
    ]
    assert {picture.name for picture in pictures} <= names
    assert "docs/matrix/matrix.html" in reached


@pytest.mark.parametrize(
    ("body", "dead"),
    [
        ('<a href="other.html#there">', []),
        ('<a href="#here"><p id="here">', []),
        ('<a href="other.html#gone">', ["index.html: other.html#gone: no such anchor"]),
        ('<a href="#gone">', ["index.html: #gone: no such anchor"]),
        ('<a href="gone.html">', ["index.html: gone.html: no such file"]),
        ('<img src="gone.png">', ["index.html: gone.png: no such file"]),
        ('<a href="../outside.md">', ["index.html: ../outside.md: no such file"]),
        ('<a href="https://github.com/pytorch/pytorch/issues/1">', []),
        ('<a href="https://github">', ["index.html: https://github: no address"]),
        ('<a href="http//github.com/a">', ["index.html: http//github.com/a: no such file"]),
        ('<a href="https://github.com/a b">', ["index.html: https://github.com/a b: no address"]),
        ('<a href="https:///issues">', ["index.html: https:///issues: no address"]),
    ],
)
def test_a_dead_link_is_seen(tmp_path, body, dead):
    (tmp_path / "outside.md").touch()
    site = tmp_path / "site"
    site.mkdir()
    (site / "index.html").write_text(body)
    (site / "other.html").write_text('<h1 id="there">')
    assert Site(site).dead == dead


def test_a_dead_link_is_seen_further_on(tmp_path):
    (tmp_path / "index.html").write_text('<a href="a/b.html">')
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b.html").write_text('<a href="../index.html"><a href="../gone.html">')
    site = Site(tmp_path)
    assert site.dead == ["a/b.html: ../gone.html: no such file"]
    assert {file.name for file in site.reached} == {"index.html", "b.html"}
