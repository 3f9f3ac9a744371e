# SPDX-License-Identifier: Apache-2.0
"""Every option of the plugin: one table, one validation. A flag overrides the ini option of the same name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

START_METHODS = ("subprocess", "fork", "spawn")
SUITE_MODES = ("smoke", "standard", "stress")
INTERPRETERS = ("fork", "new")
LEAK_MODES = ("auto", "off", "warn", "fail")
GPU_MODES = ("all", "spread")
CACHE_MODES = ("worker", "shared")
MISSING_MODES = ("skip", "fail")
ATTEMPTS = tuple("123456789")
_ON_OFF = ("on", "off")


def _seconds(text: str) -> float:
    value = float(text)
    # float() takes "1_0" and the digits of other scripts.
    if not 0 < value <= 3600 or "_" in text or not text.isascii():
        raise ValueError(text)
    return value


def _switch(text: str) -> bool:
    words = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False}
    return {**words, "off": False}[text.strip().lower()]


# Neither this nor Settings is a dataclass: every session loads this file, and making one takes longer than the rest of it.
class Option:
    """One option. name: as in `--compilepool-NAME` and, with underscores, the ini option `compilepool_NAME`.

    parse: text to value, raising ValueError or KeyError; allowed: what to say when it does.
    """

    def __init__(
        self,
        name: str,
        default: str | None,
        parse: Callable[[str], Any],
        allowed: str,
        help: str,
        switch: bool = False,
    ) -> None:
        self.name, self.default, self.parse = name, default, parse
        self.allowed, self.help, self.switch = allowed, help, switch
        self.flag = f"--compilepool-{name}"
        self.ini = f"compilepool_{name.replace('-', '_')}"


def _choice(name: str, default: str | None, words: tuple[str, ...], help: str) -> Option:
    """An option that is one of these words."""

    def parse(text: str) -> str:
        if text not in words:
            raise ValueError(text)
        return text

    return Option(name, default, parse, ", ".join(words), help)


def _timeout(name: str, default: str, help: str) -> Option:
    """An option in seconds."""
    return Option(name, default, _seconds, "seconds, more than 0 and at most 3600", help)


def _words(text: str) -> tuple[str, ...]:
    words = tuple(word.strip() for word in text.split(","))
    if not all(words):
        raise ValueError(text)
    return words


def _target(text: str) -> str:
    from pytest_compilepool.targets import triton_target

    return "" if text == "off" else triton_target(text, "")


def _shard(text: str) -> str:
    from pytest_compilepool.conformance.shards import parse_shard

    parse_shard(text)
    return text


def _attempts(text: str) -> int:
    if text not in ATTEMPTS:
        raise ValueError(text)
    return int(text)


def _module_and_class(text: str) -> str:
    module, colon, name = text.partition(":")
    if not (colon and name.isidentifier() and all(part.isidentifier() for part in module.split("."))):
        raise ValueError(text)
    return text


OPTIONS = (
    Option(
        "processes",
        None,
        str,
        "a whole number from 1 (no pool)",
        "Processes of a compile pool; without it min(8, cpus // gpus - 1) as far as memory allows",
    ),
    _choice(
        "start-method",
        None,
        START_METHODS,
        "How workers are started: subprocess (a sidecar forks them), fork or spawn (no sidecar, no quiesce)",
    ),
    _choice(
        "prestart",
        "on",
        _ON_OFF,
        "on: the sidecar starts as soon as collection shows that a test will be handed a pool, where torch is imported by "
        "then; off: when that test asks for it",
    ),
    _choice(
        "spare",
        "off",
        _ON_OFF,
        "on: while a test runs, the next sidecar is started for a test that will need one of its own, if CPUs and memory "
        "allow it",
    ),
    Option(
        "prime",
        None,
        _target,
        "off, or a GPU such as cuda:90",
        "Sidecars compile a Triton kernel for this GPU before they fork: no worker pays for its first one; off by default",
    ),
    _timeout(
        "ready-timeout",
        "60",
        "Seconds that a pool may take until all its workers are there",
    ),
    _timeout(
        "quiesce-timeout",
        "10",
        "Seconds that workers may take to go at a quiesce, and to come back at a wakeup",
    ),
    _timeout(
        "jobs-timeout",
        "5",
        "Seconds that the pending jobs of a test have after it; then its pool is ended",
    ),
    _timeout(
        "shutdown-timeout",
        "10",
        "Seconds that a pool may take to end by itself; then it is terminated, a second later killed",
    ),
    _timeout(
        "end-timeout",
        "3",
        "Seconds that all pools together have at the end of the session, half of one after Ctrl-C; then they are ended. "
        "xdist gives a worker ten",
    ),
    _timeout(
        "exclusive-timeout",
        "600",
        "Seconds that a test waits for one that has the machine to itself, or that one for all others",
    ),
    _timeout(
        "fresh-timeout",
        "300",
        "Seconds that each fresh interpreter of compile_phases and compile_parity may take; then it is ended",
    ),
    _choice(
        "caches",
        "worker",
        CACHE_MODES,
        "Cache folders of torch, Triton and vLLM under xdist: one set for each worker (and tox environment), or shared",
    ),
    _choice(
        "gpus",
        "all",
        GPU_MODES,
        "Under xdist: each worker sees all GPUs, or they are spread, one for each worker in turn",
    ),
    _choice(
        "leaks",
        "auto",
        LEAK_MODES,
        "What to do about what a test leaves behind: warn or fail (every test is looked at), off, or auto "
        "(warn, for tests that use a compile-pool fixture or in which a pool appears)",
    ),
    _timeout(
        "leak-grace",
        "2",
        "Seconds that what looks like a leak may take to go away by itself",
    ),
    _choice(
        "missing",
        "skip",
        MISSING_MODES,
        "What a fixture does where there is no torch, or one that cannot do what the fixture promises",
    ),
    Option(
        "block",
        "false",
        _switch,
        "true or false",
        "Fail a test that starts a compile pool without asking for one",
        switch=True,
    ),
    Option(
        "write-counters",
        "false",
        _switch,
        "true or false",
        "Write what compile_counters.baseline() counts to the files beside the tests, instead of comparing",
        switch=True,
    ),
    _choice(
        "mode",
        "standard",
        SUITE_MODES,
        "Which features of a conformance suite are tried: smoke (30 s in all), standard, or all of them (stress)",
    ),
    Option(
        "group",
        None,
        _words,
        "names of groups, separated by commas",
        "Try the features of these groups only, separated by commas",
    ),
    Option(
        "requirements",
        None,
        _module_and_class,
        "module:Class",
        "Class that says which pool a conformance suite tries; without it torch's own",
    ),
    _choice(
        "interpreter",
        "fork",
        INTERPRETERS,
        "Where the interpreter of each feature comes from: fork (of a process that has imported what the requirements "
        "class says, torch for torch's pool, and has no threads) or new (it imports that itself: seconds)",
    ),
    Option(
        "expectations",
        None,
        str,
        "a file",
        "File with the known defects of the pool that a conformance suite tries; without it the bundled one for torch's "
        "own pool, none for another",
    ),
    Option(
        "cell",
        None,
        str,
        "a file",
        "Write the results of a conformance suite to this file: a cell, for `compilepool matrix` and `compare`",
    ),
    Option(
        "shard",
        None,
        _shard,
        "K/N, the K-th of N parts, such as 1/4",
        "Of the features of a conformance suite only a part, dealt out by name: 1/2 and 2/2 are all of them",
    ),
    Option(
        "require",
        None,
        _words,
        "words, separated by commas",
        "Properties such as gpu or triton, and versions such as torch==2.13.*: what is not here is an error, not a skip",
    ),
    Option(
        "attempts",
        "1",
        _attempts,
        "a whole number from 1 to 9",
        "How often a feature that is not as expected is tried; one that differs is FLAKY in the cell, and fails",
    ),
    Option(
        "ci",
        "false",
        _switch,
        "true or false",
        "Fail if an expectation of a conformance suite is stale",
        switch=True,
    ),
)


class Settings:
    """The options of one session, validated. Timeouts and grace are seconds.

    processes_ini, processes_flag: as text or None; they are weighed by the policy, with their origin.
    """

    processes_ini: str | None
    processes_flag: str | None
    start_method: str | None
    prestart: str
    spare: str
    prime: str | None
    ready_timeout: float
    quiesce_timeout: float
    jobs_timeout: float
    shutdown_timeout: float
    end_timeout: float
    exclusive_timeout: float
    fresh_timeout: float
    caches: str
    gpus: str
    leaks: str
    leak_grace: float
    missing: str
    block: bool
    write_counters: bool
    mode: str
    interpreter: str
    group: tuple[str, ...] | None
    requirements: str | None
    expectations: str | None
    cell: str | None
    shard: str | None
    require: tuple[str, ...] | None
    attempts: int
    ci: bool

    def __init__(self, **values: Any) -> None:
        """values: all of the above, by name."""
        vars(self).update(values)


def add_options(parser: pytest.Parser) -> None:
    """Declare every option, once as a flag and once as an ini option."""
    group = parser.getgroup("compilepool", "torch.compile's compile pool")
    for option in OPTIONS:
        dest = option.ini
        if option.switch:
            group.addoption(option.flag, dest=dest, action="store_const", const="true", help=option.help)
        else:
            group.addoption(
                option.flag,
                dest=dest,
                metavar=option.name.rpartition("-")[2].upper(),
                help=option.help + (f" (default: {option.default})" if option.default else ""),
            )
        parser.addini(option.ini, option.help, default=None)


def read_settings(config: pytest.Config) -> Settings:
    """Read and validate. Raises pytest.UsageError that names value, origin and what is allowed."""
    values: dict[str, Any] = {}
    for option in OPTIONS:
        if option.name != "processes":
            values[option.ini.removeprefix("compilepool_")] = _value(config, option)
    flag, ini = config.getoption("compilepool_processes"), config.getini("compilepool_processes")
    _check_processes((ini, "ini option compilepool_processes"), (flag, "--compilepool-processes"))
    return Settings(processes_ini=ini, processes_flag=flag, **values)


def _check_processes(*given: tuple[str | None, str]) -> None:
    for text, origin in given:
        if text is not None:
            from pytest_compilepool.pool.policy import BadProcesses, parse_processes

            try:
                parse_processes(text, origin)
            except BadProcesses as error:
                raise pytest.UsageError(str(error)) from None


def _value(config: pytest.Config, option: Option) -> Any:
    text, origin = config.getoption(option.ini), option.flag
    if text is None:
        text, origin = config.getini(option.ini), f"ini option {option.ini}"
    if text is None:
        text, origin = option.default, "default"
    if text is None:
        return None
    try:
        return option.parse(str(text))
    except (ValueError, KeyError):
        raise pytest.UsageError(f"{origin}: {text!r} is not allowed; allowed: {option.allowed}") from None
