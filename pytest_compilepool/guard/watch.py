# SPDX-License-Identifier: Apache-2.0
"""The guard: a small process beside a test session. It sleeps until that has ended, ends what is left, and goes.

Run as `python -I -S watch.py` by a session, which writes one line of JSON to its standard input and reads the guard's pid
from its standard output. It is nobody's child: a test may look at the children of its process, or kill them all. Until the
end it imports nothing but what is here, and takes no CPU time. SIGUSR1 says that the session itself has ended as it should.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sys
import time

CONTROLLER_GRACE = 1.0  # seconds


def main() -> None:
    """Wait, then hand over to `ending`."""
    close_what_was_inherited()
    finished: list[int] = []
    signal.signal(signal.SIGUSR1, lambda number, frame: finished.append(number))
    # Who ends a session with Ctrl-C, or by closing its terminal, ends its guard last.
    for name in ("SIGINT", "SIGHUP", "SIGQUIT"):
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    told = json.loads(sys.stdin.buffer.readline(1 << 20))
    forked = os.fork()
    if forked:
        os.write(1, b"%d\n" % forked)
        os._exit(0)
    os.setsid()
    os.chdir("/")
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nothing, number)
    os.close(nothing)
    wait_for_the_end((told["pid"], told["started"]), told["controller"] and tuple(told["controller"]))
    # Last: what lies beside the package must not be taken for the standard library.
    sys.path.append(told["package"])
    from pytest_compilepool.guard import ending

    ending.end(told["owner"], told["record"], bool(finished))


def close_what_was_inherited() -> None:
    """But for the standard ones: whoever reads the other end of a pipe of the session's would wait for this process, too."""
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2:
            with contextlib.suppress(OSError):  # the one that the list was read from
                os.close(int(name))


def wait_for_the_end(session: tuple[int, str], controller: tuple[int, str] | None) -> None:
    """Until that process has ended; each is named by pid and start time.

    controller: what the session is a worker of. A worker that outlives it has nobody to report to, and may be in a test
    that never ends: it has a second to see that by itself.
    """
    if controller is not None:
        wait_for([session, controller], None)
        if is_there(*session) and not wait_for([session], CONTROLLER_GRACE):
            os.kill(session[0], signal.SIGKILL)
    wait_for([session], None)


def wait_for(processes: list[tuple[int, str]], seconds: float | None) -> bool:
    """Until one of them has ended, that long at most if it is said; whether one has."""
    handles = [_handle(pid) for pid, _ in processes]
    try:
        # Looked at after the handles were taken: from here on none of these pids can become somebody else's unseen.
        if not all(is_there(*process) for process in processes):
            return True
        if None not in handles:
            waiting = select.poll()
            for handle in handles:
                waiting.register(handle, select.POLLIN)  # type: ignore[arg-type]  # none of them is None
            return bool(waiting.poll(None if seconds is None else seconds * 1000))
        deadline = None if seconds is None else time.monotonic() + seconds
        while deadline is None or time.monotonic() < deadline:
            if not all(is_there(*process) for process in processes):
                return True
            time.sleep(0.1)  # nothing else tells where there are no pidfds
        return False
    finally:
        for handle in handles:
            if handle is not None:
                os.close(handle)


def _handle(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):  # an old kernel, another system, or it has ended already
        return None


def is_there(pid: int, started: str) -> bool:
    """Whether that very process runs. started: as `start_of` has it."""
    return start_of(pid) == started


def start_of(pid: int) -> str:
    """When a process was started, as the kernel writes it; "" where it has ended, or is a zombie."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return ""
    return fields[19].decode() if len(fields) > 19 and fields[0] not in (b"Z", b"X") else ""


if __name__ == "__main__":
    main()
