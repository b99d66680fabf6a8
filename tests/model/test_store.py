"""Laws of files and checkpoints: whole or absent, verified when read, and equal for equal content."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamsgd.errors import ModelError
from streamsgd.model import store
from streamsgd.training.checkpoint import Checkpoints

HEADER = {"numbers": [1, 2.5, None], "text": 'a "quoted" word, é', "nested": {"b": 1, "a": [True]}}
ARRAYS = {
    "weights": np.linspace(-1, 1, 7, dtype=np.float32),
    "slots": np.arange(6.0).reshape(2, 3),
    "clock": np.array([3, 4]),
    "nothing": np.zeros((0, 2)),
}


@pytest.fixture
def raw() -> bytes:
    return store.pack("model", HEADER, ARRAYS)


def same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    return a.keys() == b.keys() and all(
        a[k].dtype == b[k].dtype and a[k].shape == b[k].shape and a[k].tobytes() == b[k].tobytes() for k in a
    )


def test_what_was_packed_comes_out(raw: bytes) -> None:
    header, arrays = store.unpack("model", raw, "m")
    assert {key: header[key] for key in HEADER} == HEADER
    assert same(arrays, ARRAYS)
    assert all(array.flags.writeable for array in arrays.values()), "kernels take only writable arrays"


def test_equal_content_gives_equal_bytes(raw: bytes) -> None:
    shuffled = dict(reversed(HEADER.items())), dict(reversed(ARRAYS.items()))
    assert {store.pack("model", *shuffled) for _ in range(20)} == {raw}


def test_every_flipped_bit_is_found_or_harmless(raw: bytes) -> None:
    """Each bit of a file matters: what still reads after a flip reads as the same content."""
    refused = newer = 0
    for at in range(len(raw)):
        for bit in range(8):
            broken = raw[:at] + bytes([raw[at] ^ (1 << bit)]) + raw[at + 1 :]
            try:
                header, arrays = store.unpack("model", broken, "m")
            except ModelError as error:
                refused += 1
                newer += "newer" in str(error)
            else:
                assert header == store.unpack("model", raw, "m")[0]
                assert same(arrays, ARRAYS)
    assert refused > 0.99 * 8 * len(raw)
    assert newer == 0, "damage must not look like a newer format"


def test_every_truncation_is_found(raw: bytes) -> None:
    for length in range(len(raw)):
        with pytest.raises(ModelError, match=r"^m: not a streamsgd model, or a damaged one"):
            store.unpack("model", raw[:length], "m")


@given(st.binary(max_size=200))
def test_any_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(ModelError, match=r"^m: "):
        store.unpack("model", data, "m")


def test_a_newer_format_and_another_kind_say_so(raw: bytes) -> None:
    with pytest.raises(ModelError, match=r"^m: holds a model, not a checkpoint"):
        store.unpack("checkpoint", raw, "m")
    newer = store.pack("model", {**HEADER, "format": store.FORMAT + 1}, ARRAYS)
    with pytest.raises(ModelError, match=r"^m: format 3 is newer than this version reads .2.; upgrade streamsgd"):
        store.unpack("model", newer, "m")


def test_a_reader_that_does_not_know_maps_of_scores_refuses_them(raw: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would leave them out, and every probability would be another one."""
    mapped = store.pack("model", {**HEADER, "score_map": {"method": "platt"}}, ARRAYS)
    monkeypatch.setattr(store, "FORMAT", 1)
    assert store.unpack("model", raw, "m")[0]["format"] == 1
    with pytest.raises(ModelError, match=r"^m: format 2 is newer than this version reads .1.; upgrade streamsgd"):
        store.unpack("model", mapped, "m")


def test_a_file_holds_no_code(raw: bytes) -> None:
    """It is safetensors: a length, JSON, and numbers."""
    length = int.from_bytes(raw[:8], "little")
    described = json.loads(raw[8 : 8 + length])
    assert described.keys() == {"__metadata__", *ARRAYS}
    assert len(raw) == 8 + length + sum(array.nbytes for array in ARRAYS.values())


# --- writing


def test_a_write_makes_folders_and_replaces_whole_files(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "m.sgd"
    for content in (b"first", b"second, longer", b"3"):
        store.write(path, content)
        assert store.read(path) == content
    assert [p.name for p in path.parent.iterdir()] == ["m.sgd"]


@pytest.mark.parametrize("call", ["open", "fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    path = tmp_path / "m.sgd"
    store.write(path, b"old")

    def fails(*_some: Any, **_more: Any) -> None:
        raise OSError(28, "No space left on device")

    target = {"open": (os, "open"), "fsync": (os, "fsync"), "replace": (Path, "replace")}[call]
    monkeypatch.setattr(*target, fails)
    with pytest.raises(ModelError, match=r"m\.sgd: cannot be saved: .*No space left.*make room or choose another"):
        store.write(path, b"new")
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["m.sgd"]


def test_folders_that_are_not_there_hold_nothing(tmp_path: Path) -> None:
    assert store.names(tmp_path / "nowhere") == []
    store.remove(tmp_path / "nowhere" / "m.sgd")
    store.remove_folder(tmp_path / "nowhere")
    with pytest.raises(ModelError, match=r"m\.sgd: there is no such file"):
        store.read(tmp_path / "nowhere" / "m.sgd")


# --- checkpoints


def test_the_newest_whole_checkpoint_is_taken(tmp_path: Path) -> None:
    saved = Checkpoints(str(tmp_path / "c"), keep=3)
    assert saved.newest() is None
    for epoch, chunk in [(0, 9), (0, 10), (1, 0), (10, 2)]:
        saved.save(epoch, chunk, {"cursor": [epoch, chunk], "phases": {}}, ARRAYS)
    names = ["epoch000000-chunk000000010.ckpt", "epoch000001-chunk000000000.ckpt", "epoch000010-chunk000000002.ckpt"]
    assert saved.names() == names
    for name, cursor in zip(reversed(names), [[10, 2], [1, 0], [0, 10]], strict=True):
        found = saved.newest()
        assert found is not None
        assert found[0]["cursor"] == cursor
        (tmp_path / "c" / name).write_bytes(b"damaged")
    with pytest.raises(ModelError, match="no checkpoint can be read; delete the folder to start from the beginning"):
        saved.newest()
    saved.clear()
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("keep", [1, 2])
def test_a_damaged_later_checkpoint_goes_with_the_next_save(tmp_path: Path, keep: int) -> None:
    saved = Checkpoints(str(tmp_path), keep)
    (tmp_path / "epoch000009-chunk000000000.ckpt").write_bytes(b"damaged")
    saved.save(0, 1, {"cursor": [0, 1]}, ARRAYS)
    assert saved.names() == ["epoch000000-chunk000000001.ckpt"]


def test_clearing_spares_what_is_not_a_checkpoint(tmp_path: Path) -> None:
    saved = Checkpoints(str(tmp_path / "c"))
    saved.save(0, 1, {}, ARRAYS)
    (tmp_path / "c" / "notes.txt").write_text("mine")
    (tmp_path / "c" / ".epoch000000-chunk000000002.ckpt.partial").write_bytes(b"half")
    saved.clear()
    assert [path.name for path in (tmp_path / "c").iterdir()] == ["notes.txt"]
