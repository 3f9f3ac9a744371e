# SPDX-License-Identifier: Apache-2.0
"""Types a page's commands, as its reader would: one shell, one folder, nothing of this session's environment."""

from __future__ import annotations

import contextlib
import difflib
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

from blocks import Command

MARK = "COMPILEPOOL_PAGE"
"""Set in all that a page starts, so that what it leaves behind is found."""

_PASSED_ON = (
    "LANG",
    "LC_ALL",
    "PIP_INDEX_URL",
    "PIP_EXTRA_INDEX_URL",
    "PIP_FIND_LINKS",
    "PIP_CONFIG_FILE",
    "SSL_CERT_FILE",
)
_SAME = (
    (r"\x1b\[[0-9;]*m", ""),
    # What pytest adds to seconds when there are more than a minute of them.
    (r"(?<=\ds) \(\d+:\d\d:\d\d\)", ""),
    (r"(?<![\w.])\d+\.\d+(?!\.?\d)", "0.0"),
    (r"\bpid \d+", "pid 0"),
    (r"([=_-])\1{2,}", r"\1\1\1"),
)


class Shell:
    """folder: where it begins; bin: the folder of the `python`, `pytest` and `compilepool` that are found first."""

    def __init__(self, folder: Path, bin: Path, room: Path) -> None:
        self._state, self.mark = room / "state.sh", os.urandom(8).hex()
        home, temporary = room / "home", room / "tmp"
        home.mkdir()
        temporary.mkdir()
        self._environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ} | {
            "PATH": f"{bin}:/usr/local/bin:/usr/bin:/bin",
            "HOME": str(home),
            "TMPDIR": str(temporary),
            "COLUMNS": "80",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PIP_ROOT_USER_ACTION": "ignore",
            # What a reader has not installed shuffles nothing.
            "PYTEST_ADDOPTS": "-p no:randomly -p no:cacheprovider",
            MARK: self.mark,
        }
        self._state.write_text(f"cd {shlex.quote(str(folder))}\n")

    def type(self, command: Command) -> tuple[int, str]:
        """Its status (-1: it was ended after its limit) and all that it printed."""
        state = shlex.quote(str(self._state))
        keep = f'keep() {{ {{ export -p; printf "cd %q\\n" "$PWD"; }} > {state}; }}; trap keep EXIT'
        # -e: of several commands on a line, or in a loop, the first that fails is the one whose status it is.
        script = f". {state}\n{keep}\nset -e -o pipefail\n{command.typed}"
        with subprocess.Popen(
            ["bash", "-c", script],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        ) as process:
            try:
                return _outcome(process, command.limit)
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)

    def left(self) -> list[str]:
        """The command lines of the processes that live and were started in here."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if f"{MARK}={self.mark}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                    found.append(
                        (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    )
        return found


def _outcome(process: subprocess.Popen[str], limit: float) -> tuple[int, str]:
    try:
        out, _ = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, _ = process.communicate()
        return -1, out
    return process.returncode, out


def difference(wanted: str, printed: str) -> str:
    """Nothing where it printed what the page says; else both, side by side."""
    wanted, printed = _plain(wanted), _plain(printed)
    if not wanted or re.fullmatch("".join(map(_pattern, wanted.splitlines())), printed):
        return ""
    return "\n".join(difflib.ndiff(wanted.splitlines(), printed.splitlines()))


def _plain(text: str) -> str:
    for pattern, plain in _SAME:
        text = re.sub(pattern, plain, text)
    return "".join(f"{' '.join(line.split())}\n" for line in text.splitlines() if line.strip())


def _pattern(line: str) -> str:
    """`...` on a line of its own stands for any lines, in a line for the rest of it or a part of it."""
    return "(?:.*\\n)*?" if line == "..." else re.escape(line).replace(re.escape("..."), ".*") + "\\n"


def bare_python() -> Path:
    """The folder of an interpreter that nothing was installed into: the one that this environment was made from."""
    return Path(sys.base_prefix) / "bin"
