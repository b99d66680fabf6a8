"""A setting as the command line writes it, for messages; `settings.words` makes arguments of it where Python reads them."""

from __future__ import annotations

from typing import Any

from streamsgd.settings.describe import describe
from streamsgd.settings.words import choices_of


def as_flag(name: str, value: Any) -> str:
    """Return the flags that set a setting to a value: `--bits 20`, `--no-values`, `--exclude 'a' --exclude 'b'`."""
    setting = next(setting for setting in describe() if setting.name == name)
    if setting.metavar == "":
        dashes, word = setting.flag[:2], setting.flag[2:]
        return setting.flag if value else f"{dashes}no-{word}"
    several = value if isinstance(value, list | tuple) else [value]
    texts = [f"{one:.15g}" if isinstance(one, float) else str(one) for one in several]
    known = choices_of(setting)
    plain = [not isinstance(one, str) or text.partition(":")[0] in known for one, text in zip(several, texts, strict=True)]
    return " ".join(f"{setting.flag} {text if bare else repr(text)}" for text, bare in zip(texts, plain, strict=True))


def with_flag(name: str, value: Any) -> str:
    """Return `with` the flags that set a setting to a value, or `without` its flag where it is set to nothing."""
    if value in (None, "", [], ()):
        return f"without {next(setting.flag for setting in describe() if setting.name == name)}"
    return f"with {as_flag(name, value)}"
