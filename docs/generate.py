# SPDX-License-Identifier: Apache-2.0
"""Write what the documentation has from the code: `python docs/generate.py`, and `--check` to only look.

In a page of `docs`, between `<!-- generated: NAME ARGUMENT -->` and `<!-- end -->`, stands what the block of that name in
`_generate` makes. All else is written by hand. The result is checked in, so that it reads on GitHub.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS))

from _generate import BLOCKS  # noqa: E402  # it lies beside this file, which may be run from anywhere

_BLOCK = re.compile(
    r"(?P<begin><!-- generated: (?P<name>[a-z-]+)(?: (?P<argument>[^>]+?))? -->\n).*?(?P<end><!-- end -->\n)",
    re.DOTALL,
)


def renewed(page: Path) -> str:
    """The text of a page with its blocks made anew. Raises KeyError for a name that there is not,
    ValueError for a block without an end."""

    text = page.read_text(encoding="utf-8")
    if text.count("<!-- generated: ") != len(_BLOCK.findall(text)):
        raise ValueError(
            f"{page.name}: a block of <!-- generated: ... --> has no <!-- end --> before the next"
        )

    def block(found: re.Match[str]) -> str:
        made = BLOCKS[found["name"]]
        text = made(page) if found["argument"] is None else made(page, found["argument"])
        inside = f"\n{text.strip()}\n\n" if text.strip() else ""
        return f"{found['begin']}{inside}{found['end']}"

    return _BLOCK.sub(block, text)


def pages() -> list[Path]:
    """Every page that has a block."""
    return [
        page for page in sorted(DOCS.rglob("*.md")) if "<!-- generated: " in page.read_text(encoding="utf-8")
    ]


def stale() -> list[Path]:
    """The pages that are not as they would be made now."""
    return [page for page in pages() if renewed(page) != page.read_text(encoding="utf-8")]


def main(arguments: list[str]) -> int:
    """Returns 0, or with `--check` 1 where a page is not up to date."""
    if arguments not in ([], ["--check"]):
        print("usage: python docs/generate.py [--check]", file=sys.stderr)
        return 2
    old = stale()
    for page in old:
        print(f"{page.relative_to(DOCS.parent)}: {'not up to date' if arguments else 'written'}")
        if not arguments:
            page.write_text(renewed(page), encoding="utf-8")
    return 1 if arguments and old else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
