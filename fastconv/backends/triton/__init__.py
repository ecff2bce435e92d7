"""The Triton backend: kernels compiled by Triton on CUDA tensors, run by Triton's interpreter on CPU tensors.

Importing this package does not import Triton; planning a problem does.
"""

from fastconv.backends.triton.backend import backend

__all__ = ["backend"]
