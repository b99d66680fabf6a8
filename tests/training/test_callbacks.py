"""Laws of callbacks: they are told everything, one may ask to stop, and what fails in one ends that one alone."""

import re
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import streamsgd
from streamsgd.errors import SettingsError
from streamsgd.training.callbacks import Stop

RNG = np.random.default_rng(1)
X = RNG.normal(size=(4000, 2))
TABLE = pa.table({"a": X[:, 0], "b": X[:, 1], "y": X.sum(axis=1) + RNG.normal(size=4000) > 0})
SETTINGS: dict[str, Any] = {"optimizer": "adam", "epochs": 4, "chunk_rows": 500, "memory": "2GB", "executor": "inline"}
SETTINGS["validation"] = "none"


class Sink:
    """Notes what it is told; stops after so many events, or fails."""

    def __init__(self, stop_at: int = 0, fail_at: int = 0) -> None:
        self.told: list[Any] = []
        self.stop_at, self.fail_at = stop_at, fail_at

    def on_begin(self, job: Any) -> None:
        self.told.append(job)

    def on_event(self, event: Any) -> None:
        self.told.append(event)
        if len(self.told) == self.stop_at:
            raise Stop("enough")
        if len(self.told) == self.fail_at:
            raise RuntimeError("of my own making")

    def on_end(self, report: Any, model: Any) -> None:
        self.told += [report, model]


def test_callbacks_see_the_job_every_event_the_report_and_the_model() -> None:
    sink, events = Sink(), []
    model = streamsgd.train(TABLE, "y", callbacks=[sink], on_progress=events.append, **SETTINGS)
    job, *told, report, last = sink.told
    assert job.epochs == 4
    assert told == events
    assert {"chunk", "progress"} <= {event.kind for event in told}
    assert (report.rows, last is model) == (16_000, True)


def test_a_callback_that_asks_to_stop_ends_training_with_the_weights_as_they_are() -> None:
    sink = Sink(stop_at=12)
    model = streamsgd.train(TABLE, "y", callbacks=[sink], **SETTINGS)
    assert 0 < model.provenance["rows_learned"] < 16_000
    assert np.any(model.weights)


def test_a_callback_that_fails_is_called_no_more_and_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    broken, sound = Sink(fail_at=3), Sink()
    model = streamsgd.train(TABLE, "y", callbacks=[broken, sound], **SETTINGS)
    assert len(broken.told) == 3
    assert sound.told[-1] is model
    failed = [record.message for record in caplog.records if record.levelname == "ERROR"]
    assert failed == ["callback Sink failed and is not called again"]
    assert model.weights.tobytes() == streamsgd.train(TABLE, "y", **SETTINGS).weights.tobytes()


def test_what_on_progress_raises_is_the_callers_own() -> None:
    def fails(_event: Any) -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        streamsgd.train(TABLE, "y", on_progress=fails, **SETTINGS)


class OnlyEvents:
    def on_event(self, event: Any) -> None:
        """Take an event."""


ARE = "is not a list of callbacks, which are objects with on_begin(job), on_event(event) and on_end(report, model): "


@pytest.mark.parametrize("learn", [streamsgd.train, streamsgd.sample])
@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([Sink(), Sink], "Sink is a class; give an object of it, Sink(...)"),
        (Sink, "Sink is a class; give an object of it, Sink(...)"),
        ([OnlyEvents()], "OnlyEvents lacks on_begin and on_end; it may do nothing"),
        ([print], "a function of events goes to on_progress"),
        ([object()], "object lacks on_begin and on_event and on_end"),
        (["tensorboard"], "str lacks on_begin"),
    ],
)
def test_what_is_no_callback_is_refused_before_the_run(learn: Any, given: Any, said: str) -> None:
    with pytest.raises(SettingsError, match=f"{re.escape(ARE)}{re.escape(said)}"):
        learn(TABLE, "y", callbacks=given, **SETTINGS)
