"""Text for an output that cannot show all of Unicode: our own signs in ASCII, other characters escaped."""

import codecs
import sys
from typing import Any

SIGNS = {"█": "#", "▏": "|", "±": "+-", "→": "->", "…": "...", "·": "-", "─": "-", "└": "`", "├": "|"}
HANDLER = "hookline.plain"


def plain_signs(error: UnicodeError) -> tuple[str, int]:
    """An error handler for Python's codecs that replaces characters the encoding does not have."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    missing = error.object[error.start : error.end]
    return "".join(SIGNS.get(sign) or escaped(sign) for sign in missing), error.end


def escaped(sign: str) -> str:
    """A character as its escape: `\\ud800`."""
    return sign.encode("ascii", errors="backslashreplace").decode("ascii")


def printable(text: str) -> str:
    """Text with escapes for characters that move the cursor, end a line or cannot be encoded."""
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text)


def show_all(stream: Any) -> None:
    """Make a stream write plain signs for characters that its encoding does not have, instead of raising."""
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors=HANDLER)


def for_stdout(text: str) -> str:
    """Text for printing, with our signs in ASCII if the encoding of stdout does not have them."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    try:
        "".join(SIGNS).encode(encoding)
    except (UnicodeError, LookupError):
        return "".join(SIGNS.get(sign, sign) for sign in text)
    return text


codecs.register_error(HANDLER, plain_signs)
