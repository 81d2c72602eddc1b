"""Two runs beside each other: which calls belong together, by how much they differ, which module makes it, and why."""
