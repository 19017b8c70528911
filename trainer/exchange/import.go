package exchange

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"

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
		return Imported{}, fault.New(fault.Capability, "import: %w: give a folder of Hugging Face's or a GGUF file", err)
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
		return out, fault.New(fault.Damaged, "%s: %w", path, fault.Brief(err))
	}
	switch {
	case c.ModelType != "gpt2":
		return out, fault.New(fault.Usage, "%s: model_type %q is not gpt2", path, c.ModelType)
	case c.Activation != "" && c.Activation != "gelu_new" && c.Activation != "gelu_pytorch_tanh":
		return out, fault.New(fault.Usage, "%s: activation_function %q is not gelu_new", path, c.Activation)
	case c.Inner != nil && *c.Inner != 4*c.Width:
		return out, fault.New(fault.Usage, "%s: n_inner %d is not 4 n_embd", path, *c.Inner)
	case c.Tied != nil && !*c.Tied:
		return out, fault.New(fault.Usage, "%s: tie_word_embeddings is false; the student's head is tied", path)
	case c.Scaled != nil && !*c.Scaled:
		return out, fault.New(fault.Usage, "%s: scale_attn_weights is false; GPT-2's is true", path)
	case c.ScaleByLayer:
		return out, fault.New(fault.Usage, "%s: scale_attn_by_inverse_layer_idx is true; GPT-2's is false", path)
	}
	f, err := hfWeights(dir)
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
	if out.Tokenizer.EOS() < 0 {
		return out, noEnd(dir)
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

// hfWeights opens model.safetensors, or the parts of a model saved in several.
func hfWeights(dir string) (*ggml.Safetensors, error) {
	path := filepath.Join(dir, "model.safetensors")
	index := path + ".index.json"
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		if _, err := os.Stat(index); err == nil {
			return ggml.OpenSafetensorsIndex(index)
		}
	}
	return ggml.OpenSafetensors(path)
}

func hfTokenizer(dir string) (*tokenizer.Tokenizer, error) {
	path := filepath.Join(dir, "tokenizer.json")
	if _, err := os.Stat(path); err == nil {
		return tokenizer.Load(path)
	} else if !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	vocab := filepath.Join(dir, "vocab.json")
	if _, err := os.Stat(vocab); errors.Is(err, os.ErrNotExist) {
		return nil, fault.New(fault.Damaged, "import %s: neither tokenizer.json nor vocab.json", dir)
	}
	return tokenizer.LoadPair(vocab, filepath.Join(dir, "merges.txt"))
}

// noEnd is the error of a vocabulary whose stories could not end.
func noEnd(path string) error {
	return fault.New(fault.Usage, "import %s: the vocabulary has no token that ends a document, </s> or <|endoftext|>", path)
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
	if out.Tokenizer.EOS() < 0 {
		return out, noEnd(path)
	}
	if err := tied(f); err != nil {
		return out, err
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

// tied checks that the head, where a file has one of its own, is the
// embedding: the student has no other.
func tied(f *ggml.File) error {
	if _, err := f.Tensor(head); err != nil {
		return nil
	}
	a, err := f.ReadF32(head)
	if err != nil {
		return err
	}
	b, err := f.ReadF32("token_embd.weight")
	if err != nil {
		return err
	}
	if !slices.Equal(a, b) {
		return fault.New(fault.Usage, "%s: %s is not token_embd.weight; the student's head is tied", f.Path, head)
	}
	return nil
}
