"""Runs steps and keeps what they found, in JSON and Markdown, from the first on."""
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time

from .machine import EMULATED, LIBRARY, ROOT, cublaslt


class Report:
    def __init__(self, folder, card):
        self.report = {"format": 2, "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "emulated": card["emulated"], "machine": card, "steps": []}
        self.path = os.path.join(folder, "gpu-check-" + re.sub(r"[^a-z0-9]+", "-", card["name"].lower().replace("nvidia", "")).strip("-"))
        os.makedirs(folder, exist_ok=True)
        self.write()

    def write(self):
        for ending, text in (("json", json.dumps(self.report, indent=1) + "\n"), ("md", markdown(self.report))):
            with open(f"{self.path}.{ending}.part", "w") as f:
                f.write(text)
                f.flush()
                os.fsync(f.fileno())
            os.replace(f"{self.path}.{ending}.part", f"{self.path}.{ending}")

    def run(self, s, limit):
        step = {"step": s.name, "command": command(s), "status": "killed", "seconds": 0, "limit": round(limit)}
        if self.report["emulated"]:
            step["emulated"] = True
        self.report["steps"].append(step)
        self.write()  # as killed: what a check that dies here has left
        if s.lacks:
            step["status"], step["figures"] = "missing", s.lacks
        else:
            print(f"gpu-check: {s.name} ...", file=sys.stderr, flush=True)
            output = execute(s, step, limit)
            try:
                if s.read and step["status"] == "passed":
                    s.read(output, step)
            except (ValueError, KeyError, AttributeError, IndexError, TypeError) as e:
                step["status"], step["unreadable"] = "failed", repr(e)
            if step["status"] not in ("passed", "missing"):
                step["output"] = output[-4000:]
            if step.get("exit") == 3 and not CARD_FAILED.search(reason(output)):  # onceupon: something that the machine lacks
                step["status"], step["figures"] = "missing", reason(output)
        self.write()
        print(f"gpu-check: {s.name}: {step['status']}, {step['seconds']} s {step.get('figures', '')}", file=sys.stderr, flush=True)

    def end(self):
        statuses = [s["status"] for s in self.report["steps"]]
        passed, missing = statuses.count("passed"), statuses.count("missing")
        bad = len(statuses) - passed - missing
        print(f"{'EMULATED: ' if self.report['emulated'] else ''}{passed} passed, {bad} failed or stopped, {missing} missing something: {self.path}.md")
        return 1 if bad or not statuses else 4 if missing else 0


ending = {"by": 0, "held": False}


def told_to_end(number, _):
    ending["by"] = number
    if not ending["held"]:
        sys.exit(128 + number)


def catch():
    """A check that is told to end, also by a connection that breaks, stops its step on the way out."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # nohup
            signal.signal(number, told_to_end)


# An op that fails on a card that was there ends with 3 as well (cuda_note in native/cuda/backend.cu).
CARD_FAILED = re.compile(r"cuda: [^=]+: .+ on .+ \(sm_\d+\)")


def command(step):
    return shlex.join(step.words)


def reason(output):
    """The line that says what is lacking: the program's own, else a test's first of the card."""
    lines = output.splitlines() or [""]
    return next((x for x in reversed(lines) if x.startswith("onceupon: ")), next((x for x in lines if "cuda: " in x), lines[-1]))


def execute(s, step, limit):
    """The output of a step, which is stopped with all that it started."""
    begin = time.monotonic()
    with tempfile.TemporaryFile("w+", errors="replace") as said:
        ending["held"] = True  # a step that is half started could not be stopped
        try:
            process = subprocess.Popen(s.words, cwd=ROOT, stdout=said, stderr=subprocess.STDOUT, start_new_session=True,
                                       env={**cublaslt(), **os.environ, "ONCEUPON_CUDA_LIBRARY": LIBRARY})
        except OSError as e:
            ending["held"], step["status"] = False, "failed"
            return str(e)
        try:
            ending["held"] = False
            if ending["by"]:
                sys.exit(128 + ending["by"])
            step["exit"] = process.wait(timeout=limit)
            step["status"] = "passed" if step["exit"] == 0 else "failed" if step["exit"] > 0 else f"killed by {signal.Signals(-step['exit']).name}"
        except subprocess.TimeoutExpired:
            step["status"] = f"stopped after {limit:.0f} s"
        finally:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            process.wait()
        step["seconds"] = round(time.monotonic() - begin, 1)
        said.seek(0)
        return said.read()


def markdown(report):
    m, emulated = report["machine"], report["emulated"]
    lines = [f"# gpu-check, {m['name']}", ""]
    if emulated:
        lines += [f"**Emulated on a processor** by {os.path.basename(EMULATED)}, with tiny shapes: a test of the check. No time here is a card's.", ""]
    card = "" if emulated else f"driver {m.get('driver', 'unknown')}, {m['memory_mib']:.0f} MiB, {m.get('clock_mhz', 0):.0f} MHz, {m['watts']:.0f} W; "
    lines += [f"{report['started']}; {card}onceupon {m.get('version') or 'unknown'}",
              "", "| step | status | seconds | figures |", "|---|---|---:|---|"]
    mark = " (emulated)" if emulated else ""
    for s in report["steps"]:
        lines.append(f"| {s['step']} | {s['status']}{mark} | {s['seconds']} | {s.get('figures', '')} |")
    for s in report["steps"]:
        lines += results(s, mark)
    for s in report["steps"]:
        if s.get("output"):
            lines += ["", f"## {s['step']}: the end of what it said", "", "```", s["output"][-2000:].strip(), "```"]
    return "\n".join(lines) + "\n"


def results(step, mark):
    found = step.get("results", [])
    if not found:
        return []
    peers = list(dict.fromkeys(p["name"] for r in found for p in r.get("peer", [])))
    lines = ["", f"## {step['step']}{mark}", "", "`" + step["command"].replace(ROOT + "/", "") + "`", "",
             "| op | shape | variant | time | GB/s | GFLOP/s | of the card's peak | rate |" + "".join(f" {p} / ours |" for p in peers),
             "|---|---|---|---:|---:|---:|---:|---|" + "---:|" * len(peers)]
    for r in found:
        share = f"{100 * r['roofline_share']:.1f} %" if "roofline_share" in r and not mark else ""
        rate = f"{r['rate']:.4g} {r['rate_unit']}" if "rate" in r else ""
        cells = {p["name"]: f"{p['ratio']:.2f}" for p in r.get("peer", []) if p.get("ratio") and not mark}
        lines.append(f"| {r['name']} | {r['shape']} | {r['variant']} | {r['ns_per_op'] / 1e3:.1f} us{mark} | {r.get('gb_per_s', 0):.0f} | {r.get('gflop_per_s', 0):.0f} |"
                     f" {share} | {rate} |" + "".join(f" {cells.get(p, '')} |" for p in peers))
    lines += ["", *step.get("notes", [])]
    d = step.get("device")
    if d and not mark:
        lines.append(f"Peaks by {d.get('peaks_from', '?')}: {d.get('bf16_gflop_per_s', 0):.0f} GFLOP/s of bf16, dense, {d.get('fp32_gflop_per_s', 0):.0f} of fp32, {d.get('gb_per_s', 0):.0f} GB/s.")
    return lines
