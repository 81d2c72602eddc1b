"""Text for an output that cannot show all of Unicode: our own signs in ASCII, anything else as its escape."""

import codecs
import sys
from typing import Any

SIGNS = {"█": "#", "▏": "|", "±": "+-", "→": "->", "…": "...", "·": "-", "─": "-", "└": "`", "├": "|"}
HANDLER = "hookline.plain"


def plain_signs(error: UnicodeError) -> tuple[str, int]:
    """What stands for characters that an encoding has not: an error handler of Python's codecs."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    missing = error.object[error.start : error.end]
    return "".join(SIGNS.get(sign) or escaped(sign) for sign in missing), error.end


def escaped(sign: str) -> str:
    """A character as its escape: `\\ud800`."""
    return sign.encode("ascii", errors="backslashreplace").decode("ascii")


def printable(text: str) -> str:
    """Text with what moves a terminal's cursor, ends a line or cannot be encoded as its escape."""
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text)


def show_all(stream: Any) -> None:
    """Have a stream write plain signs for what its encoding has not, instead of raising an error."""
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors=HANDLER)


def for_stdout(text: str) -> str:
    """Text that is going to be printed, with our signs in ASCII where stdout has no others."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    try:
        "".join(SIGNS).encode(encoding)
    except (UnicodeError, LookupError):
        return "".join(SIGNS.get(sign, sign) for sign in text)
    return text


codecs.register_error(HANDLER, plain_signs)
