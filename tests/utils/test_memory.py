"""How much memory a process may still use, on a machine and in a container."""

from __future__ import annotations

from pathlib import Path

import pytest

from mri_seg.utils import memory
from mri_seg.utils.memory import available_memory


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with 1000 KiB available, whose control groups are in the folder ``groups``."""
    for name, file in (("_MEMINFO", "meminfo"), ("_OWN", "cgroup"), ("_CGROUPS", "groups")):
        monkeypatch.setattr(memory, name, tmp_path / file)
    (tmp_path / "meminfo").write_text("MemTotal: 9000 kB\nMemAvailable: 1000 kB\n")
    (tmp_path / "cgroup").write_text("0::/job/step\n")
    return tmp_path


def limit(folder: Path, names: tuple[str, str], allowed: object, used: int, cached: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in zip((*names, "memory.stat"), (allowed, used, cached), strict=True):
        (folder / name).write_text(f"{value}\n")


class TestAvailableMemory:
    def test_memory_of_the_machine_counts_without_limits(self, machine: Path) -> None:
        assert available_memory() == 1000 * 1024
        limit(machine / "groups" / "job", ("memory.max", "memory.current"), "max", 5, "inactive_file 1")
        assert available_memory() == 1000 * 1024

    def test_limit_of_a_group_above_counts_and_cached_files_are_free(self, machine: Path) -> None:
        names = ("memory.max", "memory.current")
        limit(machine / "groups" / "job", names, 5000, 4000, "anon 1\ninactive_file 500")
        limit(machine / "groups" / "job" / "step", names, 9000, 100, "inactive_file 0")
        assert available_memory() == 1500

    def test_limit_of_version_one_counts(self, machine: Path) -> None:
        (machine / "cgroup").write_text("5:cpu:/\n4:memory,hugetlb:/job\n")
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes")
        limit(machine / "groups" / "memory" / "job", names, 700, 900, "total_inactive_file 50")
        assert available_memory() == 0

    def test_this_machine_has_some_memory(self) -> None:
        found = available_memory()
        assert found is None or found > 0
