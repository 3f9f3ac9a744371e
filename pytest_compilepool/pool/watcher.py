# SPDX-License-Identifier: Apache-2.0
"""A thread that notices the death of one process at once: by pidfd where there is one, else by looking."""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable

from pytest_compilepool import proctree
from pytest_compilepool.records import ProcessKey

_LOOK_EVERY = 0.25  # seconds, only where the kernel has no pidfd


class DeathWatch:
    """Calls `on_death()` once, in its own thread, when a process has ended; `stop()` ends the watch.

    key: the process; on_death: must not raise.
    """

    THREAD = "compilepool-watch"

    def __init__(self, key: ProcessKey, on_death: Callable[[], None]) -> None:
        self.key = key
        self._on_death = on_death
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._pidfd = -1
        self._wake_read = self._wake_write = -1
        try:
            self._pidfd = os.pidfd_open(key.pid)
        except (AttributeError, OSError):
            pass  # an older kernel, another system, or it has ended already: the loop below finds out
        else:
            self._wake_read, self._wake_write = os.pipe()
        self._thread = threading.Thread(target=self._run, daemon=True, name=self.THREAD)
        self._thread.start()

    @property
    def fds(self) -> set[int]:
        """Descriptors of this process that the watch holds."""
        return {fd for fd in (self._pidfd, self._wake_read, self._wake_write) if fd >= 0}

    @property
    def threads(self) -> set[int]:
        """Identifiers of its threads."""
        return set() if self._thread.ident is None else {self._thread.ident}

    def stop(self, timeout: float = 5.0) -> None:
        """End the watch and give its descriptors back. May be called twice, and from `on_death`."""
        self._stopped.set()
        with self._lock:
            if self._wake_write >= 0:
                os.write(self._wake_write, b"x")
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout)

    def wait(self, timeout: float) -> bool:
        """Wait until the watch has ended (its process is dead and `on_death` has returned). timeout: seconds."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            self._wait()
            if not self._stopped.is_set():
                self._on_death()
        finally:
            self._close()

    def _wait(self) -> None:
        if self._pidfd < 0:
            while proctree.alive(self.key) and not self._stopped.wait(_LOOK_EVERY):
                pass
            return
        poller = select.poll()
        poller.register(self._pidfd, select.POLLIN)
        poller.register(self._wake_read, select.POLLIN)
        poller.poll()

    def _close(self) -> None:
        with self._lock:
            for fd in self.fds:
                os.close(fd)
            self._pidfd = self._wake_read = self._wake_write = -1
