# SPDX-License-Identifier: Apache-2.0
"""pytest-xdist --dist loadgroup: do the tests of one group run on one worker?"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from bounded import report

_TESTS = """\
import os

import pytest


@pytest.mark.xdist_group("one")
@pytest.mark.parametrize("number", range(12))
def test_it(number):
    with open("workers", "a") as file:
        file.write(os.environ["PYTEST_XDIST_WORKER"] + "\\n")
"""


def check() -> tuple[bool, str]:
    import pytest

    Path("test_group.py").write_text(_TESTS)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "xdist", "-p", "no:cacheprovider", "-n", "2"]
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    subprocess.run(
        [*command, "--dist", "loadgroup", "test_group.py"], env=environment, timeout=60, check=True
    )
    workers = sorted(set(Path("workers").read_text().split()))
    return len(
        workers
    ) > 1, f"12 tests of one group ran on {len(workers)} of 2 workers, with pytest {pytest.__version__}"


if __name__ == "__main__":
    report(check, "pytest-xdist")
