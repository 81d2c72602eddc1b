"""A histogram as a drawing in a page."""

import math
from collections.abc import Sequence
from html import escape


def bars(counts: Sequence[int], low: str, high: str) -> str:
    """A histogram, each bar as high as the logarithm of its count."""
    heights = [math.log1p(count) for count in counts]
    most, width = max(heights) or 1.0, 100 / len(heights)
    drawn = "".join(
        f"<rect x='{place * width:.2f}' y='{60 - 58 * height / most:.2f}' width='{width * 0.9:.2f}' "
        f"height='{58 * height / most:.2f}'/>"
        for place, height in enumerate(heights)
    )
    label = escape(f"Histogram from {low} to {high}: {', '.join(map(str, counts))}")
    drawing = f"viewBox='0 0 100 62' preserveAspectRatio='none' role='img' aria-label='{label}'"
    ends = f"<div class='ends'><span>{low}</span><span>count, log scale</span><span>{high}</span></div>"
    return f"<figure><svg class='histogram' {drawing}>{drawn}</svg>{ends}</figure>"
