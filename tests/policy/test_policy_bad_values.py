# SPDX-License-Identifier: Apache-2.0
"""What is not a number of processes or not a start method is refused, wherever it comes from."""

from __future__ import annotations

import pytest

from pytest_compilepool.pool.policy import (
    FIXTURE,
    FLAG,
    INI,
    MARKER,
    MAX_PROCESSES,
    START_VARIABLE,
    THREADS_VARIABLE,
    VLLM_VARIABLE,
    BadProcesses,
    BadStartMethod,
    parse_processes,
)

BAD = ["0", "-3", "eight", "", " ", "2.5", "9999", str(MAX_PROCESSES + 1), "1_0", "0x4", "4,", "٤", "9" * 99]
BAD_OBJECTS = [0, -3, 9999, True, False, 2.5, 4.0, [4], b"4"]
SOURCES = [THREADS_VARIABLE, VLLM_VARIABLE, INI, FLAG, MARKER, FIXTURE]


def ask(decide, source: str, value: object) -> None:
    if source in (THREADS_VARIABLE, VLLM_VARIABLE):
        decide(environ={source: value})
    else:
        decide(**{{INI: "ini", FLAG: "flag", MARKER: "marker", FIXTURE: "at_least"}[source]: value})


def check(message: str, value: object, source: str) -> None:
    assert message.startswith(f"{source}: {value!r} ")
    assert f"a whole number from 1 to {MAX_PROCESSES}" in message
    assert "\n" not in message


@pytest.mark.parametrize("value", BAD)
@pytest.mark.parametrize("source", SOURCES)
def test_bad_text(decide, source: str, value: str) -> None:
    if source == VLLM_VARIABLE and not value.strip():
        # As vLLM reads its own: empty is unset.
        assert decide(environ={source: value}) == decide(environ={})
        return
    with pytest.raises(BadProcesses) as caught:
        ask(decide, source, value)
    check(str(caught.value), value, source)


@pytest.mark.parametrize("value", BAD_OBJECTS)
@pytest.mark.parametrize("source", [INI, FLAG, MARKER, FIXTURE])
def test_bad_object(decide, source: str, value: object) -> None:
    with pytest.raises(BadProcesses) as caught:
        ask(decide, source, value)
    check(str(caught.value), value, source)


@pytest.mark.parametrize("value", [*BAD, *BAD_OBJECTS, "auto", None])
def test_parse(value: object) -> None:
    with pytest.raises(BadProcesses) as caught:
        parse_processes(value, "here")  # type: ignore[arg-type]
    check(str(caught.value), value, "here")


class Mute:
    def __repr__(self) -> str:
        raise RuntimeError("no words")


class MuteNumber(Mute, int):
    """Whose str() raises, too."""


@pytest.mark.parametrize("value", [10**5000, "9" * 5000, "a" * 5000, Mute(), MuteNumber(4)], ids=type)
def test_what_cannot_be_written_in_a_line_is_refused_in_one(value: object) -> None:
    with pytest.raises(BadProcesses, match=rf"^here: .{{1,200}} is not a number .* 1 to {MAX_PROCESSES}$"):
        parse_processes(value, "here")  # type: ignore[arg-type]


def test_auto_is_a_word_of_one_variable_only(decide) -> None:
    with pytest.raises(BadProcesses, match=r"allowed is a whole number from 1 to \d+, or auto$"):
        decide(environ={VLLM_VARIABLE: "lots"})
    for source in (THREADS_VARIABLE, INI, FLAG, MARKER):
        with pytest.raises(BadProcesses, match=r"from 1 to \d+$"):
            ask(decide, source, "auto")


@pytest.mark.parametrize("source", [THREADS_VARIABLE, VLLM_VARIABLE])
def test_refused_though_overruled(decide, source: str) -> None:
    with pytest.raises(BadProcesses, match=f"^{source}: 'eight'"):
        decide(environ={source: "eight"}, flag="2")


def test_what_vllm_wrote_over_is_checked(decide) -> None:
    with pytest.raises(BadProcesses, match=f"^{THREADS_VARIABLE} at process start: 'many'"):
        decide(environ={THREADS_VARIABLE: "1"}, started_with={THREADS_VARIABLE: "many"}, vllm_imported=True)


@pytest.mark.parametrize("value", ["", " ", "thread", "Fork", "fork ", "two words"])
def test_bad_start_method(decide, value: str) -> None:
    wanted = f"{value!r} is not a start method of torch 2.13.0; allowed is one of subprocess, fork, spawn"
    with pytest.raises(BadStartMethod) as caught:
        decide(start_method=value)
    assert str(caught.value) == f"start_method: {wanted}"
    with pytest.raises(BadStartMethod) as caught:
        decide(environ={START_VARIABLE: value})
    assert str(caught.value) == f"{START_VARIABLE}: {wanted}"


def test_a_torch_that_knows_fewer(decide, torch) -> None:
    old = torch(torch="2.6.0", start_methods=("subprocess",))
    with pytest.raises(
        BadStartMethod, match=r"'spawn' is not .* torch 2\.6\.0; allowed is one of subprocess$"
    ):
        decide(start_method="spawn", capabilities=old)


@pytest.mark.parametrize("value", ["", " ", 4])
def test_nonsense_is_refused_without_a_look_at_torch(decide, value: object) -> None:
    with pytest.raises(BadStartMethod, match="allowed is one of subprocess, fork, spawn"):
        decide(start_method=value, capabilities=None)


def test_which_start_method_counts(decide) -> None:
    environ = {START_VARIABLE: "fork"}
    assert decide().start_method == "subprocess"
    assert decide(environ=environ).start_method == "fork"
    assert decide(environ=environ, start_method="spawn").start_method == "spawn"
    # A later torch may have one more; without a look at it that cannot be known.
    assert decide(start_method="forkserver", capabilities=None).start_method == "forkserver"
