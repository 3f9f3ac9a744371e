# SPDX-License-Identifier: Apache-2.0
"""What vLLM's own log says about the time that a start took."""

from __future__ import annotations

import re

_LINES = {
    "dynamo": re.compile(r"Dynamo bytecode transform time: ([\d.]+) s"),
    "graph_compile": re.compile(r"Compiling a graph for .* takes ([\d.]+) s"),
    "torch_compile": re.compile(r"torch\.compile (?:takes|took) ([\d.]+) s in total"),
    "init_engine": re.compile(r"init engine \(profile, create kv cache, warmup model\) took ([\d.]+) s"),
    "load_weights": re.compile(r"Loading weights took ([\d.]+) s"),
    "capture": re.compile(r"Graph capturing finished in ([\d.]+) s"),
}


def seconds(text: str) -> dict[str, float]:
    """Seconds by name; what is said several times, as of each range of sizes, is summed."""
    found: dict[str, float] = {}
    for name, line in _LINES.items():
        times = [float(time) for time in line.findall(text)]
        if times:
            found[name] = round(sum(times), 3)
    return found
