"""An NVIDIA GPU that is simulated on the CPU build of torch.

Before a process imports torch it calls ``switch_on()``; from then on ``torch.cuda`` has
one device, ``device.type`` is "cuda", and memory is counted and has a limit. What is
asked of the real driver and of CUDA's own kernels is not there.

``SIMULATED_GPU_GIB`` is the card's memory (80), ``SIMULATED_GPU_CAPABILITY`` its
compute capability (9.0), and ``SIMULATED_GPU_CARD`` the file of a ``Card`` for
processes that share one; without it each process has a card of its own.

``tests.gpu.app:app`` is the server on it; ``python -m tests.gpu MODULE ARGUMENTS`` runs
any other program on it.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import hashlib
import importlib.metadata
import importlib.util
import mmap
import os
import struct
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

HERE = Path(__file__).resolve().parent
_SOURCE = HERE / "simulated_gpu.cpp"
_CACHE = HERE.parents[1] / "build" / "simulated_gpu"
NAME = "Simulated GPU"
GIB = 2**30
# What CUDA itself takes of a card, in a process that has nothing there yet. (Much less
# than the real one, and not counted, as the cards of the tests are small.)
CONTEXT = 2**20


class Card:
    """A card's memory in the file ``path``, made with ``gib`` where there is none. The
    processes on the card write what they take into it, and obey what is set here."""

    # As in the C++ source: a row of eight 64-bit numbers, then one for each process.
    _FIELDS = (
        "pid",
        "used",
        "peak",
        "to_card",
        "unpinned",
        "to_host",
        "lost",
        "pinned",
    )
    _ROW, _ROWS = 64, 32

    def __init__(self, path, gib=80.0):
        self.path = Path(path)
        new = not self.path.exists() or self.path.stat().st_size == 0
        with open(path, "w+b" if new else "r+b") as file:
            if new:
                file.truncate(self._ROW * self._ROWS)
            self._page = mmap.mmap(file.fileno(), self._ROW * self._ROWS)
        if new:
            self.limit = int(gib * GIB)

    @property
    def limit(self):
        """All bytes of the card."""
        return struct.unpack_from("<q", self._page, 0)[0]

    @limit.setter
    def limit(self, size):
        struct.pack_into("<q", self._page, 0, size)

    def fail(self, broken=True):
        """Whether the card fails in every process, as one that needs a reset."""
        struct.pack_into("<q", self._page, 8, int(broken))

    def pin_nothing(self, unpinnable=True):
        """Whether the host has no memory to pin."""
        struct.pack_into("<q", self._page, 16, int(unpinnable))

    @property
    def used(self):
        """Bytes that the living processes have taken."""
        return sum(row["used"] for row in self.processes.values())

    @property
    def processes(self):
        """What each living process has taken and moved, in bytes, by its id: used and
        peak, to_card, of it unpinned, to_host, and pinned, which are the host's; lost
        is 1 where its device is."""
        found = {}
        for number in range(1, self._ROWS):
            values = struct.unpack_from("<8q", self._page, number * self._ROW)
            row = dict(zip(self._FIELDS, values, strict=True))
            if row["pid"] and _is_alive(row["pid"]):
                found[row["pid"]] = row | {"row": number}
        return found

    def set(self, pid, field, value):
        """Set what is counted for a process."""
        row, column = self.processes[pid]["row"], self._FIELDS.index(field)
        struct.pack_into("<q", self._page, row * self._ROW + column * 8, value)

    @contextlib.contextmanager
    def held(self, size):
        """``size`` bytes are taken by another program, which is this process."""
        for number in range(self._ROWS - 1, 0, -1):
            pid = struct.unpack_from("<q", self._page, number * self._ROW)[0]
            if not (pid and _is_alive(pid)):
                break
        at = number * self._ROW
        struct.pack_into("<8q", self._page, at, os.getpid(), size, size, 0, 0, 0, 0, 0)
        try:
            yield
        finally:
            struct.pack_into("<8q", self._page, at, *(0,) * 8)


def _is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def build():
    """The compiled device: a library beside others in ``build/``, made once for each
    source and version of torch. Needs g++; half a minute."""
    torch = Path(importlib.util.find_spec("torch").origin).parent
    version = importlib.metadata.version("torch")
    key = hashlib.sha256(_SOURCE.read_bytes() + version.encode()).hexdigest()[:16]
    library = _CACHE / f"{key}.so"
    if library.exists():
        return library
    _CACHE.mkdir(parents=True, exist_ok=True)
    with (
        open(_CACHE / "lock", "w") as alone,
        tempfile.TemporaryDirectory(dir=_CACHE) as folder,
    ):
        # Another process may be at the same.
        fcntl.flock(alone, fcntl.LOCK_EX)
        if library.exists():
            return library
        made = Path(folder) / library.name
        command = ["g++", "-std=c++20", "-O1", "-fPIC", "-shared", "-w", str(_SOURCE)]
        command += ["-o", str(made), "-D_GLIBCXX_USE_CXX11_ABI=1"]
        command += [f"-I{torch}/include", f"-I{torch}/include/torch/csrc/api/include"]
        command += [f"-L{torch}/lib", f"-Wl,-rpath,{torch}/lib"]
        command += ["-ltorch", "-ltorch_cpu", "-lc10"]
        subprocess.run(command, check=True)
        made.replace(library)
    return library


def switch_on():
    """Give this process the simulated GPU; gives its ``Card``. Only before torch is
    imported, which asks at its import what there is."""
    assert "torch" not in sys.modules, "torch has been imported already"
    if "SIMULATED_GPU_CARD" not in os.environ:
        file = os.memfd_create("card")
        os.environ["SIMULATED_GPU_CARD"] = f"/proc/{os.getpid()}/fd/{file}"
    gib = float(os.environ.get("SIMULATED_GPU_GIB", "80"))
    card = Card(os.environ["SIMULATED_GPU_CARD"], gib)
    ctypes.CDLL(str(build()), mode=ctypes.RTLD_GLOBAL)
    import torch

    _fill_in(torch, card)
    _load_bitsandbytes(torch)
    return card


def _fill_in(torch, card):
    """What ``torch.cuda`` asks the parts that only its CUDA build has."""
    text = os.environ.get("SIMULATED_GPU_CAPABILITY", "9.0")
    major, minor = (int(part) for part in text.split("."))

    def own(field):
        return card.processes.get(os.getpid(), {}).get(field, 0)

    class Stream(torch.Stream):
        def __new__(cls, *_, **__):
            return super().__new__(cls, device="cuda:0")

    def current_stream(*_):
        return torch.accelerator.current_stream()

    values = {
        "is_available": True,
        "is_initialized": True,
        "_is_compiled": True,
        "device_count": 1,
        "current_device": 0,
        "get_device_name": NAME,
        "get_device_capability": (major, minor),
        "is_bf16_supported": major >= 8,
        "_lazy_init": None,
        "set_device": None,
        "empty_cache": None,
        "ipc_collect": None,
        "manual_seed": None,
        "manual_seed_all": None,
    }
    for name, value in values.items():
        setattr(torch.cuda, name, lambda *_, value=value, **__: value)

    def memory_info(*_):
        free = max(0, card.limit - card.used)
        if not own("peak") and free < CONTEXT:
            raise torch.AcceleratorError("CUDA error: out of memory")
        return free, card.limit

    functions = {
        "synchronize": lambda *_: torch.accelerator.synchronize(),
        "mem_get_info": memory_info,
        "memory_allocated": lambda *_: own("used"),
        "memory_reserved": lambda *_: own("used"),
        "max_memory_allocated": lambda *_: own("peak"),
        "max_memory_reserved": lambda *_: own("peak"),
        "reset_peak_memory_stats": lambda *_: card.set(
            os.getpid(), "peak", own("used")
        ),
        "get_device_properties": lambda *_: SimpleNamespace(
            name=NAME,
            total_memory=card.limit,
            major=major,
            minor=minor,
            multi_processor_count=100,
            gcnArchName="",
        ),
        "Stream": Stream,
        "current_stream": current_stream,
        "default_stream": current_stream,
        # A stream of torch's own is its context already.
        "stream": lambda one: one or contextlib.nullcontext(),
    }
    for name, function in functions.items():
        setattr(torch.cuda, name, function)
    torch._C._cuda_getCurrentRawStream = lambda *_: 0
    torch.backends.cuda.is_built = lambda: True
    torch.version.cuda = "12.8"


def _load_bitsandbytes(torch):
    """With its kernels for CPUs, which take the place of its library for CUDA."""
    there, torch.cuda.is_available = torch.cuda.is_available, lambda: False
    try:
        importlib.import_module("bitsandbytes")
    finally:
        torch.cuda.is_available = there
