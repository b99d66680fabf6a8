"""Draws of weights from their posterior, as a program asks for them."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from streamsgd.compute.context import seceded, task_memory
from streamsgd.settings.make import make_settings
from streamsgd.settings.scope import SAMPLED
from streamsgd.settings.words import speaks_python
from streamsgd.training.run import train_model

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Sequence

    from streamsgd.model.model import Model
    from streamsgd.training.callbacks import Callback
    from streamsgd.training.events import Event


@speaks_python
def sample(
    source: Any,
    target: str,
    *,
    out: str | os.PathLike[str] | None = None,
    on_progress: Callable[[Event], None] | None = None,
    client: Any = None,
    callbacks: Sequence[Callback] = (),
    **settings: Any,
) -> Model:
    """Draw weights from their posterior: docs/uncertainty.md says what that is good for.

    Parameters
    ----------
    source, target, out, on_progress, client, callbacks
        As in training.
    settings
        Fields of `settings.Settings`; by default `method` is sgld-cv, and at most 50 passes polish the weights before.

    Returns
    -------
    Model
        Its weights are the mode, its `draws` are of the posterior, and `metrics["posterior"]` says how well they mixed.

    Raises
    ------
    StreamSGDError
        As `train`; the rows and the prior do not determine the weights, or the loss is no likelihood.

    """
    given = {name: value for name, value in settings.items() if value is not None}
    made = make_settings({"memory": task_memory(), "target": target, **SAMPLED, **given})
    with nullcontext() if client is None else seceded():
        return train_model(source, made, out=out, emit=on_progress, client=client, callbacks=callbacks)[0]
