"""What macOS lacks, taken away from the modules of raysp alone, in this process and those that it starts.

Modules of raysp get other ones for `os`, `signal`, `select` and the like, in which names are missing or fail as they do
there; libraries and the tests keep theirs. Files below /proc and the like do not exist for anyone.
"""

import builtins
import errno
import io
import os
import sys
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

VARIABLE = "RAYSP_TESTS_LACK"
NO_FOLDERS = ("/proc", "/sys", "/dev/shm")
NAMES = {
    "os": (
        "copy_file_range eventfd getrandom memfd_create pidfd_open posix_fadvise posix_fallocate sched_getaffinity "
        "sched_setaffinity sendfile splice"
    ),
    "fcntl": "F_SETPIPE_SZ F_GETPIPE_SZ",
    "select": "epoll",
    "signal": "SIGPWR SIGSTKFLT sigtimedwait sigwaitinfo",
}
"""Missing names, by module."""


def take_away() -> None:
    """Take away from modules of raysp, imported from now on, what macOS lacks."""
    _hide_folders()
    own = vars(builtins) | {"__import__": _Importer()}
    sys.meta_path.insert(0, _Finder(own))
    if any("raysp/" in word or word.startswith("raysp.") for word in sys.orig_argv[1:]):  # `python -m raysp...`
        sys.modules["__main__"].__dict__["__builtins__"] = own


class _Importer:
    """The function `__import__` of modules of raysp."""

    def __init__(self) -> None:
        self.replaced: dict[str, ModuleType] = {}

    def __call__(self, name, globals=None, locals=None, fromlist=(), level=0):
        found = builtins.__import__(name, globals, locals, fromlist, level)
        return found if level else self._without(found)

    def _without(self, module: ModuleType) -> ModuleType:
        name = module.__name__
        if name not in self.replaced:
            missing, changed = NAMES.get(name, "").split(), _CHANGES.get(name, dict)()
            if not missing and not changed:
                return module
            self.replaced[name] = _Without(module, missing, changed)
        return self.replaced[name]


class _Without(ModuleType):
    """A module without some names, and with others in place of its own."""

    def __init__(self, module: ModuleType, missing: list[str], changed: dict[str, object]) -> None:
        super().__init__(module.__name__)
        self.__dict__.update(changed)
        self.__dict__["_taken"] = (module, missing)

    def __getattr__(self, name: str) -> object:
        module, missing = self.__dict__["_taken"]
        if name in missing:
            raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}", name=name)
        return getattr(module, name)


class _Finder:
    """Finder of modules of raysp, which get builtins of their own."""

    def __init__(self, own: dict[str, object]) -> None:
        self.own = own

    def find_spec(self, name: str, path=None, target=None) -> ModuleSpec | None:
        if (
            name.partition(".")[0] != "raysp"
            or not (spec := PathFinder.find_spec(name, path, target))
            or not spec.loader
        ):
            return None
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            module.__dict__["__builtins__"] = self.own
            execute(module)

        spec.loader.exec_module = exec_module
        return spec


def _resource_of_macos() -> dict[str, object]:
    import resource

    def setrlimit(kind, limits):
        if kind == resource.RLIMIT_AS:
            raise ValueError("current limit exceeds maximum limit")
        resource.setrlimit(kind, limits)

    return {"setrlimit": setrlimit}


_CHANGES = {"resource": _resource_of_macos, "platform": lambda: {"system": lambda: "Darwin"}}
"""Functions that return names in place of a module's own, by module."""


def _hide_folders() -> None:
    for module, name in (
        (io, "open"),
        (builtins, "open"),
        (os, "open"),
        (os, "stat"),
        (os, "listdir"),
        (os, "readlink"),
    ):
        setattr(module, name, _hiding(getattr(module, name)))


def _hiding(function):
    def hiding(*words, **options):
        path = words[0] if words else None
        if isinstance(path, str | os.PathLike) and str(path).startswith(NO_FOLDERS):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        return function(*words, **options)

    return hiding
