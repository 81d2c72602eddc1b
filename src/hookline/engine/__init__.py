"""One call of one module: PyTorch's module call, rebuilt. README.md in this folder says how a call runs."""
