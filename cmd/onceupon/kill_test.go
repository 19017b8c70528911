package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"onceupon/trainer/judge"
	"onceupon/trainer/metrics"
	"onceupon/trainer/xtest"
)

// killed makes the smoke run's loop short: no probe, no second judge.
const killed = `
[student]
layers = 2
heads = 2
width = 64
context = 64
vocab = 512
[corpus]
words = 40_000
held_out = 0.05
[pretrain]
words = 60_000
batch_tokens = 1024
lr = 3e-3
milestones = [20_000]
[rollout]
stories = 6
max_new_tokens = 20
[teacher]
second_judge = ""
probe = false
wave = 4
[interact]
batches = 3
[evaluate]
every = 2
choose_on = 2
report_on = 2
second_stories = 0
[run]
max_tokens = 1024
`

// onceupon starts the program as a process of its own; kill is asked about
// each event of its output and says with which signal to end it now, 0 for not
// yet.
func onceupon(t *testing.T, folder, settings, overlap string, kill func(event string) syscall.Signal) (metrics.ResultEvent, bool) {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(filepath.Join(bin(t, program), "onceupon"), "run", "--config", settings, "--run", folder, "--seed", "5", "--overlap", overlap, "--json", "--quiet")
	var said bytes.Buffer
	c.Stderr = &said
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	var last []byte
	lines := bufio.NewReader(out)
	for {
		line, err := lines.ReadBytes('\n')
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		last = line
		if kill == nil {
			continue
		}
		if signal := kill(string(line)); signal != 0 {
			if err := c.Process.Signal(signal); err != nil {
				t.Fatal(err)
			}
			if _, err := io.Copy(io.Discard, lines); err != nil {
				t.Fatal(err)
			}
			_ = c.Wait() // its exit code is looked at
			if code := c.ProcessState.ExitCode(); signal == syscall.SIGINT && code != 130 {
				t.Errorf("interrupted: exit code %d: %s", code, said.String())
			}
			return metrics.ResultEvent{}, false
		}
	}
	if err := c.Wait(); err != nil {
		t.Fatalf("%v: %s", err, said.String())
	}
	var r metrics.ResultEvent
	if err := json.Unmarshal(last, &r); err != nil || r.Event != "result" {
		t.Fatalf("last line %q: %v", last, err)
	}
	return r, true
}

