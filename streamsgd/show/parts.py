"""The parts there are, as text."""

from __future__ import annotations

from typing import Any


def list_parts() -> dict[str, dict[str, dict[str, Any]]]:
    """Return every loss, penalty, optimizer, schedule, sampler and way to thin rows: title, fields with defaults, source."""
    from streamsgd.settings.registry import BY_ROWS, PARTS  # noqa: PLC0415

    listed = {kind: {name: _listed(part) for name, part in parts.items()} for kind, parts in PARTS.items()}
    for name, part in BY_ROWS.items():
        listed["optimizer"][name]["in_rows"] = {
            key: n for key, n in part._field_defaults.items() if key.startswith("half_life")
        }
    return listed


def _listed(part: Any) -> dict[str, Any]:
    title = (part.__doc__ or "").split("\n")[0]
    return {"title": title, "fields": dict(part._field_defaults), "source": part.source}


def parts_text(parts: dict[str, dict[str, dict[str, Any]]]) -> list[str]:
    """Return the lines of `parts`."""
    lines: list[str] = []
    for kind, named in parts.items():
        lines += [f"--{kind.replace('_', '-')}"]
        for name, part in named.items():
            fields = _fields(part["fields"])
            lines.append(f"  {name}{':' if fields else ''}{fields}")
            lines.append(f"      {part['title']}")
            lines += [f"      memory in rows: {name}:{_fields(part['in_rows'])}"] if "in_rows" in part else []
            if part["source"]:
                lines.append(f"      {part['source']}")
        lines.append("")
    return lines[:-1]


def _fields(values: dict[str, Any]) -> str:
    return ",".join(f"{key}={value if isinstance(value, str) else f'{value:g}'}" for key, value in values.items())
