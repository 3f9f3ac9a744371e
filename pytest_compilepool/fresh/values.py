# SPDX-License-Identifier: Apache-2.0
"""What a function may return from a fresh interpreter: tensors and plain values, and how they travel."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pytest_compilepool.fresh.callables import BadInput, hidden

__tracebackhide__ = hidden

_PLAIN = (bool, int, float, complex, str, bytes, type(None))
_BITS = 2000  # of a whole number: torch's safe reader takes some more, and no thousands of digits
_DEPTH = 100


@dataclass(frozen=True)
class Shape:
    """A tensor that has no data: made for a GPU that is not there, or on the device `meta`.

    size, stride: numbers of elements; dtype, device: as torch writes them.
    """

    size: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: str
    device: str


@dataclass(frozen=True, repr=False)
class Mark:
    """Stands for a container among leaves. text: which one, in words."""

    text: str

    def __repr__(self) -> str:
        return self.text


def leaves(value: Any, path: str = "output") -> list[tuple[str, Any]]:
    """Every tensor, plain value and container (as a Mark) in a value, with where it is: `output[0]['logits']`.

    Raises BadInput for anything but tensors, plain values, and lists, tuples and dicts of them.
    """
    found: list[tuple[str, Any]] = []
    for place, item, parts in _walk(value, path):
        if parts is not None:
            kind = next(kind for kind in (dict, list, tuple, Mapping) if isinstance(item, kind)).__name__
            found.append((place, Mark(f"a {kind} of {len(parts)}")))
            continue
        # Not subclasses: an enum or a number of numpy's is not what comes back.
        if type(item) is int and item.bit_length() > _BITS:
            raise BadInput(
                f"{place} is a whole number of {item.bit_length()} bits; allowed are up to {_BITS}"
            )
        if type(item) not in (*_PLAIN, Shape) and not is_tensor(item):
            raise BadInput(
                f"{place} is of type {type(item).__module__}.{type(item).__qualname__}; allowed are tensors, numbers, "
                "texts, None, and lists, tuples and dicts of them"
            )
        found.append((place, item))
    return found


def forms(value: Any, path: str = "output") -> dict[str, str]:
    """What is lost on the way, by where it is: classes of containers; class, device, strides and gradient of tensors."""
    told: dict[str, str] = {}
    for place, item, parts in _walk(value, path):
        name = type(item).__qualname__
        if parts is not None:
            told[place] = f"a {name}"
        elif is_tensor(item):
            strides = f", strides {tuple(item.stride())}" if _is_strided(item) else ""
            told[place] = f"a {name} on {item.device}{strides}, requires_grad {bool(item.requires_grad)}"
    return told


def portable(value: Any, path: str = "output") -> Any:
    """The same value with every tensor in host memory, detached, and one without data as a `Shape`.

    Raises BadInput as `leaves` does, and for a tensor that is no plain one.
    """
    leaves(value, path)
    return _portable(value, path)


def comparable(value: Any, path: str) -> dict[str, Any]:
    """What of a value can be compared, by where it is, as `portable` gives it; the rest is passed over.

    Tensors and their gradients, parameters and buffers of an `nn.Module`, plain values, kinds of containers.
    """
    told: dict[str, Any] = {}
    for place, item in _reachable(value, path):
        try:
            told[place] = _portable(item, place) if is_tensor(item) else item
        except BadInput:
            continue
    return told


def is_tensor(value: object) -> bool:
    """Whether this is a tensor, without importing torch to find out."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def is_module(value: object) -> bool:
    """Whether this is an `nn.Module`, without importing torch to find out."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.nn.Module)


def write(value: Any, file: str) -> None:
    """Write what `portable` gave."""
    import torch

    torch.save(_encoded(value), file)


def read(file: str) -> Any:
    """The reverse. Nothing but tensors and plain values is read, so nothing is executed."""
    import torch

    return _decoded(torch.load(file, weights_only=True))


# -- walking -----------------------------------------------------------------------------------------------


def _parts(value: Any, path: str) -> list[tuple[str, Any]] | None:
    """What is in a container, with where it is; None for what is no container. Raises BadInput for a key."""
    if isinstance(value, Mapping):
        return [(f"{path}[{_key(key, path)!r}]", item) for key, item in value.items()]
    if isinstance(value, (list, tuple)):
        return [(f"{path}[{at}]", item) for at, item in enumerate(value)]
    return None


def _walk(
    value: Any, path: str, around: tuple[int, ...] = ()
) -> Iterator[tuple[str, Any, list[tuple[str, Any]] | None]]:
    """Every value with where it is and what is in it, a container before its parts. Raises BadInput for a circle."""
    if id(value) in around:
        raise BadInput(f"{path} contains itself; allowed are values without circles")
    if len(around) > _DEPTH:
        raise BadInput(f"{path} is nested more than {_DEPTH} deep")
    parts = _parts(value, path)
    yield path, value, parts
    for place, item in parts or ():
        yield from _walk(item, place, (*around, id(value)))


def _reachable(value: Any, path: str, around: tuple[int, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Tensors and plain values in something of any kind; nothing is raised."""
    if id(value) in around or len(around) > _DEPTH:
        return
    if is_module(value):
        for name, tensor in (*value.named_parameters(), *value.named_buffers()):
            yield from _tensor_and_gradient(tensor, f"{path}.{name}")
    elif is_tensor(value):
        yield from _tensor_and_gradient(value, path)
    elif type(value) in _PLAIN:
        yield path, value
    else:
        try:
            parts = _parts(value, path)
        except BadInput:
            return
        if parts is not None:
            yield f"len({path})", len(parts)
            for place, item in parts:
                yield from _reachable(item, place, (*around, id(value)))


