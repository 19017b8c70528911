package llama

import (
	"math"
	"reflect"
	"slices"
	"strings"

	"onceupon/ggml"
	"onceupon/trainer/fault"
)

// Header is what a GGUF says of its model; nothing of the model is loaded.
type Header struct {
	Path, Architecture, Name, Licence string
	ChatTemplate                      string // "" when it has none
	Layers, Width, Heads, KVHeads     int
	KeyWidth, ValueWidth              int // of one head
	FeedForward, Vocabulary           int
	Context                           int // tokens that it was trained for; 0 = not said
	Parameters, Bytes                 uint64
	OnCard                            uint64    // bytes that a card holds: all but the token embedding, unless it is the head too
	Type                              ggml.Type // that most bytes are of
}

// Architectures of llama.cpp v0.5.0 (llama-arch.cpp) that cannot judge: they
// read in both directions and do not answer; they denoise; or they keep a
// state in place of a cache, of which a shared prefix cannot be kept while the
// story after it is forgotten.
var cannotJudge = map[string][]string{
	"is an encoder, it cannot answer": {"bert", "modern-bert", "nomic-bert", "nomic-bert-moe", "neo-bert", "jina-bert-v2", "jina-bert-v3", "eurobert",
		"gemma-embedding", "llama-embed", "t5", "t5encoder", "clip", "whisper", "wavtokenizer-dec"},
	"answers by denoising, it has no next token to read": {"dream", "llada", "llada-moe", "rnd1"},
	"keeps a recurrent state, it cannot share the rubric between stories": {"mamba", "mamba2", "rwkv6", "rwkv6qwen2", "rwkv7", "arwkv7", "jamba",
		"falcon-h1", "plamo2", "granitehybrid", "lfm2", "lfm2moe", "nemotron_h", "nemotron_h_moe", "qwen3next", "kimi-linear", "bailingmoe3", "kimi-k3",
		"glm5-next", "qwen35", "qwen35moe", "qwen4exp", "deepseek4", "minimax-01"},
}

// ReadHeader reads and checks the header of a teacher's file: missing is
// fault.Capability; damaged, cut short, not a language model that can judge or
// of a type that the library lacks is fault.Damaged.
func ReadHeader(path string) (Header, error) {
	h := Header{Path: path}
	f, err := ggml.Open(path)
	if err != nil {
		return h, err
	}
	defer f.Close()
	if h.Architecture, err = f.String("general.architecture"); err != nil {
		return h, err
	}
	// Without a vocabulary and blocks it cannot read a story: an adapter, a
	// vocabulary alone, a student's moments.
	if !f.Has("tokenizer.ggml.tokens") || !f.Has(h.Architecture+".block_count") || len(f.Tensors) == 0 {
		return h, fault.New(fault.Damaged, "%s: a GGUF of architecture %q without vocabulary or blocks is not a language model: give an instruction-tuned or base LLM", path, h.Architecture)
	}
	for why, names := range cannotJudge {
		if slices.Contains(names, h.Architecture) {
			return h, fault.New(fault.Damaged, "%s: architecture %q %s: give a decoder language model", path, h.Architecture, why)
		}
	}
	if parts := number(f, "split.count"); parts > 1 {
		return h, fault.New(fault.Damaged, "%s: is one of %d parts of a model: join them with llama-gguf-split --merge", path, parts)
	}
	bytes, embedding, untied := map[ggml.Type]uint64{}, uint64(0), false
	for _, t := range f.Tensors {
		if !t.Type.Known() {
			return h, fault.New(fault.Damaged, "%s: tensor %s is of %s, which llama.cpp v0.5.0 lacks: take a file of Q4_K_M, Q8_0 or F16", path, t.Name, t.Type)
		}
		bytes[t.Type] += t.Size
		h.Bytes += t.Size
		h.Parameters += t.Elements()
		switch t.Name {
		case "token_embd.weight":
			embedding = t.Size
		case "output.weight":
			untied = true
		}
	}
	h.OnCard = h.Bytes
	if untied {
		h.OnCard -= embedding
	}
	for t, n := range bytes {
		if n > bytes[h.Type] || n == bytes[h.Type] && t < h.Type {
			h.Type = t
		}
	}
	tokens, err := f.Strings("tokenizer.ggml.tokens")
	if err != nil {
		return h, err
	}
	h.Vocabulary = len(tokens)
	h.Name, _ = f.String("general.name")
	h.Licence, _ = f.String("general.license")
	h.ChatTemplate, _ = f.String("tokenizer.chat_template")
	a := h.Architecture + "."
	h.Layers, h.Width, h.Context = number(f, a+"block_count"), number(f, a+"embedding_length"), number(f, a+"context_length")
	h.Heads, h.FeedForward = number(f, a+"attention.head_count"), number(f, a+"feed_forward_length")
	h.KVHeads = number(f, a+"attention.head_count_kv")
	if h.KVHeads == 0 {
		h.KVHeads = h.Heads
	}
	h.KeyWidth, h.ValueWidth = number(f, a+"attention.key_length"), number(f, a+"attention.value_length")
	if h.Heads > 0 && h.KeyWidth == 0 {
		h.KeyWidth = h.Width / h.Heads
	}
	if h.ValueWidth == 0 {
		h.ValueWidth = h.KeyWidth
	}
	return h, nil
}

// number is an integer of the metadata, the greatest of an array, 0 when it is
// not there.
func number(f *ggml.File, key string) int {
	if n, err := f.Int(key); err == nil {
		return max(0, n)
	}
	most := 0
	if v := reflect.ValueOf(f.Metadata()[key]); v.Kind() == reflect.Slice {
		for i := range v.Len() {
			switch x := v.Index(i); {
			case x.CanUint():
				most = max(most, int(min(x.Uint(), math.MaxInt32)))
			case x.CanInt():
				most = max(most, int(min(x.Int(), math.MaxInt32)))
			}
		}
	}
	return most
}

// CacheBytes is what a token takes in a cache of 16-bit keys and values.
func (h Header) CacheBytes() uint64 {
	return 2 * uint64(h.Layers) * uint64(h.KVHeads) * uint64(h.KeyWidth+h.ValueWidth)
}

// String is one line: name, size, type.
func (h Header) String() string {
	name := strings.TrimSpace(h.Name)
	if name == "" {
		name = h.Architecture
	}
	return name
}
