"""What an entry's process can reach: files, the network, other processes. Needs no torch.

Each mechanism is asked of the kernel and tried, never assumed; where one is missing, `probe` says so in a
sentence. docs/isolation.md says where isolation ends.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import site
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from data_prep.options import OptionError

MODES = ("auto", "required", "off")
PACKAGES = Path(__file__).resolve().parents[2]  # holds local_scorer and data_prep
SYSTEM = ("/usr", "/lib", "/lib32", "/lib64", "/bin", "/sbin", "/etc", "/nix/store", "/proc", "/sys", "/dev")
DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/shm", "/proc/self")

# Landlock, from linux/landlock.h: rights on files, by the version of the kernel's interface that brought them.
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = (1 << bit for bit in range(4))
FIRST_RIGHTS = (1 << 13) - 1
LATER_RIGHTS = {2: 1 << 13, 3: 1 << 14, 5: 1 << 15}  # refer, truncate, ioctl on devices
RIGHTS_ON_A_FILE = EXECUTE | WRITE_FILE | READ_FILE | 1 << 14 | 1 << 15
READ = EXECUTE | READ_FILE | READ_DIR
TCP_SINCE, TCP = 4, 0b11  # bind, connect
SIGNALS_SINCE, OUTSIDE = 6, 0b11  # abstract sockets and signals that leave the sandbox
CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446  # the same on every processor that torch runs on
PATH_BENEATH = 1

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 1, 36, 38
CLONE_NEWUSER, CLONE_NEWPID = 0x10000000, 0x20000000
READ_ANY_FILE = 1 << 1 | 1 << 2  # the capabilities that root keeps: data may belong to another user


@dataclass(frozen=True)
class Isolation:
    """What each mechanism gives on this machine, a sentence each; `missing` names those that it lacks."""

    files: str
    network: str
    processes: str
    memory: str
    missing: tuple[str, ...] = ()

    def found(self) -> dict[str, str]:
        """Return what each mechanism gives, for a reader."""
        return {name: text for name, text in asdict(self).items() if name != "missing"}


def probe(mode: str = "auto", device: str = "cpu") -> Isolation:
    """Try each mechanism in a process of its own and return what it gave.

    With a GPU, "auto" leaves files and network open: what its driver needs was never tried.

    Raises:
        OptionError: there is no such mode, or it is "required" and a mechanism is missing.
    """
    if mode not in MODES:
        raise OptionError(f"--sandbox must be one of {', '.join(MODES)}, found {mode!r}.")
    if mode == "off":
        off = "not asked for (--sandbox off)"
        return Isolation(off, off, "children in the entry's process group are ended", "no watch", ())
    command = [sys.executable, "-m", "local_scorer.execution.sandbox"]
    with tempfile.TemporaryDirectory() as outside:
        done = subprocess.run(
            [*command, outside], cwd=PACKAGES, capture_output=True, text=True, timeout=60, check=False
        )
    try:
        found = json.loads(done.stdout)
        isolation = Isolation(**{**found, "missing": tuple(found["missing"])})
    except (ValueError, TypeError, KeyError):
        none = f"none: the probe ended with {done.returncode}"
        isolation = Isolation(none, none, none, none, ("files", "processes", "memory"))
    if mode == "required" and isolation.missing:
        lacking = "; ".join(f"{name}: {getattr(isolation, name)}" for name in isolation.missing)
        raise OptionError(f"--sandbox required: this machine does not isolate everything ({lacking}). Use auto.")
    if mode == "auto" and device != "cpu":
        unused = "none: with a GPU only --sandbox required closes it"
        return replace(isolation, files=unused, network=unused)
    return isolation


def confine(readable: Iterable[Path], writable: Iterable[Path], hidden: Path) -> int:
    """Take from this process, for good, all files but those given, and what Landlock knows besides.

    Call it before other threads exist: they would stay free. Python and its packages stay readable.

    Args:
        readable, writable: files, and folders with all that is in them; they may lie in `hidden`.
        hidden: a folder that stays closed even where it lies inside one that is readable.

    Returns:
        The version of the kernel's interface; 0 where there is no Landlock, and nothing was taken.
    """
    version = landlock_version()
    if not version:
        return 0
    handled = FIRST_RIGHTS
    for since, right in LATER_RIGHTS.items():
        handled |= right if version >= since else 0
    fields = [handled]
    fields += [TCP] if version >= TCP_SINCE else []
    fields += [OUTSIDE] if version >= SIGNALS_SINCE else []
    attributes = struct.pack(f"={len(fields)}Q", *fields)
    rules = _system_call(CREATE_RULESET, attributes, len(attributes), 0)
    try:
        for path in _open_part([*map(Path, SYSTEM), *_python_folders()], hidden.resolve()):
            _allow(rules, path, READ & handled)
        for path in readable:
            _allow(rules, path, READ & handled)
        for path in (*writable, *map(Path, DEVICES)):
            _allow(rules, path, handled)
        _control(PR_SET_NO_NEW_PRIVS, 1)
        _drop_capabilities()
        _system_call(RESTRICT_SELF, rules, 0)
    finally:
        os.close(rules)
    return version


def landlock_version() -> int:
    """Return the version of Landlock's interface; 0 where the system has none or it is turned off."""
    if sys.platform != "linux":
        return 0
    try:
        return _system_call(CREATE_RULESET, None, 0, 1)
    except OSError:
        return 0


