# SPDX-License-Identifier: Apache-2.0
"""torch's settings and counters: real ones, planted and innocent."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from pytest_compilepool.leaks import census
from pytest_compilepool.leaks.config import ConfigChecker
from pytest_compilepool.leaks.counters import CounterChecker


@pytest.fixture
def config(inductor: Any) -> Iterator[Any]:
    import torch._dynamo.config
    import torch._inductor.config

    with (
        torch._inductor.config.patch({}),
        torch._dynamo.config.patch({"verbose": torch._dynamo.config.verbose}),
    ):
        yield torch._inductor.config


@pytest.fixture
def counters(inductor: Any) -> Iterator[Any]:
    import torch._dynamo.utils as utils

    kept = {group: dict(numbers) for group, numbers in utils.counters.items()}
    utils.counters.clear()
    yield utils.counters
    utils.counters.clear()
    for group, numbers in kept.items():
        utils.counters[group].update(numbers)


class TestConfigPlanted:
    def test_number(self, account: Any, config: Any) -> None:
        old = config.compile_threads
        own = account(ConfigChecker())
        config.compile_threads = 77
        leak, text = own.leak("inductor.compile_threads")
        assert (leak.before, leak.after) == (repr(old), "77")
        assert 'allow=["config:inductor.compile_threads"]' in text
        own.restore()
        own.assert_clean(0.0)
        assert config.compile_threads == old

    def test_nested_setting(self, account: Any, config: Any) -> None:
        own = account(ConfigChecker())
        config.triton.cudagraphs = not config.triton.cudagraphs
        own.leak("inductor.triton.cudagraphs")
        own.restore()
        own.assert_clean(0.0)

    def test_setting_of_dynamo(self, account: Any, config: Any) -> None:
        import torch._dynamo.config as dynamo

        own = account(ConfigChecker())
        dynamo.verbose = not dynamo.verbose
        own.leak("dynamo.verbose")
        own.restore()
        own.assert_clean(0.0)

    def test_list_that_was_changed_in_place(self, account: Any, config: Any) -> None:
        name = next(n for n, v in config.get_config_copy().items() if isinstance(v, list) and "." not in n)
        own = account(ConfigChecker())
        getattr(config, name).append("planted")
        assert "planted" in own.leak(f"inductor.{name}")[0].after
        own.restore()
        own.assert_clean(0.0)
        # What torch got back is its own: changing it again does not change the census.
        getattr(config, name).append("planted")
        own.leak(f"inductor.{name}")
        own.restore()
        own.assert_clean(0.0)


class TestConfigInnocent:
    def test_patch(self, account: Any, config: Any) -> None:
        own = account(ConfigChecker())
        with config.patch(compile_threads=77):
            pass
        assert own.leaks() == []

    def test_set_and_put_back(self, account: Any, config: Any) -> None:
        own = account(ConfigChecker())
        old = config.compile_threads
        config.compile_threads = 77
        config.compile_threads = old
        assert own.leaks() == []

    def test_reading(self, account: Any, config: Any) -> None:
        own = account(ConfigChecker())
        str(config.get_config_copy())
        assert own.leaks() == []

    def test_module_that_was_imported_meanwhile(self) -> None:
        # By hand: the modules are loaded by now. Only what is there on both sides is judged.
        before = {"inductor.a": 1}
        assert ConfigChecker().diff(before, {"inductor.a": 1, "functorch.b": 2}) == []
        assert [leak.key for leak in ConfigChecker().diff(before, {"inductor.a": 2, "functorch.b": 2})] == [
            "inductor.a"
        ]


class TestCountersPlanted:
    def test_cleared(self, account: Any, counters: Any) -> None:
        counters["aot_autograd"]["autograd_cache_hit"] = 2
        own = account(CounterChecker())
        counters.clear()
        leak, text = own.leak("aot_autograd")
        assert (leak.before, leak.after) == ("autograd_cache_hit 2", "autograd_cache_hit 0")
        assert 'allow=["counters:aot_autograd"]' in text
        own.restore()
        own.assert_clean(0.0)
        assert counters["aot_autograd"]["autograd_cache_hit"] == 2

    def test_set_lower(self, account: Any, counters: Any) -> None:
        counters["frames"]["total"] = 5
        own = account(CounterChecker())
        counters["frames"]["total"] = 3
        own.leak("frames")
        own.restore()
        own.assert_clean(0.0)

    def test_cleared_and_counted_again(self, account: Any, counters: Any) -> None:
        counters["frames"].update(total=5, ok=1)
        own = account(CounterChecker())
        counters.clear()
        counters["frames"].update(total=1, ok=2)
        assert own.leak("frames")[0].before == "total 5"
        own.restore()
        own.assert_clean(0.0)
        assert dict(counters["frames"]) == {"total": 5, "ok": 1}

    def test_growth_where_asked_for(self, account: Any, counters: Any) -> None:
        own = account(CounterChecker(report_growth=True))
        counters["stats"].update(unique_graphs=1, calls_captured=4)
        assert own.leak("stats")[0].after == "calls_captured 4, unique_graphs 1"
        own.restore()
        own.assert_clean(0.0)


class TestCountersInnocent:
    def test_growth_is_put_back_in_silence(self, account: Any, counters: Any) -> None:
        counters["frames"]["total"] = 1
        own = account(CounterChecker())
        counters["frames"]["total"] += 1
        counters["inductor"]["fxgraph_cache_miss"] += 1
        verdict = own.verdict()
        assert verdict.leaks == []
        census.restore([own.checker], verdict.silent)
        assert {group: dict(numbers) for group, numbers in counters.items() if numbers} == {
            "frames": {"total": 1}
        }

    def test_looking_at_a_counter_that_is_not_there(self, account: Any, counters: Any) -> None:
        own = account(CounterChecker(report_growth=True))
        assert counters["nothing"]["at all"] == 0
        assert own.leaks() == []

    def test_cleared_while_empty(self, account: Any, counters: Any) -> None:
        own = account(CounterChecker(report_growth=True))
        counters.clear()
        assert own.leaks() == []

    @pytest.mark.usefixtures("torch_environment")
    def test_real_compile_counts_and_is_set_back(self, account: Any, counters: Any) -> None:
        import torch

        own = account(CounterChecker())
        torch.compile(lambda x: x + 1, backend="eager")(torch.ones(2))
        torch._dynamo.reset()
        assert counters["frames"]["ok"] == 1
        verdict = own.verdict()
        assert verdict.leaks == []
        census.restore([own.checker], verdict.silent)
        assert not any(counters.values())


def test_nothing_is_judged_before_torch_is_there_nor_does_measuring_import_it() -> None:
    code = (
        "import sys\n"
        "from pytest_compilepool.leaks import census\n"
        "from pytest_compilepool.leaks.base import Owned\n"
        "checkers = census.builtin_checkers(Owned(), report_counter_growth=True)\n"
        "before = census.measure(checkers)\n"
        "print(before.snapshots['config'], before.snapshots['counters'], before.snapshots['gpu'])\n"
        "print([n for n in ('torch', 'psutil', 'triton', 'vllm') if n in sys.modules])\n"
        "import torch._inductor.config, torch._dynamo.utils, torch._functorch.config\n"
        "torch._inductor.config.compile_threads = 77\n"
        "torch._dynamo.utils.counters['frames']['total'] = 7\n"
        "print([leak.key for leak in census.compare(checkers, before, 0.0).leaks])\n"
    )
    pytest.importorskip("torch")
    answer = subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True)
    assert answer.stdout.splitlines() == ["None None None", "[]", "[]"]
