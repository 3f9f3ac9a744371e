# SPDX-License-Identifier: Apache-2.0
"""GPU memory: snapshots by hand everywhere, real tensors where there is a GPU."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_compilepool.leaks.gpu import GpuChecker

MIB = 1 << 20


@pytest.fixture
def torch_cuda() -> Any:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA GPU: torch.cuda.is_available() is False")
    torch.zeros(1, device="cuda")  # initialises CUDA, and the allocator's first block
    return torch


class TestPlanted:
    def test_growth_by_hand(self) -> None:
        (leak,) = GpuChecker().diff({0: 512}, {0: 512 + 3 * MIB})
        assert leak.key == "cuda:0"
        assert leak.before == "512 bytes allocated"
        assert leak.after == "3.0 MiB allocated, 3.0 MiB more"
        text = GpuChecker().format(leak)
        assert 'allow=["gpu:cuda:0"]' in text
        assert "tensors that something still refers to stay" in text

    def test_growth_of_the_second_device_by_hand(self) -> None:
        leaks = GpuChecker().diff({0: MIB, 1: 0}, {0: MIB, 1: 1536})
        assert [(leak.key, leak.after) for leak in leaks] == [("cuda:1", "1.5 KiB allocated, 1.5 KiB more")]

    def test_gibibytes_by_hand(self) -> None:
        (leak,) = GpuChecker().diff({0: 0}, {0: 5 << 30})
        assert "5.0 GiB" in leak.after

    def test_tensor(self, account: Any, torch_cuda: Any) -> None:
        own = account(GpuChecker())
        planted = torch_cuda.zeros(4 * MIB, device="cuda", dtype=torch_cuda.uint8)
        assert "4.0 MiB more" in own.leak("cuda:0")[0].after
        del planted
        own.restore()
        own.assert_clean(0.0)

    def test_tensor_in_a_ring(self, account: Any, torch_cuda: Any) -> None:
        own = account(GpuChecker())
        ring: list[Any] = [torch_cuda.zeros(MIB, device="cuda", dtype=torch_cuda.uint8)]
        ring.append(ring)
        own.leak("cuda:0")
        ring[0] = None
        own.restore()
        own.assert_clean(0.0)

    @pytest.mark.parametrize("size", [32 * MIB + 512, 31 * MIB])
    def test_almost_a_workspace_by_hand(self, size: int) -> None:
        assert len(GpuChecker().diff({0: 0}, {0: size})) == 1

    def test_second_growth_by_that_size_by_hand(self) -> None:
        checker = GpuChecker()
        assert checker.diff({0: 0}, {0: 32 * MIB}) == []
        assert len(checker.diff({0: 32 * MIB}, {0: 64 * MIB})) == 1


class TestInnocent:
    @pytest.mark.parametrize(
        ("size", "configured"), [(32 * MIB, ""), (8519680, ""), (24 * MIB, ":4096:4:2048:4")]
    )
    def test_workspace_of_cublas_by_hand(
        self, monkeypatch: pytest.MonkeyPatch, size: int, configured: str
    ) -> None:
        monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", configured)
        checker = GpuChecker()
        for _ in range(3):  # while the grace lasts
            assert checker.diff({0: 512}, {0: 512 + size}) == []

    def test_workspace_of_cublas(self, account: Any, torch_cuda: Any) -> None:
        own = account(GpuChecker())
        one = torch_cuda.ones(64, 64, device="cuda")
        (one @ one).sum().item()
        del one
        assert own.leaks() == []

    def test_less_by_hand(self) -> None:
        assert GpuChecker().diff({0: MIB}, {0: 0}) == []

    def test_the_same_by_hand(self) -> None:
        assert GpuChecker().diff({0: MIB}, {0: MIB}) == []

    def test_device_that_was_not_told_before_by_hand(self) -> None:
        assert GpuChecker().diff({}, {0: MIB}) == []

    def test_without_cuda_nothing_is_told(self) -> None:
        torch = pytest.importorskip("torch")
        if torch.cuda.is_initialized():
            pytest.skip("CUDA is initialised in this process")
        assert GpuChecker().measure() is None
        assert not torch.cuda.is_initialized()

    def test_tensor_that_was_freed(self, account: Any, torch_cuda: Any) -> None:
        own = account(GpuChecker())
        torch_cuda.zeros(MIB, device="cuda")
        assert own.leaks() == []

    def test_tensor_that_the_collector_frees(self, account: Any, torch_cuda: Any) -> None:
        own = account(GpuChecker())
        ring: list[Any] = [torch_cuda.zeros(MIB, device="cuda")]
        ring.append(ring)
        del ring
        assert own.leaks() == []
