package exchange

import (
	"bytes"
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"onceupon/bindings/student"
	"onceupon/ggml"
	"onceupon/trainer/checkpoint"
	"onceupon/trainer/fault"
	"onceupon/trainer/storybook"
	"onceupon/trainer/tokenizer"
)

// save writes a student with weights wide enough for its choices to be clear,
// and a tokenizer of the storybook's.
func save(t *testing.T, width int) (m *student.Model, tokens *tokenizer.Tokenizer, path string) {
	t.Helper()
	tokens, err := tokenizer.Train(context.Background(), storybook.New(3).Documents(20_000), tokenizer.TrainOptions{VocabSize: 600, MinFrequency: 2})
	if err != nil {
		t.Fatal(err)
	}
	m, err = student.New(student.Config{Layers: 2, Heads: 4, Width: width, Context: 128, Vocab: tokens.VocabSize(), LayerNormEpsilon: 1e-5},
		student.Options{Backend: "cpu", ISA: "auto", Threads: 1, MaxTokens: 256, MaxStories: 4, DecodeStories: 4})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	r := rand.New(rand.NewPCG(5, 0))
	for i, p := range m.Parameters() {
		x := make([]float32, p.Count())
		for k := range x {
			x[k] = float32(r.NormFloat64()) * .15
			if strings.HasSuffix(p.Name, "norm.weight") {
				x[k] += 1
			}
		}
		if err := m.Write(student.Weights, i, x); err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	if _, err := checkpoint.Save(dir, "best", checkpoint.Contents{Model: m, WeightsOnly: true,
		Vocabulary: Imported{Tokenizer: tokens}.Vocabulary()}); err != nil {
		t.Fatal(err)
	}
	return m, tokens, filepath.Join(dir, "best", "student.gguf")
}

func open(t *testing.T, path string) *ggml.File {
	t.Helper()
	f, err := ggml.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func hash(t *testing.T, m *student.Model) string {
	t.Helper()
	h, err := checkpoint.WeightsHash(m)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// Out and in again keeps every bit, through Hugging Face's folder (with
// tokenizer.json, and with vocab.json and merges.txt) and through GGUF.
func TestOutAndIn(t *testing.T) {
	m, tokens, path := save(t, 32)
	dir := filepath.Join(t.TempDir(), "hf")
	if err := WriteHF(open(t, path), dir, "card"); err != nil {
		t.Fatal(err)
	}
	same := func(from string) {
		t.Helper()
		in, err := Import(from)
		if err != nil {
			t.Fatal(err)
		}
		defer in.Model.Close()
		if hash(t, in.Model) != hash(t, m) || in.Model.Config() != m.Config() {
			t.Errorf("%s: another student came back: %+v", from, in.Model.Config())
		}
		text := "Once upon a time, a hen sang — \"Ω!\""
		if !slices.Equal(in.Tokenizer.Encode(text), tokens.Encode(text)) || in.Tokenizer.EOS() != tokens.EOS() {
			t.Errorf("%s: another tokenizer came back", from)
		}
	}
	same(dir)
	same(path)

	var vocab, merges bytes.Buffer
	vocab.WriteString("{")
	for id, name := range tokens.Tokens() {
		if id > 0 {
			vocab.WriteString(",")
		}
		vocab.WriteString(strconv.Quote(name) + ":" + strconv.Itoa(id))
	}
	vocab.WriteString("}")
	merges.WriteString("#version: 0.2\n" + strings.Join(tokens.Merges(), "\n") + "\n")
	for name, text := range map[string][]byte{"vocab.json": vocab.Bytes(), "merges.txt": merges.Bytes()} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Remove(filepath.Join(dir, "tokenizer.json")); err != nil {
		t.Fatal(err)
	}
	same(dir)
}

func TestForeignFolders(t *testing.T) {
	_, _, path := save(t, 32)
	for name, c := range map[string]struct {
		damage func(dir string) error
		says   string
		code   fault.Kind
	}{
		"no config":      {func(d string) error { return os.Remove(filepath.Join(d, "config.json")) }, "config.json", fault.Damaged},
		"another model":  {replaced("config.json", `"gpt2"`, `"llama"`), `model_type "llama" is not gpt2`, fault.Usage},
		"another gelu":   {replaced("config.json", "gelu_new", "relu"), `activation_function "relu"`, fault.Usage},
		"other layers":   {replaced("config.json", `"n_layer": 2`, `"n_layer": 3`), "3 layers", fault.Damaged},
		"unscaled":       {replaced("config.json", `"n_layer": 2`, `"n_layer": 2, "scale_attn_weights": false`), "scale_attn_weights", fault.Usage},
		"untied":         {replaced("config.json", `"tie_word_embeddings": true`, `"tie_word_embeddings": false`), "tie_word_embeddings", fault.Usage},
		"other widths":   {replaced("model.safetensors", `[32,96]`, `[96,32]`), "attn.c_attn.weight has shape [96 32]; a width of 32 needs [32 96]", fault.Damaged},
		"heads":          {replaced("config.json", `"n_head": 4`, `"n_head": 5`), "GPT-2 of 5 heads", fault.Damaged},
		"no tokenizer":   {func(d string) error { return os.Remove(filepath.Join(d, "tokenizer.json")) }, "neither tokenizer.json nor vocab.json", fault.Damaged},
		"no weights":     {func(d string) error { return os.Remove(filepath.Join(d, "model.safetensors")) }, "model.safetensors", fault.Capability},
		"lying weights":  {replaced("model.safetensors", `[0,`, `[4,`), "model.safetensors", fault.Damaged},
		"broken numbers": {func(d string) error { return os.Truncate(filepath.Join(d, "model.safetensors"), 5000) }, "model.safetensors", fault.Damaged},
	} {
		dir := filepath.Join(t.TempDir(), "hf")
		if err := WriteHF(open(t, path), dir, ""); err != nil {
			t.Fatal(err)
		}
		if err := c.damage(dir); err != nil {
			t.Fatal(err)
		}
		_, err := Import(dir)
		if fault.Code(err) != int(c.code) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v (code %d)", name, err, fault.Code(err))
		}
	}
	if _, err := Import("nowhere"); fault.Code(err) != int(fault.Capability) {
		t.Errorf("a missing folder gave %v", err)
	}
}

func replaced(file, old, new string) func(dir string) error {
	return func(dir string) error {
		path := filepath.Join(dir, file)
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(path, bytes.Replace(text, []byte(old), []byte(new), 1), 0o644)
	}
}
