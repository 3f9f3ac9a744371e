# SPDX-License-Identifier: Apache-2.0
"""Every fixture that a test can ask for, and small ones behind them that a project may override."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest

from pytest_compilepool import marks
from pytest_compilepool.session import Session, leased_by

# Loading this file costs every session; what only a test with a pool needs is imported inside.
if TYPE_CHECKING:
    from pytest_compilepool.pool.facade import CompilePool
    from pytest_compilepool.pool.manager import Request
    from pytest_compilepool.pool.policy import Decision
    from pytest_compilepool.torch_compat import Capabilities


@pytest.fixture(scope="session")
def compile_pool_processes() -> int | None:
    """Override to set how many processes the pools of a folder or module have; None leaves it to the options."""
    return None


@pytest.fixture(scope="session")
def compile_pool_start_method() -> str | None:
    """Override to set the start method: subprocess, fork or spawn; None leaves it to the options."""
    return None


@pytest.fixture(scope="session")
def compile_pool_ready_timeout() -> float | None:
    """Override to set the seconds that a pool may take to become ready; None leaves it to the options."""
    return None


@pytest.fixture
def compile_cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Override to choose the folder in which `fresh_compile_caches` makes its empty cache folders."""
    return tmp_path_factory.mktemp("compile-caches")


@dataclass(frozen=True)
class FreshCaches:
    """The empty folders of one test. outer: what was in effect before, by the variable that moves it."""

    inductor: Path
    triton: Path
    vllm: Path
    outer: dict[str, str]


@pytest.fixture
def fresh_compile_caches(request: pytest.FixtureRequest, compile_cache_folder: Path) -> Iterator[FreshCaches]:
    """Empty caches for one test: TORCHINDUCTOR_CACHE_DIR, TRITON_CACHE_DIR, VLLM_CACHE_ROOT, and in memory.

    A pool that the same test asks for is made after this, so that its sidecar knows the new folders.
    What is written past them, into the folders that were in effect before, is reported as a leak.
    """
    from pytest_compilepool import isolation

    if not isinstance(compile_cache_folder, (str, os.PathLike)):
        pytest.fail(
            f"fixture compile_cache_folder: {compile_cache_folder!r} is not allowed; allowed: the path of a folder",
            pytrace=False,
        )
    session = Session.of(request.config)
    with (
        isolation.fresh_caches(Path(compile_cache_folder)) as (folders, outer),
        session.outer_caches_watched(outer),
    ):
        yield FreshCaches(folders["inductor"], folders["triton"], folders["vllm"], outer)


@pytest.fixture
def compile_pool(request: pytest.FixtureRequest) -> Iterator[CompilePool]:
    """A compile pool that is warm and ready, with fresh workers; torch uses it for what the test compiles.

    The sidecar is shared between tests whose needs (processes, start method, environment, sys.path,
    working directory) are equal; `@pytest.mark.compilepool(isolation="sidecar")` asks for one of its
    own. Skips or fails (`--compilepool-missing`) where there is no torch or it cannot quiesce.
    """
    own = marks.pool_mark(request.node).isolation == "sidecar"
    yield from _pool_for(request, own)


@pytest.fixture
def cold_compile_pool(request: pytest.FixtureRequest) -> Iterator[CompilePool]:
    """A compile pool with a sidecar that nobody used before or uses after; warm and ready as `compile_pool`."""
    yield from _pool_for(request, True)


@pytest.fixture
def quiesced_compile_pool(request: pytest.FixtureRequest) -> Iterator[CompilePool]:
    """A compile pool whose workers are gone: the sidecar waits, the next job forks them again."""
    from pytest_compilepool.pool.errors import PoolUnsupported

    for pool in _pool_for(request, marks.pool_mark(request.node).isolation == "sidecar"):
        try:
            pool.quiesce()
        except PoolUnsupported as error:
            _missing(request, f"quiesced_compile_pool: {error}")
        yield pool


@pytest.fixture(scope="session")
def compile_pool_factory(request: pytest.FixtureRequest) -> Callable[..., CompilePool]:
    """Makes pools for scopes of your own: `compile_pool_factory(processes=4)`, warm and ready.

    Arguments: processes, start_method, ready_timeout (seconds), warm (False: you call `warm()` and
    `wait_ready()`). The pool is a context manager; who makes one ends it, or it is a leak of the test,
    or of the wider fixture, that made it.
    """

    def make(
        processes: int | None = None,
        start_method: str | None = None,
        ready_timeout: float | None = None,
        warm: bool = True,
    ) -> CompilePool:
        mark = marks.compilepool(processes=processes, start_method=start_method, ready_timeout=ready_timeout)
        session = Session.of(request.config)
        wanted = _resolve(request, mark)
        session.asked_for_pool(request.node)
        manager = session.manager
        return manager.make(wanted, owned=False) if warm else manager.blank(wanted, owned=False)

    return make


