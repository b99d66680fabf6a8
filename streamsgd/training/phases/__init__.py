"""One stage of a run each; `PHASES` has them in their order."""

from __future__ import annotations

from pkgutil import resolve_name
from typing import TYPE_CHECKING

from streamsgd.errors import SettingsError
from streamsgd.training.phases.base import PhaseKind
from streamsgd.training.phases.conformal import CONFORMAL
from streamsgd.training.phases.epochs import EPOCHS
from streamsgd.training.phases.finish import FINISH
from streamsgd.training.phases.noisy import NOISE
from streamsgd.training.phases.polish import POLISH
from streamsgd.training.phases.posterior import POSTERIOR
from streamsgd.training.phases.rare import RARE
from streamsgd.training.phases.recalibration import RECALIBRATION
from streamsgd.training.phases.residual_scale import RESIDUAL_SCALE
from streamsgd.training.phases.shrinking import SHRINK
from streamsgd.training.phases.standard_errors import STANDARD_ERRORS
from streamsgd.training.phases.svrg import SVRG

if TYPE_CHECKING:
    from streamsgd.kernels.structs.block import Parts
    from streamsgd.settings.fields import Settings

PHASES: tuple[PhaseKind, ...] = (
    EPOCHS, RARE, NOISE, SVRG, POLISH, FINISH, SHRINK, STANDARD_ERRORS, POSTERIOR, RESIDUAL_SCALE, CONFORMAL,
    RECALIBRATION,
)  # fmt: skip


def known(settings: Settings) -> tuple[PhaseKind, ...]:
    """Return all kinds of phases, those that the settings name last.

    Raises
    ------
    SettingsError
        One cannot be imported, or is no `PhaseKind`.

    """
    return PHASES + tuple(map(_named, settings.phases))


def wanted(settings: Settings, parts: Parts) -> tuple[PhaseKind, ...]:
    """Return the kinds of phases of a run, in their order."""
    return tuple(kind for kind in known(settings) if kind.wanted(settings, parts))


def _named(spec: str) -> PhaseKind:
    try:
        kind = resolve_name(spec)
    except (ImportError, AttributeError, ValueError) as error:
        raise SettingsError(f"--phases {spec}: {error}; name a PhaseKind as package.module:NAME") from error
    if not isinstance(kind, PhaseKind):
        raise SettingsError(
            f"--phases {spec} is of type {type(kind).__name__}; name a PhaseKind of streamsgd.training.phases.base"
        )
    return kind
