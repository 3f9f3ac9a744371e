# SPDX-License-Identifier: Apache-2.0
"""What a failure looks like in every run: its message and frames, without all that differs from run to run."""

from __future__ import annotations

import re

_FRAMES = 6
_MESSAGE = 200
_LOOKED_AT = 1000

# Of a traceback (`line 3, in f`) and of faulthandler (`line 3 in f`).
_FRAME = re.compile(r'File "(?P<file>[^"]+)", line \d+,? in (?P<function>\S+)')
_OF_NO_INTEREST = (
    *("conformance/child.py", "conformance/attempt.py", "conformance/jointchild.py"),
    *("conformance/twin.py", "conformance/forkserver.py", "runpy.py", "<string>"),
)

_DIFFERS = (
    (re.compile(r"0x[0-9a-fA-F]+"), "0x"),
    (re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b"), "ID"),
    (re.compile(r"\b(?=[a-f]*[0-9])[0-9a-f]{8,}\b"), "ID"),
    (re.compile(r"(?<![\w.])/(?:[^\s/'\"<>:,;()]+/)*"), ""),  # folders; the name of the file stays
    (
        re.compile(r"\b(tmp|compilepool-)(?:\d+-)?(?:vllm-|shared-)?(?:(?:ID|[0-9a-f]{8})-)?(?:ID|\w{6,})"),
        r"\1",
    ),
    # Inductor's name for a kernel says what it has fused, which is another thing in another release.
    (re.compile(r"\btriton_(?:poi|per|red|tem|for|unk|split_scan|mix_order)[a-z]*_\w+"), "KERNEL"),
    (re.compile(r"\d+(?:\.\d+)?(?:e[+-]?\d+)?"), "N"),
    (re.compile(r"\s+"), " "),
    # How many of a kind there were: `pid N, pid N` as `pid N`, `[N, N, N]` as `[N]`.
    (re.compile(r"(?<!\w)([^\s,\[({][^,]*)(?:, \1)+(?!\w)"), r"\1"),
)


def signature(text: str) -> str:
    """One line. text: of a failure, as a verdict has it: a message, perhaps followed by stacks.

    Two runs that failed for the same cause give the same one: no addresses, no folders, no numbers.
    """
    message = next((line.strip() for line in text.splitlines() if line.strip()), "")[:_LOOKED_AT]
    for pattern, word in _DIFFERS:
        message = pattern.sub(word, message)
    frames = [
        f"{found['file'].rpartition('/')[2]}:{found['function']}"
        for found in _FRAME.finditer(text)
        if not found["file"].endswith(_OF_NO_INTEREST)
    ]
    # A faulthandler's are innermost first, and so are these.
    if "Traceback (most recent call last)" in text:
        frames.reverse()
    return " < ".join([message.strip()[:_MESSAGE], *frames[:_FRAMES]])
