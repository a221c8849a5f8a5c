"""One thread for every test: small tensors gain nothing from two, and sums keep their order."""

from __future__ import annotations

import torch

torch.set_num_threads(1)
