"""Import torch without its warning that NumPy is missing, which hookline does not need. Must be imported first."""

import warnings

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message="Failed to initialize NumPy", category=UserWarning)
    import torch

__all__ = ["torch"]
