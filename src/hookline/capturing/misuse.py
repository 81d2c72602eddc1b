"""The error of a capture that no example is to blame for."""

from hookline.errors import CaptureError


class MisuseError(CaptureError):
    """Something is wrong with how a capture was asked for, and not with an example: nothing can be skipped."""
