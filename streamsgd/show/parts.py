"""The parts there are, as text."""

from __future__ import annotations

from typing import Any


def list_parts() -> dict[str, dict[str, dict[str, Any]]]:
    """Return every loss, penalty, optimizer, schedule, sampler and way to thin rows: title, fields with defaults, source."""
    from streamsgd.settings.registry import PARTS  # noqa: PLC0415

    return {
        kind: {
            name: {
                "title": (part.__doc__ or "").split("\n")[0],
                "fields": dict(part._field_defaults),
                "source": part.source,
            }
            for name, part in parts.items()
        }
        for kind, parts in PARTS.items()
    }


def parts_text(parts: dict[str, dict[str, dict[str, Any]]]) -> list[str]:
    """Return the lines of `parts`."""
    lines: list[str] = []
    for kind, named in parts.items():
        lines += [f"--{kind.replace('_', '-')}"]
        for name, part in named.items():
            values = {key: value if isinstance(value, str) else f"{value:g}" for key, value in part["fields"].items()}
            fields = ",".join(f"{key}={value}" for key, value in values.items())
            lines.append(f"  {name}{':' if fields else ''}{fields}")
            lines.append(f"      {part['title']}")
            if part["source"]:
                lines.append(f"      {part['source']}")
        lines.append("")
    return lines[:-1]
