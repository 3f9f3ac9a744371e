# SPDX-License-Identifier: Apache-2.0
"""Which counters there are: those of the installed torch are read from its source."""

from __future__ import annotations

import pytest

from pytest_compilepool.counters import UnknownCounter
from pytest_compilepool.torch_compat.countnames import Names, counter_names, metric_names, torch_folder


@pytest.fixture(scope="module")
def names() -> Names:
    return counter_names(torch_folder())


@pytest.mark.parametrize(
    "name",
    [
        "aot_autograd.autograd_cache_hit",
        "aot_autograd.autograd_cache_miss",
        "aot_autograd.autograd_cache_saved",
        "aot_autograd.ok",
        "aot_autograd.total",
        "frames.ok",
        "frames.total",
        "inductor.async_compile_cache_hit",
        "inductor.async_compile_cache_miss",
        "inductor.benchmarking.TritonBenchmarker.benchmark_gpu",
        "inductor.extern_calls",
        "inductor.fxgraph_cache_bypass",
        "inductor.fxgraph_cache_hit",
        "inductor.fxgraph_cache_miss",
        "inductor.pattern_matcher_count",
        "inductor.triton_bundler_save_kernel",
        "stats.calls_captured",
        "stats.unique_graphs",
        "graph_break.anything at all. Even this",
        "unimplemented.anything",
        "aten_mm_info.aten.mm_1_2_3",
    ],
)
def test_this_torch_has(names, name):
    assert names.know(name)


@pytest.mark.parametrize(
    "name",
    ["inductor.fxgraph_cache_mis", "inductor.anything", "aot_autograd.", "stats", "frame.total", "", "."],
)
def test_this_torch_has_not(names, name):
    assert not names.know(name)


def test_every_name_that_real_compiles_moved_is_known(names):
    """What torch moved here so far in this process: the source was read right, whatever came before this test."""
    import torch
    from torch._dynamo.utils import counters

    def program(x, y):
        torch._dynamo.graph_break()
        return torch.nn.functional.gelu(x @ y).sum()

    x = torch.ones(4, 4, requires_grad=True)
    torch.compile(program, backend="aot_eager")(x, x).backward()
    moved = {f"{group}.{name}" for group, counter in counters.items() for name in counter}
    assert any(name.startswith("graph_break.") for name in moved)
    assert {name for name in moved if not names.know(name)} == set()


def test_ways_to_write_a_counter(tmp_path):
    room = tmp_path / "_inductor"
    room.mkdir()
    (room / "passes.py").write_text(
        """
backend = os.environ.get("SOME_BACKEND", "inductor")
counters["plain"]["one"] += 1
torch._dynamo.utils.counters["plain"]["two"] = 3
counters["plain"][
    "three"
] += 1
pending_waitcounters["no"]["no"] += 1
which = (
    "left"
    if x
    else "right"
)
counters["plain"][which] += 1
counters[backend]["of_the_backend"] += 1
counters["patterns"][f"made.{what}.of"] += 1
counters["patterns"]["begins_" + what.lower().split(".")[0]] += 1
counters["plain"][somebody_elses] += 1
counters["texts"][self.msg] += 1
total = counters["nothing"].total()
key = f"{backend}_by_pattern"
counters[key][name] += 1
"""
    )
    names = counter_names(tmp_path)
    plain = {f"plain.{name}" for name in ("one", "two", "three", "left", "right")}
    assert names.literal == {*plain, "inductor.of_the_backend"}
    for known in (
        "patterns.made.this or that.of",
        "patterns.begins_x",
        "texts.whatever",
        "nothing.whatever",
        "mine_by_pattern.x",
    ):
        assert names.know(known), known
    for unknown in ("plain.other", "patterns.made.", "patterns.begin", "no.no"):
        assert not names.know(unknown), unknown


def test_where_there_is_no_source():
    names = counter_names(None)
    assert (names.literal, names.open, names.patterns) == (set(), set(), set())
    assert metric_names(None) == (set(), set())


def test_names_of_metrics_are_those_that_torch_has(counters):
    """Read from the source, and from the loaded modules: the same."""
    import torch._inductor.metrics  # noqa: F401 - to have it loaded

    sums, numbers = metric_names(torch_folder())
    read = counters._reader.read().numbers
    assert {f"metrics.{name}" for name in sums} == {name for name in read if name.startswith("metrics.")}
    assert {f"inductor_metrics.{name}" for name in numbers} == {
        name for name in read if name.startswith("inductor_metrics.")
    }
    assert {"triton_compile_time_us", "num_triton_bundles", "compilations", "guard_count"} <= sums
    assert not {"start_time_us", "end_time_us", "triton_kernel_compile_times_us", "cache_size"} & sums
    assert "generated_kernel_count" in numbers


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("inductor.fxgraph_cache_mis", "inductor.fxgraph_cache_miss"),
        ("inductor.autograd_cache_hit", "aot_autograd.autograd_cache_hit"),
        ("fxgraph_cache_miss", "inductor.fxgraph_cache_miss"),
        ("pool.job_done", "pool.jobs_done"),
        ("metrics.triton_compile_time", "metrics.triton_compile_time_us"),
        ("inductor_metrics.generated_kernels", "inductor_metrics.generated_kernel_count"),
        ("mine.never_move", "mine.never_moved"),
    ],
)
def test_an_unknown_name_is_an_error_before_the_block(counters, name, nearest):
    with pytest.raises(UnknownCounter) as caught:
        counters.expect({name: 1})
    said = str(caught.value)
    assert said.startswith(
        f"compile_counters.expect: there is no counter {name!r}; the nearest are: {nearest}"
    )


def test_a_name_that_looks_like_none(counters):
    with pytest.raises(UnknownCounter, match=r"there is no counter 'qqqqqqqq'$"):
        counters.expect({"qqqqqqqq": 1})


def test_a_counter_that_never_moved_is_zero(counters):
    expected = dict.fromkeys(
        ["inductor.cpp_templated_kernel_counter", "graph_break.never seen", "mine.never_moved"], 0
    )
    with counters.expect(expected):
        pass


def test_a_name_that_torch_moved_is_known_wherever_it_comes_from(counters):
    from torch._dynamo.utils import counters as torchs

    with pytest.raises(UnknownCounter):
        counters.expect({"of_a_backend.things": 1})
    torchs["of_a_backend"]["things"] += 1
    with counters.expect({"of_a_backend.things": 1}):
        torchs["of_a_backend"]["things"] += 1
    del torchs["of_a_backend"]
