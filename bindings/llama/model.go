package llama

import (
	"math"

	"onceupon/ggml"
	"onceupon/trainer/fault"
)

// Model is a language model in memory, read-only.
type Model struct {
	library *Library
	handle  uintptr
	vocab   uintptr
	Path    string
}

// LoadModel loads a GGUF. The file is checked before libllama sees it: missing
// is fault.Capability, damaged or not a language model fault.Damaged.
func (l *Library) LoadModel(path string) (*Model, error) {
	f, err := ggml.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	architecture, err := f.String("general.architecture")
	if err != nil {
		return nil, err
	}
	// Without a vocabulary and blocks it cannot read a story: an image encoder,
	// an adapter, a vocabulary alone.
	if !f.Has("tokenizer.ggml.tokens") || !f.Has(architecture+".block_count") || len(f.Tensors) == 0 {
		return nil, fault.New(fault.Damaged, "%s: a GGUF of architecture %q without vocabulary or blocks is not a language model: give an instruction-tuned or base LLM", path, architecture)
	}
	for _, encoder := range []string{"bert", "modern-bert", "nomic-bert", "jina-bert-v2", "t5encoder", "clip", "whisper"} {
		if architecture == encoder {
			return nil, fault.New(fault.Damaged, "%s: architecture %q is an encoder, it cannot answer: give a decoder language model", path, architecture)
		}
	}
	m := &Model{library: l, Path: path}
	if m.handle = l.modelLoad(path, l.modelDefaults()); m.handle == 0 {
		return nil, fault.New(fault.Damaged, "%s: libllama %s cannot load this model of architecture %q", path, l.Version(), architecture)
	}
	m.vocab = l.modelVocab(m.handle)
	return m, nil
}

// Close frees the model; its contexts must be closed before.
func (m *Model) Close() {
	m.library.modelFree(m.handle)
	m.handle = 0
}

// Description is libllama's one-line summary: family, size, quantization.
func (m *Model) Description() string {
	buffer := make([]byte, 128)
	n := m.library.modelDescription(m.handle, &buffer[0], uint64(len(buffer)))
	return string(buffer[:max(0, min(int(n), len(buffer)-1))])
}

// Bytes is the size of the weights.
func (m *Model) Bytes() uint64 { return m.library.modelSize(m.handle) }

// Vocabulary is the number of tokens.
func (m *Model) Vocabulary() int { return int(m.library.vocabSize(m.vocab)) }

// BOS returns the token that begins a text, if the model wants one.
func (m *Model) BOS() (token int32, wanted bool) {
	return m.library.vocabBOS(m.vocab), m.library.vocabAddBOS(m.vocab)
}

// IsEnd says whether a token ends an answer.
func (m *Model) IsEnd(token int32) bool { return m.library.vocabIsEnd(m.vocab, token) }

// ChatTemplate is the GGUF's own template; "" when it has none.
func (m *Model) ChatTemplate() string { return m.library.chatTemplate(m.handle, 0) }

// Tokenize splits text; special makes names of special tokens in it count as
// such, which text of others must not.
func (m *Model) Tokenize(text string, special bool) ([]int32, error) {
	if len(text) > math.MaxInt32-16 {
		return nil, fault.New(fault.Usage, "text of %d bytes is too long to tokenize", len(text))
	}
	tokens := make([]int32, len(text)+16)
	n := m.library.tokenize(m.vocab, text, int32(len(text)), &tokens[0], int32(len(tokens)), false, special)
	if n < 0 {
		return nil, fault.New(fault.Failed, "libllama cannot tokenize %d bytes of text (%d)", len(text), n)
	}
	return tokens[:n], nil
}

// Piece is the text of a token.
func (m *Model) Piece(token int32) string {
	buffer := make([]byte, 128)
	n := m.library.piece(m.vocab, token, &buffer[0], int32(len(buffer)), 0, false)
	if n < 0 {
		buffer = make([]byte, -n)
		n = m.library.piece(m.vocab, token, &buffer[0], int32(len(buffer)), 0, false)
	}
	return string(buffer[:max(0, n)])
}
