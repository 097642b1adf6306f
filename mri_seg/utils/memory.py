"""How much memory this process may still use."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["available_memory"]

_CGROUPS = Path("/sys/fs/cgroup")
_MEMINFO = Path("/proc/meminfo")
_OWN = Path("/proc/self/cgroup")


def available_memory() -> int | None:
    """Bytes that are free or can be freed: of the machine, or of its container or batch job if that allows less.

    Returns:
        the bytes, or None on systems that do not say.
    """
    found = [value for value in (_of_machine(), *_of_groups()) if value is not None]
    return max(0, min(found)) if found else None


def _of_machine() -> int | None:
    try:
        for line in _MEMINFO.read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # Windows has no sysconf
        return None


def _of_groups() -> list[int | None]:
    """What the control groups of this process leave, of version 2 and version 1."""
    found: list[int | None] = []
    try:
        lines = _OWN.read_text(encoding="utf-8").splitlines()
    except OSError:
        return found
    for line in lines:
        _, controllers, place = line.split(":", 2)
        if not controllers:
            names, root = ("memory.max", "memory.current", "inactive_file"), _CGROUPS
        elif "memory" in controllers.split(","):
            names, root = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"), _CGROUPS / "memory"
        else:
            continue
        folder = root / place.lstrip("/")
        found += [_left(group, *names) for group in (folder, *folder.parents) if group.is_relative_to(root)]
    return found


def _left(group: Path, limit: str, usage: str, cached: str) -> int | None:
    """Bytes that a control group leaves; cached files count as free. None if it has no limit."""
    try:
        allowed, used = int((group / limit).read_text()), int((group / usage).read_text())
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        return allowed - used + int(stat.get(cached, 0))
    except (OSError, ValueError):  # there is no such group, or its limit is "max"
        return None
