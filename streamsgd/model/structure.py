"""What makes a score of a row's values: the model that a file names, read and checked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from streamsgd.errors import ModelError, SettingsError
from streamsgd.kernels.models.machines import LINEAR, compiled, is_linear
from streamsgd.model.validate import refuse
from streamsgd.settings.registry import PARTS, make

if TYPE_CHECKING:
    from streamsgd.model.validate import ModelHeader


def said(structure: Any) -> dict[str, Any]:
    """Return what a header says of a model that is not linear: its name, or where it is, and its fields."""
    names = {cls: name for name, cls in PARTS["model"].items()}
    own = f"{type(structure).__module__}:{type(structure).__qualname__}"
    return {"name": names.get(type(structure), own), "fields": structure._asdict()}


def read_structure(found: ModelHeader, given: Any, name: str) -> Any:
    """Return what makes scores, which must be one of streamsgd's models or given.

    Raises
    ------
    ModelError
        It is not, or its fields are none that it takes.

    """
    if found.model is None:
        return LINEAR
    wanted = found.model.name
    if wanted in PARTS["model"]:
        return _made(wanted, found.model.fields, name)
    if given is None:
        raise ModelError(
            f"{name}: was trained with the model {wanted}, which is not streamsgd's, and no file makes us import code: give it "
            "to load(path, model=...), and what that returns to predict and evaluate"
        )
    if isinstance(given, str):
        return _made(given, found.model.fields, name)
    if said(given) != {"name": wanted, "fields": found.model.fields}:
        raise ModelError(f"{name}: was trained with the model {wanted} of {found.model.fields}, not with {given!r}")
    return given


def _made(spec: str, fields: dict[str, Any], name: str) -> Any:
    try:
        structure = make("model", spec, **fields)
        compiled(structure)
    except (SettingsError, OverflowError, ValueError) as error:
        refuse(name, "model.fields", f"are wrong: {error}")
    return structure


def need_linear(structure: Any, what: str, instead: str) -> None:
    """Refuse what only sums of weights have.

    Raises
    ------
    ModelError
        Scores are no sums of weights.

    """
    if not is_linear(structure):
        raise ModelError(f"a model of --model {said(structure)['name']} has no {what}, which only linear ones have: {instead}")
