# SPDX-License-Identifier: Apache-2.0
"""Whether two runs gave the same: bit for bit, and where not, how far apart."""

from __future__ import annotations

from typing import Any

from pytest_compilepool.fresh.values import is_tensor, leaves


def difference(
    one: Any, other: Any, rtol: float | None = None, atol: float | None = None, path: str = "output"
) -> str | None:
    """How two values differ in their first differing leaf, in a sentence, or None where no bit does.

    rtol, atol: tolerances for the words "within"; None for those that torch takes for the type; path: what they are.
    """
    here, there = dict(leaves(one, path)), dict(leaves(other, path))
    if list(here) != list(there):
        odd = next((path for path in [*here, *there] if (path in here) != (path in there)), None)
        if odd is None:
            return f"{path} has the same keys in another order"
        return f"{odd} is only there on one side"
    for path, value in here.items():
        text = _leaf(value, there[path], rtol, atol)
        if text:
            return f"{path} {text}"
    return None


def within_tolerance(one: Any, other: Any, rtol: float | None = None, atol: float | None = None) -> bool:
    """Whether two outputs agree as `torch.testing.assert_close` has it; other values must be equal."""
    here, there = dict(leaves(one)), dict(leaves(other))
    return list(here) == list(there) and all(
        _same_bits(value, there[path]) or _close(value, there[path], rtol, atol) is None
        for path, value in here.items()
    )


def _leaf(here: Any, there: Any, rtol: float | None, atol: float | None) -> str | None:
    if _same_bits(here, there):
        return None
    if not (is_tensor(here) and is_tensor(there)):
        return f"is {here!r} and {there!r}"
    for name in ("shape", "dtype"):
        if getattr(here, name) != getattr(there, name):
            return f"has {name} {getattr(here, name)} and {getattr(there, name)}"
    if _bits(here).equal(_bits(there)):
        return f"has strides {here.stride()} and {there.stride()}"
    return _worst(here, there, _close(here, there, rtol, atol))


def _same_bits(here: Any, there: Any) -> bool:
    if not (is_tensor(here) and is_tensor(there)):
        # Of floats, too: nan is itself here, and 0.0 is not -0.0.
        return type(here) is type(there) and repr(here) == repr(there)
    same_form = here.shape == there.shape and here.dtype == there.dtype and here.stride() == there.stride()
    return bool(same_form and _bits(here).equal(_bits(there)))


def _bits(tensor: Any) -> Any:
    """A tensor's bytes, as a flat tensor; also of nan, which is not equal to itself, and of types below a byte."""
    import torch

    own = tensor.clone(memory_format=torch.contiguous_format)
    return torch.empty(0, dtype=torch.uint8).set_(own.untyped_storage())


def _close(here: Any, there: Any, rtol: float | None, atol: float | None) -> str | None:
    """What assert_close says against it, or None."""
    import torch

    try:
        torch.testing.assert_close(here, there, rtol=rtol, atol=atol, equal_nan=True)
    except Exception as error:  # also where a type has no arithmetic
        return str(error)
    return None


def _worst(here: Any, there: Any, against: str | None) -> str:
    """The element that is furthest off, and how many differ at all."""
    import torch

    size = here.element_size()
    bits = [_bits(tensor).reshape(-1, size) for tensor in (here, there)]
    differing = (bits[0] != bits[1]).any(dim=1)
    verdict = "within the tolerance of its type" if against is None else "beyond the tolerance of its type"
    told = f"differs in {int(differing.sum())} of {here.numel()} elements, {verdict}"
    try:
        flat = [tensor.contiguous().reshape(-1).to(_wide(tensor)) for tensor in (here, there)]
        apart = (flat[0] - flat[1]).abs()
        if apart.is_floating_point():
            apart = torch.nan_to_num(apart, nan=float("inf"), posinf=float("inf"))
        apart[~differing] = -1
        at = int(apart.argmax())
        values = [tensor.contiguous().reshape(-1)[at].item() for tensor in (here, there)]
    except (RuntimeError, NotImplementedError):
        return f"{told}; {here.dtype} has no arithmetic that could tell how far apart they are"
    index = (
        tuple(int(part) for part in torch.unravel_index(torch.tensor(at), here.shape)) if here.dim() else ()
    )
    away = apart[at].item()
    return (
        f"{told}; the worst is at {index}: {values[0]!r} and {values[1]!r}, "
        f"{away if isinstance(away, int) else format(away, '.3g')} apart"
    )


def _wide(tensor: Any) -> Any:
    """A type in which two elements can be subtracted."""
    import torch

    if tensor.is_complex():
        return torch.complex128
    return torch.float64 if tensor.is_floating_point() or tensor.dtype == torch.uint64 else torch.int64
