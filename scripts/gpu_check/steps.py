"""The steps: what each runs, how long it may take, and what its output says."""
import collections
import json
import os
import re
import shutil

from .machine import BIN, GOLDEN, LIBRARY, PROGRAM, ROOT, TESTS

# lacks: what is missing for it, where that is known before. read(output, step)
# adds figures to the step, and fails it when they are wrong.
Step = collections.namedtuple("Step", "name seconds words read lacks", defaults=("",))
SECONDS = 600  # of all steps in the table but the build
SYNTHETIC = os.path.join(ROOT, "build", "synthetic")  # keeps the 8.5 GB of bench-teacher for the next time


def cases(output, step):
    total, failed = map(int, re.findall(r"(\d+) (?:cases|numbers of TRL \S+), (\d+) (?:failed|differ)", output)[-1])
    step["figures"] = f"{total} cases, {failed} failed"
    if not total or failed or "not supported here" in output:
        step["status"] = "failed"


def same_bits(output, step):
    digest, status = re.findall(r"digest (\w+), status (\d)", output)[-1]
    step["figures"] = f"digest {digest}"
    if status != "0":
        step["status"] = "failed"


def sanitizer(output, step):
    errors = re.findall(r"(?:ERROR SUMMARY: (\d+) error|RACECHECK SUMMARY: (\d+) hazard)", output)
    step["figures"] = f"{sum(int(a or b) for a, b in errors)} errors"
    if not errors or not re.search(r"\d+ cases", output):
        step["status"] = "failed"


def last_json(output):
    return json.loads([line for line in output.splitlines() if line.startswith("{")][-1])


def traces(output, step):
    result = last_json(output)
    checks = result["checks"]
    step["figures"] = f"{sum(c['pass'] for c in checks)} of {len(checks)} arrays"
    step["worst"] = sorted(checks, key=lambda c: -c["max_diff"] / c["tolerance"] if c["tolerance"] else 0)[:5]
    if not checks or not result["passed"]:
        step["status"] = "failed"


def bench(headline=None):
    """Results of `onceupon bench --json`; the headline has the named ones."""

    def read(output, step):
        answer = last_json(output)
        step["results"], step["device"] = answer["results"], answer["machine"].get("device")
        said = [f"{len(step['results'])} results"]
        for r in step["results"]:
            if headline and re.fullmatch(headline, r["name"]):
                said.append(f"{r['name']} {r['rate']:.4g} {r['rate_unit']}")
                if r["name"].startswith("train"):
                    said.append("no MFU: emulated" if step.get("emulated") else f"MFU {100 * r['roofline_share']:.1f} %" if "roofline_share" in r else "no MFU: no peak of this card is known")
                said += [f"{p['name']} ran" if step.get("emulated") else f"{p['name']} takes {p['ratio']:.2f} x that time" for p in r.get("peer", []) if p.get("ratio")]
                gaps = [f"{p['name']} has no figure: {p['missing']}" for p in r.get("peer", []) if p.get("missing")]
                if gaps:
                    said, step["status"] = said + gaps, "missing"
        if "projection" in answer:
            p = step["projection"] = answer["projection"]
            energy = ", %.3g kWh and %.3g kWh" % (p["kwh"], p["pretrain_kwh"]) if "kwh" in p else ", no watts known"
            said.append("%.2f GiB of the card in use" % (step["results"][0].get("peak_bytes", 0) / 2**30))
            said.append("the whole run %.3g h, its pretraining %.3g h%s" % (p["hours"], p["pretrain_hours"], energy))
        step["notes"] = answer.get("notes", [])
        step["figures"] = ", ".join(said)

    return read


