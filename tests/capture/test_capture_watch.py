# SPDX-License-Identifier: Apache-2.0
"""What is heard of a capture, and that nothing stays behind of the listening. No pool, no GPU, no torch."""

from __future__ import annotations

import contextlib
import sys
import threading
import types
from unittest import mock

import pytest

from pytest_compilepool.capture import CaptureGuard


def functions_of(owner: type) -> list[object]:
    return [vars(owner).get(name) for name in ("capture_begin", "capture_end")]


def test_what_is_recorded_of_a_capture(guard, graph_class, capture):
    capture()
    (record,) = guard.captures
    assert (graph_class.begun, graph_class.ended) == (1, 1)
    assert record.number == 1
    assert record.where.startswith(f"{capture.__code__.co_filename}:")
    assert record.where.endswith(" in capture_of_the_test")
    assert record.functions[-1] == "capture_of_the_test"
    assert record.inside("test_what_is_recorded_of_a_capture")
    assert not record.inside("capture_begin")
    assert "graph.capture_begin()\n" in record.stack
    assert record.thread == threading.current_thread().name
    assert 0 < record.took < 1
    assert record.at + record.took <= record.ended
    assert not record.under_way
    assert [record.failed, record.broken, record.error] == [""] * 3


def test_arguments_and_results_go_through(guard, graph_class):
    assert graph_class().capture_begin("pool") == "pool"
    assert graph_class().capture_begin(pool=7, error=None) == 7


def test_a_capture_is_under_way_until_it_ends(guard, graph_class):
    graph = graph_class()
    graph.capture_begin()
    assert guard.captures[0].under_way
    graph.capture_end()
    assert not guard.captures[0].under_way


def test_two_captures_at_a_time_are_told_apart(guard, graph_class):
    first, second = graph_class(), graph_class()
    first.capture_begin()
    second.capture_begin()
    first.capture_end()
    assert [record.under_way for record in guard.captures] == [False, True]


def test_what_the_capture_raises_goes_through_and_is_kept(guard, graph_class):
    with pytest.raises(OSError, match="planted") as caught:
        graph_class().capture_begin(error=OSError("planted"))
    assert caught.traceback[-1].name == "capture_begin"
    graph = graph_class()
    graph.capture_begin()
    with pytest.raises(OSError, match="at the end"):
        graph.capture_end(error=OSError("at the end"))
    failed, broken = guard.captures
    assert failed.failed == "OSError: planted"
    assert not failed.under_way
    assert broken.broken == "OSError: at the end"
    assert not broken.under_way
    assert "it did not begin: OSError: planted" in guard.describe()
    assert "it ended with OSError: at the end" in guard.describe()


def test_a_subclass_that_calls_its_base_is_one_capture(guard, graph_class):
    class Derived(graph_class):
        def capture_begin(self, **options):
            super().capture_begin(**options)

        def capture_end(self, **options):
            super().capture_end(**options)

    guard.watch(Derived)
    graph = Derived()
    graph.capture_begin()
    graph.capture_end()
    assert Derived.begun == Derived.ended == 1
    assert len(guard.captures) == 1
    assert guard.captures[0].ended is not None
    # After one that fails, the next is heard again.
    with contextlib.suppress(OSError):
        graph.capture_begin(error=OSError())
    graph.capture_begin()
    assert [bool(record.failed) for record in guard.captures] == [False, True, False]


@pytest.mark.parametrize("last", ["inner", "outer"])
def test_guards_nest_and_end_in_any_order(graph_class, capture, last):
    before = functions_of(graph_class)
    inner, outer = CaptureGuard(), CaptureGuard()
    for guard in (outer, inner):
        guard.start()
        guard.watch(graph_class)
    capture()
    (outer if last == "inner" else inner).stop()
    capture()
    counts = {"inner": len(inner.captures), "outer": len(outer.captures)}
    assert counts == {"inner": 1, "outer": 1, last: 2}
    inner.stop()
    outer.stop()
    capture()
    assert counts == {"inner": len(inner.captures), "outer": len(outer.captures)}
    assert functions_of(graph_class) == before
    assert all(now is then for now, then in zip(functions_of(graph_class), before, strict=True))


def test_a_guard_that_starts_again_records_on(graph_class, capture):
    with CaptureGuard() as guard:
        guard.watch(graph_class)
        capture()
    with guard:
        guard.watch(graph_class)
        guard.watch(graph_class)  # twice is once
        capture()
    assert [record.number for record in guard.captures] == [1, 2]