def _tensor_and_gradient(tensor: Any, path: str) -> Iterator[tuple[str, Any]]:
    yield path, tensor
    # Of another one torch warns; it keeps none there.
    if tensor.is_leaf and tensor.grad is not None:
        yield f"{path}.grad", tensor.grad


def _key(key: Any, path: str) -> Any:
    plain = type(key) in _PLAIN or (type(key) is tuple and all(type(part) in _PLAIN for part in key))
    if not plain:
        raise BadInput(
            f"{path} has the key {key!r} of type {type(key).__qualname__}; allowed are plain values"
        )
    return key


# -- tensors -----------------------------------------------------------------------------------------------


def _is_strided(tensor: Any) -> bool:
    import torch

    return tensor.layout == torch.strided and not tensor.is_nested


def _portable(value: Any, path: str) -> Any:
    if isinstance(value, Mapping):
        return {key: _portable(item, f"{path}[{key!r}]") for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        items = [_portable(item, f"{path}[{at}]") for at, item in enumerate(value)]
        return items if isinstance(value, list) else tuple(items)
    return _portable_tensor(value, path) if is_tensor(value) else value


def _portable_tensor(tensor: Any, path: str) -> Any:
    import torch

    if not _is_strided(tensor) or tensor.is_quantized:
        kind = "nested" if tensor.is_nested else f"of layout {tensor.layout}"
        kind = "quantized" if tensor.is_quantized else kind
        raise BadInput(
            f"{path} is a tensor that is {kind}; allowed: strided ones (to_dense(), dequantize(), ...)"
        )
    if tensor.is_meta or hasattr(tensor, "fake_mode"):
        return Shape(
            tuple(map(int, tensor.shape)),
            tuple(map(int, tensor.stride())),
            str(tensor.dtype),
            str(tensor.device),
        )
    if type(tensor) not in (torch.Tensor, torch.nn.Parameter):
        raise BadInput(
            f"{path} is a {type(tensor).__module__}.{type(tensor).__qualname__}; allowed are plain tensors and "
            "parameters, none of a subclass"
        )
    last = tensor.storage_offset() + sum(
        (size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True)
    )
    if tensor.numel() and (last + 1) * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise BadInput(f"{path} is a tensor whose storage is too small for it")
    try:
        # A copy of its own: a view would take the whole storage along.
        return tensor.detach().resolve_conj().resolve_neg().to("cpu", copy=True)
    except NotImplementedError as error:
        raise BadInput(
            f"{path} is a tensor of {tensor.dtype}, which torch cannot copy ({str(error).splitlines()[0]})"
        ) from None


# -- on paper ----------------------------------------------------------------------------------------------


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
