"""Progress from Python: the table on stderr, a bar in a notebook, and what is going on said while it does."""

import io
import json
import logging
import time
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import streamsgd
from streamsgd.compute.memory import PeakMemory
from streamsgd.messages import stage
from streamsgd.show.live import Notebook, in_notebook
from streamsgd.show.reporters import Lines, Plain, reporting
from streamsgd.training.events import Event

TABLE = pa.table({"x": np.linspace(0, 1, 2000), "y": [0, 1] * 1000})


def event(rows: int = 1024) -> Event:
    return Event(rows, 4096, 0.25, 0.5, 0.4, 1.0, 1000.0)


def test_what_lasts_is_said_while_it_does_and_what_does_not_is_not() -> None:
    stream = io.StringIO()
    with reporting("plain", stream=stream):
        with stage("looking quickly"):
            pass
        with stage("waiting for a worker"):
            time.sleep(1.3)
            assert "waiting for a worker ..." in stream.getvalue()
    time.sleep(0.1)
    assert stream.getvalue() == "waiting for a worker ...\n"


def test_in_json_every_stage_begins_and_ends() -> None:
    stream = io.StringIO()
    with reporting("json", stream=stream), stage("looking"):
        pass
    begun, ended = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert (begun["event"], begun["stage"], begun["state"], begun["seconds"]) == ("stage", "looking", "begins", None)
    assert ended["state"] == "ended"
    assert ended["seconds"] >= 0.0


def test_nobody_hears_of_stages_who_does_not_ask(caplog: pytest.LogCaptureFixture) -> None:
    with reporting("quiet"):
        pass
    assert not logging.getLogger("streamsgd.stages").isEnabledFor(logging.INFO)
    with stage("looking"):
        pass
    assert not caplog.records


def test_a_stage_that_ends_in_another_thread_or_twice_is_no_matter() -> None:
    for kind in (Plain, Lines):
        reporter = kind(io.StringIO(), PeakMemory())
        reporter.stage("never begun", 1.0)
        reporter.stage("never ended", None)
        reporter.close()


def test_progress_from_python_is_what_the_command_line_shows(capsys: pytest.CaptureFixture[str]) -> None:
    settings: dict[str, Any] = {"executor": "inline", "epochs": 1, "optimizer": "adam", "memory": "1GB"}
    streamsgd.train(TABLE, "y", progress=True, **settings)
    shown = capsys.readouterr().err
    assert "data: 1 file" in shown
    assert "since last" in shown
    assert "progressive loss of the first pass" in shown
    streamsgd.train(TABLE, "y", **settings)
    assert capsys.readouterr().err == ""


def test_a_notebook_shows_a_bar_and_the_table_as_html(capsys: pytest.CaptureFixture[str]) -> None:
    shells = pytest.importorskip("IPython.core.interactiveshell")
    shells.InteractiveShell.instance()
    try:
        assert not in_notebook()  # a terminal of IPython is none
        notebook = Notebook(io.StringIO(), PeakMemory())
        notebook.event(event())
        notebook.event(event(2048))
        notebook.line("<odd> & name", "warning")
        page = notebook.html()
        assert "value='0.5000'" in page
        assert "warning: &lt;odd&gt; &amp; name" in page
        assert "2,048" in page
        assert capsys.readouterr().out.count("HTML object") == 4  # a shell without pages prints each time that it is drawn
    finally:
        shells.InteractiveShell.clear_instance()
