package bench

import (
	"os"
	"strings"
	"testing"

	"onceupon/trainer/fault"
)

func TestSyntheticRefuses(t *testing.T) {
	say := func(string, ...any) {}
	for _, c := range []struct {
		name, kind string
		layers     int
		vocabulary string
		says       string
	}{
		{"llama-4", "q8_0", 1, "smollm2-135m", "the shapes are llama-3.1-8b"}, {"llama-3.1-8b", "q3", 1, "smollm2-135m", "the types are f16, q4_k, q8_0"},
		{"llama-3.1-8b", "q8_0", 33, "smollm2-135m", "has 32"}, {"llama-3.1-8b", "q8_0", -1, "smollm2-135m", "has 32"}, {"llama-3.1-8b", "q8_0", 1, "none.gguf", "none.gguf"},
	} {
		dir := t.TempDir()
		_, err := Synthetic(t.Context(), dir, c.name, c.kind, c.layers, c.vocabulary, say)
		if code := fault.Code(err); code != int(fault.Usage) && code != int(fault.Capability) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%+v: %v", c, err)
		}
		if left, _ := os.ReadDir(dir); len(left) > 0 {
			t.Errorf("%+v: left %v", c, left)
		}
	}
}

// The rate of pretraining leaves the first update out where there is another.
func TestClockKnowsPretraining(t *testing.T) {
	var b batchClock
	for i, line := range []string{`{"event":"pretrain","step":1,"tokens":100,"tok_per_s":10}`, `{"event":"pretrain","step":5,"tokens":500,"tok_per_s":25}`, `{"event":"evaluation"}`} {
		if n, err := b.Write([]byte(line)); n != len(line) || err != nil || b.err != nil {
			t.Fatal(n, err, b.err)
		}
		if got, want := b.tokensPerS(), []float64{10, 40, 40}[i]; got != want {
			t.Errorf("after line %d: %v, not %v", i, got, want)
		}
	}
}
