# SPDX-License-Identifier: Apache-2.0
"""Cells of schema 1: lines of JSON, the first about the run, each other one a verdict. Made into what schema 2 has."""

from __future__ import annotations

import json
from typing import Any

from pytest_compilepool.matrix.signature import signature

_OUTCOMES = {"known": "XFAIL", "unexpected-pass": "XPASS", "not-tested": "SKIP"}
_STATUSES = {"HANG": "TIMEOUT"}
"""By another name then."""


def lines(text: str) -> dict[str, Any] | None:
    """That document, still with the number of its own schema; None where the text has another form. Raises ValueError."""
    first, _, rest = text.partition("\n")
    if '"schema"' not in first or not rest.lstrip().startswith("{"):
        return None
    head = json.loads(first)
    if not isinstance(head, dict) or head.get("schema") != 1:
        return None
    told = [json.loads(line) for line in rest.splitlines() if line.strip()]
    return {
        "schema": 1,
        "mode": head.get("mode", ""),
        "complete": head.get("complete", False),
        "run_info": head.get("run", {}),
        "results": [_result(one) if isinstance(one, dict) else one for one in told],
    }


def _result(told: dict[str, Any]) -> dict[str, Any]:
    got = _STATUSES.get(told.get("status", ""), told.get("status", ""))
    status = _OUTCOMES.get(told.get("outcome", ""), got)
    text = told.get("text", "")
    found = {
        "id": told.get("feature"),
        "status": status,
        "got": "" if got == "SKIP" else got,
        "expected": [_STATUSES.get(one, one) for one in told.get("expected", [])],
        "bug": told.get("bug", ""),
        "reason": text,
        "duration": told.get("seconds", 0.0),
        "notes": told.get("notes", []),
        "signature": signature(text) if got not in ("PASS", "SKIP") else "",
    }
    if status == "SKIP":
        # "need: what it is"
        found["requirement"] = text.partition(":")[0]
    return found