@pytest.fixture
def single_threaded_compile(request: pytest.FixtureRequest) -> Iterator[None]:
    """`compile_threads` is 1 for this test, and it is proved that no pool appeared.

    Whatever pool torch held is out of its hands meanwhile, and is put back after.
    """
    if {"compile_pool", "cold_compile_pool", "quiesced_compile_pool"} & set(request.fixturenames):
        pytest.fail(
            f"{request.node.nodeid}: single_threaded_compile and a compile pool exclude each other: "
            "use one of the two",
            pytrace=False,
        )
    from pytest_compilepool import isolation

    _look_at_torch(request, "single_threaded_compile")
    with isolation.single_threaded() as appeared:
        yield
    if appeared:
        pytest.fail(f"compile_threads was 1, and yet a pool appeared: {'; '.join(appeared)}", pytrace=False)


# -- behind the fixtures -------------------------------------------------------------------------------


def _pool_for(request: pytest.FixtureRequest, own: bool) -> Generator[CompilePool, None, None]:
    from pytest_compilepool import isolation
    from pytest_compilepool.pool.errors import PoolError, PoolUnsupported

    if "fresh_compile_caches" in request.fixturenames:
        request.getfixturevalue("fresh_compile_caches")
    wanted = _resolve(request, marks.pool_mark(request.node))
    manager = Session.of(request.config).manager
    Session.of(request.config).asked_for_pool(request.node)
    with isolation.compile_state():
        try:
            pool = manager.make(wanted) if own else manager.acquire(wanted)
        except PoolUnsupported as error:
            _missing(request, f"{request.fixturename}: {error}")
        except PoolError as error:
            pytest.fail(f"{request.fixturename}: {error}", pytrace=False)
        leased_by(request.node).append(pool)
        try:
            yield pool
        finally:
            untold = manager.release(pool)
    if untold is not None:
        pytest.fail(f"{request.fixturename}: {untold}", pytrace=False)


def _resolve(request: pytest.FixtureRequest, mark: marks.PoolMark) -> Request:
    """How many processes, and how: options, overridable fixtures, marker."""
    from pytest_compilepool.pool.manager import Request

    able = _look_at_torch(request, str(request.fixturename))
    settings = Session.of(request.config).settings
    overridden = request.getfixturevalue("compile_pool_ready_timeout")
    if overridden is not None and not marks.is_seconds(overridden):
        pytest.fail(
            f"fixture compile_pool_ready_timeout: {overridden!r} is not allowed; allowed: None, or seconds, "
            "more than 0 and at most 3600",
            pytrace=False,
        )
    ready_timeout: float | None = mark.ready_timeout or overridden
    decision = _decide(request, mark, able)
    if decision.processes < 2:
        _missing(request, f"{request.fixturename}: no pool here: {decision.why}")
    return Request(
        decision.processes,
        decision.start_method,
        settings.ready_timeout if ready_timeout is None else ready_timeout,
        settings.shutdown_timeout,
    )


def _decide(request: pytest.FixtureRequest, mark: marks.PoolMark, able: Capabilities) -> Decision:
    from pytest_compilepool.pool.policy import BadProcesses, BadStartMethod, decide, parse_processes

    session = Session.of(request.config)
    overridden = request.getfixturevalue("compile_pool_processes")
    method: str | None = request.getfixturevalue("compile_pool_start_method")
    try:
        if overridden is not None:
            parse_processes(overridden, "fixture compile_pool_processes")
        return decide(
            capabilities=able,
            ini=session.settings.processes_ini if overridden is None else overridden,
            flag=session.settings.processes_flag,
            marker=mark.processes,
            at_least=2,
            start_method=mark.start_method or method or session.settings.start_method,
            environ=os.environ,
            started_with=session.started_with,
        )
    except (BadProcesses, BadStartMethod) as error:
        pytest.fail(str(error), pytrace=False)


def _look_at_torch(request: pytest.FixtureRequest, name: str) -> Capabilities:
    from pytest_compilepool.torch_compat import TorchUnavailable, capabilities

    try:
        return capabilities()
    except TorchUnavailable as error:
        _missing(request, f"{name}: {error}")


def _missing(request: pytest.FixtureRequest, text: str) -> NoReturn:
    """Skip or fail, as the option says."""
    if Session.of(request.config).settings.missing == "fail":
        pytest.fail(text, pytrace=False)
    pytest.skip(text)
