"""Secrets in URLs: found where a URL comes in, and hidden wherever text goes out: errors, logs, plans, models, checkpoints.

A secret is what stands before an @ (`s3://KEY:SECRET@bucket`, `https://user:password@host`), and every value of a query but
those known to be harmless (a signature, a token, a credential). Once seen it is hidden where it stands without its URL too, as
storage libraries like to quote parts of them.
"""

from __future__ import annotations

import logging
import re
from urllib.parse import quote, unquote

HIDDEN = "***"
"""What stands in place of a secret."""

SHORT = 6
"""Letters of a secret below which it is hidden in its URL only: shorter ones are words of any sentence."""

HARMLESS = frozenset(
    {
        *("region", "scheme", "endpoint_override", "anonymous", "role_arn", "session_name", "retry_limit_seconds"),
        *("versionid", "version", "x-amz-date", "x-amz-expires", "x-amz-algorithm", "x-amz-signedheaders", "expires"),
        *("se", "st", "sp", "sv", "sr", "spr"),
    }
)
"""Parameters of queries, in small letters, that are no secrets."""

# A key of S3 may hold slashes: with a colon before it, all up to the last @ is secret; without, what has no slash.
_LOGIN = re.compile(r"(\b[A-Za-z][A-Za-z0-9+.-]*://)([^\s'\"<>@/:]*:[^\s'\"<>]*|[^\s'\"<>@/?]+)@(?=[^\s'\"<>@])")

_QUERY = re.compile(r"(?<=[?&;])([A-Za-z0-9_.~%-]+)=([^\s'\"<>&;,)\]}]+)")

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://\S*")

_known: set[str] = set()


def redact(text: str) -> str:
    """Return a text without the secrets of its URLs, and without those that were seen before."""
    for secret in sorted(_known, key=len, reverse=True):  # the longest first: one may be a part of another
        text = text.replace(secret, HIDDEN)
    return hide(text)


def hide(text: str) -> str:
    """Return a text without the secrets of the URLs in it, whatever was seen before."""
    if "://" not in text:
        return text
    return _URL.sub(lambda url: _QUERY.sub(_hidden_value, _LOGIN.sub(rf"\1{HIDDEN}@", url[0])), text)


def _hidden_value(match: re.Match[str]) -> str:
    return match[0] if match[1].lower() in HARMLESS else f"{match[1]}={HIDDEN}"


def remember(text: object) -> None:
    """Take note of the secrets of the URLs in a text, which from now on are hidden wherever they stand."""
    for url in _URL.findall(str(text)):
        found = [login for _, login in _LOGIN.findall(url)]
        found += [part for login in found for whole in login.split(":", 1)[1:] for part in {whole, *whole.split("/")}]
        found += [value for name, value in _QUERY.findall(url) if name.lower() not in HARMLESS]
        for secret in found:
            _known.update(form for form in (secret, unquote(secret), quote(secret, safe="")) if len(form) >= SHORT)


class Redactor(logging.Handler):
    """The first handler of our loggers: what others show of a record has no secrets any more.

    Where there are no others it shows warnings as Python does of loggers without a handler, which it is itself.
    """

    def handle(self, record: logging.LogRecord) -> bool:
        """Hide secrets in a record, and show it if nobody else will."""
        text = record.getMessage()
        hidden = redact(text)
        if hidden != text:
            record.msg, record.args = hidden, None
        if (last := logging.lastResort) is not None and record.levelno >= last.level and not _is_shown(record.name):
            last.handle(record)
        return True


def _is_shown(name: str) -> bool:
    """Whether a logger has handlers of others, or one that it propagates to."""
    logger: logging.Logger | None = logging.getLogger(name)
    while logger is not None:
        if not all(isinstance(handler, Redactor) for handler in logger.handlers):
            return True
        logger = logger.parent if logger.propagate else None
    return False
