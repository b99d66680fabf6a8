"""Worker processes of this machine: only who started them can speak to them, and only it ends them."""

import os
import shutil
import signal
import time

import pytest
from distributed import Client
from distributed.security import Security

from streamsgd.compute.local_cluster import LocalWorkers


def wait_until(holds: object, seconds: float = 30.0) -> None:
    until = time.monotonic() + seconds
    while not holds():  # type: ignore[operator]
        assert time.monotonic() < until
        time.sleep(0.1)


def test_workers_answer_nobody_else_get_no_signals_of_the_terminal_and_come_back_without_their_folder() -> None:
    with LocalWorkers(1) as workers:
        address = workers.client.scheduler.address
        folder = workers._folder.path
        assert folder.stat().st_mode & 0o777 == 0o700
        assert all(path.stat().st_mode & 0o077 == 0 for path in folder.glob("*.pem"))
        for secret in ({}, {"security": Security.temporary()}):
            with pytest.raises(OSError):
                Client(address.replace("tls", "tls" if secret else "tcp"), timeout=2, **secret)
        assert workers.client.submit(sum, [1, 2]).result() == 3
        process = workers.processes[0]
        assert os.getsid(process.pid) == process.pid
        assert os.getpgid(process.pid) != os.getpgrp()
        shutil.rmtree(folder)
        process.send_signal(signal.SIGKILL)
        wait_until(lambda: workers.processes[0].pid != process.pid)
        assert workers.client.submit(sum, [3, 4], pure=False).result(timeout=60) == 7
        again = workers._folder.path
        assert again.is_dir()
    assert not again.exists()
