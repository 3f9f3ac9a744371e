# SPDX-License-Identifier: Apache-2.0
"""Environment variables that a test has set, changed or removed."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

from pytest_compilepool import proctree
from pytest_compilepool.leaks.base import MISSING, Change, LeakChecker, show
from pytest_compilepool.records import Leak, Snapshot

# Set and changed by the test runner itself while tests run.
_RUNNER = frozenset({"PYTEST_CURRENT_TEST", "PYTEST_VERSION", proctree.TAG})
_RUNNER_PREFIX = "PYTEST_XDIST_"


class _ByProduct(NamedTuple):
    """A variable that a library writes into the environment by itself.

    looks_like: what its value matches then; put_back: remove it again (it is written anew when it is
    needed), or leave it (it is written once in the life of a process, and without it later compiles would
    differ from earlier ones); who: who writes it (that library's name comes first), and when.
    """

    name: str
    looks_like: str
    put_back: bool
    who: str

    @property
    def writer_is_loaded(self) -> bool:
        """Whether that library, or a part of one whose import has failed, is there to have written it."""
        library = "vllm" if self.who.startswith("vLLM") else "torch"
        return any(str(name).partition(".")[0] == library for name in tuple(sys.modules))


# Where one of these appears that was not there before, and its writer is loaded, no test is to blame. Read
# from the wheels of torch 2.8 to 2.15 and of vLLM 0.17 to 0.33.
_BY_PRODUCTS = (
    _ByProduct("TORCHINDUCTOR_CACHE_DIR", r".*/torchinductor_[^/]+", True, "torch, asking for the folder"),
    _ByProduct("TRITON_CACHE_DIR", r".*/triton/\d+", True, "torch, loading its first Triton kernel"),
    _ByProduct("_TORCHINDUCTOR_PYOBJECT_TENSOR_DATA_PTR", r"\d+", True, "torch, loading a C++ kernel"),
    _ByProduct("TORCH_WARM_POOL", r"0", True, "torch, making a pool of start method `spawn`"),
    _ByProduct("TORCHINDUCTOR_COMPILE_THREADS", r"1", True, "vLLM, being imported"),
    _ByProduct("TRITON_PTXAS_PATH", r".*/bin/ptxas[^/]*", False, "torch, where its wheel has a ptxas"),
    _ByProduct(
        "TRITON_LIBDEVICE_PATH", r".*/libdevice\.10\.bc", False, "torch 2.12 on, for CUDA's libdevice"
    ),
    _ByProduct("CUBLAS_WORKSPACE_CONFIG", r":4096:8", False, "torch, importing Inductor's numeric checks"),
    _ByProduct("KMP_DUPLICATE_LIB_OK", r"TRUE", False, "torch, compiling C++ with another's OpenMP"),
    _ByProduct("DISABLE_CUPTI_LAZY_REINIT", r"1", False, "torch, its profiler"),
    _ByProduct("TEARDOWN_CUPTI", r"0", False, "torch, its profiler"),
    _ByProduct("TORCHINDUCTOR_CPP_DYNAMIC_THREADS", r"1", False, "vLLM, an engine on CPU"),
    _ByProduct("NUMEXPR_MAX_THREADS", r"\d+", False, "vLLM, an engine on CPU"),
)

_SECRET = re.compile(r"TOKEN|SECRET|PASSW|KEY|CREDENTIAL", re.IGNORECASE)
_HIDDEN = "<hidden>"


_ITSELF = ("os.environ",)  # a key of its own: no name of a variable is a tuple


class _Held:
    """The mapping that `os.environ` is: equal to another of these where that holds the very same object."""

    def __init__(self, mapping: Any) -> None:
        self.mapping = mapping

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Held) and other.mapping is self.mapping

    def __hash__(self) -> int:
        return id(self.mapping)


class EnvironChecker(LeakChecker):
    """`os.environ`. key: the name; value: the value. One key more stands for the mapping itself, by its identity.

    Passed over: what pytest and xdist write, and the session's tag. What torch and vLLM write by themselves
    is put back in silence (see `_BY_PRODUCTS`). Values of names that look like secrets are not shown.
    """

    name: ClassVar[str] = "environ"
    cheap: ClassVar[bool] = True
    judges_values: ClassVar[bool] = True
    settles: ClassVar[bool] = False

    def measure(self) -> Snapshot:
        return {_ITSELF: _Held(os.environ), **_variables(os.environ)}

    def judged(self, before: Snapshot, after: Snapshot) -> Iterator[Change]:
        for key, old, new in super().judged(before, _put_back(before, after)):
            if old is not MISSING or _written(str(key), new) is None:
                yield key, old, new

    def silent(self, before: Snapshot, after: Snapshot) -> list[Leak]:
        found = []
        for key, old, new in super().judged(before, _put_back(before, after)):
            row = _written(str(key), new) if old is MISSING else None
            if row is not None and row.put_back:
                found.append(Leak(self.name, row.name, "not set", show(new), row.who, handle=(key, old)))
        return found

    def describe(self, key: Hashable, old: Any, new: Any) -> Leak:
        if key == _ITSELF:
            after = f"another object: {_kind(new)}"
            return Leak(self.name, _ITSELF[0], _kind(old), after, handle=(_ITSELF, old))
        name = str(key)
        before = "not set" if old is MISSING else _shown(name, old)
        after = "not set any more" if new is MISSING else _shown(name, new)
        if before == after:
            after += " (another value)"
        return Leak(self.name, name, before, after, handle=(name, old))

    def restore(self, leaks: Sequence[Leak]) -> None:
        # The mapping first: the variables are those of the one that is put back.
        for name, old in sorted((leak.handle for leak in leaks), key=lambda handle: handle[0] != _ITSELF):
            if name == _ITSELF:
                os.environ = old.mapping  # noqa: B003 - that very object is what is put back
            elif old is MISSING:
                os.environ.pop(name, None)
            else:
                os.environ[name] = old


def _variables(mapping: Mapping[str, str]) -> dict[Hashable, Any]:
    return {k: v for k, v in mapping.items() if k not in _RUNNER and not str(k).startswith(_RUNNER_PREFIX)}


def _put_back(before: Snapshot, after: Snapshot) -> Snapshot:
    """Where the mapping was replaced, with the variables that the one of before has now: they are there when it is back."""
    held, now = before.get(_ITSELF), after.get(_ITSELF)
    if held is None or now is None or held == now:
        return after
    return {_ITSELF: now, **_variables(held.mapping)}


def _kind(held: _Held) -> str:
    return f"{type(held.mapping).__module__}.{type(held.mapping).__qualname__}"


def is_lasting_by_product(name: str, value: str) -> bool:
    """Whether a library wrote it, once in the life of the process: then it says nothing of a test."""
    row = _by_product(name, value)
    return row is not None and not row.put_back


def _by_product(name: str, value: Any) -> _ByProduct | None:
    rows = (row for row in _BY_PRODUCTS if row.name == name and re.fullmatch(row.looks_like, str(value)))
    return next(rows, None)


def _written(name: str, value: Any) -> _ByProduct | None:
    """As `_by_product`, where that library can have done it in this process."""
    row = _by_product(name, value)
    return row if row is not None and row.writer_is_loaded else None


def _shown(name: str, value: str) -> str:
    if _SECRET.search(name):
        return _HIDDEN
    # A URL can carry a password too.
    return show(re.sub(r"(://)[^/@\s]+@", rf"\1{_HIDDEN}@", value))
