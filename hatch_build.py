"""What the package says of itself where it is built: its address, and the README with links that work anywhere.

The address is that of the repository that builds it, as GitHub's workflows tell it, or HOOKLINE_REPOSITORY. Without
one the links stay relative.
"""

import os
import re
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

LINK = re.compile(r"(!?)\[((?:[^\]\[]|\[[^\]]*\])*)\]\((?!https?:|#)([^)\s]+)\)")
PICTURE = re.compile(r'(<img[^>]*\bsrc=")(?!https?:)([^"]+)"')


class Links(MetadataHookInterface):
    """Sets the readme and the URLs of the project."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Set them."""
        with open(os.path.join(self.root, "README.md"), encoding="utf-8") as file:
            readme = file.read()
        address = repository()
        if address:
            readme = absolute(readme, address)
            metadata["urls"] = urls(address)
        metadata["readme"] = {"content-type": "text/markdown", "text": readme}


def repository() -> str:
    """The address of the repository, without a slash at its end; "" where it is not known."""
    told = os.environ.get("HOOKLINE_REPOSITORY", "")
    if not told and "GITHUB_REPOSITORY" in os.environ:
        told = f"{os.environ.get('GITHUB_SERVER_URL', 'https://github.com')}/{os.environ['GITHUB_REPOSITORY']}"
    return told.rstrip("/")


def urls(address: str) -> dict[str, str]:
    """The links that a package index shows."""
    return {
        "Repository": address,
        "Documentation": f"{address}/tree/main/docs",
        "Changelog": f"{address}/blob/main/CHANGELOG.md",
        "Issues": f"{address}/issues",
    }


def absolute(readme: str, address: str) -> str:
    """A README whose relative links and pictures lead to files of the repository.

    >>> absolute("![run](docs/run.png) and [a guide](docs/guide.md)", "https://x.org/h")
    '![run](https://x.org/h/raw/main/docs/run.png) and [a guide](https://x.org/h/blob/main/docs/guide.md)'
    """

    def link(found: re.Match[str]) -> str:
        mark, text, target = found.groups()
        text = LINK.sub(link, text)
        return f"{mark}[{text}]({address}/{'raw' if mark else 'blob'}/main/{target})"

    readme = LINK.sub(link, readme)
    return PICTURE.sub(rf'\g<1>{address}/raw/main/\g<2>"', readme)
