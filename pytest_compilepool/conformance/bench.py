# SPDX-License-Identifier: Apache-2.0
"""What a scenario works with: one pool, bounded waits, the process table, and faults for the sidecar."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from pathlib import Path
from typing import Any, NoReturn

from pytest_compilepool import proctree
from pytest_compilepool.conformance import twin
from pytest_compilepool.conformance.interpreters import import_path, start
from pytest_compilepool.conformance.order import ANSWER, BOOT, LOG, Order, write_order
from pytest_compilepool.records import ProcessKey

BOUND = 10.0
"""Seconds within which everything that was asked must have an answer, be it an error."""

READY = 45.0
"""Seconds until a pool must be ready: a sidecar that imports torch takes 3 to 10."""

_INJECT = Path(__file__).parent / "inject"


class Unanswered(AssertionError):
    """Something that was asked has had no answer within its bound."""


def check(condition: object, text: str) -> None:
    """Raises AssertionError with that text unless the condition holds."""
    if not condition:
        raise AssertionError(text)


class Bench:
    """One scenario's workplace. folder: its own, empty; notes: figures that the verdict carries; counters: by name,
    for whoever compares two runs."""

    def __init__(self, requirements: Any, order: Order, folder: Path) -> None:
        self.requirements = requirements
        self.folder = folder
        self.notes: list[str] = []
        self.counters: dict[str, float] = {}
        self.order = order
        self._pool: Any = None
        self._others = 0
        self._faults: set[str] = set()
        if order.mutant:
            self.inject(mutant=order.mutant)

    # -- the pool --------------------------------------------------------------------------------------

    def start(self, processes: int = 2, idle_seconds: float | None = None) -> Any:
        """Make the pool and return at once; `bench.pool` is it from now on."""
        self._pool = self.requirements.new(processes, idle_seconds)
        check(self._pool is not None, "make() of the requirements gave None and not a pool")
        return self._pool

    def ready(self, processes: int = 2, idle_seconds: float | None = None) -> Any:
        """Make the pool and wait until it says that it is ready."""
        pool = self.start(processes, idle_seconds)
        self.wait_ready(READY)
        return pool

    def use(self, pool: Any) -> None:
        """Go on with another pool, made by the requirements; `bench.pool` is it from now on."""
        self._pool = pool

    def wait_ready(self, timeout: float) -> None:
        """Until the pool says so. Raises Unanswered, or what the pool raises."""
        try:
            self.requirements.wait_ready(self.pool, timeout)
        except (FutureTimeout, TimeoutError):
            raise Unanswered(
                f"the pool was neither ready nor known to be broken after {timeout:g} s"
            ) from None

    @property
    def pool(self) -> Any:
        """The pool; made and ready if it was not yet."""
        return self._pool if self._pool is not None else self.ready()

    def submit(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Future[Any]:
        """A job. A pool that refuses it gives a future that holds the refusal."""
        try:
            future: Future[Any] = self.pool.submit(function, *args, **kwargs)
        except Exception as error:
            future = Future()
            future.set_exception(error)
        return future

    def answer(self, future: Future[Any], within: float = BOUND, what: str = "a job") -> Any:
        """Its result. Raises Unanswered, or what the job ended with."""
        error = self.error_of(future, within, what)
        if error is not None:
            raise AssertionError(f"{what} ended with {type(error).__name__}: {error}")
        return future.result()

    def error_of(
        self, future: Future[Any], within: float = BOUND, what: str = "a job"
    ) -> BaseException | None:
        """What it ended with, None for a result. Raises Unanswered where it does not end."""
        try:
            return future.exception(within)
        except (FutureTimeout, TimeoutError):
            raise Unanswered(f"{what} had no answer within {within:g} s") from None

    def error(self, future: Future[Any], within: float = BOUND, what: str = "a job") -> BaseException:
        """What it must have ended with. Raises AssertionError for a result."""
        error = self.error_of(future, within, what)
        if error is None:
            raise AssertionError(f"{what} ended with the result {_short(future)} and not with an error")
        return error

    def second_job(self, within: float = BOUND) -> None:
        """The pool still works: that is where most hangs show."""
        from pytest_compilepool.workloads import jobs

        found = self.answer(self.submit(jobs.add, 20, 22), within, "the next job")
        check(found == 42, f"the next job gave {found!r} instead of 42")

    # -- processes ----------------------------------------------------------------------------------------

    @property
    def sidecar(self) -> int:
        """Its pid."""
        return int(self.requirements.sidecar(self.pool))

    def workers(self) -> list[ProcessKey]:
        """Live children of the sidecar."""
        rows = proctree.table().values()
        return [row.key for row in rows if row.parent == self.sidecar and not row.dead]

    def tree(self) -> list[ProcessKey]:
        """Everything that lives below this process."""
        return [row.key for row in proctree.descendants(os.getpid()) if not row.dead]

    def gone(self, keys: Iterable[ProcessKey], within: float, what: str) -> None:
        """Wait until these have ended. Raises AssertionError that names those that have not."""
        left = proctree.wait_gone(keys, within)
        check(not left, f"{what}: still there after {within:g} s: {', '.join(map(str, left))}")

    def until(self, condition: Callable[[], object], within: float, what: str) -> Any:
        """Wait for a condition; what it gave. Raises AssertionError with `what`."""
        deadline = time.monotonic() + within
        while not (found := condition()):
            check(time.monotonic() < deadline, f"{what}: not so after {within:g} s")
            time.sleep(0.005)
        return found

    def file(self, name: str) -> str:
        """A path in the folder."""
        return str(self.folder / name)

    def appears(self, name: str, within: float = BOUND) -> str:
        """Wait for a file in the folder; its text."""
        path = self.folder / name
        self.until(path.exists, within, f"a job has not made the file {name}")
        return path.read_text(encoding="utf-8")

    def kill(self, pid: int, number: int = signal.SIGKILL) -> None:
        """Send a signal to a process of this scenario."""
        os.kill(pid, number)

    # -- faults, other interpreters -------------------------------------------------------------------------

    def inject(self, **faults: object) -> None:
        """Have the sidecar that is started next come to harm; names are the functions of `inject/sitecustomize.py`."""
        check(self._pool is None, "a fault must be planted before the pool is made")
        self._faults |= {name for name in faults if name != "mutant"}
        if str(_INJECT) not in sys.path:
            sys.path.insert(0, str(_INJECT))
        before = json.loads(os.environ.get("COMPILEPOOL_FAULTS", "[]"))
        planted = [(name, str(value)) for name, value in faults.items()]
        os.environ["COMPILEPOOL_FAULTS"] = json.dumps([*before, *planted])
        os.environ["COMPILEPOOL_BENCH"] = str(os.getpid())
        os.environ["COMPILEPOOL_PLANTED"] = self.file("planted")

    @property
    def started(self) -> bool:
        """Whether a pool was made."""
        return self._pool is not None

    @property
    def unharmed(self) -> str:
        """Why a fault could not be planted, so that the scenario shows nothing; an empty text where there was none."""
        if not self._faults or (self.folder / "planted").exists():
            return ""
        return (
            f"the fault {', '.join(sorted(self._faults))} could not be planted: the sidecar is no Python process that "
            "its parent has started with its own import path (as PYTHONPATH)"
        )

    def harmless(self) -> None:
        """Sidecars that are started from now on come to no harm (a mutant stays)."""
        faults = json.loads(os.environ.get("COMPILEPOOL_FAULTS", "[]"))
        os.environ["COMPILEPOOL_FAULTS"] = json.dumps([one for one in faults if one[0] == "mutant"])

    def other(self, scenario: Callable[..., None], *, normally: bool = False, **arguments: str) -> Other:
        """Start another interpreter that runs a function of the same module: one that may be killed, or that ends.

        normally: it ends as a program does that has run to its end (status 0; 1 where the function failed), with
        all that a pool does then; else at once, and its pool is not asked.
        """
        self._others += 1
        folder = self.folder / f"other{self._others}"
        folder.mkdir()
        order = Order(
            self.order.feature,
            scenario.__module__,
            scenario.__name__,
            self.order.requirements,
            import_path(),
            self.order.limit,
            self.order.mutant,
            arguments,
            normally,
            self.order.shared,
        )
        write_order(order, folder)
        tag = os.environ.get(proctree.TAG, "")
        # Not where a pool was made here, or a mutant is at work, which would then be one twice.
        if not (normally or self.started or order.mutant) and (found := twin.fork(folder, tag, order.path)):
            return Other(found, folder, self)
        return Other(start(BOOT, folder, tag, own_session=False), folder, self)

    # -- what is told ---------------------------------------------------------------------------------------

    def note(self, text: str) -> None:
        """A figure for the verdict."""
        self.notes.append(text)

    def count(self, counters: Mapping[str, float]) -> None:
        """Numbers that are the same in each run here, and that another release may move: a cell carries them."""
        self.counters.update(counters)

    def describe(self) -> str:
        """The pool and its processes, for a promise that was not kept."""
        if self._pool is None:
            return ""
        sidecar = proctree.lookup(self.sidecar)
        if sidecar is None or sidecar.dead:
            return f"sidecar pid {self.sidecar}: gone; what workers it has left is not to be told from its children any more"
        state = f"alive ({sidecar.state})"
        workers = ", ".join(str(key.pid) for key in self.workers()) or "none"
        return f"sidecar pid {self.sidecar}: {state}; live workers: {workers}"


class Other:
    """Another interpreter. process: Popen's; folder: where it runs and puts its files."""

    def __init__(self, process: subprocess.Popen[bytes] | twin.Twin, folder: Path, bench: Bench) -> None:
        self.process, self.folder, self._bench = process, folder, bench

    def appears(self, name: str, within: float = READY) -> str:
        """Wait for a file that it makes; its text. Raises what it ended with instead: Unanswered, or AssertionError."""
        path = self.folder / name

        def there() -> bool:
            if not path.exists() and self.process.poll() is not None and not path.exists():
                self._raise_its_end(name)
            return path.exists()

        self._bench.until(there, within, f"the other interpreter has not made the file {name}")
        return path.read_text(encoding="utf-8")

    def _raise_its_end(self, name: str) -> NoReturn:
        try:
            told = json.loads((self.folder / ANSWER).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            raise AssertionError(
                f"the other interpreter ended before it made {name}:\n{self.said()}"
            ) from None
        kind = Unanswered if told["status"] == "TIMEOUT" else AssertionError
        raise kind(told["text"] or f"the other interpreter came to its end and did not make {name}")

    def ends(self, within: float, what: str) -> int:
        """Wait until it has ended; its exit status. Raises Unanswered."""
        try:
            return self.process.wait(within)
        except subprocess.TimeoutExpired:
            raise Unanswered(f"{what}: the interpreter had not ended after {within:g} s") from None

    def said(self) -> str:
        """What it printed, and what it answered."""
        texts = [self.folder / LOG, self.folder / ANSWER]
        return "\n".join(text.read_text(errors="replace")[-4000:] for text in texts if text.exists())


def _short(future: Future[Any]) -> str:
    text = repr(future.result())
    return text if len(text) < 80 else f"{text[:77]}..."
