"""Compare two models or two runs: by how much their calls differ, which module is the culprit, and why."""
