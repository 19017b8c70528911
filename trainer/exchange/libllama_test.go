package exchange

import (
	"bytes"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ebitengine/purego"

	"onceupon/bindings/llama"
	"onceupon/bindings/student"
	"onceupon/ggml"
	"onceupon/trainer/judge"
	"onceupon/trainer/storybook"
)

func library(t *testing.T) *llama.Library {
	t.Helper()
	if _, err := judge.FindLlama("", "cpu"); err != nil {
		t.Skip(err)
	}
	l, err := judge.OpenLlama("", "cpu", nil)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// theirLogits are libllama's logits after every token, with the cache in F32
// and without the fused attention.
func theirLogits(t *testing.T, m *llama.Model, ids []int32, watch *llama.Watch) []float32 {
	t.Helper()
	c, err := m.NewContext(llama.ContextOptions{Tokens: 128, Batch: 128, Sequences: 1, Outputs: 128, Threads: 1, Exact: true, Watch: watch})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var batch []llama.Token
	for p, id := range ids {
		batch = append(batch, llama.Token{ID: id, Position: int32(p), Logits: true})
	}
	if err := c.Decode(batch); err != nil {
		t.Fatal(err)
	}
	var all []float32
	for p := range ids {
		z, err := c.Logits(p)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, z...)
	}
	return all
}

// gelu is GPT-2's GELU as native/ref/gelu.c has it.
func gelu(x float64) float64 {
	return x / 2 * (1 + math.Tanh(math.Sqrt(2/math.Pi)*(x+0.044715*x*x*x)))
}

// half rounds to the nearest half.
func half(t *testing.T, x float32) float32 {
	t.Helper()
	raw, err := ggml.EncodeF16([]float32{x})
	if err != nil {
		t.Fatal(err)
	}
	y, err := ggml.Decode(ggml.F16, raw)
	if err != nil {
		t.Fatal(err)
	}
	return y[0]
}

// geluWatch looks at libllama's GELU (the nodes ffn_gelu-N, whose input is
// ffn_up_b-N), counts the outputs that are not those of its table, and puts
// the true ones in their place.
func geluWatch(t *testing.T, seen, odd *int) *llama.Watch {
	inputs := map[string][]float32{}
	return &llama.Watch{
		Wants: func(name string) bool {
			return strings.HasPrefix(name, "ffn_up_b-") || strings.HasPrefix(name, "ffn_gelu-")
		},
		Sees: func(name string, values []float32) bool {
			layer := name[strings.LastIndexByte(name, '-'):]
			if strings.HasPrefix(name, "ffn_up_b-") {
				inputs[layer] = slices.Clone(values)
				return false
			}
			for i, x := range inputs[layer] {
				// The table is built from a tanh of single precision, which may
				// round to the half beside.
				if rounded := half(t, x); math.Abs(float64(x)) < 10 {
					want := float64(half(t, float32(gelu(float64(rounded)))))
					if step := math.Max(math.Abs(want)/1024, 1.0/(1<<24)); math.Abs(float64(values[i])-want) > step {
						t.Errorf("%s: GELU(%v) = %v; its table of halves has %v", name, x, values[i], want)
					} else if float64(values[i]) != want {
						*odd++
					}
				}
				values[i] = float32(gelu(float64(x)))
				*seen++
			}
			return true
		},
	}
}

func largest(a, b []float32) float64 {
	worst := 0.0
	for i := range a {
		worst = math.Max(worst, math.Abs(float64(a[i]-b[i])))
	}
	return worst
}

// libllama, the teacher's own library, finds our ids, our words and our logits
// in our file. Its GELU on the processor looks up a table of halves (ggml-cpu,
// GGML_GELU_FP16); with the true one in its place it agrees within 1e-4.
func TestLibllamaAgrees(t *testing.T) {
	l := library(t)
	m, tokens, path := save(t, 64)
	theirs, err := l.LoadModel(path, "")
	if err != nil {
		t.Fatal(err)
	}
	defer theirs.Close()
	asIs, exact, seen, odd := 0.0, 0.0, 0, 0
	for i := range uint64(20) {
		text := strings.Join(strings.Fields(storybook.New(8).Story(i).Text)[:8], " ")
		prompt := tokens.Encode(text)
		their, err := theirs.Tokenize(text, false)
		if err != nil || !slices.Equal(prompt, their) {
			t.Fatalf("%q: ids %v, libllama %v, %v", text, prompt, their, err)
		}
		replies, err := m.Generate(student.Pack([][]int32{prompt}), []uint64{i}, student.Generation{MaxNewTokens: 50, EndToken: -1, TopP: 1})
		if err != nil {
			t.Fatal(err)
		}
		all := append(slices.Clone(prompt), replies[0].Tokens...)
		if err := m.Forward(student.Pack([][]int32{all}), nil, student.Scores{}); err != nil {
			t.Fatal(err)
		}
		ours, err := m.Logits(0, len(all))
		if err != nil {
			t.Fatal(err)
		}
		z := theirLogits(t, theirs, all, nil)
		asIs = math.Max(asIs, largest(ours, z))
		exact = math.Max(exact, largest(ours, theirLogits(t, theirs, all, geluWatch(t, &seen, &odd))))
		// Their greedy choice after each token of ours is our next one, so that
		// their own continuation is the same.
		v := m.Config().Vocab
		for p := len(prompt) - 1; p+1 < len(all); p++ {
			row := z[p*v : (p+1)*v]
			if best := slices.Index(row, slices.Max(row)); int32(best) != all[p+1] {
				t.Errorf("story %d, token %d: we say %d, libllama %d", i, p+1, all[p+1], best)
			}
		}
	}
	t.Logf("largest difference of a logit: %.1e with libllama's GELU, %.1e with the true one in its place", asIs, exact)
	t.Logf("libllama's GELU: %d values seen, all of its table of halves; %d of them the half beside", seen, odd)
	if !(exact <= 1e-4) || !(asIs <= 5e-3) || seen == 0 {
		t.Errorf("logits differ by %.2e (true GELU) and %.2e; %d values of GELU seen", exact, asIs, seen)
	}
	if asIs <= 1e-4 {
		t.Error("libllama's own GELU agrees within 1e-4 as well: docs/formats.md says otherwise")
	}
}

