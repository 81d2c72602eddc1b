"""What the build of the documentation adds: live pages, fresh pictures, the command line, readable docstrings."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from markdown import Markdown
from markdown.extensions import Extension
from markdown.preprocessors import Preprocessor
from mkdocs.structure.files import File

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
MADE = ROOT / "out" / "pictures"
LINK = re.compile(r"\[([^\]]+)\]\((?!https?:|#|mailto:)([^)#\s]+)(#[^)\s]*)?\)")
PICTURE = re.compile(
    r'<picture>\s*<source media="[^"]*dark\)" srcset="([^"]+)">\s*<img src="([^"]+)" alt="([^"]*)"[^>]*>\s*</picture>'
)
COMMAND_LINE = "<!-- commands -->"


def on_config(config: Any) -> Any:
    """Docstrings are plain text: their lists and examples become Markdown's."""
    config.markdown_extensions.append(PlainDocstrings())
    return config


def on_files(files: Any, config: Any) -> Any:
    """The pages that scripts/pictures.py made go along, and its pictures in the place of those that are checked in."""
    for made in sorted(MADE.glob("*")):
        where = f"live/{made.name}" if made.suffix == ".html" else f"pictures/{made.name}"
        old = files.get_file_from_path(where)
        if old:
            files.remove(old)
        files.append(File.generated(config, where, abs_src_path=str(made)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """The page with links out of docs as plain paths, pictures for both themes, and the help of all commands."""
    folder = (DOCS / page.file.src_uri).parent
    text = outside_code(markdown, lambda part: LINK.sub(lambda link: _inside(link, folder), part))
    text = PICTURE.sub(_two_pictures, text)
    return text.replace(COMMAND_LINE, "\n".join(commands())) if COMMAND_LINE in text else text


def outside_code(markdown: str, change: Any) -> str:
    """Markdown in which everything but fenced code is changed."""
    parts = re.split(r"(^ *```.*?^ *```$)", markdown, flags=re.DOTALL | re.MULTILINE)
    return "".join(part if place % 2 else change(part) for place, part in enumerate(parts))


def _inside(link: re.Match[str], folder: Path) -> str:
    """A link as it is where it leads to something in docs; else its words, and the path in the repository."""
    words, target, _ = link.groups()
    path = Path(os.path.normpath(folder / target))
    if path.is_relative_to(DOCS):
        return link.group()
    shown = path.relative_to(ROOT).as_posix()
    return f"`{shown}`" if shown.startswith(words.strip("`")) else f"{words} (`{shown}`)"


def _two_pictures(found: re.Match[str]) -> str:
    """The theme has a toggle, which <picture> does not follow: one picture for each of its schemes."""
    dark, light, words = found.groups()
    return "\n".join(
        f'<img src="{path}" alt="{words}" class="only-{theme}">' for theme, path in (("light", light), ("dark", dark))
    )


# The command line


def commands() -> Iterator[str]:
    """A section of Markdown for each command: what its --help says."""
    from typer.main import get_command

    from hookline.cli.app import app

    group: Any = get_command(app)
    for name, command in group.commands.items():
        arguments = [parameter for parameter in command.params if parameter.param_type_name == "argument"]
        words = [each.metavar if each.required else f"[{each.metavar}]" for each in arguments]
        yield f"\n## hookline {name}\n"
        yield f"```sh\n{' '.join(('hookline', name, *words, '[OPTIONS]'))}\n```\n"
        yield plain(command.help)
        yield "\n| | |\n|---|---|"
        yield from map(_parameter_row, command.params)
        yield f"\n```sh\n{examples(command.epilog)}\n```\n"


def _parameter_row(parameter: Any) -> str:
    """What an argument or an option is called, and its help."""
    if parameter.param_type_name == "argument":
        names = [parameter.metavar]
    else:
        names = [*parameter.opts, *parameter.secondary_opts]
        names[-1] += f" {parameter.metavar}" if parameter.metavar else ""
    by_default = _default(parameter)
    words = plain(parameter.help) + (f" By default {by_default}." if by_default else "")
    return f"| {', '.join(f'`{name}`' for name in names)} | {words.replace('|', chr(92) + '|')} |"


def _default(parameter: Any) -> str:
    if isinstance(parameter.show_default, str):
        return parameter.show_default
    if parameter.show_default and not isinstance(parameter.default, bool | None):
        return f"`{parameter.default}`"
    return ""


def plain(help: str) -> str:
    """Help as Markdown: what is bold in the terminal is code here, and so are options; stars are stars."""
    text = re.sub(r"\[bold\](.*?)\[/bold\]", r"`\1`", help).replace("\\[", "[")
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(part if place % 2 else _code_options(part) for place, part in enumerate(parts))


def _code_options(text: str) -> str:
    return re.sub(r"(?<!\w)(--[a-z][a-z-]*|-h)", r"`\1`", text.replace("*", r"\*"))


def examples(epilog: str) -> str:
    """The commands of an epilog, one a line."""
    lines = re.sub(r"\[/?dim\]", "", epilog).replace("\\[", "[").split("\n\n")
    return "\n".join(line.strip() for line in lines if line.strip().startswith("hookline"))


# Docstrings


class PlainDocstrings(Extension):  # type: ignore[misc]
    """Turns what docstrings have for lists and examples into Markdown's."""

    def extendMarkdown(self, md: Markdown) -> None:  # noqa: N802
        """Before fences are read, since it writes some."""
        md.preprocessors.register(AsMarkdown(md), "plain-docstrings", 28)


class AsMarkdown(Preprocessor):  # type: ignore[misc]
    """A blank line before a list, and a fence around a doctest."""

    def run(self, lines: list[str]) -> list[str]:
        """The lines, as Markdown."""
        return [*as_markdown(lines)]


def as_markdown(lines: list[str]) -> Iterator[str]:
    """Lines of a docstring in Markdown.

    >>> [*as_markdown(["of these:", "- one", ">>> 1", "1"])]
    ['of these:', '', '- one', '', '```pycon', '>>> 1', '1', '```']
    """
    before, fenced, example, listed = "", False, False, False
    for line in lines:
        fenced ^= line.lstrip().startswith("```")
        item, within = line.startswith("- "), line.startswith(("- ", "  "))
        if example and not line.strip():
            example = False
            yield "```"
        elif not fenced and not example and line.startswith(">>> "):
            example = True
            yield from ("", "```pycon")
        elif not fenced and before.strip() and ((item and not listed) or (listed and not within)):
            yield ""
        listed = (item or (listed and within)) and not fenced
        before = line
        yield line
    if example:
        yield "```"
