# SPDX-License-Identifier: Apache-2.0
"""Threads: real ones, planted and innocent."""

from __future__ import annotations

import _thread
import concurrent.futures
import os
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from pytest_compilepool.leaks.base import Owned
from pytest_compilepool.leaks.threads import ThreadChecker, stable_name

Wait = Callable[[Callable[[], object]], None]


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """What planted threads wait for; opened at the end, so that none outlives its test."""
    event = threading.Event()
    yield event
    event.set()


def planted_worker(gate: threading.Event) -> None:
    gate.wait()


class TestPlanted:
    def test_thread_is_named_and_its_function_too(self, account: Any, gate: threading.Event) -> None:
        own = account(ThreadChecker(Owned()))
        thread = threading.Thread(target=planted_worker, args=(gate,), name="my-planted-thread")
        thread.start()
        leak, text = own.leak("my-planted-thread")
        assert "planted_worker" in text
        assert os.path.basename(__file__) in text
        assert "thread 'my-planted-thread'" in text
        assert "cannot be ended from outside" in text
        started = time.monotonic()
        own.checker.restore([leak])  # waits a moment, in vain
        assert 0.5 < time.monotonic() - started < 3.0
        assert len(own.leaks()) == 1
        gate.set()
        own.restore()
        own.assert_clean(0.0)

    def test_one_that_runs_a_method_of_threadings_own(self, account: Any, gate: threading.Event) -> None:
        own = account(ThreadChecker(Owned()))
        thread = threading.Thread(target=gate.wait, name="waits-by-itself")
        thread.start()
        _, text = own.leak("waits-by-itself")
        gate.set()
        thread.join()
        assert "it runs" in text
        assert "wait" in text.partition("it runs")[2]
        assert "no Python function" not in text

    def test_worker_of_a_thread_pool(self, account: Any) -> None:
        own = account(ThreadChecker(Owned()))
        pool = concurrent.futures.ThreadPoolExecutor(1)
        pool.submit(time.sleep, 0).result()
        leak, text = own.leak("ThreadPoolExecutor-*")
        assert "ends with its shutdown()" in text
        pool.shutdown(wait=False)
        own.checker.restore([leak])
        own.assert_clean(0.0)

    @pytest.mark.parametrize(
        ("name", "words"),
        [
            ("InductorSubproc", "torch's reader of a compile pool's results"),
            ("InductorSubprocHealth", "torch's watch over the sidecar"),
            ("subproc_worker_timer", "torch's quiesce timer"),
        ],
    )
    def test_torchs_threads_are_put_into_words(
        self, account: Any, gate: threading.Event, name: str, words: str
    ) -> None:
        own = account(ThreadChecker(Owned()))
        thread = threading.Thread(target=gate.wait, name=name, daemon=True)
        thread.start()
        leak, text = own.leak(name)
        assert words in text
        assert "daemon thread" in text
        gate.set()
        own.checker.restore([leak])
        own.assert_clean(0.0)

    def test_thread_that_got_the_ident_of_an_older_one(self, account: Any, gate: threading.Event) -> None:
        first_gate = threading.Event()
        first = threading.Thread(target=first_gate.wait, name="same")
        first.start()
        own = account(ThreadChecker(Owned()))
        first_gate.set()
        first.join()
        # The system gives the stack, and so the ident, of an ended thread to one of the next.
        threads = [threading.Thread(target=gate.wait, name="same") for _ in range(5)]
        for thread in threads:
            thread.start()
        assert len(own.leaks()) == 5
        gate.set()
        own.restore()
        own.assert_clean(0.0)

    def test_thread_that_threading_did_not_start(self, account: Any, gate: threading.Event) -> None:
        own = account(ThreadChecker(Owned()))
        known = threading.Event()

        def introduce_itself() -> None:
            threading.current_thread()
            known.set()
            gate.wait()

        _thread.start_new_thread(introduce_itself, ())
        assert known.wait(5.0)
        assert "introduce_itself" in own.leak("Dummy-*")[1]
        own.restore()  # cannot even be waited for
        gate.set()
        own.assert_clean()


