package judge_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"onceupon/ggml"
	"onceupon/trainer/fault"
	"onceupon/trainer/judge"
	"onceupon/trainer/synthetic"
)

// Bad teachers are refused in one line before their weights are loaded.
func TestBadTeachers(t *testing.T) {
	smol, _, err := judge.FindModel("smollm2-135m")
	if err != nil {
		t.Skip(err)
	}
	dir := t.TempDir()
	make := func(name string, context int) string {
		path := filepath.Join(dir, name)
		s := synthetic.Shape{Name: name, Layers: 1, Width: 64, Heads: 4, KVHeads: 2, FeedForward: 128, Vocabulary: 49_200, Context: context, RopeBase: 500000, Epsilon: 1e-5}
		if err := synthetic.Write(t.Context(), path, s, ggml.Q8_0, smol, 1); err != nil {
			t.Fatal(err)
		}
		return path
	}
	short, whole := make("short.gguf", 512), make("whole.gguf", 8192)
	strange := make("strange.gguf", 8192)
	raw, err := os.ReadFile(strange)
	if err != nil {
		t.Fatal(err)
	}
	os.WriteFile(strange, []byte(strings.ReplaceAll(string(raw), "<|start_header_id|>", "<|START_header_id|>")), 0o600)
	cut := filepath.Join(dir, "cut.gguf")
	os.WriteFile(cut, raw[:len(raw)-100], 0o600)
	data := t.TempDir()
	t.Setenv("XDG_DATA_HOME", data)
	t.Setenv("HF_HUB_CACHE", filepath.Join(data, "hub"))
	os.MkdirAll(filepath.Join(data, "onceupon", "teachers"), 0o755)
	os.WriteFile(filepath.Join(data, "onceupon", "teachers", "Meta-Llama-3.1-8B-Instruct-Q8_0.gguf"), raw, 0o600)
	for _, c := range []struct {
		model, says string
		want        fault.Kind
	}{
		{cut, "cut short", fault.Damaged},
		{strange, "chat template is none of", fault.Usage},
		{"llama-3.1-8b-q8_0", "layers 1, not 32: it is another model than its name says", fault.Damaged},
		{"llama-3.1-8b-q4_k_m", "run `onceupon teacher pull llama-3.1-8b-q4_k_m`", fault.Capability},
		{"lama-3.1-8b", "neither a name nor a file", fault.Capability},
		{"lama.gguf", "no such file", fault.Capability},
		{"gemma", "neither a name nor a file", fault.Capability},
	} {
		_, err := judge.Examine(judge.Options{Model: c.model, Rubric: "chat", Prompt: "Once", MaxTokens: 512})
		if fault.Code(err) != int(c.want) || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, exit code %d; want %d, one line with %q", c.model, err, fault.Code(err), c.want, c.says)
		}
	}
	if _, err := judge.Examine(judge.Options{Model: whole, Rubric: "chat", Prompt: "Once", MaxTokens: 512}); err != nil {
		t.Errorf("a whole one: %v", err)
	}
	os.Unsetenv("XDG_DATA_HOME")
	if _, err := judge.FindLlama("", ""); err != nil {
		t.Skip(err)
	}
	open := func(path string, room int) error {
		j, err := judge.Open(context.Background(), judge.Options{Model: path, Rubric: "chat", Prompt: "Once", Reading: "expected", MaxTokens: room, Threads: 2, Pace: judge.Fixed})
		if err == nil {
			j.Close()
		}
		return err
	}
	if err := open(short, 400); fault.Code(err) != int(fault.Usage) || !strings.Contains(err.Error(), "context of 512 tokens is too short: rubric chat has") {
		t.Errorf("a context too short: %v", err)
	}
	// Bytes do not settle it, tokens do: it fits.
	if err := open(short, 100); err != nil {
		t.Errorf("a context that is just long enough: %v", err)
	}
}
