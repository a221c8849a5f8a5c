"""Calls of the native functions: a name, and the fields of the struct that it takes."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from toyqs.model.backbones.kernels import library

NAMES = {torch.float32: "f32", torch.float64: "f64"}


@functools.cache
def _function(name: str, dtype: torch.dtype) -> Callable[[Any], bool]:
    function = getattr(library.load(), f"{name}_{NAMES[dtype]}")
    function.argtypes, function.restype = [ctypes.c_void_p], ctypes.c_bool
    return function


@functools.cache
def _array(size: int) -> type[ctypes.Array[ctypes.c_int64]]:
    return ctypes.c_int64 * size


def call(name: str, dtype: torch.dtype, *fields: Tensor | int | None) -> None:
    """Call a native function.

    Args:
        name: without the precision.
        dtype: float32 or float64.
        fields: of its arguments in their order; tensors contiguous and on the CPU, None a null pointer.

    Raises:
        IndexError: an id is no row of its table.
        RuntimeError: see `check_first_order`.
    """
    check_first_order()
    words = [x if isinstance(x, int) else 0 if x is None else x.data_ptr() for x in fields]
    run(name, dtype, _array(len(words))(*words))


def run(name: str, dtype: torch.dtype, fields: ctypes.Array[ctypes.c_int64] | int) -> None:
    """Call a native function with fields that are in place, or with their address.

    Raises:
        IndexError: an id is no row of its table.
    """
    if not _function(name, dtype)(fields):
        raise IndexError(f"{name}: an id is no row of its table")


def check(ids: Tensor | None, *numbers: Tensor) -> None:
    """Check what a native function is to read.

    Raises:
        TypeError: the numbers are not all float32, or all float64, on the CPU; or the ids are not long.
    """
    dtype = numbers[0].dtype
    alike = all(x.dtype is dtype and x.is_cpu for x in numbers)
    if not alike or dtype not in NAMES or not (ids is None or (ids.dtype is torch.int64 and ids.is_cpu)):
        raise TypeError(
            "native kernels take numbers of one precision, float32 or float64, and long ids, on the CPU; "
            "kernels=torch takes others too"
        )


def check_first_order() -> None:
    """Check, inside a function of this folder, that no gradient of its gradient is asked for.

    Raises:
        RuntimeError: it is, by create_graph=True.
    """
    if torch.is_grad_enabled():
        raise RuntimeError("native kernels have first derivatives alone, and no others")


def check_shapes(*pairs: tuple[Tensor, tuple[int, ...]]) -> None:
    """Check what shapes tensors have.

    Raises:
        ValueError: one is not as a native function would read it.
    """
    for tensor, shape in pairs:
        if tensor.shape != shape:
            raise ValueError(f"a tensor of shape {tuple(tensor.shape)} where native kernels read {shape}")
