package llama

import (
	"math"
	"runtime"

	"onceupon/trainer/fault"
)

// Model is a language model in memory, read-only.
type Model struct {
	library *Library
	handle  uintptr
	vocab   uintptr
	card    *Device // nil: the processor
	Path    string
}

// LoadModel loads a GGUF onto a device: "" or "cpu", "cuda", "cuda:N". The
// file is checked before libllama sees it (ReadHeader). A card that does not
// hold all layers is fault.Capability.
func (l *Library) LoadModel(path, device string) (*Model, error) {
	h, err := ReadHeader(path)
	if err != nil {
		return nil, err
	}
	if device == "" {
		device = "cpu"
	}
	p := l.modelDefaults()
	var pin runtime.Pinner
	defer pin.Unpin()
	card, err := l.place(&p, device, &pin)
	if err != nil {
		return nil, err
	}
	m := &Model{library: l, Path: path, card: card}
	if m.handle = l.modelLoad(path, p); m.handle == 0 {
		if card != nil && card.Free < h.OnCard {
			return nil, fault.New(fault.Capability, "%s: %.2f GiB of weights do not fit into the %.2f GiB that are free on %s: take a smaller quantisation", path, gib(h.OnCard), gib(card.Free), card.Name)
		}
		return nil, fault.New(fault.Damaged, "%s: libllama %s cannot load this model of architecture %q", path, l.Version(), h.Architecture)
	}
	m.vocab = l.modelVocab(m.handle)
	if card != nil {
		if free, _ := m.CardMemory(); !offloaded(card.Free, free, h.OnCard) {
			m.Close()
			return nil, fault.New(fault.Capability, "%s: %.2f GiB of weights were to be on %s, whose free memory went from %.2f to %.2f GiB: libllama fell back to the processor", path, gib(h.OnCard), card.Name, gib(card.Free), gib(free))
		}
	}
	return m, nil
}

// LoadVocabulary loads a GGUF's tokens and nothing else.
func (l *Library) LoadVocabulary(path string) (*Model, error) {
	p := l.modelDefaults()
	p.vocabOnly = true
	var pin runtime.Pinner
	defer pin.Unpin()
	if _, err := l.place(&p, "cpu", &pin); err != nil {
		return nil, err
	}
	m := &Model{library: l, Path: path}
	if m.handle = l.modelLoad(path, p); m.handle == 0 {
		return nil, fault.New(fault.Damaged, "%s: libllama %s cannot load this vocabulary", path, l.Version())
	}
	m.vocab = l.modelVocab(m.handle)
	return m, nil
}

func gib(n uint64) float64 { return float64(n) / (1 << 30) }

// Close frees the model; its contexts must be closed before.
func (m *Model) Close() {
	m.library.modelFree(m.handle)
	m.handle = 0
}

// CardMemory is that of the card which holds the model, 0 of 0 when none does.
func (m *Model) CardMemory() (free, total uint64) {
	if m.card != nil {
		m.library.deviceMemory(m.card.handle, &free, &total)
	}
	return free, total
}

// Device names what the model computes on.
func (m *Model) Device() string {
	if m.card != nil {
		return m.card.Description
	}
	return "cpu"
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
