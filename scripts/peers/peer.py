"""What the peers of `onceupon bench` share. A peer is called with TASK SHAPE THREADS and prints one line,
{"seconds": S}, the least time of one op, with "peak_bytes" where it is known, or {"missing": WHY}."""
import json
import os
import sys
import time

# As trainer/bench/student.go has them: layers, heads, width, context, vocabulary, stories of a training step and their
# tokens, stories told at once, prompt, new tokens, stories of a PPO batch.
SHAPES = {
    "default": (4, 4, 256, 256, 4096, 8, 256, 64, 20, 90, 32),
    "small": (12, 12, 768, 512, 16000, 4, 512, 32, 20, 90, 32),
    "small64": (12, 12, 768, 512, 16000, 4, 64, 32, 20, 90, 32),
    "paper": (12, 12, 768, 512, 16000, 32, 512, 360, 20, 90, 360),
    "tiny": (1, 2, 16, 32, 64, 2, 32, 4, 4, 8, 4),
}


def missing(why):
    print(json.dumps({"missing": why}))
    sys.exit(0)


def within(venv):
    """Goes on in an environment that scripts/peers/setup made, where there is one."""
    folder = os.environ.get("ONCEUPON_PEERS") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "onceupon", "peers")
    python = os.path.join(folder, venv, "bin", "python")
    if os.path.exists(python) and os.environ.get("ONCEUPON_PEER_VENV") != venv:
        os.environ["ONCEUPON_PEER_VENV"] = venv
        os.execv(python, [python] + sys.argv)


def option(name, values):
    """Takes `name VALUE` out of the arguments; the first of the values where it is not there."""
    if name not in sys.argv:
        return values[0]
    at = sys.argv.index(name)
    value = "".join(sys.argv[at + 1 : at + 2])
    if value not in values:
        sys.exit("%s must be one of %s, not %r" % (name, ", ".join(values), value))
    del sys.argv[at : at + 2]
    return value


def arguments(tasks):
    """TASK, SHAPE, THREADS; a task that this peer does not have is no figure."""
    words = [a for a in sys.argv[1:] if not a.startswith("--")]
    if len(words) != 3:
        sys.exit("usage: %s TASK SHAPE THREADS" % sys.argv[0])
    if words[0] not in tasks:
        missing("this peer has no task " + words[0])
    return words[0], words[1], int(words[2])


def shape(name):
    if name not in SHAPES:
        missing("this peer has no shape " + name)
    return SHAPES[name]


def least(step, seconds=12.0, most=5, warm=False):
    """The least of several times; one step before is not timed, unless it is warm."""
    if not warm:
        step()
    best, end = float("inf"), time.perf_counter() + seconds
    for _ in range(most):
        start = time.perf_counter()
        step()
        best = min(best, time.perf_counter() - start)
        if time.perf_counter() > end:
            break
    return best


def answer(seconds, peak_bytes=None):
    line = {"seconds": seconds}
    if peak_bytes:
        line["peak_bytes"] = peak_bytes
    print(json.dumps(line))


def memory(key):
    with open("/proc/self/status") as status:
        for line in status:
            if line.startswith(key + ":"):
                return int(line.split()[1]) * 1024
    return 0


class Peak:
    """How far resident memory grows from here on (proc(5): clear_refs 5)."""

    def __init__(self):
        with open("/proc/self/clear_refs", "w") as f:
            f.write("5")
        self.before = memory("VmRSS")

    def bytes(self):
        return memory("VmHWM") - self.before
