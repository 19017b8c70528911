package exchange

import (
	"bufio"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"

	"onceupon/bindings/student"
	"onceupon/ggml"
	"onceupon/trainer/checkpoint"
	"onceupon/trainer/fault"
	"onceupon/trainer/tokenizer"
)

// Imported is a student from elsewhere; close its Model.
type Imported struct {
	Model     *student.Model
	Tokenizer *tokenizer.Tokenizer
}

// Vocabulary is the tokenizer as a student's file holds it.
func (i Imported) Vocabulary() ggml.Vocabulary {
	t := i.Tokenizer
	return ggml.Vocabulary{Tokens: t.Tokens(), Merges: t.Merges(), Specials: t.Specials(), End: t.EOS()}
}

// Import reads a GPT-2 from a folder of Hugging Face's (model.safetensors,
// config.json, and tokenizer.json or vocab.json with merges.txt) or from a
// GGUF of architecture gpt2. A value head is left out: the interaction draws
// its own.
func Import(path string) (Imported, error) {
	info, err := os.Stat(path)
	if err != nil {
		return Imported{}, fault.New(fault.Capability, "import: %w", err)
	}
	if info.IsDir() {
		return importHF(path)
	}
	return importGGUF(path)
}

func newModel(c student.Config) (*student.Model, error) {
	return student.New(c, student.Options{Backend: "cpu", ISA: "auto", Threads: 1, MaxTokens: 1, MaxStories: 1})
}

func importHF(dir string) (out Imported, err error) {
	path := filepath.Join(dir, "config.json")
	text, err := os.ReadFile(path)
	if err != nil {
		return out, fault.New(fault.Damaged, "import: %w: a folder of Hugging Face's has it", err)
	}
	var c HFConfig
	if err := json.Unmarshal(text, &c); err != nil {
		return out, fault.New(fault.Damaged, "%s: %w", path, err)
	}
	switch {
	case c.ModelType != "gpt2":
		return out, fault.New(fault.Usage, "%s: model_type %q is not gpt2", path, c.ModelType)
	case c.Activation != "gelu_new" && c.Activation != "gelu_pytorch_tanh":
		return out, fault.New(fault.Usage, "%s: activation_function %q is not gelu_new", path, c.Activation)
	case c.Inner != nil && *c.Inner != 4*c.Width:
		return out, fault.New(fault.Usage, "%s: n_inner %d is not 4 n_embd", path, *c.Inner)
	case c.Tied != nil && !*c.Tied:
		return out, fault.New(fault.Usage, "%s: tie_word_embeddings is false; the student's head is tied", path)
	case c.ScaleByLayer:
		return out, fault.New(fault.Usage, "%s: scale_attn_by_inverse_layer_idx is true; GPT-2's is false", path)
	}
	f, err := ggml.OpenSafetensors(filepath.Join(dir, "model.safetensors"))
	if err != nil {
		return out, err
	}
	defer f.Close()
	if c.Epsilon == 0 {
		c.Epsilon = 1e-5
	}
	s, err := Shape(f, c.Heads, c.Epsilon)
	if err != nil {
		return out, err
	}
	if s.Layers != c.Layers || s.Width != c.Width || s.Context != c.Positions || s.Vocab != c.Vocab {
		return out, fault.New(fault.Damaged, "%s: %d layers, width %d, %d positions, %d tokens; the weights have %d, %d, %d, %d", path, c.Layers, c.Width,
			c.Positions, c.Vocab, s.Layers, s.Width, s.Context, s.Vocab)
	}
	if out.Tokenizer, err = hfTokenizer(dir); err != nil {
		return out, err
	}
	if n := out.Tokenizer.VocabSize(); n != s.Vocab {
		return out, fault.New(fault.Damaged, "%s: the tokenizer has %d tokens, the weights %d", dir, n, s.Vocab)
	}
	if out.Model, err = newModel(s); err != nil {
		return out, err
	}
	if err := LoadHF(f, out.Model); err != nil {
		out.Model.Close()
		return out, err
	}
	return out, nil
}

func hfTokenizer(dir string) (*tokenizer.Tokenizer, error) {
	path := filepath.Join(dir, "tokenizer.json")
	if _, err := os.Stat(path); err == nil {
		return tokenizer.Load(path)
	} else if !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	path = filepath.Join(dir, "vocab.json")
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fault.New(fault.Damaged, "import %s: neither tokenizer.json nor vocab.json", dir)
	}
	var vocab map[string]int
	if err := json.Unmarshal(text, &vocab); err != nil {
		return nil, fault.New(fault.Damaged, "%s: %w", path, err)
	}
	tokens := make([]string, len(vocab))
	for token, id := range vocab {
		if id < 0 || id >= len(tokens) {
			return nil, fault.New(fault.Damaged, "%s: token %q has the id %d; ids must be dense", path, token, id)
		}
		tokens[id] = token
	}
	path = filepath.Join(dir, "merges.txt")
	merges, err := readMerges(path)
	if err != nil {
		return nil, err
	}
	var specials []string
	for _, name := range append(tokenizer.PaperSpecials(), "<|endoftext|>") {
		if _, ok := vocab[name]; ok {
			specials = append(specials, name)
		}
	}
	t, err := tokenizer.FromParts(tokens, merges, specials)
	if err != nil {
		return nil, fault.New(fault.Damaged, "%s: %w", path, err)
	}
	return t, nil
}

// readMerges reads one merge a line; the first line may name a version.
func readMerges(path string) ([]string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fault.New(fault.Damaged, "import: %w: it belongs to vocab.json", err)
	}
	defer f.Close()
	var merges []string
	lines := bufio.NewScanner(f)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimRight(lines.Text(), "\r")
		if line == "" || n == 1 && strings.HasPrefix(line, "#version") {
			continue
		}
		merges = append(merges, line)
	}
	if err := lines.Err(); err != nil {
		return nil, fault.New(fault.Damaged, "%s: %w", path, err)
	}
	return merges, nil
}

func importGGUF(path string) (out Imported, err error) {
	f, err := ggml.Open(path)
	if err != nil {
		return out, err
	}
	defer f.Close()
	h, v, err := ggml.ReadModel(f)
	if err != nil {
		return out, err
	}
	if out.Tokenizer, err = tokenizer.FromParts(v.Tokens, v.Merges, v.Specials); err != nil {
		return out, fault.New(fault.Damaged, "%s: %w", path, err)
	}
	out.Model, err = newModel(student.Config{Layers: h.Layers, Heads: h.Heads, Width: h.Width, Context: h.Context, Vocab: h.Vocab, LayerNormEpsilon: h.LayerNormEpsilon})
	if err != nil {
		return out, err
	}
	if err := checkpoint.LoadWeights(path, out.Model); err != nil {
		out.Model.Close()
		return out, err
	}
	return out, nil
}
