"""The result of hookline.sweep, and its document."""