def table(card):
    """All steps in their order, for a card or for the emulation."""
    tiny = card["emulated"]

    def onceupon(*words):
        return [PROGRAM, *words, "--json"]

    few = ["few"] if tiny else []
    built = os.path.exists(LIBRARY) and all(os.path.exists(p) for p in (PROGRAM, *TESTS.values()))
    all_steps = [] if built else [Step("build", 600, ["make", "-s", "gpu-binaries", f"CUDA_ARCHITECTURES={card['sm']}{'a' if card['sm'] == '90' else ''}-real"], None)]
    all_steps += [
        Step("ops", 40, [TESTS["test_ops"], "cuda", *few], cases),
        Step("ppo", 15, [TESTS["test_ppo"], "cuda", *few], cases),
        Step("matmul", 30, [TESTS["test_matmul"], *few], cases),
        Step("run", 15, [TESTS["test_run"], "cuda", *few], same_bits),
    ]
    for kind in ("gpt2", "ppo"):
        all_steps.append(Step(f"{kind}-traces", 25, onceupon("verify", kind, os.path.join(GOLDEN, kind), "--backend", "cuda"), traces,
                              lacks="" if GOLDEN else "the recorded traces, shared/data/golden"))
    sanitize = shutil.which("compute-sanitizer") or "/usr/local/cuda/bin/compute-sanitizer"
    for tool in ("memcheck", "racecheck", "synccheck", "initcheck"):
        all_steps.append(Step(tool, 20, [sanitize, "--tool", tool, "--error-exitcode", "9", TESTS["test_ops"], "cuda", "few"], sanitizer,
                              lacks="" if os.path.exists(sanitize) and not tiny else "compute-sanitizer, of the CUDA toolkit, and a card"))
    sampled = ["--time", "1ms", "--count", "1"] if tiny else ["--time", "100ms", "--count", "3"]

    def ops(shape, *more):
        return onceupon("bench", "ops", "--backend", "cuda", "--shape", "tiny" if tiny else shape, *sampled, *more)

    def student(task, *more):
        return onceupon("bench", "student", "--backend", "cuda", "--variant", "bf16", "--shape", "tiny" if tiny else "paper", "--filter", f"^{task}$", *sampled, *more)

    torch = f"{ROOT}/scripts/peers/torch_student --bf16 --device {'cpu' if tiny else 'cuda'}"
    all_steps += [
        Step("bench-decode", 15, student("generate"), bench("generate")),
        Step("bench-ops", 25, ops("default"), bench()),
        Step("bench-ops-small", 25, ops("small"), bench()),
        Step("bench-ops-cublaslt", 25, ops("default", "--variant", "matmul=cublaslt", "--filter", "^matmul"), bench()),
    ]
    if card["sm"] == "90":
        all_steps.append(Step("bench-ops-wgmma", 25, ops("default", "--variant", "matmul=wgmma", "--filter", "^matmul"), bench()))
    all_steps += [
        Step("bench-ppo", 25, student("ppo"), bench("ppo")),
        Step("bench-train", 70, student("train", "--peer", f"torch={torch}", "--peer", f"torch.compile={torch} --compile"), bench("train")),
    ]
    # Speed does not depend on the weights: one file serves both steps.
    device = [] if tiny else ["--teacher-device", "cuda"]
    kind, layers, wave = ("q4_k", 1, 1) if tiny else ("q8_0", 32, 128)
    synthetic = ["--synthetic", "llama-3.1-8b", "--type", kind, "--layers", str(layers), "--keep", SYNTHETIC]
    all_steps.append(Step("bench-teacher", 70, onceupon("bench", "teacher", *synthetic, *device, "--wave", str(wave), "--stories", str(wave), "--count", "1"), bench("teacher_story")))
    if tiny:
        loop = ["--config", "smoke", "--backend", "cuda", "--stories", "2", "--words", "300", "--batches", "1"]
    else:
        large = card["memory_mib"] > 60_000
        loop = ["--config", "h200" if large else "llama31-8b", "--batches", "3" if large else "2"] + (["--watts", f"{card['watts']:.0f}"] if card["watts"] else [])
        loop += teacher(os.path.join(SYNTHETIC, f"llama-3.1-8b-{kind}-{layers}-layers.gguf"))
    all_steps.append(Step("bench-loop", 90, onceupon("bench", "loop", *loop, "--stages"), bench("loop")))
    return all_steps


def teacher(synthetic):
    """Flags for the loop's teacher: none where the real one is there."""
    places = [os.path.join(os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share"), "onceupon", "teachers"), os.path.join(BIN, "teachers")]
    real = any(os.path.exists(os.path.join(p, "Meta-Llama-3.1-8B-Instruct-Q8_0.gguf")) for p in places)
    return [] if real else ["--teacher", synthetic, "--rubric", "chat"]
