# SPDX-License-Identifier: Apache-2.0
"""With pytest-timeout: what the pool was doing is in the report of a test whose time was up, and in no other."""

from __future__ import annotations

import re
import textwrap
import threading
from types import SimpleNamespace

import pytest
from tiers import further

import pytest_compilepool.timeouts
from pytest_compilepool.pool import diagnosis
from pytest_compilepool.timeouts import TITLE, Timeouts, lead_of

pytest.importorskip("torch")
pytest.importorskip("pytest_timeout")

HANGS = """
import time, pytest

def test_first(compile_pool):   # what imports take is not the time of the other one
    assert compile_pool.submit(time.time).result(60)

@pytest.mark.timeout(6, method=METHOD, func_only=True)
def test_hangs(compile_pool):
    compile_pool.submit(time.sleep, 1000)
    compile_pool.submit(time.sleep, 1000).result()
"""

IN_TIME = """
import time, pytest

@pytest.mark.timeout(3, func_only=True)
def test_nearly(compile_pool):
    compile_pool.submit(time.sleep, 1000)
    time.sleep(2.6)   # the pool has been looked at by now

@pytest.mark.timeout(300)
def test_quick():
    import threading
    assert [one.name for one in threading.enumerate() if "compilepool-timeout" in one.name] != []

def test_after():
    import threading, time
    deadline = time.monotonic() + 5
    while [one for one in threading.enumerate() if one.name.startswith("compilepool-timeout")]:
        assert time.monotonic() < deadline, "timers of tests that have ended are left"
        time.sleep(0.01)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("method", "verbose"), [("signal", False), *further(("thread", True))])
def test_what_the_pool_was_doing(inner, method, verbose):
    source = HANGS.replace("METHOD", repr(method))
    result = inner(source, "-p", "pytest_timeout", *(["-vv"] if verbose else []))
    said = result.stdout.str() + result.stderr.str()
    assert TITLE in said
    text = said[said.index(TITLE) :]
    assert "compile pool BUSY: 2 jobs have no result yet; sidecar pid" in text
    jobs = re.findall(r"job (\d+) sleep: pending since \d+\.\d s, with worker pid \d+", text)
    assert len(set(jobs)) == 2
    assert "processes: pid, parent, state, CPU seconds" in text
    assert "hrtimer_nanosleep" in text or " S " in text
    assert "stack of this process, thread MainThread" in text
    assert "in test_hangs" in text
    assert ("stack of pid" in text) is verbose
    assert (diagnosis.MORE in text) is not verbose
    if not verbose:
        section = text[: text.index(diagnosis.MORE)]
        assert "_pytest" not in section
        assert "runpy" not in section
        assert len(section.splitlines()) <= 25
    assert result.ret == 1


@pytest.mark.slow
def test_a_test_that_ends_in_time_shows_nothing(inner):
    result = inner(IN_TIME, "-p", "pytest_timeout", "--compilepool-leaks=fail")
    result.assert_outcomes(passed=3)
    assert TITLE not in result.stdout.str() + result.stderr.str()


def test_without_a_pool_nothing_is_gathered(inner):
    source = "import time\ndef test_hangs():\n    time.sleep(100)\n"
    result = inner(source, "-p", "pytest_timeout", "--timeout=1", "--timeout-method=signal")
    result.assert_outcomes(failed=1)
    assert TITLE not in result.stdout.str()


def test_without_pytest_timeout_nothing_is_loaded(inner):
    inner("import sys\ndef test(): assert 'pytest_compilepool.timeouts' not in sys.modules").assert_outcomes(
        passed=1
    )


@pytest.mark.parametrize("ends", [True, False])
def test_what_comes_after_the_end_of_a_test_is_not_its_own(monkeypatch, ends):
    """The look takes time, and the test may end meanwhile."""
    notes: list[str] = []
    timeouts = Timeouts(notes.append)
    item = SimpleNamespace(nodeid="test_a", stash={}, config=SimpleNamespace(get_verbosity=lambda: 0))

    def explain(within, everything):
        if ends:
            timeouts._cancel(item)
        return "what the pool was doing"

    monkeypatch.setattr(diagnosis, "explain", explain)
    timeouts._timers[id(item)] = threading.Timer(1000, print)
    timeouts._gather(item, "signal", 1.0)
    assert bool(notes) is not ends
    assert bool(item.stash) is not ends


def test_a_thread_is_there_only_where_a_pool_may_be(inner):
    source = """
        import threading, pytest

        def timers():
            return [one.name for one in threading.enumerate() if one.name.startswith("compilepool-timeout")]

        def test_before():
            assert timers() == []
            import torch._inductor.async_compile
            assert len(timers()) == 1

        @pytest.mark.parametrize("number", range(20))
        def test_after(number):
            assert len(timers()) == 1
    """
    result = inner(
        textwrap.dedent(source), "-p", "pytest_timeout", "--timeout=300", "--compilepool-leaks=fail"
    )
    result.assert_outcomes(passed=21)


def test_where_no_thread_can_be_started(monkeypatch):
    timeouts = Timeouts(print)
    monkeypatch.setattr(threading.Timer, "start", lambda self: (_ for _ in ()).throw(RuntimeError("can't")))
    monkeypatch.setattr(pytest_compilepool.timeouts, "inductor_loaded", lambda: True)
    item = SimpleNamespace(nodeid="test_a", stash={})
    hook = timeouts.pytest_timeout_set_timer(item, SimpleNamespace(timeout=5.0, method="signal"))
    next(hook)
    assert timeouts._timers == {}


@pytest.mark.parametrize(("timeout", "lead"), [(300, 1.0), (4, 1.0), (2, 0.5), (0.4, 0.1)])
def test_the_moment_before(timeout, lead):
    assert lead_of(timeout) == lead