class TestInnocent:
    def test_thread_that_has_ended(self, account: Any) -> None:
        own = account(ThreadChecker(Owned()))
        thread = threading.Thread(target=int)
        thread.start()
        thread.join()
        assert own.leaks() == []

    def test_thread_that_ends_within_the_grace(self, account: Any) -> None:
        own = account(ThreadChecker(Owned()))
        threading.Timer(0.1, int).start()
        verdict = own.verdict(grace=5.0)
        assert verdict.leaks == []
        assert verdict.waited < 5.0

    def test_thread_of_before(self, account: Any, gate: threading.Event) -> None:
        threading.Thread(target=gate.wait).start()
        own = account(ThreadChecker(Owned()))
        assert own.leaks() == []

    def test_owned_thread(self, account: Any, gate: threading.Event) -> None:
        idents: set[int] = set()
        own = account(ThreadChecker(Owned(threads=lambda: idents)))
        thread = threading.Thread(target=gate.wait)
        thread.start()
        assert len(own.leaks()) == 1
        idents.add(thread.ident or 0)
        assert own.leaks() == []

    def test_monitor_of_tqdm(self, account: Any, gate: threading.Event) -> None:
        own = account(ThreadChecker(Owned()))
        threading.Thread(target=gate.wait, name="tqdm_monitor", daemon=True).start()
        assert own.leaks() == []

    @pytest.mark.parametrize(("calls", "leaks"), [("wait()", 0), ("_handle_job()", 1)])
    def test_thread_that_trio_keeps(
        self, account: Any, gate: threading.Event, calls: str, leaks: int
    ) -> None:
        own = account(ThreadChecker(Owned()))
        there = threading.Event()

        def wait() -> None:
            there.set()
            gate.wait()

        module: dict[str, Any] = {"__name__": "trio._core._thread_cache", "wait": wait}
        exec(f"def _work(): {calls}\ndef _handle_job(): wait()", module)
        threading.Thread(target=module["_work"], name="Trio thread 7", daemon=True).start()
        assert there.wait(60)
        assert len(own.leaks()) == leaks

    def test_timer_of_pytest_timeout(self, account: Any) -> None:
        own = account(ThreadChecker(Owned()))
        plugin = pytest.importorskip("pytest_timeout")
        cancellers: list[Callable[[], None]] = []
        item = SimpleNamespace(nodeid="test_x.py::test_y", add_report_section=None, cancel_timeout=None)
        item.config = SimpleNamespace(pluginmanager=None)
        settings = SimpleNamespace(method="thread", timeout=60.0, disable_debugger_detection=True)
        plugin.pytest_timeout_set_timer(item, settings)
        cancellers.append(item.cancel_timeout)
        try:
            assert len(threading.enumerate()) > 1
            assert own.leaks() == []
        finally:
            for cancel in cancellers:
                cancel()

    @pytest.mark.usefixtures("inductor")
    def test_timer_of_a_pool_that_is_closed(self, account: Any) -> None:
        from torch._inductor.compile_worker.timer import Timer

        own = account(ThreadChecker(Owned()))
        timer = Timer(1.0, int)
        timer.record_call()
        assert "torch's quiesce timer" in own.leak("subproc_worker_timer")[1]
        timer.quit()
        # It sleeps through its own end, for half its period.
        assert "subproc_worker_timer" in {thread.name for thread in threading.enumerate()}
        assert own.leaks() == []

    def test_receiver_thread_of_execnet(self, account: Any, wait_until: Wait) -> None:
        # What every xdist worker has: a thread that `threading` knows nothing of until it asks who it is.
        execnet = pytest.importorskip("execnet")
        gateway = execnet.makegateway()
        try:
            own = account(ThreadChecker(Owned()))
            seen: list[threading.Thread] = []
            channel = gateway.remote_exec("channel.send(1)")
            channel.setcallback(lambda _: seen.append(threading.current_thread()))
            channel.waitclose(10.0)
            wait_until(lambda: seen)
            assert seen[0] is not threading.main_thread()
            assert seen[0] in threading.enumerate()
            assert own.leaks() == []
        finally:
            gateway.exit()
            execnet.default_group.terminate(5.0)
            gateway._io.popen.wait(5.0)  # execnet itself does not

    def test_stand_in_of_a_thread_that_has_ended(self, account: Any, wait_until: Wait) -> None:
        own = account(ThreadChecker(Owned()))
        seen: list[threading.Thread] = []
        _thread.start_new_thread(lambda: seen.append(threading.current_thread()), ())
        wait_until(lambda: seen)
        own.assert_clean()

    def test_torchs_cpp_compile_threads(self, account: Any, inductor: Any) -> None:
        AsyncCompile = inductor.AsyncCompile
        assert AsyncCompile.pool.cache_info().currsize == 0, "another test has used it and not put it back"
        own = account(ThreadChecker(Owned()))
        AsyncCompile.pool().submit(int).result()
        try:
            assert own.leaks() == []
        finally:
            AsyncCompile.pool().shutdown()
            AsyncCompile.pool.cache_clear()


@pytest.mark.parametrize(
    ("name", "stable"),
    [
        ("Thread-7 (f)", "Thread-* (f)"),
        ("Thread-12", "Thread-*"),
        ("ThreadPoolExecutor-3_0", "ThreadPoolExecutor-*"),
        ("asyncio_0", "asyncio_*"),
        ("InductorSubproc", "InductorSubproc"),
        ("worker-7", "worker-7"),
    ],
)
def test_stable_name(name: str, stable: str) -> None:
    assert stable_name(name) == stable
