package synthetic

import (
	"context"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"onceupon/bindings/llama"
	"onceupon/ggml"
	"onceupon/trainer/fault"
	"onceupon/trainer/judge"
)

// The parameters of Llama 3.1 8B are 8,030,261,248 (with rope_freqs 64 more),
// and the published files of Q4_K_M, Q8_0 and F16 are of 4.92, 8.54 and 16.1 GB
// with their vocabulary of 8 MB.
func TestShapeOfLlama31(t *testing.T) {
	s := Shapes["llama-3.1-8b"]
	n := 0
	for _, x := range s.Tensors(ggml.F16) {
		k := 1
		for _, d := range x.Dims {
			k *= int(d)
		}
		n += k
	}
	if n != 8_030_261_248+64 {
		t.Errorf("%d parameters", n)
	}
	for most, gb := range map[ggml.Type]float64{ggml.F16: 16.06, ggml.Q8_0: 8.532, ggml.Q4_K: 4.912} {
		if got := float64(s.Bytes(most)) / 1e9; math.Abs(got-gb) > 0.005 {
			t.Errorf("%s: %.3f GB, not %.3f", most, got, gb)
		}
	}
	if s.Layers != judge.Llama31.Layers || s.Width != judge.Llama31.Width || s.Vocabulary != judge.Llama31.Vocabulary || s.FeedForward != judge.Llama31.FeedForward ||
		s.Heads != judge.Llama31.Heads || s.KVHeads != judge.Llama31.KVHeads || s.Context != judge.Llama31.Context {
		t.Error("the shape differs from that of judge.Llama31")
	}
}

func smol(t testing.TB) string {
	t.Helper()
	path, _, err := judge.FindModel("smollm2-135m")
	if err != nil {
		t.Skip(err)
	}
	return path
}

// small has the proportions of Llama 3.1.
var small = Shape{"small", 2, 256, 4, 2, 768, 49_200, 2048, 500000, 1e-5}

// libllama loads each type, the header is that of the shape, and the logits
// after a text are numbers that differ.
func TestLoads(t *testing.T) {
	vocabulary := smol(t)
	if _, err := judge.FindLlama("", "cpu"); err != nil {
		t.Skip(err)
	}
	l, err := judge.OpenLlama("", "cpu", nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, most := range Types {
		path := filepath.Join(t.TempDir(), name+".gguf")
		if err := Write(t.Context(), path, small, most, vocabulary, 1); err != nil {
			t.Fatal(err)
		}
		h, err := llama.ReadHeader(path)
		if err != nil || h.Layers != 2 || h.KVHeads != 2 || h.Vocabulary != 49_200 || (h.Type != most && most != ggml.Q4_K) || h.Bytes != small.Bytes(most) || h.CacheBytes() != 2*2*2*(64+64) {
			t.Errorf("%s: %+v, %v", name, h, err)
		}
		m, err := l.LoadModel(path, "")
		if err != nil {
			t.Fatal(err)
		}
		tokens, err := m.Tokenize("Once upon a time<|eot_id|>", true)
		if err != nil || len(tokens) < 4 || m.Piece(tokens[len(tokens)-1]) != "" || !m.IsEnd(tokens[len(tokens)-1]) {
			t.Errorf("%s: tokens %v, %v", name, tokens, err)
		}
		c, err := m.NewContext(llama.ContextOptions{Tokens: 64, Batch: 64, Sequences: 1, Outputs: 1, Threads: 2})
		if err != nil {
			t.Fatal(err)
		}
		var all []llama.Token
		for i, id := range tokens {
			all = append(all, llama.Token{ID: id, Position: int32(i), Logits: i == len(tokens)-1})
		}
		if err := c.Decode(all); err != nil {
			t.Fatal(err)
		}
		logits, err := c.Logits(len(all) - 1)
		if err != nil {
			t.Fatal(err)
		}
		low, high := math.Inf(1), math.Inf(-1)
		for _, x := range logits {
			if math.IsNaN(float64(x)) || math.IsInf(float64(x), 0) {
				t.Fatalf("%s: logit %v", name, x)
			}
			low, high = math.Min(low, float64(x)), math.Max(high, float64(x))
		}
		if high-low < 0.5 || high-low > 50 {
			t.Errorf("%s: logits from %v to %v", name, low, high)
		}
		c.Close()
		m.Close()
	}
}

func TestRefused(t *testing.T) {
	vocabulary := smol(t)
	gemma, _, err := judge.FindModel("gemma-270m")
	if err != nil {
		t.Skip(err)
	}
	narrow, few := small, small
	narrow.Width, few.Vocabulary = 96*4, 1000
	for _, c := range []struct {
		shape      Shape
		vocabulary string
		want       fault.Kind
		says       string
	}{
		{few, vocabulary, fault.Usage, "the shape 1000"}, {small, gemma, fault.Usage, "not byte-level BPE"}, {small, "none.gguf", fault.Capability, "no such file"},
		{narrow, vocabulary, fault.Usage, "needs a multiple of 256"}, {Shape{}, vocabulary, fault.Usage, "no such model"},
	} {
		path := filepath.Join(t.TempDir(), "x.gguf")
		err := Write(t.Context(), path, c.shape, ggml.Q4_K, c.vocabulary, 1)
		if fault.Code(err) != int(c.want) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%v; want %q", err, c.says)
		}
		if _, err := os.Stat(path); err == nil {
			t.Error("a file was left")
		}
	}
}

func TestInterrupted(t *testing.T) {
	folder := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Write(ctx, filepath.Join(folder, "x.gguf"), small, ggml.Q8_0, smol(t), 1); fault.Code(err) != int(fault.Interrupted) {
		t.Error(err)
	}
	if left, _ := os.ReadDir(folder); len(left) > 0 {
		t.Errorf("%v is left", left)
	}
}
