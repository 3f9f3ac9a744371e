# SPDX-License-Identifier: Apache-2.0
"""What the plugin costs where nobody uses it, and what fresh workers cost against a fresh sidecar.

    python benchmarks/overhead.py [--pairs 11] [--tests 2000] [--json]

Runs with and without the plugin alternate, so that a machine whose speed drifts is the same for both; the
figures are medians of the pairs' differences and ratios. The second half needs torch.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

WITH, WITHOUT = ("-p", "compilepool"), ("-p", "no:compilepool")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=11, help="alternating pairs of runs")
    parser.add_argument("--tests", type=int, default=2000, help="empty tests in the long run")
    parser.add_argument("--recycles", type=int, default=20, help="recycles to time")
    parser.add_argument("--sidecars", type=int, default=3, help="new sidecars to time")
    parser.add_argument("--json", action="store_true", help="raw figures instead of a table")
    arguments = parser.parse_args()
    rows = [start_up(arguments.pairs), one_test(arguments.pairs, arguments.tests)]
    rows += recycle(arguments.recycles, arguments.sidecars)
    if arguments.json:
        print(json.dumps({"machine": machine(), "rows": rows}, indent=2))
        return 0
    print(machine())
    print(f"{'what':<58}{'figure':>14}{'goal':>12}")
    for row in rows:
        print(f"{row['what']:<58}{row['figure']:>14}{row['goal']:>12}")
    return 0


def machine() -> str:
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{cpus} cpus, {platform.machine()}, Python {platform.python_version()}"


def start_up(pairs: int) -> dict[str, Any]:
    """One empty test: the whole run, with the plugin less without it."""
    differences = alternate("def test_one(): pass\n", pairs)
    return row("start-up of pytest, against -p no:compilepool", differences, 1e3, "ms more", "<= 20 ms")


def one_test(pairs: int, tests: int) -> dict[str, Any]:
    """Many empty tests: what is more than start-up, by test."""
    source = f"import pytest\n@pytest.mark.parametrize('n', range({tests}))\ndef test_one(n): pass\n"
    many = alternate(source, pairs)
    few = alternate("def test_one(): pass\n", pairs)
    start = statistics.median(few)
    differences = [(difference - start) / tests for difference in many]
    return row("a test that uses nothing, the same", differences, 1e3, "ms more", "<= 0.1 ms")


def alternate(source: str, pairs: int) -> list[float]:
    """Seconds that a run takes longer with the plugin, by pair."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "test_it.py").write_text(source)
        run(folder, WITHOUT)  # byte-compiles, and fills the page cache
        run(folder, WITH)
        return [run(folder, WITH) - run(folder, WITHOUT) for _ in range(pairs)]


def run(folder: str, plugin: tuple[str, ...]) -> float:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *plugin, "test_it.py"]
    began = time.perf_counter()
    process = subprocess.Popen(
        command,
        cwd=folder,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        stdout=subprocess.DEVNULL,
    )
    # Not wait(timeout): that looks every 50 ms only, which is more than what is measured here.
    limit = threading.Timer(600, process.kill)
    limit.start()
    status = process.wait()
    took = time.perf_counter() - began
    limit.cancel()
    if status:
        raise SystemExit(f"{' '.join(command)} ended with status {status}")
    return took


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
