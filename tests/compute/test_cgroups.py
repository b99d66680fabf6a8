"""The limit of a cgroup is seen, of either version, at any depth, and from within a container."""

from pathlib import Path

import psutil
import pytest

from streamsgd.compute import memory
from streamsgd.compute.memory import cgroup_limits, machine_memory


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        ("0::/", {"memory.max": "1000"}, {1000}),
        ("0::/a/b", {"a/b/memory.max": "max", "a/memory.max": "500", "memory.max": "1000"}, {500, 1000}),
        ("0::/a/b", {"a/b/memory.max": "300"}, {300}),
        ("0::/host/only", {"memory.max": "700"}, {700}),  # of a container
        ("5:cpu,memory:/x/y\n4:pids:/z", {"memory/x/y/memory.limit_in_bytes": "400"}, {400}),
        ("5:cpu:/x", {"memory/memory.limit_in_bytes": "600", "memory/x/memory.limit_in_bytes": "1"}, {600}),
        ("4:memory:/p/q\n0::/u", {"memory/p/memory.limit_in_bytes": "90", "u/memory.max": "80"}, {90, 80}),
        ("nonsense\n\n::", {}, set()),
    ],
)
def test_the_limits_of_all_groups_above_are_found(tmp_path: Path, own: str, files: dict[str, str], expected: set[int]) -> None:
    for name, text in files.items():
        place = tmp_path / "mounted" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(f"{text}\n")
    (tmp_path / "own").write_text(own)
    assert set(cgroup_limits(tmp_path / "own", tmp_path / "mounted")) == expected


def test_no_cgroups_no_limits(tmp_path: Path) -> None:
    assert cgroup_limits(tmp_path / "none", tmp_path / "nothing") == []


@pytest.mark.parametrize("limits", [[], [1 << 20], [1 << 80]])
def test_without_cgroups_a_process_may_use_what_the_machine_has(monkeypatch: pytest.MonkeyPatch, limits: list[int]) -> None:
    """As on macOS, or where /sys is not mounted."""
    monkeypatch.setattr(memory, "cgroup_limits", lambda: limits)
    assert machine_memory() == min([psutil.virtual_memory().total, *limits])