// bin is a folder in which the test program goes by the name of the command,
// as testscript does it.
func bin(t *testing.T, program string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Symlink(program, filepath.Join(dir, "onceupon")); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestKilledRunEndsInTheSameWeights kills a run with the real teacher in its
// pretraining, before the first batch, between batches and in the middle of
// one, goes on each time, and compares the end with that of a run that was left
// alone. The one that is killed rates stories while others are told, the other
// does not, in waves whose company shows in the last digits of the marks.
func TestKilledRunEndsInTheSameWeights(t *testing.T) {
	for _, find := range []func() error{
		func() error { _, err := judge.FindLlama("", ""); return err },
		func() error { _, _, err := judge.FindModel("gemma-270m"); return err },
	} {
		if err := find(); err != nil {
			t.Skip(err)
		}
	}
	dir := t.TempDir()
	settings := filepath.Join(dir, "killed.toml")
	if err := os.WriteFile(settings, []byte(killed), 0o644); err != nil {
		t.Fatal(err)
	}
	whole, _ := onceupon(t, filepath.Join(dir, "whole"), settings, "off", nil)
	if whole.Resumed || whole.Batches != 3 {
		t.Fatalf("the undisturbed run: %+v", whole)
	}
	broken := filepath.Join(dir, "broken")
	const middle = 300 * time.Millisecond // of a batch, which the teacher alone needs a second for
	for _, end := range []struct {
		at     string
		after  time.Duration
		signal syscall.Signal
	}{
		{`"step":30,`, 0, syscall.SIGKILL},
		{`"event":"evaluation","batch":0,"set":"before"`, 0, syscall.SIGKILL},
		{`"event":"batch","batch":1`, middle, syscall.SIGINT},
		{`"event":"batch","batch":2`, middle, syscall.SIGKILL},
		{`"set":"after"`, 0, syscall.SIGKILL},
	} {
		if _, done := onceupon(t, broken, settings, "on", func(event string) syscall.Signal {
			if !strings.Contains(event, end.at) {
				return 0
			}
			time.Sleep(end.after)
			return end.signal
		}); done {
			t.Fatalf("the run ended before %s was seen", end.at)
		}
	}
	resumed, _ := onceupon(t, broken, settings, "on", nil)
	if !resumed.Resumed {
		t.Error("the run does not say that it was resumed")
	}
	if resumed.WeightsSHA256 != whole.WeightsSHA256 || resumed.ScoreAfter != whole.ScoreAfter || resumed.KL != whole.KL {
		t.Errorf("resumed: weights %.12s, score %v, KL %v\nundisturbed: weights %.12s, score %v, KL %v", resumed.WeightsSHA256, resumed.ScoreAfter, resumed.KL,
			whole.WeightsSHA256, whole.ScoreAfter, whole.KL)
	}
	if resumed.MaxLogprobDiff != 0 {
		t.Errorf("log-probabilities while sampling and in the update differ by %g", resumed.MaxLogprobDiff)
	}
	if a, b := xtest.ReadZstd(t, filepath.Join(dir, "whole", "stories.jsonl.zst")), xtest.ReadZstd(t, filepath.Join(broken, "stories.jsonl.zst")); len(a) == 0 || !bytes.Equal(a, b) {
		t.Errorf("stories.jsonl.zst: %d and %d bytes that differ", len(a), len(b))
	}
	// Every event once: the logs were cut back to the checkpoints.
	for _, folder := range []string{"whole", "broken"} {
		log, err := os.ReadFile(filepath.Join(dir, folder, "log.jsonl"))
		if err != nil {
			t.Fatal(err)
		}
		for _, event := range []string{`"event":"batch","batch":1,`, `"event":"batch","batch":2,`, `"batch":0,"set":"before"`, `"batch":2,"set":"choose"`, `"event":"batch","batch":3,`, `"event":"result"`, `"step":30,`} {
			if n := bytes.Count(log, []byte(event)); n != 1 {
				t.Errorf("%s/log.jsonl has %s %d times", folder, event, n)
			}
		}
	}
	// A run that is done says its result again.
	again, _ := onceupon(t, broken, settings, "on", nil)
	if again.WeightsSHA256 != whole.WeightsSHA256 {
		t.Errorf("the finished run's result: %+v", again)
	}
}

// TestInterrupt stops a pretraining as Ctrl-C does: exit code 130 and a
// checkpoint that the same command goes on from.
func TestInterrupt(t *testing.T) {
	dir := t.TempDir()
	settings, folder := filepath.Join(dir, "c.toml"), filepath.Join(dir, "run")
	if err := os.WriteFile(settings, []byte(killed), 0o644); err != nil {
		t.Fatal(err)
	}
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	pretrain := []string{"pretrain", "--config", settings, "--run", folder, "--json"}
	c := exec.Command(filepath.Join(bin(t, program), "onceupon"), pretrain...)
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	c.Stderr = &said
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(out)
	if _, err := lines.ReadBytes('\n'); err != nil { // the tenth update
		t.Fatal(err)
	}
	if err := c.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, lines); err != nil {
		t.Fatal(err)
	}
	_ = c.Wait() // its exit code is looked at
	if code := c.ProcessState.ExitCode(); code != 130 || !strings.Contains(said.String(), "interrupted; the same command goes on from here") {
		t.Fatalf("exit code %d: %s", code, said.String())
	}
	again, err := exec.Command(c.Path, pretrain...).CombinedOutput()
	if err != nil || !strings.Contains(string(again), "going on from") || !strings.Contains(string(again), `"resumed":true`) {
		t.Errorf("%v: %s", err, again)
	}
}
