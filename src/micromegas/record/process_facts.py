"""What a process tells about itself when it is announced: program, user, machine.

Never fails: what is unknown is empty.
"""

import os
import sys
from collections.abc import Callable


def _attempt(fact: Callable[[], str], otherwise: str = "") -> str:
    try:
        return fact()
    except (OSError, KeyError, ImportError, ValueError, AttributeError):
        return otherwise


def program() -> str:
    """The path of the running program: the main script, else the name given to `-m`, else the interpreter."""
    main = sys.modules.get("__main__")
    file = getattr(main, "__file__", None) or (sys.argv[0] if sys.argv else "")
    if file == "-m":  # while the interpreter starts, the module is not found yet
        words = sys.orig_argv
        return words[words.index("-m") + 1] if "-m" in words[:-1] else "python -m"
    if file and os.path.exists(file):
        return os.path.abspath(file)
    return sys.executable or "python"


def _username() -> str:
    import getpass

    return getpass.getuser()


def _realname() -> str:
    import pwd

    return pwd.getpwuid(os.getuid()).pw_gecos.split(",")[0]


def _distro() -> str:
    import platform

    return platform.freedesktop_os_release()["PRETTY_NAME"]


def _platform() -> str:
    import platform

    return platform.platform()


def _cpu_brand() -> str:
    with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as lines:
        for line in lines:
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    return ""


def _processor() -> str:
    import platform

    return platform.processor() or platform.machine()


def _computer() -> str:
    import socket

    return socket.gethostname()


def encodable(text: str) -> str:
    """The text with what UTF-8 can't hold (bytes of a path that are no text) written out as `\\udcff`."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def facts(process_name: str | None) -> tuple[str, str, str, str, str, str]:
    """Exe, username, realname, computer, distro, cpu brand, in the order of the process announcement."""
    username = _attempt(_username, str(os.getuid()) if hasattr(os, "getuid") else "")
    return (
        encodable(process_name or program()),
        encodable(username),
        encodable(_attempt(_realname) or username),
        encodable(_attempt(_computer)),
        encodable(_attempt(_distro) or _attempt(_platform)),
        encodable(_attempt(_cpu_brand) or _attempt(_processor, "unknown")),
    )


def default_properties() -> dict[str, str]:
    """Properties that every process gets: interpreter, process number, cores, memory in bytes."""
    properties = {
        "language": "python",
        "python_version": ".".join(str(part) for part in sys.version_info[:3]),
        "python_executable": sys.executable or "",
        "pid": str(os.getpid()),
        "logical_cpu_count": str(os.cpu_count() or ""),
        "total_memory": _attempt(lambda: str(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))),
    }
    return {name: value for name, value in properties.items() if value}
