"""Objectives that can be minimised to the last digit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streamsgd.errors import SettingsError
from streamsgd.settings.registry import PARTS

if TYPE_CHECKING:
    from streamsgd.kernels.structs.block import Parts


TOLERANCE = {"float64": 1e-8, "float32": 1e-6}
"""Largest component of the gradient at which to stop; rounding the weights to float32 brings one of about 1e-7 back."""


def is_objective(parts: Parts) -> bool:
    """Whether an objective can be minimised so."""
    try:
        check_objective("", parts)
    except SettingsError:
        return False
    return True


def check_objective(what: str, parts: Parts) -> None:
    """Refuse to do `what` to a loss without a second derivative, or to an objective that is not known.

    Raises
    ------
    SettingsError
        As `check_polish`.

    """
    if not getattr(parts.loss, "smooth", True):
        name = type(parts.loss).__name__
        other = {"Hinge": "; take --loss squared-hinge", "Quantile": "; take --loss huber"}.get(name, "")
        raise SettingsError(f"{what} needs a loss without kinks, and {name} has some{other}")
    if type(parts.penalty) not in PARTS["penalty"].values():
        raise SettingsError(f"{what} knows the penalties {', '.join(PARTS['penalty'])} only")
    own = [name for name in ("l1", "l2", "weight_decay") if getattr(parts.optimizer, name, 0.0)]
    if own:
        raise SettingsError(
            f"{what} minimises the loss and --penalty, but {type(parts.optimizer).__name__.lower()} "
            f"has {own[0]} of its own: set it to 0, and pass --penalty l2 or elastic-net"
        )
