"""Where the workers come from: the user's client, a scheduler's address, or processes started here."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Self

from streamsgd.compute.executors import LOOPBACK
from streamsgd.compute.local_files import NEW, OwnFolder
from streamsgd.compute.watchdog import PARENT
from streamsgd.errors import ClusterError
from streamsgd.messages import counted, stage

log = logging.getLogger("streamsgd")


START = 60.0
"""Seconds that a scheduler has to answer, and a worker to find it."""

LOOK = 0.2
"""Seconds between looks at worker processes."""

SHORT = 5.0
"""Seconds below which a worker process has not lived: the next one is started after twice the pause, but no more than ..."""

LONGEST = 5.0
"""... so many seconds, so that workers that cannot live cost little, and those that are killed come back."""

CONNECT = "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT"
"""How long a worker tries to reach another: half a minute by default, which each of those would wait that need what a dead one
had."""

KEYS = {"ca-file": "ca_file", "cert": "cert", "key": "key"}
"""The flags of a worker that name its keys, and what distributed calls them."""

LAST_WORDS = 4096
"""Bytes of a worker's log that are looked at."""


class LocalWorkers:
    """Worker processes of this machine, and a scheduler in this process that only they can reach.

    They are started by their own command, not forked or spawned from this program, which needs no `if __name__ == "__main__"`
    then. One that dies is started again; all end when this process does, however it ends.

    `distributed.deploy.subprocess.SubprocessCluster` starts workers by their own command, too, each under a nanny and with the
    scheduler in a process of its own: 346 MB in seven processes for two idle workers, here 128 MB in two.
    """

    def __init__(self, n_workers: int) -> None:
        self.n_workers = n_workers
        self.client: Any = None
        self.processes: dict[int, subprocess.Popen[bytes]] = {}
        self.starts = 0
        self._ended = threading.Event()
        self._folder = OwnFolder("streamsgd-")

    def __enter__(self) -> Self:
        from distributed import Client, LocalCluster  # noqa: PLC0415
        from distributed.security import Security  # noqa: PLC0415

        # Whoever may speak to a scheduler may run code in its workers and its clients, and any user of this machine can reach a
        # port of it. Only who has the key, which is in memory and in a folder of this user, is answered.
        self._security = Security.temporary()
        self._cluster = LocalCluster(
            n_workers=0,
            processes=True,
            host="127.0.0.1",
            protocol="tls://",
            security=self._security,
            dashboard_address=None,
            scheduler_kwargs={"dashboard": False, "dashboard_address": LOOPBACK},
            silence_logs=logging.ERROR,
        )
        self.client = Client(self._cluster, set_as_default=False, security=self._security)
        for number in range(self.n_workers):
            self._start(number)
        self._watcher = threading.Thread(target=self._watch, name="streamsgd-workers", daemon=True)
        self._watcher.start()
        try:
            with stage(f"waiting for {counted(self.n_workers, 'worker process')}"):
                self.client.wait_for_workers(1, timeout=START)  # the others may come later
        except BaseException as error:
            said = self.last_words(0)
            self.__exit__()
            if not isinstance(error, TimeoutError):
                raise
            raise ClusterError(
                f"of {self.n_workers} worker processes none started within {START:.0f} s: is the machine out of memory?{said}"
            ) from None
        return self

    def _start(self, number: int) -> None:
        command = [sys.executable, "-m", "distributed.cli.dask_worker", self._cluster.scheduler_address]
        command += ["--nthreads", "1", "--no-nanny", "--memory-limit", "0", "--no-dashboard", "--dashboard-address", LOOPBACK]
        command += ["--name", f"streamsgd-{number}-{self.starts}", "--local-directory", str(self._folder.again())]
        command += [word for kind in KEYS for word in (f"--tls-{kind}", str(self._key(kind)))]
        command += ["--host", "127.0.0.1", "--death-timeout", f"{START:.0f}", "--preload", "streamsgd.compute.watchdog"]
        environment = {
            CONNECT: f"{SHORT:.0f}s",
            **os.environ,
            PARENT: str(os.getpid()),
            "PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path),
        }
        with self._log(number).open("ab") as log_file:
            # A session of its own: Ctrl-C in the terminal is for this process, which tells the workers when to end.
            self.processes[number] = subprocess.Popen(  # noqa: S603  our own words
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log_file,
                start_new_session=True,
            )
        self.starts += 1

    def _log(self, number: int) -> Path:
        return self._folder.path / f"worker-{number}.log"

    def _key(self, kind: str) -> Path:
        """Return the file of a key or certificate, which is made if it is not there."""
        path = self._folder.path / f"{kind}.pem"
        if not path.exists():
            with os.fdopen(os.open(path, NEW, 0o600), "w") as file:
                file.write(self._security.get_tls_config_for_role("worker")[KEYS[kind]])
        return path

    def last_words(self, number: int) -> str:
        """Return the last line that a worker process wrote, in brackets, if it wrote any."""
        try:
            with self._log(number).open("rb") as log_file:
                log_file.seek(max(0, log_file.seek(0, os.SEEK_END) - LAST_WORDS))
                lines = log_file.read().decode(errors="replace").split("\n")
        except OSError:
            return ""
        said = next((line.strip() for line in reversed(lines) if line.strip()), "")
        return f" (it last said: {said})" if said else ""

    def _watch(self) -> None:
        """Start again what has died."""
        born = dict.fromkeys(self.processes, time.monotonic())
        pauses = dict.fromkeys(self.processes, LOOK)
        while not self._ended.wait(LOOK):
            for number, process in list(self.processes.items()):
                now = time.monotonic()
                if process.poll() is None:
                    pauses[number] = LOOK if now - born[number] > SHORT else pauses[number]
                    continue
                if now - born[number] < pauses[number]:
                    continue
                how = f"{process.returncode}{self.last_words(number) if process.returncode > 0 else ''}"
                log.warning("worker process %d ended with %s and is started again", number, how)
                pauses[number] = min(LONGEST, 2.0 * pauses[number])
                born[number] = now
                self._start(number)

    def __exit__(self, *_error: object) -> None:
        self._ended.set()
        self._watcher.join()
        self.client.close()
        self._cluster.close()  # which tells the workers to end
        until = time.monotonic() + SHORT
        for process in self.processes.values():
            try:
                process.wait(max(0.1, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._folder.close()
