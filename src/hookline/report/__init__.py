"""Pure functions of a result: text, HTML."""
