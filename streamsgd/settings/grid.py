"""Grids of settings: what `tune` tries, from texts or values to one dict for each configuration."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from streamsgd.errors import SettingsError
from streamsgd.messages import nearest
from streamsgd.settings.fields import Settings
from streamsgd.settings.gather import split_list
from streamsgd.settings.make import make_settings
from streamsgd.settings.scope import RUN_ONLY

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

TUNED = (
    *("penalty", "optimizer", "learning_rate", "schedule", "batch_size", "rate_scaling", "clip_norm", "clip_value"),
    *("epochs", "steps", "average", "model"),
)
"""Settings that may differ between configurations that are compared: all learn the same rows, and are judged by one loss."""

LEARNED = (*TUNED, "loss", "patience", "min_improvement", "validate_every", "keep_memory")
"""Settings that may differ between runs that share a decode."""

MOST = 10_000
"""Configurations of a grid that nobody draws from."""

AS = "as {'learning_rate': [0.01, 0.1]}, or learning_rate=0.01,0.1 where they are text"
"""How messages say what a grid is."""

LISTED = 3
"""Values that a message names."""


def parse_grid(texts: Sequence[str]) -> dict[str, list[str]]:
    """Return the values of settings that are written as SETTING=VALUE,VALUE; one with commas stands in double quotes.

    Raises
    ------
    SettingsError
        One is not written so, or a setting comes twice.

    """
    grid: dict[str, list[str]] = {}
    for text in texts:
        key, equals, values = text.partition("=")
        name = key.strip().removeprefix("--").replace("-", "_")
        if not equals or not name:
            raise SettingsError(f"--grid {text!r}: write it as SETTING=VALUE,VALUE, as learning_rate=0.01,0.1")
        if name in grid:
            raise SettingsError(f"--grid {name}: comes twice; write all of its values in one")
        grid[name] = list(split_list(values))
    return grid


def configurations(grid: Mapping[str, Sequence[Any]], draw: int | None = None, seed: int = 0) -> list[dict[str, Any]]:
    """Return the settings of each configuration: all combinations, or so many of them, drawn by the seed.

    Raises
    ------
    SettingsError
        The grid is empty, too large, or of settings that cannot differ.

    """
    if not grid:
        raise SettingsError(f"--grid: there is nothing to try: give settings with values, {AS}")
    values = {name: _values(name, given) for name, given in grid.items()}
    sizes = [len(some) for some in values.values()]
    total = math.prod(sizes)
    if draw is None and total > MOST:
        raise SettingsError(f"--grid: that is {total:,} configurations: pass --random 100 to try some of them")
    if draw is not None and draw < 1:
        raise SettingsError(f"--random {draw}: draw one configuration or more")
    if draw is None or draw >= total:
        return [dict(zip(values, one, strict=True)) for one in itertools.product(*values.values())]
    numbers = sorted(random.Random(seed).sample(range(total), draw))  # noqa: S311  nothing is secret
    return [_number(values, number) for number in numbers]


def restarted(each: Sequence[Mapping[str, Any]], usual: str, restarts: int) -> list[dict[str, Any]]:
    """Return every configuration with so many starts of its model, `draw` 0 and up; `usual` is the model where it says none.

    Raises
    ------
    SettingsError
        The number is below 2, the model is linear, whose loss has one minimum, or it says which of its starts it is.

    """
    if restarts < 2:
        raise SettingsError(f"--restarts {restarts}: train two starts or more, and keep the best")
    return [{**own, "model": _start(str(own.get("model", usual)), k)} for own in each for k in range(restarts)]


def _start(spec: str, k: int) -> str:
    name, _, rest = spec.partition(":")
    if name == "linear":
        raise SettingsError(
            "--restarts: a linear model has one minimum, wherever it starts: leave it out, or take --model fm or mlp"
        )
    if "draw=" in rest:
        raise SettingsError(f"--restarts numbers the starts of --model '{spec}' itself: leave draw out of it")
    separator = "," if rest else ":"
    return spec if k == 0 else f"{spec}{separator}draw={k}"


def _number(values: Mapping[str, Sequence[Any]], number: int) -> dict[str, Any]:
    """Return a combination by its number; the last setting varies fastest."""
    found = {}
    for name, some in reversed(list(values.items())):
        number, place = divmod(number, len(some))
        found[name] = some[place]
    return {name: found[name] for name in values}


def _values(name: str, given: Any) -> list[Any]:
    check_varied(name, TUNED, "--grid ")
    some = list(given) if isinstance(given, Iterable) and not isinstance(given, str) else [given]
    if not some or given is None:
        raise SettingsError(f"--grid {name}: has no value; write it as {name}=VALUE,VALUE")
    return some


def check_varied(name: str, may: Sequence[str], where: str = "") -> None:
    """Refuse a setting that cannot differ between runs of one decode; `where` is what it was given in.

    Raises
    ------
    SettingsError
        It cannot.

    """
    if name in may:
        return
    if name not in Settings.__struct_fields__:
        raise SettingsError(f"{where}{name}: unknown setting {name!r}{nearest(name, may)}")
    if name in LEARNED:
        raise SettingsError(f"{where}{name}: models of different {name} are not compared by one loss; set it for all of them")
    if name in RUN_ONLY:
        raise SettingsError(f"{where}{name}: decides no bit of a model; set it for all runs")
    raise SettingsError(
        f"{where}{name}: changes which rows are learned, how they are encoded, or what passes there are, which runs of one "
        f"decode share; set it for all of them, and run once for each of its values (these may differ: {', '.join(may)})"
    )


def made_many(common: Mapping[str, Any], each: Sequence[Mapping[str, Any]], origins: Mapping[str, str]) -> list[Settings]:
    """Return the checked settings of every run.

    Raises
    ------
    SettingsError
        One is out of range; or two are the same.

    """
    made: dict[Settings, int] = {}
    for number, own in enumerate(each):
        settings = make_settings({**common, **own}, {**origins, **{name: f"{name} of configuration {number}" for name in own}})
        if settings in made:
            raise SettingsError(f"configurations {made[settings]} and {number} are the same: {in_words(own)}; leave one out")
        made[settings] = number
    return list(made)


def in_words(own: Mapping[str, Any]) -> str:
    """Return settings in a line."""
    return ", ".join(f"{name}={value}" for name, value in own.items()) or "no settings"
