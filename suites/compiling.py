# SPDX-License-Identifier: Apache-2.0
"""For scenarios about kernels: torch's Inductor, which compiles for a GPU that is not there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pytest_compilepool.conformance.bench import READY, Bench, check
from pytest_compilepool.parity.artifacts import Artifact, read_artifacts
from pytest_compilepool.pool.joblog import JobLog, Timeline
from pytest_compilepool.records import JobRecord
from pytest_compilepool.targets import TARGETS
from pytest_compilepool.torch_compat.compiles import CompileWatch

TARGET = "cuda:90"


class Compiler:
    """Inductor of this process, and what became of the kernels that it wanted."""

    def __init__(self, bench: Bench) -> None:
        from pytest_compilepool.torch_compat.offline import OfflineGpu

        # Without line numbers nothing in a kernel depends on the folder that its text is in.
        os.environ["TRITON_DISABLE_LINE_INFO"] = "1"
        self._bench = bench
        self._gpu = OfflineGpu(TARGETS[TARGET])
        self._gpu.install()
        self._log = JobLog(Timeline())
        self._watch = CompileWatch()
        self._watch.start()

    def pool(self, processes: int = 2) -> Any:
        """The bench's pool, ready, and Inductor's from now on."""
        bench = self._bench
        bench.ready(processes)
        bench.requirements.serve_kernels(bench.pool, READY)
        self._log.attach(bench.pool)
        check(self.uses_the_pool(), "the pool is ready, and Inductor would not use it")
        return bench.pool

    def unready_pool(self, processes: int = 2) -> Any:
        """The bench's pool, just started, and Inductor's from now on."""
        bench = self._bench
        bench.start(processes)
        bench.requirements.serve_kernels(bench.pool, None)
        self._log.attach(bench.pool)
        return bench.pool

    def compile(self, *programs: str) -> list[str]:
        """Compile these (`workloads.torch_programs`). Returns the kernels that would have been launched, in order.

        Raises what torch raises.
        """
        from pytest_compilepool.workloads import torch_programs

        before = len(self._gpu.launches)
        with self._gpu.tensors():
            torch_programs.run_all(programs)
        return self._gpu.launches[before:]

    def uses_the_pool(self) -> bool:
        """Whether Inductor would send the next kernel to the pool."""
        from pytest_compilepool.torch_compat import conformance

        return conformance.offered()

    def forget(self) -> None:
        """Nothing that was compiled is in this process's memory any more."""
        from pytest_compilepool.torch_compat.settings import clear_memory_caches

        clear_memory_caches()

    @property
    def jobs(self) -> list[JobRecord]:
        """The kernels that were sent to the pool."""
        return [record for record in self._log.records() if record.kernel]

    @property
    def compiled_here(self) -> list[str]:
        """The kernels that this process itself compiled."""
        return [seen.kernel for seen in self._watch.compiles if not seen.cached]

    def proved(self, launched: list[str], what: str = "a compile") -> None:
        """These kernels, and there are some, were compiled by workers of the pool, all of them."""
        check(launched, f"{what} has launched no kernel")
        check(not self.compiled_here, f"{what}: compiled by the process itself: {self.compiled_here}")
        done = {job.kernel: job.worker for job in self.jobs if job.outcome == "done"}
        missing = [name for name in launched if name not in done]
        check(not missing, f"{what}: no job of the pool has compiled {missing}; its jobs: {done}")
        workers = {key.pid for key in self._bench.workers()}
        strange = {name: pid for name, pid in done.items() if pid not in workers}
        check(not strange, f"{what}: compiled by processes that are no workers of the pool: {strange}")


def artifacts(folder: str | Path | None = None) -> list[Artifact]:
    """The kernels in a Triton cache folder, that of the environment unless given."""
    return read_artifacts(Path(folder or os.environ["TRITON_CACHE_DIR"]))
