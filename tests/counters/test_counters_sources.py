# SPDX-License-Identifier: Apache-2.0
"""Sources of others: what the hook may offer, what a source may return, and what becomes of one that fails."""

from __future__ import annotations

import pytest

from pytest_compilepool.counters import BadInput, CounterSource, SourceFailed
from pytest_compilepool.counters.facade import SessionCounters
from pytest_compilepool.counters.source import checked_sources, read_source


def source(name: object = "other", values: object = None, **more: object) -> CounterSource:
    """A source that gives these values."""
    made = type("Other", (CounterSource,), {"name": name, "read": lambda self: values, **more})
    return made()


@pytest.mark.parametrize(
    ("offered", "said"),
    [
        (3, "3 is not allowed; allowed: a list of CounterSource instances"),
        ("mine", "'mine' is not allowed; allowed: a list of CounterSource instances"),
        ([1], "1 in the list is not allowed; allowed: instances of subclasses of CounterSource"),
        ([CounterSource], "CounterSource'> in the list is not allowed"),
        ([source("With-Dash")], "the name 'With-Dash' of Other is not allowed; allowed: lower-case letters"),
        ([source(None)], "the name None of Other is not allowed"),
        (
            [source("pool")],
            "the name 'pool' of Other: that name is taken; taken are aot_autograd, aten_mm_info",
        ),
        ([source("inductor")], "the name 'inductor' of Other: that name is taken"),
        ([source("vllm")], "the name 'vllm' of Other: that name is taken"),
        ([source("one"), source("one")], "the name 'one' of Other: that name is taken"),
    ],
)
def test_what_a_hook_must_not_offer(offered, said):
    with pytest.raises(BadInput) as caught:
        _ = SessionCounters(lambda: [offered]).others
    assert str(caught.value).startswith("hook pytest_compilepool_counters: ")
    assert said in str(caught.value)


def test_two_hooks_that_offer_one_name():
    with pytest.raises(BadInput, match="'one' of Other: that name is taken"):
        _ = SessionCounters(lambda: [[source("one")], [source("one")]]).others


def test_a_hook_that_raises():
    def offered():
        raise RuntimeError("no conftest today")

    with pytest.raises(BadInput, match="hook pytest_compilepool_counters: raised RuntimeError: no conftest"):
        _ = SessionCounters(offered).others


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (None, "read() returned None; allowed is a mapping from names to whole numbers"),
        ([("a", 1)], "read() returned [('a', 1)]; allowed is a mapping"),
        ({1: 1}, "read() returned 1; allowed is a text as name of a counter"),
        ({"": 1}, "read() returned ''; allowed is a text as name of a counter"),
        ({"a": "1"}, "read() returned '1'; allowed is a whole number from 0 for 'a'"),
        ({"a": True}, "read() returned True; allowed is a whole number from 0 for 'a'"),
        ({"a": 1.5}, "read() returned 1.5; allowed is a whole number from 0 for 'a'"),
        ({"a": -1}, "read() returned -1; allowed is a whole number from 0 for 'a'"),
    ],
)
def test_what_a_source_must_not_return(values, said):
    with pytest.raises(SourceFailed) as caught:
        read_source(source(values=values))
    assert str(caught.value).startswith(f"counter source 'other' cannot tell: {said}")


def test_what_a_source_may_return():
    import torch

    assert read_source(source(values={"a": 0, "b.c": torch.tensor(3)})) == {"other.a": 0, "other.b.c": 3}


def test_a_source_that_raises_does_not_hide_the_others(counters, mine):
    mine.error = RuntimeError("gone")
    assert "mine.things" not in counters.read()
    assert counters.read()["pool.jobs_done"] == 0
    sentence = r"mine.things: counter source 'mine' cannot tell: read\(\) raised RuntimeError: gone"
    with pytest.raises(SourceFailed, match=sentence):
        counters.expect({"mine.things": 1})
    with pytest.raises(SourceFailed, match=sentence):
        counters.read()["mine.things"]


def test_sources_by_hook(inner):
    result = inner(
        """
        import pytest, store

        def test_counted(compile_counters):
            with compile_counters.expect({"store.sold": 2}, exact=True):
                store.SOLD.extend("ab")
            assert compile_counters.moved() == {"store.sold": 2}

        def test_wrong(compile_counters):
            with compile_counters.expect({"store.sold": 2}):
                store.SOLD.append("c")
        """,
        conftest="""
            import sys, types
            from pytest_compilepool.counters import CounterSource

            store = sys.modules["store"] = types.ModuleType("store")
            store.SOLD = []

            class Store(CounterSource):
                name = "store"

                def read(self):
                    return {"sold": len(store.SOLD)}

            def pytest_compilepool_counters(config):
                assert config.rootpath
                return [Store()]
        """,
    )
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["E*store.sold *2 *2 *3 *+1"])


def test_a_hook_that_returns_rubbish_fails_the_tests_that_use_the_fixture(inner):
    result = inner(
        "def test_one(compile_counters): pass\ndef test_other(): pass",
        conftest="def pytest_compilepool_counters(config): return 'rubbish'",
    )
    result.assert_outcomes(passed=1, errors=1)
    said = (
        "compile_counters: hook pytest_compilepool_counters: 'rubbish' is not allowed; allowed: a list of *"
    )
    result.stdout.fnmatch_lines([said])


def test_checked_sources_gives_what_it_was_given():
    one = source("one")
    assert checked_sources([one], ["two"], "here") == [one]


def test_what_a_hook_must_not_offer_is_said_once(inner):
    result = inner(
        "def test_one(compile_counters): pass",
        conftest="def pytest_compilepool_counters(config): return 3",
    )
    result.assert_outcomes(errors=1)
    out = result.stdout.str().partition("short test summary")[0]
    assert out.count("3 is not allowed; allowed: a list of CounterSource instances") == 1
    assert "During handling" not in out
