"""Write docs/reference.md from the code: commands, settings, parts, Python, errors with their exit codes.

    python scripts/write_reference.py [--check]

With --check nothing is written, and the exit code is 1 if the page is not what the code says.
"""

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

import streamsgd
from streamsgd import errors, serving
from streamsgd.cli.commands import cli
from streamsgd.settings.describe import describe
from streamsgd.show.parts import list_parts

PAGE = Path(__file__).resolve().parents[1] / "docs" / "reference.md"

CODES = {
    0: "done",
    1: "a bug: a traceback says where",
    2: "you can fix it: one line says what, where and how",
    75: "stopped by `--time-limit` or a signal; a checkpoint is saved, and the same command goes on",
    130: "Ctrl-C twice, or where nothing was saved",
    141: "nobody reads stdout any more",
}


def page() -> str:
    parts = (commands(), settings(), parts_there_are(), python(), codes())
    head = "# Reference\n\nMade from the code by `scripts/write_reference.py`; a test keeps it so."
    return "\n\n".join([head, *("\n".join(lines) for lines in parts)]) + "\n"


def commands() -> Iterator[str]:
    yield "## Commands\n\n| command | what it does | its own options |\n|---|---|---|"
    known = {setting.flag for setting in describe()}
    for name, command in sorted(cli.commands.items()):
        flags = [max(option.opts, key=len) for option in command.params if isinstance(option, click.Option)]
        own = [flag for flag in flags if flag.startswith("--") and flag not in known]
        yield f"| `{name}` | {cell(first_line(command.help))} | {' '.join(f'`{flag}`' for flag in own)} |"


def settings() -> Iterator[str]:
    yield "## Settings\n\nOn the command line, as `STREAMSGD_NAME`, in TOML and in Python.\n"
    yield "| flag | name | takes | default | |\n|---|---|---|---|---|"
    for setting in describe():
        default = "" if setting.default in (None, (), "") else f"`{setting.default}`"
        yield f"| `{setting.flag}` | `{setting.name}` | {cell(setting.takes)} | {default} | {cell(setting.description)} |"


def parts_there_are() -> Iterator[str]:
    yield "## Parts\n\nWritten `name:field=value,field=value`."
    for kind, named in list_parts().items():
        yield f"\n| `--{kind.replace('_', '-')}` | what it is | fields |\n|---|---|---|"
        for name, part in named.items():
            fields = ", ".join(f"`{key}={value}`" for key, value in part["fields"].items())
            in_rows = ", ".join(f"`{key}={value:g}`" for key, value in part.get("in_rows", {}).items())
            fields += f"; in rows: {in_rows}" if in_rows else ""
            yield f"| `{name}` | {cell(part['title'])} | {fields} |"


def python() -> Iterator[str]:
    yield "## Python\n\n| name | what it is |\n|---|---|"
    for name in streamsgd.__all__:
        found = getattr(streamsgd, name)
        yield f"| `streamsgd.{name}{arguments(found)}` | {cell(first_line(inspect.getdoc(found)))} |"
        if inspect.isclass(found) and not issubclass(found, Exception):
            yield from members(f"streamsgd.{name}", found)
    yield f"| `streamsgd.serving.load{arguments(serving.load)}` | {cell(first_line(inspect.getdoc(serving.load)))} |"


def members(prefix: str, found: type) -> Iterator[str]:
    for name, member in sorted(inspect.getmembers(found)):
        if (
            name.startswith("_")
            or not (inspect.isroutine(member) or isinstance(member, property))
            or not inspect.getdoc(member)
        ):
            continue
        yield f"| `{prefix}.{name}{arguments(member)}` | {cell(first_line(inspect.getdoc(member)))} |"


def arguments(found: Any) -> str:
    """Return the names of arguments; of what is no function nothing."""
    if isinstance(found, property) or (inspect.isclass(found) and issubclass(found, Exception)):
        return ""
    names = []
    for each in inspect.signature(found).parameters.values():
        if each.kind is each.KEYWORD_ONLY and "*" not in names:
            names.append("*")
        prefix = {each.VAR_KEYWORD: "**", each.VAR_POSITIONAL: "*"}.get(each.kind, "")
        names += [] if each.name == "self" else [f"{prefix}{each.name}{'' if each.default is each.empty else '=...'}"]
    return f"({', '.join(names)})"


def codes() -> Iterator[str]:
    yield "## Exit codes and errors\n\n| code | |\n|---|---|"
    yield from (f"| {code} | {what} |" for code, what in CODES.items())
    yield "\n| `streamsgd.errors` | exit code | what happened |\n|---|---|---|"
    for name, found in sorted(vars(errors).items()):
        if inspect.isclass(found) and issubclass(found, errors.StreamSGDError):
            assert found.exit_code in CODES
            yield f"| `{name}` | {found.exit_code} | {cell(first_line(inspect.getdoc(found)))} |"


def first_line(text: str | None) -> str:
    return (text or "").split("\n\n")[0].replace("\n", " ")


def cell(text: str) -> str:
    return text.replace("|", "\\|")


def main() -> int:
    if "--check" in sys.argv[1:]:
        return int(PAGE.read_text() != page())
    PAGE.write_text(page())
    return 0


if __name__ == "__main__":
    sys.exit(main())
