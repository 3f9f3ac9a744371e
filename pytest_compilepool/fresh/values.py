# SPDX-License-Identifier: Apache-2.0
"""What a function may return from a fresh interpreter: tensors and plain values, and how they travel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pytest_compilepool.fresh.callables import BadInput

_PLAIN = (bool, int, float, complex, str, bytes, type(None))


@dataclass(frozen=True)
class Shape:
    """A tensor that has no data: made for a GPU that is not there, or on the device `meta`.

    size, stride: numbers of elements; dtype, device: as torch writes them.
    """

    size: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: str
    device: str


def leaves(value: Any, path: str = "output") -> list[tuple[str, Any]]:
    """Every tensor, plain value and container in what a function returned, with where it is: `output[0]['logits']`.

    Raises BadInput for anything but tensors, plain values, and lists, tuples and dicts of them.
    """
    if isinstance(value, Mapping):
        parts = [leaf for key, item in value.items() for leaf in leaves(item, f"{path}[{_key(key, path)!r}]")]
        return [(path, "dict"), *parts]
    if isinstance(value, (list, tuple)):
        kind = "tuple" if isinstance(value, tuple) else "list"
        parts = [leaf for at, item in enumerate(value) for leaf in leaves(item, f"{path}[{at}]")]
        return [(path, f"{kind} of {len(value)}"), *parts]
    # Not subclasses: an enum or a number of numpy's is not what comes back.
    if type(value) in (*_PLAIN, Shape) or is_tensor(value):
        return [(path, value)]
    raise BadInput(
        f"{path} is of type {type(value).__module__}.{type(value).__qualname__}; allowed are tensors, numbers, "
        "texts, None, and lists, tuples and dicts of them"
    )


def _key(key: Any, path: str) -> Any:
    plain = type(key) in _PLAIN or (type(key) is tuple and all(type(part) in _PLAIN for part in key))
    if not plain:
        raise BadInput(
            f"{path} has the key {key!r} of type {type(key).__qualname__}; allowed are plain values"
        )
    return key


def is_tensor(value: object) -> bool:
    """Whether this is a tensor, without importing torch to find out."""
    import sys

    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def portable(value: Any, path: str = "output") -> Any:
    """The same value with every tensor in host memory, detached, and one without data as a `Shape`.

    Raises BadInput as `leaves` does, and for a tensor whose layout is not strided.
    """
    if isinstance(value, Mapping):
        return {_key(key, path): portable(item, f"{path}[{key!r}]") for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        items = [portable(item, f"{path}[{at}]") for at, item in enumerate(value)]
        return items if isinstance(value, list) else tuple(items)
    if not is_tensor(value):
        leaves(value, path)
        return value
    return _portable_tensor(value, path)


def _portable_tensor(tensor: Any, path: str) -> Any:
    import torch

    if tensor.layout != torch.strided or tensor.is_nested or tensor.is_quantized:
        kind = (
            "quantized"
            if tensor.is_quantized
            else "nested"
            if tensor.is_nested
            else f"of layout {tensor.layout}"
        )
        raise BadInput(
            f"{path} is a tensor that is {kind}; allowed: strided ones (to_dense(), dequantize(), ...)"
        )
    if tensor.is_meta or hasattr(tensor, "fake_mode"):
        return Shape(
            tuple(map(int, tensor.shape)), tuple(tensor.stride()), str(tensor.dtype), str(tensor.device)
        )
    # A copy of its own: a view would take the whole storage along.
    return tensor.detach().resolve_conj().resolve_neg().to("cpu", copy=True)


def tensors_in(value: Any, path: str = "arguments") -> dict[str, Any]:
    """The tensors in lists, tuples and dicts, by where they are; other values are passed over."""
    if isinstance(value, Mapping):
        items = [(f"{path}[{key!r}]", item) for key, item in value.items()]
    elif isinstance(value, (list, tuple)):
        items = [(f"{path}[{at}]", item) for at, item in enumerate(value)]
    else:
        return {path: value} if is_tensor(value) else {}
    return {place: tensor for at, item in items for place, tensor in tensors_in(item, at).items()}


def write(value: Any, file: str) -> None:
    """Write what `portable` gave."""
    import torch

    torch.save(_encoded(value), file)


def read(file: str) -> Any:
    """The reverse. Nothing but tensors and plain values is read, so nothing is executed."""
    import torch

    return _decoded(torch.load(file, weights_only=True))


def _encoded(value: Any) -> Any:
    """Shapes as plain tuples, and dicts as pairs: their keys may be anything plain."""
    if isinstance(value, Shape):
        return ("shape", value.size, value.stride, value.dtype, value.device)
    if isinstance(value, dict):
        return ("dict", [(_encoded(key), _encoded(item)) for key, item in value.items()])
    if isinstance(value, list):
        return ("list", [_encoded(item) for item in value])
    if isinstance(value, tuple):
        return ("tuple", [_encoded(item) for item in value])
    return ("value", value)


def _decoded(value: Any) -> Any:
    kind, *told = value
    if kind == "shape":
        return Shape(tuple(told[0]), tuple(told[1]), told[2], told[3])
    if kind == "dict":
        return {_decoded(key): _decoded(item) for key, item in told[0]}
    if kind == "list":
        return [_decoded(item) for item in told[0]]
    if kind == "tuple":
        return tuple(_decoded(item) for item in told[0])
    return told[0]
