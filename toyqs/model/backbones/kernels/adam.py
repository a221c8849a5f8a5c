"""The clipped step of Adam and AdamW in one call of native code: adam.h."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from toyqs.model.backbones.kernels import library


class _Buffers(ctypes.Structure):
    """AdamBuffers of adam.h."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("values", "grads", "means", "squares", "count")),
        *((name, ctypes.c_int64) for name in ("seeds", "spans", "decoupled")),
        *((name, ctypes.c_void_p) for name in ("begins", "sizes", "factors")),
        *((name, ctypes.c_double) for name in ("beta1", "beta2", "epsilon")),
    )


class Adam:
    """Clips the gradient of each seed and steps all parameters, in place.

    Equal to `Optimiser.clip` and torch's fused Adam to rounding. A seed's bits do not depend on the others.
    """

    def __init__(
        self,
        buffers: Mapping[str, Tensor],
        num_seeds: int,
        spans: Sequence[slice],
        factors: Sequence[float],
        constants: tuple[float, float, float],
        *,
        decoupled: bool,
        given: ctypes.CDLL | None = None,
    ) -> None:
        """Note where the buffers lie; they must stay there.

        Args:
            buffers: values, grads, means and squares, flat, float32 or float64, and count, a float32 number.
            num_seeds: S.
            spans: each parameter's part of the buffers, its axis S first.
            factors: each parameter's factor of the learning rate.
            constants: β₁, β₂ and ε.
            decoupled: AdamW; else Adam.
            given: the compiled kernels; None: those of this machine.
        """
        sizes = torch.tensor([(span.stop - span.start) // num_seeds for span in spans])
        begins = torch.tensor([span.start for span in spans]) + torch.arange(num_seeds).unsqueeze(1) * sizes
        tables = {"begins": begins, "sizes": sizes, "factors": torch.tensor(factors, dtype=torch.float64)}
        self.kept = {**buffers, **tables}  # as long as their addresses are
        places = {name: tensor.data_ptr() for name, tensor in self.kept.items()}
        beta1, beta2, epsilon = constants
        self.buffers = _Buffers(
            **places,
            seeds=num_seeds,
            spans=len(spans),
            decoupled=decoupled,
            beta1=beta1,
            beta2=beta2,
            epsilon=epsilon,
        )
        compiled = library.load() if given is None else given
        wide = buffers["values"].dtype == torch.float64
        self.kernel = compiled.adam_f64 if wide else compiled.adam_f32
        self.kernel.argtypes = (ctypes.c_void_p, *[ctypes.c_double] * 3)
        self.kernel.restype = None
        self.place = ctypes.addressof(self.buffers)

    def __call__(self, max_norm: float, lr: float, weight_decay: float) -> None:
        """Clip each seed's gradient to max_norm (0: leave it) and step; the gradient itself stays."""
        self.kernel(self.place, max_norm, lr, weight_decay)
