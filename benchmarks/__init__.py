"""Benchmarks: one file a question, each compared with PyTorch in the same run."""
