"""What a figure depends on besides the code: the machine and the interpreter."""

import os
import platform
import resource
from pathlib import Path


def describe() -> dict[str, str | int]:
    """Return the machine's description, one printable value per name."""
    return {
        "processors": os.cpu_count() or 0,
        "processor": _processor(),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "open files per process": resource.getrlimit(resource.RLIMIT_NOFILE)[1],
        "net.core.somaxconn": _kernel_setting("net/core/somaxconn"),
        "load before the run": f"{os.getloadavg()[0]:.2f}",
    }


def _processor() -> str:
    """Return the processor's name, where the kernel tells it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.machine()


def _kernel_setting(path: str) -> str:
    """Return a sysctl of Linux, where there is one."""
    setting = Path("/proc/sys") / path
    return setting.read_text().strip() if setting.exists() else "unknown"
