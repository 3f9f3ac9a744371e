# SPDX-License-Identifier: Apache-2.0
"""An output that is closed, or full: nothing to say, or one sentence, and never a traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

MUTANTS = Path(__file__).parents[1] / "mutants"
LIST = [sys.executable, "-m", "pytest_compilepool.cli", "mutants", "--list", str(MUTANTS)]


def ended(shell: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """What `mutants --list` did with an output that the shell has made."""
    return subprocess.run(
        ["sh", "-c", f'exec "$@" {shell}', "sh", *LIST],
        env={**os.environ, **environ},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_closed_output_is_nobodys_fault():
    done = ended(">&-")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full, of Linux")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_output_is_told_in_one_sentence(unbuffered):
    done = ended(">/dev/full", PYTHONUNBUFFERED=unbuffered)
    assert (done.returncode, done.stderr) == (
        1,
        "compilepool mutants: the output cannot be written: No space left on device\n",
    )
