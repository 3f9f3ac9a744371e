# SPDX-License-Identifier: Apache-2.0
"""What the fixture `compile_parity` hands out."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pytest_compilepool.counters.errors import UnknownCounter
from pytest_compilepool.counters.interpreter import interpreter_reader
from pytest_compilepool.counters.reader import Reading
from pytest_compilepool.fresh import callables
from pytest_compilepool.fresh.callables import START_METHODS, BadInput, check_function, seconds, shown
from pytest_compilepool.fresh.values import is_module, is_tensor
from pytest_compilepool.parity.check import Report, compare
from pytest_compilepool.parity.wish import Wish
from pytest_compilepool.pool.policy import BadProcesses, parse_processes
from pytest_compilepool.targets import BadTarget, parse_target

__tracebackhide__ = callables.hidden


@dataclass
class Parity:
    """Checks that the pool makes what one thread makes; see `check`.

    new_folder: gives an empty folder for each check; ready_timeout, shutdown_timeout, limit: seconds, what a
    check takes when not told; target: of the marker, or None; reports: what the checks of this object came to.
    """

    new_folder: Callable[[], Path]
    ready_timeout: float = 60.0
    shutdown_timeout: float = 10.0
    limit: float = 300.0
    target: str | None = None
    reports: list[Report] = field(default_factory=list)

    # Long: each argument is one thing that a user may say, and is told; what checks each is below.
    def check(
        self,
        function: Callable[..., Any],
        inputs: Any = (),
        *,
        processes: Sequence[int] = (1, 4),
        start_methods: Sequence[str] = ("subprocess",),
        repeat: int = 2,
        target: str | None = None,
        compile: bool | Mapping[str, Any] = True,
        keywords: Mapping[str, Any] | None = None,
        rtol: float | None = None,
        atol: float | None = None,
        bitwise: bool = True,
        min_parallel: float | None = None,
        may_differ: Mapping[str, str] | None = None,
        raises: str | None = None,
        environment: Mapping[str, str | None] | None = None,
        before: Callable[[], object] | None = None,
        limit: float | None = None,
    ) -> Report:
        """Compile and run `function` with each number of processes, and compare with the first.

        Each mode has an interpreter and empty caches of its own, since `compile_threads` is in no cache key.
        Compared are outputs, kernels (text, launch metadata, PTX, code), counters and errors; and it is proved
        that the kernels of the modes with a pool were compiled by its workers.

        function: at the top level of a module, or an `nn.Module`; inputs: its arguments (a tuple or list, or
        one tensor), or a function at the top level of a module that makes them. processes: the first is what the others
        are compared with, 1 is no pool. repeat: calls in each interpreter; they must give the same. target: a
        GPU that is not there, such as `cuda:90`: kernels are compiled for it and not launched. compile: whether,
        and with which arguments, `torch.compile` is applied here; False where the function does so itself.
        rtol, atol: tolerances where bits differ, torch's for the type unless given; bitwise: whether a difference
        within them fails. min_parallel: share of the kernels that workers must have compiled, 0 to 1; None: all.
        may_differ: counters that may move otherwise, with the reason. raises: a pattern that the error must
        match which all modes are to end with. environment: variables to set (None: to unset) in the interpreters.
        before: called in each interpreter before anything is compiled. limit: seconds for each interpreter.

        Returns the report. Raises ParityError with all of it where something differs (the folders are kept then),
        BadInput with one sentence for what cannot be compared, FreshFailed where an interpreter died.
        """
        origin = "compile_parity.check()"
        check_function(function, origin)
        arguments = _arguments(inputs, origin)
        if before is not None:
            check_function(before, f"{origin}: before")
        wish = Wish(
            processes=_processes(processes, origin),
            start_methods=_start_methods(start_methods, origin),
            repeat=_number(repeat, "repeat", 1, origin),
            target=_target(target if target is not None else self.target, origin),
            compile=_compile_arguments(compile, origin),
            **_tolerances(rtol, atol, bitwise, origin),
            min_parallel=_share(min_parallel, origin),
            may_differ=_reasons(may_differ, origin),
            raises=_pattern(raises, origin),
            environment=callables.environment(environment, origin),
            before=before,
            ready_timeout=self.ready_timeout,
            shutdown_timeout=self.shutdown_timeout,
            limit=self.limit if limit is None else seconds(limit, "limit", origin),
        )
        name = getattr(function, "__qualname__", type(function).__name__)
        named = _texts(keywords, "keywords", "a dict of arguments by name", origin, Any)
        return compare(wish, function, arguments, named, name, self.new_folder(), self.reports)


def _arguments(inputs: Any, origin: str) -> Any:
    if isinstance(inputs, (tuple, list)):
        return tuple(inputs)
    if is_tensor(inputs):
        return (inputs,)
    if callable(inputs) and not isinstance(inputs, type) and not is_module(inputs):
        check_function(inputs, f"{origin}: inputs")
        return inputs
    raise BadInput(
        f"{origin}: inputs={shown(inputs)} is not allowed; allowed: a tuple or list of arguments, one tensor, or a "
        "function at the top level of a module that makes them"
    )


def _processes(processes: Any, origin: str) -> tuple[int, ...]:
    wrong = BadInput(
        f"{origin}: processes={processes!r} is not allowed; allowed: at least two different numbers from 1, such as "
        "(1, 4)"
    )
    if not isinstance(processes, Sequence) or isinstance(processes, (str, bytes)):
        raise wrong
    try:
        numbers = tuple(parse_processes(number, f"{origin}: processes") for number in processes)
    except BadProcesses as error:
        raise BadInput(str(error)) from None
    if len(numbers) < 2 or len(set(numbers)) != len(numbers):
        raise wrong
    return numbers


def _start_methods(methods: Any, origin: str) -> tuple[str, ...]:
    wrong = not isinstance(methods, Sequence) or isinstance(methods, (str, bytes)) or not methods
    if wrong or any(method not in START_METHODS for method in methods) or len(set(methods)) != len(methods):
        raise BadInput(
            f"{origin}: start_methods={methods!r} is not allowed; allowed: a sequence of different ones of "
            f"{', '.join(START_METHODS)}"
        )
    return tuple(methods)


def _tolerances(rtol: Any, atol: Any, bitwise: Any, origin: str) -> dict[str, Any]:
    for name, value in (("rtol", rtol), ("atol", atol)):
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if value is not None and not (number and 0 <= value <= 1e30):
            raise BadInput(
                f"{origin}: {name}={shown(value)} is not allowed; allowed: a number from 0 to 1e30, or None"
            )
    if (rtol is None) != (atol is None):
        raise BadInput(
            f"{origin}: rtol={rtol!r} and atol={atol!r} are not allowed; allowed: both, or neither of them"
        )
    if not isinstance(bitwise, bool):
        raise BadInput(f"{origin}: bitwise={bitwise!r} is not allowed; allowed: True or False")
    return {"rtol": rtol, "atol": atol, "bitwise": bitwise}


def _pattern(value: Any, origin: str) -> str | None:
    if value is None:
        return None
    try:
        if isinstance(value, str) and value:
            re.compile(value)
            return value
        why = ""
    except re.error as error:
        why = f" ({error})"
    raise BadInput(
        f"{origin}: raises={shown(value)} is not allowed{why}; allowed: a regular expression as text, or None"
    )


def _texts(value: Any, name: str, allowed: str, origin: str, kind: Any = str) -> dict[str, Any]:
    if value is None:
        return {}
    fits = isinstance(value, Mapping) and all(isinstance(key, str) for key in value)
    if not fits or (kind is str and not all(isinstance(item, str) and item for item in value.values())):
        raise BadInput(f"{origin}: {name}={shown(value)} is not allowed; allowed: {allowed}, or None")
    return dict(value)


def _number(value: Any, name: str, least: int, origin: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise BadInput(f"{origin}: {name}={value!r} is not allowed; allowed: a whole number from {least}")
    return value


def _share(value: Any, origin: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise BadInput(
            f"{origin}: min_parallel={value!r} is not allowed; allowed: a share from 0 to 1, or None"
        )
    return float(value)


def _target(value: Any, origin: str) -> str | None:
    if value is None:
        return None
    try:
        return parse_target(value, f"{origin}: target").name
    except BadTarget as error:
        raise BadInput(str(error)) from None


def _reasons(value: Any, origin: str) -> dict[str, str]:
    reasons = _texts(value, "may_differ", "names of counters, each with the reason", origin)
    reader = interpreter_reader()
    for name in reasons:
        if name not in reader.names:
            try:
                reader.check(name, Reading(), f"{origin}: may_differ")
            except UnknownCounter as error:
                raise BadInput(str(error.args[0])) from None
    return reasons


def _compile_arguments(value: Any, origin: str) -> dict[str, Any] | None:
    if isinstance(value, bool):
        return {} if value else None
    if isinstance(value, Mapping) and all(isinstance(name, str) for name in value):
        return dict(value)
    raise BadInput(
        f"{origin}: compile={value!r} is not allowed; allowed: True, False, or arguments for torch.compile such as "
        '{"mode": "max-autotune"}'
    )
