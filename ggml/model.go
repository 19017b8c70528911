package ggml

import (
	"io"

	"onceupon/trainer/fault"
)

// Hyper are the student's hyperparameters as GGUF metadata.
type Hyper struct {
	Layers, Heads, Width, Context, Vocab int
	LayerNormEpsilon                     float32
}

// Vocabulary is a byte-level BPE as GGUF metadata.
type Vocabulary struct {
	Tokens   []string
	Merges   []string // "a b", in order of rank
	Specials []string // names of the special tokens, all in Tokens
	End      int32    // id of the end of a document
}

// Tensor is one parameter to write: vectors have Rows 0, matrices are
// stored [Rows][Cols] = [out][in].
type Tensor struct {
	Name       string
	Rows, Cols int
	Read       func() ([]float32, error)
	// Encode turns what Read returns into blocks of Type; nil writes F32.
	Type   Type
	Encode func(x []float32) ([]byte, error)
}

// Token types of llama.cpp (llama_token_type).
const (
	tokenNormal  = 1
	tokenControl = 3
)

// WriteModel writes a student as a GGUF of architecture gpt2, which llama.cpp
// opens: the head is tied, so there is no output.weight.
// most is the type of most matrices.
func WriteModel(to io.Writer, name string, h Hyper, v Vocabulary, most Type, tensors []Tensor) error {
	var w Writer
	w.SetString("general.architecture", "gpt2")
	w.SetString("general.name", name)
	w.SetUint32("general.file_type", fileTypes[most])
	w.SetUint32("gpt2.context_length", uint32(h.Context))
	w.SetUint32("gpt2.embedding_length", uint32(h.Width))
	w.SetUint32("gpt2.feed_forward_length", uint32(4*h.Width))
	w.SetUint32("gpt2.block_count", uint32(h.Layers))
	w.SetUint32("gpt2.attention.head_count", uint32(h.Heads))
	w.SetFloat32("gpt2.attention.layer_norm_epsilon", h.LayerNormEpsilon)
	w.SetString("tokenizer.ggml.model", "gpt2")
	w.SetString("tokenizer.ggml.pre", "gpt-2")
	w.SetStrings("tokenizer.ggml.tokens", v.Tokens)
	special := map[string]bool{}
	for _, s := range v.Specials {
		special[s] = true
	}
	types := make([]int32, len(v.Tokens))
	for i, t := range v.Tokens {
		types[i] = tokenNormal
		if special[t] {
			types[i] = tokenControl
		}
	}
	w.SetInt32s("tokenizer.ggml.token_type", types)
	w.SetStrings("tokenizer.ggml.merges", v.Merges)
	w.SetUint32("tokenizer.ggml.bos_token_id", uint32(v.End))
	w.SetUint32("tokenizer.ggml.eos_token_id", uint32(v.End))
	w.SetBool("tokenizer.ggml.add_bos_token", false)
	w.SetStrings("onceupon.special_tokens", v.Specials)
	for _, t := range tensors {
		w.add(t)
	}
	_, err := w.WriteTo(to)
	return err
}

// WriteArrays writes parameters that are not a model of llama.cpp's: moments of
// the optimizer, the value head.
func WriteArrays(to io.Writer, kind string, tensors []Tensor) error {
	var w Writer
	w.SetString("general.architecture", kind)
	for _, t := range tensors {
		w.add(t)
	}
	_, err := w.WriteTo(to)
	return err
}

func (w *Writer) add(t Tensor) {
	dims := []uint64{uint64(t.Cols)}
	if t.Rows > 0 {
		dims = append(dims, uint64(t.Rows))
	}
	if t.Encode == nil {
		w.AddTensor(t.Name, dims, t.Read)
		return
	}
	w.AddRaw(t.Name, dims, t.Type, func() ([]byte, error) {
		x, err := t.Read()
		if err != nil {
			return nil, err
		}
		return t.Encode(x)
	})
}

// ReadModel reads the metadata of a student.
func ReadModel(f *File) (h Hyper, v Vocabulary, err error) {
	architecture, err := f.String("general.architecture")
	if err != nil {
		return h, v, err
	}
	if architecture != "gpt2" {
		return h, v, fault.New(fault.Damaged, "%s: architecture %q is not gpt2: give a student's file", f.Path, architecture)
	}
	for key, to := range map[string]*int{
		"gpt2.context_length": &h.Context, "gpt2.embedding_length": &h.Width, "gpt2.block_count": &h.Layers,
		"gpt2.attention.head_count": &h.Heads,
	} {
		if *to, err = f.Int(key); err != nil {
			return h, v, err
		}
	}
	epsilon, err := f.Float("gpt2.attention.layer_norm_epsilon")
	if err != nil {
		return h, v, err
	}
	h.LayerNormEpsilon = float32(epsilon)
	if v.Tokens, err = f.Strings("tokenizer.ggml.tokens"); err != nil {
		return h, v, err
	}
	if v.Merges, err = f.Strings("tokenizer.ggml.merges"); err != nil {
		return h, v, err
	}
	end, err := f.Int("tokenizer.ggml.eos_token_id")
	if err != nil {
		return h, v, err
	}
	v.End = int32(end)
	if f.Has("onceupon.special_tokens") {
		if v.Specials, err = f.Strings("onceupon.special_tokens"); err != nil {
			return h, v, err
		}
	}
	h.Vocab = len(v.Tokens)
	embedding, err := f.Tensor("token_embd.weight")
	if err != nil {
		return h, v, err
	}
	if len(embedding.Dims) != 2 || embedding.Dims[0] != uint64(h.Width) || embedding.Dims[1] != uint64(h.Vocab) {
		return h, v, fault.New(fault.Damaged, "%s: token_embd.weight has dimensions %v, not {%d, %d}", f.Path, embedding.Dims, h.Width, h.Vocab)
	}
	return h, v, nil
}
