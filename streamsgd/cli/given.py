"""What stands in the place of DATA: a model there is told at once, with where models go."""

from __future__ import annotations

import os

import click

MODELS = ("model", "other")
"""Arguments that are models."""


def check_data(context: click.Context, _argument: click.Parameter, data: tuple[str, ...]) -> tuple[str, ...]:
    """Refuse models in the place of data; of a URL nothing is known yet."""
    if not context.resilient_parsing:
        for word in data:
            if is_model(word):
                raise click.UsageError(f"{word} is a model, and DATA is wanted there{_instead(context)}")
    return data


def is_model(path: str) -> bool:
    """Whether a path is a file on this machine that begins as models do."""
    try:
        if not os.path.isfile(path):  # noqa: PTH113  Path.is_file raises where a name is too long
            return False
        with open(path, "rb") as file:  # noqa: PTH123  the same
            return file.read(64)[8:].startswith(b'{"__metadata__":{"streamsgd"')
    except (OSError, ValueError):
        return False


def _instead(context: click.Context) -> str:
    models = {name: context.params[name] for name in MODELS if context.params.get(name)}
    none = [word for word in models.values() if "://" not in word and not is_model(word)]
    takes = {parameter.name for parameter in context.command.params}
    if none:
        return f", while {none[0]} is none: {'MODEL OTHER' if len(models) > 1 else 'MODEL'} comes before DATA"
    if "also" in takes:
        return ": name models beside the first with --also"
    if len(models) > 1:
        return ": more than two are compared by evaluate MODEL DATA --also OTHER --also ANOTHER"
    if models:
        return f": {context.info_name} takes one model, before DATA"
    flag = next((flag for name, flag in (("start", "--from"), ("at", "--at")) if name in takes), "")
    return f": a model goes to {flag}" if flag else ""
