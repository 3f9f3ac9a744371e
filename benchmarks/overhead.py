# SPDX-License-Identifier: Apache-2.0
"""What the plugin costs where nobody uses it, and what fresh workers cost against a fresh sidecar.

    python benchmarks/overhead.py [--pairs 11] [--tests 2000] [--json]

Runs with and without the plugin alternate, so that a machine whose speed drifts is the same for both; the
figures are medians of the pairs' differences and ratios. Both clocks are shown: beside others who use the same CPUs
only CPU time means anything. Everything is byte-compiled, as what pip has installed is, into a folder of this run's own.
The second half needs torch.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from common import machine, parser_of

WITH, WITHOUT = ("-p", "compilepool"), ("-p", "no:compilepool")


def main() -> int:
    parser = parser_of(__doc__, 11, "alternating pairs of runs")
    parser.add_argument("--tests", type=int, default=2000, help="empty tests in the long run")
    parser.add_argument("--recycles", type=int, default=20, help="recycles to time")
    parser.add_argument("--sidecars", type=int, default=3, help="new sidecars to time")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as compiled:
        runs = Runs(Path(compiled), arguments.pairs)
        rows = [*start_up(runs), *one_test(runs, arguments.tests)]
    rows += recycle(arguments.recycles, arguments.sidecars)
    if arguments.json:
        print(json.dumps({"machine": machine(), "rows": rows}, indent=2))
        return 0
    print(machine())
    print(f"{'what':<64}{'figure':>14}{'goal':>12}")
    for row in rows:
        print(f"{row['what']:<64}{row['figure']:>14}{row['goal']:>12}")
    return 0


EMPTY = "def test_one(): pass\n"
CLOCKS = ("wall", "CPU")


class Runs:
    """Pairs of runs of pytest. compiled: folder for byte code, where PYTHONDONTWRITEBYTECODE would have none kept."""

    def __init__(self, compiled: Path, pairs: int) -> None:
        self._pairs = pairs
        self._environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
        self._environment.pop("PYTHONDONTWRITEBYTECODE", None)
        self._environment["PYTHONPYCACHEPREFIX"] = str(compiled)

    def alternate(self, source: str, *options: str) -> list[tuple[float, ...]]:
        """Seconds that a run takes longer with the plugin, by pair and clock."""
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "test_it.py").write_text(source)
            self._run(folder, *WITHOUT, *options)  # byte-compiles, and fills the page cache
            self._run(folder, *WITH, *options)
            found = []
            for number in range(self._pairs):
                # Each goes first in every other pair: the second finds a warmer machine.
                first, second = (WITH, WITHOUT) if number % 2 else (WITHOUT, WITH)
                took = {name: self._run(folder, *name, *options) for name in (first, second)}
                found.append(tuple(one - other for one, other in zip(took[WITH], took[WITHOUT], strict=True)))
            return found

    def _run(self, folder: str, *options: str) -> tuple[float, float]:
        """Seconds by the wall clock, and of CPU time."""
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options, "test_it.py"]
        began = time.perf_counter()
        process = subprocess.Popen(command, cwd=folder, env=self._environment, stdout=subprocess.DEVNULL)
        # Not wait(timeout): that looks every 50 ms only, which is more than what is measured here.
        limit = threading.Timer(600, process.kill)
        limit.start()
        _, status, usage = os.wait4(process.pid, 0)
        took = time.perf_counter() - began
        limit.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)
        if status:
            raise SystemExit(f"{' '.join(command)} ended with status {process.returncode}")
        return took, usage.ru_utime + usage.ru_stime


def start_up(runs: Runs) -> list[dict[str, Any]]:
    """One empty test: the whole run, with the plugin less without it; without and with the header line."""
    quiet, loud = runs.alternate(EMPTY, "-q"), runs.alternate(EMPTY)
    return [
        *by_clock("start-up of pytest -q, against -p no:compilepool", quiet, "<= 20 ms"),
        *by_clock("the same with pytest's header, in which is our line", loud, ""),
    ]


def one_test(runs: Runs, tests: int) -> list[dict[str, Any]]:
    """Many empty tests: what is more than start-up, by test."""
    source = f"import pytest\n@pytest.mark.parametrize('n', range({tests}))\ndef test_one(n): pass\n"
    many, few = runs.alternate(source, "-q"), runs.alternate(EMPTY, "-q")
    start = [statistics.median(times) for times in zip(*few, strict=True)]
    each = [tuple((took - base) / tests for took, base in zip(pair, start, strict=True)) for pair in many]
    return by_clock("a test that uses nothing, the same", each, "<= 0.1 ms")


def by_clock(what: str, seconds: list[tuple[float, ...]], goal: str) -> list[dict[str, Any]]:
    """One row for each clock."""
    return [
        row(f"{what}: {clock}", list(times), 1e3, "ms more", goal)
        for clock, times in zip(CLOCKS, zip(*seconds, strict=True), strict=True)
    ]


def recycle(recycles: int, sidecars: int) -> list[dict[str, Any]]:
    """Fresh workers by recycling against by a new sidecar, 2 processes, in this process."""
    from pytest_compilepool.pool.facade import CompilePool
    from pytest_compilepool.torch_compat import TorchUnavailable, capabilities

    try:
        capabilities()
    except TorchUnavailable as error:
        return [{"what": f"recycle: {error}", "figure": "-", "goal": "<= 1/30"}]
    fresh, again = [], []
    for _ in range(sidecars):
        began = time.perf_counter()
        with CompilePool(2) as pool:
            pool.submit(os.getpid).result(60)
            made = time.perf_counter() - began
            for _ in range(recycles // sidecars + 1):
                began_again = time.perf_counter()
                pool.recycle()
                pool.submit(os.getpid).result(60)
                again.append(time.perf_counter() - began_again)
            ending = time.perf_counter()
        fresh.append(made + time.perf_counter() - ending)
    ratio = statistics.median(fresh) / statistics.median(again)
    return [
        row("a new sidecar: warm, ready, first job, shutdown", fresh, 1.0, "s", ""),
        row("recycle: fresh workers under it, first job", again, 1e3, "ms", ""),
        {
            "what": "recycle against a new sidecar (medians)",
            "figure": f"1/{ratio:.0f}",
            "goal": "<= 1/30",
            "values": [1 / ratio],
        },
    ]


def row(what: str, seconds: list[float], factor: float, unit: str, goal: str) -> dict[str, Any]:
    figure = f"{statistics.median(seconds) * factor:.3g} {unit}"
    return {"what": what, "figure": figure, "goal": goal, "values": seconds}


if __name__ == "__main__":
    sys.exit(main())
