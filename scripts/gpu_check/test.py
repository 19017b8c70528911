#!/usr/bin/env python3
"""What a report says of steps that pass, fail, hang, die, lack something or are
cut off, with programs that do just that in place of a card's."""
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import unittest

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
from gpu_check import report, steps  # noqa: E402

CARD = {"name": "NVIDIA Test 1", "memory_mib": 1, "watts": 0, "emulated": False}
BENCH = '{"results": [{"name": "train", "shape": "tiny", "variant": "bf16", "ns_per_op": 2e6, "rate": 5, "rate_unit": "tokens/s", "peer": [%s]}], "machine": {}, "notes": ["MFU = a formula"]}'
TORCH = '{"name": "torch", "missing": "not installed: make peers"}'


class Check(unittest.TestCase):
    def setUp(self):
        held = tempfile.TemporaryDirectory()
        self.addCleanup(held.cleanup)
        self.folder = held.name
        self.check = report.Report(self.folder, CARD)

    def step(self, shell, read=None, limit=60.0, lacks=""):
        self.check.run(steps.Step("s", limit, ["sh", "-c", shell], read, lacks), limit)
        return self.check.report["steps"][-1]

    def written(self):
        with open(self.check.path + ".json") as f:
            report = json.load(f)
        with open(self.check.path + ".md") as f:
            return report, f.read()

    def test_passed(self):
        s = self.step("echo 12 cases, 0 failed", steps.cases)
        self.assertEqual((s["status"], s["figures"], self.check.end()), ("passed", "12 cases, 0 failed", 0))

    def test_failed(self):
        for shell, read, says in (("echo broken; exit 1", None, "broken"), ("echo 12 cases, 1 failed", steps.cases, "1 failed"),
                                  ("echo 0 cases, 0 failed", steps.cases, "0 cases"), ("echo nonsense", steps.cases, "nonsense"),
                                  ("echo digest abc, status 1", steps.same_bits, "status 1"), ("echo '{\"results\": 1}'", steps.bench(), "results")):
            s = self.step(shell, read)
            self.assertEqual((s["status"], self.check.end()), ("failed", 1), shell)
            self.assertIn(says, s["output"])
            self.assertIn(says, self.written()[1])
        self.check.run(steps.Step("s", 1, ["/nowhere/program"], None), 1.0)
        self.assertIn("/nowhere/program", self.written()[1])

    def test_missing(self):
        for shell, says in (("echo FAIL cuda: there is no library; echo cuda: digest 0, status 3; exit 3", "FAIL cuda: there is no library"),
                            ("echo a card; echo onceupon: no teacher; exit 3", "onceupon: no teacher"), ("exit 3", "")):
            s = self.step(shell)
            self.assertEqual((s["status"], s["figures"]), ("missing", says))
        # A card that is there and fails is no gap.
        for says in ("FAIL cuda: cuda_adamw: an illegal memory access was encountered on NVIDIA Test 1 (sm_90)",
                     "onceupon: train: cuda: cuda_fetch: unspecified launch failure on NVIDIA Test 1 (sm_90)"):
            s = self.step(f"echo '{says}'; exit 3")
            self.assertEqual((s["status"], self.check.end()), ("failed", 1))
            self.assertIn(says, s["output"])
        self.check = report.Report(self.folder, CARD)
        s = self.step("exit 1", lacks="a tool")
        self.assertEqual((s["status"], s["figures"], self.check.end()), ("missing", "a tool", 4))

    def test_peer_without_a_figure(self):
        s = self.step(f"echo '{BENCH % TORCH}'", steps.bench("train"))
        self.assertEqual((s["status"], self.check.end()), ("missing", 4))
        self.assertIn("train 5 tokens/s", s["figures"])
        self.assertIn("torch has no figure: not installed: make peers", s["figures"])
        self.assertIn("MFU = a formula", self.written()[1])

    def test_peer(self):
        timed = BENCH % '{"name": "torch", "ratio": 1.5}'
        s = self.step(f"echo '{timed}'", steps.bench("train"))
        self.assertEqual(s["status"], "passed")
        self.assertIn("torch takes 1.50 x that time", s["figures"])
        self.assertIn("| 1.50 |", self.written()[1])
        self.check = report.Report(self.folder, dict(CARD, emulated=True))
        s = self.step(f"echo '{timed}'", steps.bench("train"))
        self.assertNotIn("1.5", s["figures"])
        self.assertNotIn("| 1.50 |", self.written()[1])

    def test_stopped_with_what_it_started(self):
        s = self.step(f"sleep 60 & echo $! > {self.folder}/child; wait", limit=0.5)
        self.assertEqual((s["status"], self.check.end()), ("stopped after 0 s", 1))
        with open(f"{self.folder}/child") as f:
            child = int(f.read())
        for _ in range(100):
            try:
                with open(f"/proc/{child}/stat") as f:
                    if f.read().split()[2] == "Z":
                        return
            except OSError:
                return
            time.sleep(0.05)
        self.fail("what the step started is still there")

    def test_died(self):
        self.assertEqual(self.step("kill -SEGV $$")["status"], "killed by SIGSEGV")

    # The check itself is cut off, by kill -9 or a lost connection, while a step runs.
    def test_cut_off(self):
        for number in (signal.SIGKILL, signal.SIGHUP):
            program = f"""import sys; sys.path.insert(0, {os.path.dirname(os.path.dirname(os.path.realpath(__file__)))!r}); sys.dont_write_bytecode = True
from gpu_check import report, steps
report.catch()
check = report.Report({self.folder!r}, {CARD!r})
check.run(steps.Step("first", 9, ["true"], None), 9)
check.run(steps.Step("second", 9, ["sh", "-c", "echo $$ > {self.folder}/second; exec sleep 9"], None), 9)"""
            check = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.DEVNULL)
            while not (os.path.exists(f"{self.folder}/second") and os.path.getsize(f"{self.folder}/second")):
                time.sleep(0.02)
            check.send_signal(number)
            self.assertIn(check.wait(), (-signal.SIGKILL, 128 + signal.SIGHUP))
            found, text = self.written()
            self.assertEqual([(s["step"], s["status"]) for s in found["steps"]], [("first", "passed"), ("second", "killed")])
            self.assertIn("| second | killed |", text)
            with open(f"{self.folder}/second") as f:
                child = int(f.read())
            if number == signal.SIGKILL:
                os.kill(child, signal.SIGKILL)
            else:
                self.assertRaises(ProcessLookupError, os.kill, child, 0)
            os.remove(f"{self.folder}/second")


unittest.main()