def test_what_is_watched_before_the_start_stays_watched(graph_class, capture):
    guard = CaptureGuard()
    guard.watch(graph_class)
    capture()
    finders = len(sys.meta_path)
    guard.start()
    guard.start()
    assert len(sys.meta_path) <= finders + 1
    capture()
    guard.stop()
    guard.stop()
    assert len(guard.captures) == 2
    assert len(sys.meta_path) == finders


def test_an_inherited_function_is_not_left_on_the_class(graph_class):
    class Derived(graph_class):
        pass

    with CaptureGuard() as guard:
        guard.watch(Derived)
        Derived().capture_begin()
        graph_class().capture_begin()  # nobody asked about that one
        assert len(guard.captures) == 1
    assert functions_of(Derived) == [None, None]


def test_somebody_who_wraps_it_later_keeps_working(guard, graph_class, capture):
    ours = graph_class.capture_begin
    calls = []

    def theirs(self):
        calls.append(self)
        ours(self)

    graph_class.capture_begin = theirs
    capture()
    guard.stop()
    assert graph_class.capture_begin is theirs
    capture()
    assert len(calls) == graph_class.begun == 2
    assert len(guard.captures) == 1


def test_other_things_than_classes_and_methods(guard):
    def begin():
        return "begun"

    class Static:
        capture_begin = staticmethod(begin)
        capture_end = classmethod(lambda cls: cls)

    module = types.ModuleType("vendor")
    module.start, module.finish = start, begin = mock.Mock(return_value="begun"), begin
    one = Static()
    mocked = mock.Mock()
    kept = [vars(Static)["capture_begin"], vars(Static)["capture_end"], mocked.capture_begin]
    guard.watch(Static)
    guard.watch(module, "start", "finish")
    guard.watch(one)
    guard.watch(mocked, end=None)
    assert Static.capture_begin() == "begun"
    assert Static.capture_end() is Static
    assert module.start() == module.finish() == "begun"
    assert one.capture_begin() == "begun"  # through both of them, once
    mocked.capture_begin("x")
    kept[2].assert_called_once_with("x")
    assert [record.under_way for record in guard.captures] == [False, False, True, True]
    guard.stop()
    assert [vars(Static)["capture_begin"], vars(Static)["capture_end"]] == kept[:2]
    assert [module.start, module.finish] == [start, begin]
    start.assert_called_once_with()
    assert vars(one) == {}
    assert mocked.capture_begin is kept[2]


@pytest.mark.parametrize(
    ("owner", "names", "text"),
    [
        (
            dict,
            {},
            r"watch\(<class 'dict'>\): it has no function 'capture_begin'; allowed: a class, an object or",
        ),
        (
            threading.Thread,
            {"begin": "start", "end": "stop"},
            r"it has no function 'stop'; allowed: .*end=None",
        ),
        (types.SimpleNamespace(capture_begin=1), {}, r"it has no function 'capture_begin'; allowed: "),
        (
            dict,
            {"begin": "clear", "end": None},
            r"its 'clear' cannot be replaced \(.*immutable.*\); allowed: ",
        ),
        (threading.Thread, {"begin": 5}, r"it has no function 5; allowed: "),
        (threading.Thread, {"begin": "start", "end": ""}, r"it has no function ''; allowed: "),
    ],
    ids=["missing", "missing end", "no function", "not to be replaced", "begin is no name", "end is no name"],
)
def test_what_cannot_be_watched_is_refused_in_one_sentence(guard, owner, names, text):
    start = threading.Thread.start
    with pytest.raises(ValueError, match=text) as caught:
        guard.watch(owner, **names)
    assert "\n" not in str(caught.value)
    assert threading.Thread.start is start


def test_a_class_whose_end_cannot_be_replaced_keeps_its_beginning(guard):
    class Half(type):
        def __setattr__(cls, name, value):
            if name == "capture_end":
                raise TypeError("planted")
            super().__setattr__(name, value)

    class Graph(metaclass=Half):
        def capture_begin(self):
            pass

        def capture_end(self):
            pass

    before = functions_of(Graph)
    with pytest.raises(ValueError, match=r"its 'capture_end' cannot be replaced \(planted\)"):
        guard.watch(Graph)
    assert functions_of(Graph) == before