func quantizer(l *llama.Library) Quantizer {
	return func(t ggml.Type, rows, cols int, x []float32) ([]byte, error) {
		return l.Quantize(uint32(t), rows, cols, t.Bytes(rows*cols), x)
	}
}

// Every type opens in libllama, and what we read of it is near what was
// written: within half a step of its blocks.
func TestQuantisedFiles(t *testing.T) {
	l := library(t)
	m, _, path := save(t, 256)
	f := open(t, path)
	before, err := f.ReadF32("token_embd.weight")
	if err != nil {
		t.Fatal(err)
	}
	for name, most := range map[string]float64{"f32": 0, "f16": 3e-4, "bf16": 2e-3, "q8_0": 3e-3, "q4_0": .08, "q4_k": .08} {
		out := filepath.Join(t.TempDir(), name+".gguf")
		var file bytes.Buffer
		fallen, err := WriteGGUF(f, &file, Types[name], quantizer(l))
		if err != nil || len(fallen) > 0 {
			t.Fatalf("%s: %v, %v", name, fallen, err)
		}
		if err := os.WriteFile(out, file.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
		theirs, err := l.LoadModel(out, "")
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		theirs.Close()
		after, err := open(t, out).ReadF32("token_embd.weight")
		if err != nil {
			t.Fatal(err)
		}
		if worst := largest(before, after); worst > most {
			t.Errorf("%s: a weight moved by %.3g, more than %.3g", name, worst, most)
		}
		in, err := Import(out)
		if err != nil {
			t.Fatal(err)
		}
		if in.Model.Config() != m.Config() {
			t.Errorf("%s: imported as %+v", name, in.Model.Config())
		}
		in.Model.Close()
	}
}

// Our reading of blocks is libggml's (dequantize_row_*).
func TestBlocksAreLibggmls(t *testing.T) {
	l := library(t)
	x := make([]float32, 4*256)
	for i := range x {
		x[i] = float32(math.Sin(float64(i*i))) * float32(1+i%7)
	}
	for name, kind := range map[string]ggml.Type{"q8_0": ggml.Q8_0, "q4_0": ggml.Q4_0, "q4_K": ggml.Q4_K} {
		raw, err := quantizer(l)(kind, 4, 256, x)
		if err != nil {
			t.Fatal(err)
		}
		ours, err := ggml.Decode(kind, raw)
		if err != nil {
			t.Fatal(err)
		}
		var dequantize func(from *byte, to *float32, n int64)
		purego.RegisterLibFunc(&dequantize, purego.RTLD_DEFAULT, "dequantize_row_"+name)
		theirs := make([]float32, len(x))
		dequantize(&raw[0], &theirs[0], int64(len(x)))
		if worst := largest(ours, theirs); worst > 1e-6 {
			t.Errorf("%s: read differently by %.3g", kind, worst)
		}
	}
}

// A matrix that a type's blocks do not fit gets another type, and is named.
func TestFallbacks(t *testing.T) {
	l := library(t)
	_, _, path := save(t, 32)
	fallen, err := WriteGGUF(open(t, path), new(bytes.Buffer), ggml.Q4_K, quantizer(l))
	if err != nil || len(fallen) != 9 || fallen[0] != (Fallback{"token_embd.weight", 32, "Q8_0"}) {
		t.Errorf("%v, %v", fallen, err)
	}
	if fitting(ggml.Q4_K, 48) != ggml.F16 || fitting(ggml.Q4_K, 512) != ggml.Q4_K {
		t.Error("types that do not fit")
	}
}

// What we know of ggml's types is what libggml says.
func TestTypesAreLibggmls(t *testing.T) {
	library(t)
	var (
		name     func(kind uint32) string
		elements func(kind uint32) int64
		size     func(kind uint32) uint64
	)
	purego.RegisterLibFunc(&name, purego.RTLD_DEFAULT, "ggml_type_name")
	purego.RegisterLibFunc(&elements, purego.RTLD_DEFAULT, "ggml_blck_size")
	purego.RegisterLibFunc(&size, purego.RTLD_DEFAULT, "ggml_type_size")
	known := 0
	for kind := range uint32(43) { // GGML_TYPE_COUNT of the pinned libggml
		theirs := name(kind)
		ours := ggml.Type(kind)
		if strings.Contains(theirs, "DEPRECATED") || strings.Contains(theirs, "removed") || size(kind) == 0 {
			if ours.Known() {
				t.Errorf("type %d, %s, is none of libggml's any more: %q", kind, ours, theirs)
			}
			continue
		}
		known++
		if !ours.Known() || !strings.EqualFold(ours.String(), theirs) || int64(ours.Block()) != elements(kind) || ours.Bytes(ours.Block()) != size(kind) {
			t.Errorf("type %d: we have %s; libggml %s, %d elements in %d bytes", kind, ours, theirs, elements(kind), size(kind))
		}
	}
	if known < 30 {
		t.Errorf("libggml named %d types", known)
	}
}
