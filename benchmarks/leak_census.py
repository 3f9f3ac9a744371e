# SPDX-License-Identifier: Apache-2.0
"""What one leak census costs, checker by checker. Run it: `python benchmarks/leak_census.py [--scan]`.

Measured are a bare process, and one with 1,000 open descriptors, 200 threads and 50 children; with and
without torch loaded, where it is installed. The goal is 10 ms for all checkers together in the full process.
With --scan: more and more of one thing, and what each of them adds, which stays the same where it is linear.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.util
import os
import resource
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence

from pytest_compilepool.leaks import census
from pytest_compilepool.leaks.base import LeakChecker, Owned

GOAL_MS = 10.0

SCAN = {
    "descriptors": (0, 1000, 2000, 4000, 8000),
    "threads": (0, 200, 400, 800),
    "children": (0, 50, 100, 200),
}


@contextlib.contextmanager
def crowd(fds: int, threads: int, children: int) -> Iterator[None]:
    """Fill this process: fds more descriptors (files, and pipes), threads and child processes."""
    gate = threading.Event()
    started = [threading.Thread(target=gate.wait) for _ in range(threads)]
    opened = [os.open(os.devnull, os.O_RDONLY) for _ in range(fds // 2)]
    while len(opened) < fds:
        opened += os.pipe()
    processes = [subprocess.Popen(["sleep", "600"]) for _ in range(children)]
    for thread in started:
        thread.start()
    try:
        yield
    finally:
        gate.set()
        for thread in started:
            thread.join()
        for process in processes:
            process.kill()
            process.wait()
        for fd in opened:
            os.close(fd)


def median_ms(run: Callable[[], object], rounds: int) -> float:
    times = []
    for _ in range(rounds):
        begin = time.perf_counter()
        run()
        times.append(time.perf_counter() - begin)
    return statistics.median(times) * 1e3


def figures(rounds: int) -> dict[str, float]:
    """Milliseconds by checker; `first` is the very first census, which reads each stranger's environment."""
    checkers = census.builtin_checkers(Owned(tag="benchmark"), restored_by_pytest=False)
    begin = time.perf_counter()
    before = census.measure(checkers)
    found = {"first census": (time.perf_counter() - begin) * 1e3}
    found["census, all"] = median_ms(lambda: census.measure(checkers), rounds)
    cheap: Sequence[LeakChecker] = [checker for checker in checkers if checker.cheap]
    found["census, cheap ones"] = median_ms(lambda: census.measure(cheap), rounds)
    found["compare, no leak"] = median_ms(lambda: census.compare(checkers, before, 0.0), rounds)
    for checker in checkers:
        found[f"  {checker.name}{' (cheap)' if checker.cheap else ''}"] = median_ms(checker.measure, rounds)
    return found


def scan(rounds: int) -> None:
    """Print a census by all checkers with more and more of one thing, and microseconds for each that was added."""
    allow_descriptors(max(SCAN["descriptors"]) + 200)
    print(f"milliseconds, median of {rounds}; {os.cpu_count()} CPUs, Python {sys.version.split()[0]}")
    for what, numbers in SCAN.items():
        print(f"{what:<14}{'ms':>9}{'us for each more':>20}")
        before = (0, 0.0)
        for number in numbers:
            with crowd(*(number if what == name else 0 for name in SCAN)):
                checkers = census.builtin_checkers(Owned(tag="benchmark"), restored_by_pytest=False)
                census.measure(checkers)  # the first one reads strangers, and the targets of descriptors
                took = median_ms(lambda checkers=checkers: census.measure(checkers), rounds)
            added = f"{(took - before[1]) / (number - before[0]) * 1e3:.3f}" if number else ""
            print(f"{number:<14}{took:>9.3f}{added:>20}")
            before = (number, took)


def allow_descriptors(number: int) -> None:
    """As many as that, as far as the hard limit goes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = number if hard == resource.RLIM_INFINITY else min(number, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20, help="measurements of which the median is shown")
    parser.add_argument("--fds", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=200)
    parser.add_argument("--children", type=int, default=50)
    parser.add_argument("--scan", action="store_true", help="how it grows, instead of the table by checker")
    given = parser.parse_args()
    if given.scan:
        scan(given.rounds)
        return
    columns = {"bare": figures(given.rounds)}
    with crowd(given.fds, given.threads, given.children):
        columns["full"] = figures(given.rounds)
    if importlib.util.find_spec("torch") is not None:
        for name in ("_dynamo.utils", "_functorch.config", "_inductor.async_compile"):
            importlib.import_module(f"torch.{name}")
        columns["bare, torch"] = figures(given.rounds)
        with crowd(given.fds, given.threads, given.children):
            columns["full, torch"] = figures(given.rounds)
    print(
        f"milliseconds, median of {given.rounds}; full: {given.fds} descriptors, {given.threads} threads, ",
        end="",
    )
    print(
        f"{given.children} children; {os.cpu_count()} CPUs, Python {sys.version.split()[0]}, {sys.platform}"
    )
    print(f"{'':<24}" + "".join(f"{name:>13}" for name in columns))
    for row in columns["bare"]:
        print(f"{row:<24}" + "".join(f"{column[row]:>13.3f}" for column in columns.values()))
    worst = max(column["census, all"] for column in columns.values())
    print(
        f"goal: {GOAL_MS:g} ms for all checkers: {'met' if worst <= GOAL_MS else 'MISSED'} ({worst:.2f} ms)"
    )


if __name__ == "__main__":
    main()
