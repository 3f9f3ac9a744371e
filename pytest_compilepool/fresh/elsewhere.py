# SPDX-License-Identifier: Apache-2.0
"""Moving arguments and modules to a GPU that is not there: the same shapes, types and strides, and no data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def on_the_target(value: Any) -> Any:
    """The same value with each tensor in host memory, modules' too, replaced by one on the target, without data.

    To be called while the offline GPU's `tensors()` is on. Other values stay as they are.
    """
    import torch

    if isinstance(value, torch.nn.Module):
        return _module(value)
    if isinstance(value, torch.Tensor):
        return _tensor(value)
    if isinstance(value, Mapping):
        return {key: on_the_target(item) for key, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(on_the_target(item) for item in value))
    if isinstance(value, (list, tuple)):
        return type(value)(on_the_target(item) for item in value)
    return value


def _tensor(tensor: Any) -> Any:
    import torch

    if tensor.device.type == "cuda":
        return tensor
    made = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="cuda")
    return made.requires_grad_(tensor.requires_grad) if tensor.is_leaf else made


def _module(module: Any) -> Any:
    import torch

    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                part._parameters[name] = torch.nn.Parameter(_tensor(parameter.data), parameter.requires_grad)
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = _tensor(buffer)
    return module
