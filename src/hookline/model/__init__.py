"""Nouns: a model's modules by path, selections of them, the tensors in a value. No calls yet."""
