"""Where things are, and the card."""
import glob
import os
import re
import subprocess
import sysconfig

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
BIN = os.path.join(ROOT, "bin")
EMULATED = os.environ.get("ONCEUPON_CUDA_EMULATED", "")
LIBRARY = os.path.realpath(EMULATED) if EMULATED else os.path.join(BIN, "libstudent_cuda.so")
PROGRAM = os.path.join(BIN, "onceupon")
# The emulation needs no `make gpu-binaries`: its tests are where the processor's build has them.
TESTS = {t: os.path.join(ROOT, "build", "cpu", t) if EMULATED else os.path.join(BIN, t) for t in ("test_ops", "test_ppo", "test_matmul", "test_run")}
GOLDEN = next((p for p in (os.path.join(ROOT, d, "shared", "data", "golden") for d in ("..", ".")) if os.path.isdir(p)), "")
LISTED = {"name": "any", "sm": "90", "memory_mib": 80_000, "watts": 0, "emulated": bool(EMULATED)}


def version():
    """What the program says it is, which may have been carried here; before it is built, what the tree is."""
    for words in ([PROGRAM, "--version"], ["git", "describe", "--always", "--dirty"]):
        try:
            said = subprocess.run(words, cwd=ROOT, capture_output=True, text=True).stdout.strip()
        except OSError:
            continue
        if said:
            return said.removeprefix("onceupon version ")
    return ""


def cublaslt():
    """Names cublasLt where the loader may not look: in a toolkit, beside this Python's PyTorch, beside that of `make peers`."""
    peers = os.environ.get("ONCEUPON_PEERS") or os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "onceupon", "peers")
    folders = ["/usr/local/cuda/lib64", sysconfig.get_path("purelib") + "/nvidia/cu13/lib", peers + "/torch/lib/python3*/site-packages/nvidia/cu13/lib"]
    found = [p for f in folders for p in glob.glob(f + "/libcublasLt.so.13")]
    return {"ONCEUPON_CUBLASLT_LIBRARY": found[0]} if found else {}


def find():
    """The first card as nvidia-smi describes it; None without one."""
    if EMULATED:
        return {"name": "emulation", "sm": "90", "memory_mib": 0, "watts": 0, "emulated": True, "version": version()}
    fields = ["name", "driver_version", "memory.total", "clocks.max.sm", "power.limit", "compute_cap"]
    try:
        line = subprocess.run(["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"], capture_output=True,
                              text=True, timeout=60, check=True).stdout.splitlines()[0]
        name, driver, memory, clock, power, capability = [x.strip() for x in line.split(",")]
    except (OSError, subprocess.SubprocessError, IndexError, ValueError):
        return None

    def number(text):  # "[N/A]" where a card does not tell
        return float(text) if re.fullmatch(r"[0-9.]+", text) else 0

    return {"name": name, "driver": driver, "memory_mib": number(memory), "clock_mhz": number(clock), "watts": number(power),
            "sm": capability.replace(".", ""), "emulated": False, "version": version()}
