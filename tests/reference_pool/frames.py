# SPDX-License-Identifier: Apache-2.0
"""What parent, sidecar and workers say to each other: a kind, a number, and bytes that only the ends unpack."""

from __future__ import annotations

import os
import struct

JOB, RESULT, ERROR, READY, QUIESCE, WAKEUP, SHUTDOWN, HELLO, BROKEN = range(9)
_HEADER = struct.Struct("!BQQ")


def send(fd: int, kind: int, number: int = 0, payload: bytes = b"") -> None:
    """Write one frame, all of it. Raises OSError where nobody reads any more."""
    for part in (_HEADER.pack(kind, number, len(payload)), payload):
        view = memoryview(part)
        while view:
            view = view[os.write(fd, view) :]


def receive(fd: int) -> tuple[int, int, bytes] | None:
    """Read one frame: (kind, number, payload), or None at the end of file."""
    header = _read(fd, _HEADER.size)
    if header is None:
        return None
    kind, number, length = _HEADER.unpack(header)
    payload = _read(fd, length)
    return None if payload is None else (kind, number, payload)


def _read(fd: int, length: int) -> bytes | None:
    parts = []
    while length:
        try:
            part = os.read(fd, min(length, 1 << 20))
        except ConnectionResetError:
            return None  # the other end went with something unread
        if not part:
            return None
        parts.append(part)
        length -= len(part)
    return b"".join(parts)
