"""What a process tells about itself when it is announced: program, user, machine.

Never fails: what is unknown is empty.
"""

import os
import sys
from collections.abc import Callable

from micromegas import _core


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


def _physical_core_count() -> str:
    cores = set()
    package = ""
    with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as lines:
        for line in lines:
            key, _, value = line.partition(":")
            if key.strip() == "physical id":
                package = value.strip()
            elif key.strip() == "core id":
                cores.add((package, value.strip()))
    return str(len(cores) or "")


def _container_id() -> str:
    """Of Docker, containerd or Podman, from the names of control groups and of files mounted for the container."""
    for file in ("/proc/self/cgroup", "/proc/self/mountinfo"):
        with open(file, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                for part in line.split("/"):
                    name = part.strip().removesuffix(".scope").rpartition("-")[2]
                    # Layers of images have such names, too.
                    is_container = file.endswith("cgroup") or "/containers/" in line
                    if is_container and len(name) == 64 and all(digit in "0123456789abcdef" for digit in name):
                        return name
    return ""


def _kubernetes_namespace() -> str:
    if "KUBERNETES_SERVICE_HOST" not in os.environ:
        return ""
    with open("/var/run/secrets/kubernetes.io/serviceaccount/namespace", encoding="utf-8") as file:
        return file.read().strip()


_SECRET_WORDS = ("password", "passwd", "secret", "token", "key", "credential")


def scrubbed_command_line(words: list[str]) -> str:
    """The words of a command; values of options with a telling name, and passwords in urls, are `***`."""
    told = []
    hides_next = False
    for word in words:
        name, equals, _ = word.partition("=")
        is_secret = any(secret in name.lower() for secret in _SECRET_WORDS) and name.startswith("-")
        scheme, separator, rest = word.partition("://")
        if hides_next and not word.startswith("-"):
            told.append("***")
        elif is_secret and equals:
            told.append(f"{name}=***")
        elif separator and "@" in rest.partition("/")[0]:
            told.append(f"{scheme}://***@{rest.partition('@')[2]}")
        else:
            told.append(word)
        hides_next = is_secret and not equals
    return " ".join(told)


def default_properties() -> dict[str, str]:
    """Properties that every process gets: command, interpreter, process number, cores, memory in bytes, container."""
    properties = {
        "language": "python",
        "python_version": ".".join(str(part) for part in sys.version_info[:3]),
        "python_executable": sys.executable or "",
        "pid": str(os.getpid()),
        "version": _core.VERSION,
        "command_line": scrubbed_command_line(sys.orig_argv),
        "physical_core_count": _attempt(_physical_core_count),
        "logical_cpu_count": str(os.cpu_count() or ""),
        "total_memory": _attempt(lambda: str(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))),
        "container_id": _attempt(_container_id),
        "kubernetes_namespace": _attempt(_kubernetes_namespace),
    }
    return {name: value for name, value in properties.items() if value}