def use_private_folder(folder: Path) -> None:
    """Make `folder` this process's working folder, its home and its place for temporary files."""
    for name in ("HOME", "TMPDIR", "XDG_CACHE_HOME", "TORCH_HOME", "MPLCONFIGDIR"):
        os.environ[name] = str(folder)
    tempfile.tempdir = None  # it is worked out again
    os.chdir(folder)


def adopt_orphans() -> bool:
    """Make this process the parent of every process below it that loses its own; False if that fails."""
    with contextlib.suppress(OSError):
        _control(PR_SET_CHILD_SUBREAPER, 1)
        return True
    return False


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent ends, however that happens."""
    with contextlib.suppress(OSError):
        _control(PR_SET_PDEATHSIG, 9)


def enter_process_space() -> bool:
    """Put the next child of this process at the head of a process space of its own; False if that fails.

    When that child ends, the kernel ends every process in the space. As an ordinary user this needs a user
    namespace as well, and a process with one thread.
    """
    if sys.platform != "linux":
        return False
    library = ctypes.CDLL(None, use_errno=True)
    if library.unshare(CLONE_NEWPID) == 0:
        return True
    user, group = os.getuid(), os.getgid()
    if library.unshare(CLONE_NEWUSER | CLONE_NEWPID) != 0:
        return False
    with contextlib.suppress(OSError):
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
    return True


def _python_folders() -> list[Path]:
    """Return where Python, the packages and this toolkit lie; never the folder that a command was started in."""
    folders = {Path(prefix) for prefix in (sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix)}
    folders |= {Path(path) for path in (*site.getsitepackages(), site.getusersitepackages())}
    added = ("site-packages", "dist-packages")  # of another environment, by a .pth file
    folders |= {Path(path) for path in sys.path if Path(path).name in added}
    folders |= {PACKAGES / "local_scorer", PACKAGES / "data_prep"}
    return sorted({folder.resolve() for folder in folders})


def _open_part(folders: Iterable[Path], hidden: Path) -> list[Path]:
    """Return `folders`; in place of one that holds `hidden`, whatever in it does not lead there."""
    found = []
    for folder in folders:
        if hidden != folder and hidden.is_relative_to(folder):
            found += _open_part(folder.iterdir(), hidden)
        elif hidden != folder:
            found.append(folder)
    return found


def _allow(rules: int, path: Path, rights: int) -> None:
    try:
        handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # what is not there need not be allowed
    try:
        rights &= -1 if path.is_dir() else RIGHTS_ON_A_FILE
        _system_call(ADD_RULE, rules, PATH_BENEATH, struct.pack("=Qi", rights, handle), 0)
    finally:
        os.close(handle)


def _drop_capabilities() -> None:
    """Leave root, here or in a user namespace of its own, no power but that of reading files."""
    header = struct.pack("=Ii", 0x20080522, 0)
    data = struct.pack("=6I", READ_ANY_FILE, READ_ANY_FILE, 0, 0, 0, 0)
    if os.geteuid() != 0:
        data = bytes(24)
    ctypes.CDLL(None, use_errno=True).capset(header, data)


def _system_call(number: int, *arguments: object) -> int:
    function = ctypes.CDLL(None, use_errno=True).syscall
    function.restype = ctypes.c_long
    wide = [ctypes.c_long(argument) if isinstance(argument, int) else argument for argument in arguments]
    answer = function(ctypes.c_long(number), *wide)
    if answer < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return answer


def _control(option: int, value: int) -> None:
    if sys.platform != "linux":
        raise OSError("prctl is a call of Linux")
    library = ctypes.CDLL(None, use_errno=True)
    if library.prctl(option, *(ctypes.c_ulong(number) for number in (value, 0, 0, 0))) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _probe_here(outside: str) -> Isolation:
    """Try everything on this process, which is of no use afterwards; `outside` is a folder to be denied."""
    missing = []
    watch = Path("/proc/self/task").is_dir() and hasattr(os, "fork")
    memory = "a watch on all processes of a run, shared pages counted once"
    if not watch:
        memory = "none: no /proc here"
        missing.append("memory")
    if enter_process_space():
        processes = "a process space for each run: the kernel ends all that is in it"
    elif watch and adopt_orphans():
        processes = "child subreaper: processes that leave a run's group are found and ended"
    else:
        processes = "only children in a run's process group are ended"
        missing.append("processes")
    version = confine([], [], Path(outside))
    files = f"Landlock {version}: Python, the data set and a private folder are all that a run sees"
    if not version or _can_read(outside):
        files = "none: this system has no Landlock, or it is turned off"
        missing.append("files")
    network = f"no TCP (Landlock {version})" if version >= TCP_SINCE else "open: closing it needs Linux 6.7"
    return Isolation(files, network, processes, memory, tuple(missing))


def _can_read(folder: str) -> bool:
    try:
        next(Path(folder).iterdir(), None)
    except PermissionError:
        return False
    return True


if __name__ == "__main__":
    os.write(1, json.dumps(asdict(_probe_here(sys.argv[1]))).encode())
