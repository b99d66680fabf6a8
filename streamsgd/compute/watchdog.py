"""What worker processes load first: they end when the process that started them does, whatever they are doing."""

from __future__ import annotations

import os
import threading
import time
from typing import Any

PARENT = "_STREAMSGD_PARENT"
"""The environment variable with the id of the process that started them, which may be gone before they have loaded anything."""

LOOK = 1.0
"""Seconds between looks."""


def dask_setup(_worker: Any) -> None:
    """Begin to look whether the parent is still there."""
    threading.Thread(target=_end_with, args=(int(os.environ[PARENT]),), name="streamsgd-orphans", daemon=True).start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(LOOK)
    os._exit(1)
