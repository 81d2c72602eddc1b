"""Which calls, modules and tensors of two models belong together, and by how much two tensors differ."""
