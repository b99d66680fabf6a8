"""scikit-learn's callbacks, of 1.9 and later, told of every pass; before, there are none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

try:
    from sklearn.callback import CallbackSupportMixin as Supported
    from sklearn.callback import with_callbacks
except ImportError:  # before 1.9

    class Supported:  # type: ignore[no-redef]
        """Nothing."""

    def with_callbacks(method: Any) -> Any:
        """Return the method."""
        return method


if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Passes", "Supported", "with_callbacks"]


class Passes:
    """Tells callbacks of an estimator when fitting and each pass begin and end.

    Parameters
    ----------
    estimator
        Who fits.
    most
        Passes there may be.
    given
        What hooks are told: `X`, `y` and `metadata`.
    attributes
        Returns what makes the estimator a fitted one; called only where callbacks were set.

    """

    def __init__(self, estimator: Any, most: int, given: dict[str, Any], attributes: Callable[[], dict[str, Any]]) -> None:
        self._told = {"estimator": estimator, **given}
        self._attributes = attributes
        self._active = bool(getattr(estimator, "_skl_callbacks", ()))
        self._fit = estimator._init_callback_context(max_subtasks=most) if self._active else None  # noqa: SLF001
        self._pass: Any = None
        if self._fit is not None:
            self._fit.call_on_fit_task_begin(**self._told)

    def begin(self) -> None:
        """Tell that a pass begins."""
        if self._fit is not None:
            self._pass = self._fit.subcontext(task_name="pass")
            self._pass.call_on_fit_task_begin(**self._told, reconstruction_attributes=self._attributes())

    def end(self) -> bool:
        """Tell that it is over; return whether a callback wants to stop."""
        if self._pass is None:
            return False
        return bool(self._pass.call_on_fit_task_end(**self._told, reconstruction_attributes=self._attributes()))

    def finish(self) -> None:
        """Tell that fitting is over."""
        if self._fit is not None:
            self._fit.call_on_fit_task_end(**self._told, reconstruction_attributes=self._attributes())
