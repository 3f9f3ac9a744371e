# SPDX-License-Identifier: Apache-2.0
"""How torch is imported by the one door to it, in an interpreter that has not imported it yet."""

from __future__ import annotations

import os
import subprocess
import sys


def look(code: str, *options: str) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run(
        [sys.executable, *options, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_what_torch_warns_of_while_it_is_imported_is_no_error_of_the_test():
    """Without numpy, which torch does not ask for, every torch from 2.8 to 2.15 warns."""
    code = (
        "import sys; sys.modules['numpy'] = None\n"
        "from pytest_compilepool.torch_compat import capabilities; print(capabilities().ready_wait)"
    )
    assert look(code, "-W", "error") in ("wait_process_pool_ready", "wait_pool_ready", "ready_future")


def test_looking_starts_no_pool():
    """torch 2.8 starts one as soon as its async_compile is imported; who only looks must not cause that."""
    code = (
        "import os, psutil\n"
        "from pytest_compilepool.torch_compat import capabilities, live_pools\n"
        "capabilities()\n"
        "print(live_pools(), psutil.Process().children(), os.environ.get('TORCH_WARM_POOL'))"
    )
    assert look(code) == f"[] [] {os.environ.get('TORCH_WARM_POOL')}"


def test_a_census_that_is_taken_when_torch_appears_sees_the_environment_as_it_is():
    """The variable that keeps torch 2.8 from starting a pool is not there yet."""
    code = """if True:
        import os
        from pytest_compilepool.torch_compat import CreationWatch, capabilities

        class Listener:
            def imported(self, name): seen.append(os.environ.get('TORCH_WARM_POOL'))
            def before(self, kind, creator): pass
            def after(self, kind, pool, creator): pass

        seen = []
        watch = CreationWatch(Listener())
        watch.start()
        capabilities()
        watch.stop()
        print(seen[0])
    """
    assert look(code) == str(os.environ.get("TORCH_WARM_POOL"))
