package ggml

import (
	"fmt"
	"io"
	"slices"

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
		return h, v, fault.New(fault.Damaged, "%s: architecture %.80q is not gpt2: give a student's file", f.Path, architecture)
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
	if v.Specials, err = specials(f, v.Tokens); err != nil {
		return h, v, err
	}
	h.Vocab = len(v.Tokens)
	return h, v, checkModel(f, h, v)
}

// specials are the names of the special tokens: ours, or in the file of
// another program the tokens marked as control.
func specials(f *File, tokens []string) ([]string, error) {
	const types = "tokenizer.ggml.token_type"
	if f.Has("onceupon.special_tokens") {
		return f.Strings("onceupon.special_tokens")
	}
	if !f.Has(types) {
		return nil, nil
	}
	kinds, ok := f.values[types].([]int32)
	if !ok || len(kinds) != len(tokens) {
		return nil, f.wrong(types, "an integer for each of the tokens")
	}
	var names []string
	for id, kind := range kinds {
		if kind == tokenControl {
			names = append(names, tokens[id])
		}
	}
	return names, nil
}

// checkModel holds the numbers of the metadata against the tensors, so that
// whoever makes room for a student of this shape takes no more than the file
// has.
func checkModel(f *File, h Hyper, v Vocabulary) error {
	if h.Layers < 1 || h.Heads < 1 || h.Width < 1 || h.Width%h.Heads != 0 || h.Context < 1 || h.Vocab < 1 || h.Width > 1<<20 {
		return fault.New(fault.Damaged, "%s: %d layers, %d heads, width %d, context %d and %d tokens do not make a GPT-2", f.Path, h.Layers, h.Heads, h.Width, h.Context, h.Vocab)
	}
	if !(h.LayerNormEpsilon > 0 && h.LayerNormEpsilon < 1) {
		return fault.New(fault.Damaged, "%s: metadata gpt2.attention.layer_norm_epsilon is %v: a small number above 0 is needed", f.Path, h.LayerNormEpsilon)
	}
	if int(v.End) >= len(v.Tokens) || v.End < -1 {
		return fault.New(fault.Damaged, "%s: metadata tokenizer.ggml.eos_token_id is %d of %d tokens", f.Path, v.End, len(v.Tokens))
	}
	c := uint64(h.Width)
	if err := f.shaped("token_embd.weight", c, uint64(h.Vocab)); err != nil {
		return err
	}
	if err := f.shaped("position_embd.weight", c, uint64(h.Context)); err != nil {
		return err
	}
	for _, name := range []string{"output_norm.weight", "output_norm.bias"} {
		if err := f.shaped(name, c); err != nil {
			return err
		}
	}
	for layer := range h.Layers {
		for _, t := range []struct {
			name string
			dims []uint64
		}{
			{"attn_norm", []uint64{c}}, {"attn_qkv", []uint64{c, 3 * c}}, {"attn_output", []uint64{c, c}},
			{"ffn_norm", []uint64{c}}, {"ffn_up", []uint64{c, 4 * c}}, {"ffn_down", []uint64{4 * c, c}},
		} {
			name := fmt.Sprintf("blk.%d.%s.", layer, t.name)
			if err := f.shaped(name+"weight", t.dims...); err != nil {
				return err
			}
			if err := f.shaped(name+"bias", t.dims[len(t.dims)-1]); err != nil {
				return err
			}
		}
	}
	return nil
}

// shaped checks a tensor's dimensions.
func (f *File) shaped(name string, dims ...uint64) error {
	t, err := f.Tensor(name)
	if err != nil {
		return err
	}
	if !slices.Equal(t.Dims, dims) {
		return fault.New(fault.Damaged, "%s: tensor %s has dimensions %v, not %v", f.Path, name, t.Dims, dims)
	}
	return nil
}
