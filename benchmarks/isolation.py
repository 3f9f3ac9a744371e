# SPDX-License-Identifier: Apache-2.0
"""What a test with a pool costs: with the fixture, by hand, and first in its session with and without prestart.

    python benchmarks/isolation.py [--tests 20] [--by-hand 5] [--pairs 3] [--json]

Whole sessions of pytest in processes of their own, which alternate; a test's time is that of its setup, call and
teardown. Needs torch.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from common import machine, parser_of

LIMIT = 600  # seconds for a session

CONFTEST = """
import collections, json, os
took = collections.defaultdict(dict)

def pytest_runtest_logreport(report):
    assert report.outcome == "passed", report.longreprtext
    took[report.nodeid.partition("::")[2]][report.when] = report.duration

def pytest_unconfigure():
    with open(os.environ["TOOK"], "w") as file:
        json.dump(took, file)
"""

FIXTURE = """
import os
import pytest
import torch._inductor.async_compile

seen = set()

@pytest.mark.parametrize("number", range({tests}))
def test_pool(compile_pool, number):
    workers = set(compile_pool.workers)
    assert compile_pool.submit(os.getpid).result(60) in {{worker.pid for worker in workers}}
    # By pid and start time: none of them has served a test before.
    assert workers.isdisjoint(seen)
    seen.update(workers)
"""

BY_HAND = """
import os
import pytest
from torch._inductor import async_compile, config

config.compile_threads = 2

@pytest.mark.parametrize("number", range({tests}))
def test_pool(number):
    owner = async_compile.AsyncCompile
    owner.warm_pool()
    pool = owner.process_pool()
    pool.submit(owner._get_ready).result(60)
    assert pool.submit(os.getpid).result(60) != os.getpid()
    async_compile.shutdown_compile_workers()
"""

FIRST = """
import os
import torch._inductor.async_compile

def test_pool(compile_pool):
    assert compile_pool.submit(os.getpid).result(60) != os.getpid()
"""

SLOW_TO_COLLECT = "import time\ntime.sleep({seconds})\ndef test_plain(): pass\n"


def session(folder: Path, files: dict[str, str], *arguments: str) -> dict[str, dict[str, float]]:
    """One session over these files. Returns seconds by test and phase."""
    for name, text in files.items():
        (folder / name).write_text(text)
    (folder / "conftest.py").write_text(CONFTEST)
    took = folder / "took.json"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments, *sorted(files)]
    environment = {
        **os.environ,
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "TOOK": str(took),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    done = subprocess.run(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, timeout=LIMIT, text=True
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with status {done.returncode}\n{done.stdout[-3000:]}")
    return json.loads(took.read_text())  # type: ignore[no-any-return]


def isolation(folder: Path, tests: int, by_hand: int, pairs: int) -> dict[str, Any]:
    """Seconds of a test by the fixture (without the one that starts the sidecar) and by hand."""
    with_fixture, first, hand = [], [], []
    for _ in range(pairs):
        found = session(
            folder,
            {"test_fixture.py": FIXTURE.format(tests=tests)},
            "-p",
            "compilepool",
            "--compilepool-processes=2",
        )
        totals = [sum(phases.values()) for phases in found.values()]
        first.append(totals[0])
        with_fixture += totals[1:]
        found = session(folder, {"test_hand.py": BY_HAND.format(tests=by_hand)}, "-p", "no:compilepool")
        hand += [sum(phases.values()) for phases in found.values()]
    return {"fixture": with_fixture, "first": first, "by_hand": hand}


def prestart(folder: Path, pairs: int) -> dict[str, Any]:
    """Seconds of the setup of the first test with a pool, by how long the files after it take to collect."""
    found: dict[str, Any] = {}
    for seconds in (0, 1, 2, 4):
        files = {"test_a.py": FIRST, "test_b.py": SLOW_TO_COLLECT.format(seconds=seconds)}
        setups: dict[str, list[float]] = {"off": [], "on": []}
        for _ in range(pairs):
            for mode, values in setups.items():
                arguments = (
                    "-p",
                    "compilepool",
                    "--compilepool-processes=2",
                    f"--compilepool-prestart={mode}",
                )
                values.append(session(folder, files, *arguments)["test_pool"]["setup"])
        found[str(seconds)] = setups
    return found


def as_text(told: dict[str, Any]) -> list[str]:
    """The tables."""
    one, hand = (statistics.median(told["isolation"][name]) for name in ("fixture", "by_hand"))
    lines = [
        told["machine"],
        "",
        "a test with a pool and fresh workers, medians",
        f"  by hand: warm, wait, one job, shutdown_compile_workers()   {hand:8.3f} s",
        f"  fixture compile_pool, one job                              {one:8.3f} s",
        (
            f"  the fixture is {hand / one:.0f} times as fast (goal: 30); the first of a session takes "
            f"{statistics.median(told['isolation']['first']):.2f} s"
        ),
        "",
        "setup of the first test with a pool, medians, seconds",
        f"  {'files after it take to collect':<34}{'prestart off':>14}{'on':>10}{'hidden':>10}",
    ]
    for seconds, setups in told["prestart"].items():
        off, on = statistics.median(setups["off"]), statistics.median(setups["on"])
        lines.append(f"  {seconds + ' s':<34}{off:>14.2f}{on:>10.2f}{off - on:>10.2f}")
    return lines


def main() -> int:
    parser = parser_of(__doc__, 3, "sessions of each kind, alternating")
    parser.add_argument("--tests", type=int, default=20, help="tests of a session with the fixture")
    parser.add_argument("--by-hand", type=int, default=5, help="tests of a session without")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        told = {
            "machine": machine(),
            "isolation": isolation(folder, arguments.tests, arguments.by_hand, arguments.pairs),
            "prestart": prestart(folder, arguments.pairs),
        }
    print(json.dumps(told, indent=1) if arguments.json else "\n".join(as_text(told)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
