"""Benchmarks: one file a question, each beside PyTorch in the same run."""
