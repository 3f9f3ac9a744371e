# SPDX-License-Identifier: Apache-2.0
"""Saying which function or object is meant so that a fresh interpreter finds it: by module, file and name."""

from __future__ import annotations

import importlib
import importlib.util
import io
import os
import pickle
import sys
import types
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pytest_compilepool import words

# Modules that a fresh interpreter has by the same names.
_EVERYWHERE = frozenset({"torch", "triton", "numpy", *sys.stdlib_module_names})

START_METHODS = ("subprocess", "fork", "spawn")


class BadInput(ValueError):
    """Something that cannot go to a fresh interpreter, or come back. Its text is a sentence for the user."""

    told_in_full = True


def hidden(caught: Any) -> bool:
    """What a module sets `__tracebackhide__` to: of an error whose text says it all pytest shows the test's own line.

    caught: pytest's ExceptionInfo. Such an error has `told_in_full`.
    """
    return bool(getattr(caught.value, "told_in_full", False))


__tracebackhide__ = hidden


@dataclass(frozen=True)
class Parcel:
    """Values on their way to a fresh interpreter.

    modules: (name, file) of the modules that must be loaded before `data`, a pickle, can be read.
    """

    modules: tuple[tuple[str, str], ...]
    data: bytes


def check_function(value: object, origin: str) -> None:
    """Whether a fresh interpreter can find this function. origin: who was given it. Raises BadInput.

    value: a function or class at the top level of an importable module, an `nn.Module` or another callable
    object that can be pickled, or a `functools.partial` of one of these.
    """
    value = getattr(value, "func", value) if type(value).__name__ == "partial" else value
    shown = _shown(value)
    if not callable(value):
        raise BadInput(f"{origin}: {shown} is not a function; allowed: one at the top level of a module")
    if isinstance(value, types.MethodType):
        raise BadInput(
            f"{origin}: {shown} is a method of an object; allowed: a function at the top level of a module"
        )
    if not isinstance(value, (types.FunctionType, type)):
        return  # an object or a built-in function: whether it can be pickled is seen when it is
    name, module = value.__qualname__, str(value.__module__)
    if "<lambda>" in name or "<locals>" in name:
        what = "a lambda" if "<lambda>" in name else f"defined inside {name.partition('.<locals>')[0]}()"
        raise BadInput(
            f"{origin}: {shown} is {what}, which a fresh interpreter cannot import; "
            "put it at the top level of its module, with def"
        )
    if module == "__main__":
        raise BadInput(
            f"{origin}: {shown} is defined in __main__, which a fresh interpreter does not have; "
            "put it into a module that can be imported"
        )
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    if found is not value:
        raise BadInput(
            f"{origin}: {module}.{name} is another object than the one that was given (wrapped by a decorator, or by "
            "torch.compile?); a fresh interpreter would get that one: give what stands in the module"
        )


def seconds(value: object, name: str, origin: str) -> float:
    """A number of seconds, more than 0 and at most an hour, if it is that. Raises BadInput."""
    try:
        return words.seconds(value, f"{origin}: {name}")
    except ValueError as error:
        raise BadInput(str(error)) from None


RESERVED = frozenset(
    {
        "TORCHINDUCTOR_CACHE_DIR",
        "TRITON_CACHE_DIR",
        "VLLM_CACHE_ROOT",
        "TORCHINDUCTOR_COMPILE_THREADS",
        "TORCHINDUCTOR_WORKER_START",
        "COMPILEPOOL_SESSION",
    }
)
"""Variables that a fresh interpreter is given, and nobody else may set."""


def environment(value: object, origin: str) -> dict[str, str | None]:
    """Variables to set, or with None to unset, if it is that. Raises BadInput."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise BadInput(
            f"{origin}: environment={value!r} is not allowed; allowed: a dict of texts, or None to unset"
        )
    for name, text in value.items():
        wrong = not _goes_out(name) or not name or "=" in name
        if wrong or not (text is None or _goes_out(text)):
            raise BadInput(
                f"{origin}: environment: {name!r}: {text!r} is not allowed; allowed: the name of a variable and a text, "
                "or None to unset it"
            )
        if name in RESERVED:
            raise BadInput(
                f"{origin}: environment: {name} is not allowed; it is set for each interpreter: what is compiled must "
                "end up where it is looked for"
            )
    return dict(value)


def _goes_out(text: object) -> bool:
    """Whether a value is a text that can stand in an environment."""
    try:
        return isinstance(text, str) and b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        return False


def pack(values: Any, origin: str) -> Parcel:
    """Values as a parcel. Raises BadInput where something in it cannot be pickled."""
    buffer = io.BytesIO()
    pickler = _Pickler(buffer)
    try:
        pickler.dump(values)
    except Exception as error:  # whatever a __reduce__ of somebody's raises
        raise BadInput(
            f"{origin}: this cannot be sent to a fresh interpreter: {type(error).__name__}: {error}; allowed is "
            "what can be pickled: functions and classes of importable modules, tensors, nn.Modules, plain values"
        ) from None
    return Parcel(tuple(_files_of(sorted(pickler.modules))), buffer.getvalue())


def unpack(parcel: Parcel) -> Any:
    """The reverse, in the fresh interpreter: loads the modules that are needed. Raises what they raise."""
    for name, file in parcel.modules:
        load_module(name, file)
    return pickle.loads(parcel.data)


def load_module(name: str, file: str) -> types.ModuleType:
    """Import a module by its name, or, where that does not find this file, from the file under that name.

    pytest gives a test module a name by which it often cannot be imported (`--import-mode=importlib`).
    """
    try:
        module = importlib.import_module(name)
        if os.path.realpath(getattr(module, "__file__", None) or "") == os.path.realpath(file):
            return module
    except ModuleNotFoundError as error:
        if error.name is None or not (name == error.name or name.startswith(error.name + ".")):
            raise  # the module is there; something that it imports is not
    parent, _, last = name.rpartition(".")
    while parent and parent not in sys.modules:
        package = types.ModuleType(parent)
        package.__path__ = []
        sys.modules[parent] = package
        parent = parent.rpartition(".")[0]
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError(f"no module can be loaded from {file!r}", name=name)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    if name.rpartition(".")[0]:
        setattr(sys.modules[name.rpartition(".")[0]], last, module)
    return module


class _Pickler(pickle.Pickler):
    """Notes the modules of all functions and classes that a pickle names."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, protocol=pickle.HIGHEST_PROTOCOL)
        self.modules: set[str] = set()

    def reducer_override(self, value: Any) -> Any:
        named = value if isinstance(value, (type, types.FunctionType)) else type(value)
        self.modules.add(str(named.__module__))
        return NotImplemented


def _files_of(modules: Iterable[str]) -> Iterable[tuple[str, str]]:
    """Those that come from files, other than torch's and the standard library's, with their file."""
    for name in modules:
        file = getattr(sys.modules.get(name), "__file__", None)
        if file and file.endswith(".py") and name.partition(".")[0] not in _EVERYWHERE:
            yield name, os.path.abspath(file)


def _shown(value: object) -> str:
    name = getattr(value, "__qualname__", None)
    if isinstance(name, str):
        return f"{getattr(value, '__module__', '?')}.{name}"
    return shown(value)


def shown(value: object) -> str:
    """A value as a sentence may hold it: not too long, and whatever its `__repr__` does."""
    try:
        text = repr(value)
    except Exception:
        return f"a {type(value).__qualname__} without a repr"
    return text if len(text) <= 80 else f"{text[:76]} ..."
