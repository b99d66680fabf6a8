"""Files of this machine: whole or absent, whatever is there already, whoever is killed, whoever else writes."""

import errno
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streamsgd.compute.local_files import (
    OWNED,
    UNFINISHED,
    OwnFolder,
    check_replaceable,
    clear_unfinished,
    only_writer,
    whole_file,
)
from streamsgd.errors import SettingsError

HOLD = """
import sys, time
from pathlib import Path
from streamsgd.compute.local_files import OwnFolder, only_writer, whole_file
path = Path(sys.argv[2])
held = {"writer": lambda: only_writer(path, "--out x"), "file": lambda: whole_file(path)}
if sys.argv[1] == "folder":
    folder = OwnFolder(sys.argv[2])
    print(folder.path, flush=True)
    time.sleep(60)
with held[sys.argv[1]]() as sink:
    if sink:
        sink.write(b"half")
        sink.flush()
    print("ready", flush=True)
    time.sleep(60)
"""


def holding(what: str, path: Path | str) -> "tuple[subprocess.Popen[str], str]":
    """Start a process that holds something until it is killed; return it and what it said."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, what, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    return process, process.stdout.readline().strip()


def kill(process: "subprocess.Popen[str]") -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate()


def special(kind: str, path: Path) -> None:
    target = path.with_name("target")
    makers = {
        "folder": path.mkdir,
        "link": lambda: (target.write_bytes(b"precious"), path.symlink_to(target)),
        "dangling link": lambda: path.symlink_to(path.with_name("nowhere")),
        "pipe": lambda: os.mkfifo(path),
    }
    makers[kind]()


@pytest.mark.parametrize("kind", ["folder", "link", "dangling link", "pipe"])
def test_what_is_no_regular_file_is_never_replaced(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "m.sgd"
    special(kind, path)
    before = os.lstat(path)
    with pytest.raises(SettingsError, match="is not replaced"), whole_file(path) as sink:
        sink.write(b"model")
    assert os.lstat(path).st_ino == before.st_ino
    assert not list(tmp_path.glob(".*"))
    assert not (tmp_path / "target").exists() or (tmp_path / "target").read_bytes() == b"precious"


def test_a_device_is_not_replaced() -> None:
    with pytest.raises(SettingsError, match="is a device"):
        check_replaceable("/dev/null")


def test_what_comes_while_a_file_is_written_is_not_replaced_either(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="is a link"), whole_file(tmp_path / "m.sgd"):
        (tmp_path / "m.sgd").symlink_to("/etc/hostname")
    assert [path.name for path in tmp_path.iterdir()] == ["m.sgd"]


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.text(st.characters(blacklist_characters="/\0", blacklist_categories=("Cs",)), min_size=1, max_size=80))
def test_a_file_of_any_name_is_whole_or_absent_and_nothing_else_is_left(tmp_path: Path, name: str) -> None:
    if name in (".", "..") or len(name.encode()) > 255:
        return
    folder = tmp_path / os.urandom(8).hex()
    folder.mkdir()
    with whole_file(folder / name) as sink:
        sink.write(b"one")
        (half,) = folder.iterdir()
        assert re.fullmatch(r"\..*\.partial", half.name, re.DOTALL)
        clear_unfinished(folder, [name])  # of somebody who is alive, even of this process
        assert half.exists()
    with pytest.raises(ZeroDivisionError), whole_file(folder / name) as sink:
        sink.write(b"two" * (1 // 0))
    assert [(path.name, path.read_bytes()) for path in folder.iterdir()] == [(name, b"one")]


def test_half_files_of_the_killed_are_cleared_and_those_of_the_living_and_of_others_stay(tmp_path: Path) -> None:
    theirs = {"other.partial", "m.sgd.partial", "m.sgd.my notes.partial", "m.sgd.1a2b3c4d.partial", ".m.sgd.x.partial"}
    for name in theirs:
        (tmp_path / name).write_bytes(b"not ours")
    process, said = holding("file", tmp_path / "m.sgd")
    assert said == "ready"
    clear_unfinished(tmp_path, ["m.sgd"])
    assert len([path for path in tmp_path.iterdir() if UNFINISHED.fullmatch(path.name)]) == 1
    kill(process)
    clear_unfinished(tmp_path, ["m.sgd"])
    assert {path.name for path in tmp_path.iterdir()} == theirs


@pytest.mark.parametrize("kind", ["pipe", "text", "link"])
def test_what_has_the_name_of_a_lock_and_is_none_is_left_as_it_is(tmp_path: Path, kind: str) -> None:
    lock = tmp_path / ".m.sgd.lock"
    if kind == "pipe":
        os.mkfifo(lock)
    else:
        (tmp_path / "mine").write_text("7\n" if kind == "link" else "notes")
        lock.hardlink_to(tmp_path / "mine") if kind == "link" else (tmp_path / "mine").rename(lock)
    before = sorted((path.name, path.stat().st_ino, path.stat().st_size) for path in tmp_path.iterdir())
    with pytest.raises(SettingsError, match="is no lock of streamsgd"), only_writer(tmp_path / "m.sgd", "--out y"):
        pass
    assert sorted((path.name, path.stat().st_ino, path.stat().st_size) for path in tmp_path.iterdir()) == before


def test_a_lock_is_held_where_the_disk_is_too_full_to_say_by_whom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_args: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", full)
    with only_writer(tmp_path / "m.sgd", "--out y"):
        with (
            pytest.raises(SettingsError, match=r"another run is writing it \(process unknown\)"),
            only_writer(tmp_path / "m.sgd", "y"),
        ):
            pass
        assert [path.name for path in tmp_path.iterdir()] == [".m.sgd.lock"]
    assert not list(tmp_path.iterdir())


def test_a_second_writer_is_refused_with_the_process_of_the_first_until_that_is_gone(tmp_path: Path) -> None:
    process, _ = holding("writer", tmp_path / "m.sgd")
    refusal = rf"--out y: another run is writing it \(process {process.pid}\)"
    with pytest.raises(SettingsError, match=refusal), only_writer(tmp_path / "m.sgd", "--out y"):
        pass
    kill(process)
    with only_writer(tmp_path / "m.sgd", "--out y"):
        assert [path.name for path in tmp_path.iterdir()] == [".m.sgd.lock"]
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_is_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(SettingsError, match=r"--out y: .* cannot be written"), only_writer(tmp_path / "file" / "m", "--out y"):
        pass


def test_folders_of_the_killed_are_deleted_by_the_next_and_those_of_the_living_stay(tmp_path: Path) -> None:
    prefix = f"streamsgd-test-{os.getpid()}-"
    first, place = holding("folder", prefix)
    second, other = holding("folder", prefix)
    try:
        assert Path(place).is_dir()
        assert Path(place).stat().st_mode & 0o777 == 0o700
        kill(first)
        mine = OwnFolder(prefix)
        assert not Path(place).exists()
        assert Path(other).is_dir()
        (mine.path / OWNED).unlink()
        mine.path.rmdir()
        assert mine.again().is_dir()
        mine.close()
        assert not mine.path.exists()
    finally:
        kill(second)
    OwnFolder(prefix).close()
    until = time.monotonic() + 5
    while Path(other).exists() and time.monotonic() < until:
        time.sleep(0.1)
    assert not Path(other).exists()


def test_a_signal_while_a_lock_is_taken_leaves_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "truncate", interrupted)
    with pytest.raises(KeyboardInterrupt), only_writer(tmp_path / "m.sgd", "--out y"):
        pass
    assert list(tmp_path.iterdir()) == []
