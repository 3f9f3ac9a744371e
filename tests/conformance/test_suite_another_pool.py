# SPDX-License-Identifier: Apache-2.0
"""A third party's view: the page in docs/how-to, as it stands."""

from __future__ import annotations

import re
from pathlib import Path

from test_suite_bundled import TESTS, compilepool

PAGE = TESTS.parent / "docs" / "how-to" / "conformance.md"


def test_the_example_of_the_page_puts_another_pool_under_the_suite(tmp_path: Path):
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    lines = [line for line in code.splitlines() if line.strip() and not line.startswith("#")]
    assert len(lines) <= 10
    (tmp_path / "my_requirements.py").write_text(code)
    (command,) = re.findall(r"^\$ compilepool (run --requirements .*)$", PAGE.read_text(), re.MULTILINE)
    status, output = compilepool(*command.split(), "--mode", "smoke", folder=tmp_path, PYTHONPATH=str(TESTS))
    assert status == 0, output
    assert "my pool: python" in output
