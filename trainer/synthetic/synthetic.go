// Package synthetic makes teachers of a given shape with random weights and a
// real table of tokens: speed and memory do not depend on the weights, so the
// 8B of the paper can be measured where its file is not.
package synthetic

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"onceupon/ggml"
	"onceupon/trainer/fault"
)

// Shape is that of a model of architecture llama.
type Shape struct {
	Name                                                            string
	Layers, Width, Heads, KVHeads, FeedForward, Vocabulary, Context int
	RopeBase                                                        float32
	Epsilon                                                         float32
}

// Shapes by name. llama-3.1-8b is that of its config.json.
var Shapes = map[string]Shape{
	"llama-3.1-8b": {"Llama 3.1 8B", 32, 4096, 32, 8, 14336, 128256, 131072, 500000, 1e-5},
}

// Types are those of the matrices: f16 and q8_0 in all of them; q4_k is the
// mixture of llama.cpp's Q4_K_M, with Q6_K in the head, and in the values and
// the last feed-forward matrix of every layer that Mixed names.
var Types = map[string]ggml.Type{"f16": ggml.F16, "q8_0": ggml.Q8_0, "q4_k": ggml.Q4_K}

// Mixed says whether layer i of n has the Q6_K of Q4_K_M: the first eighth, the
// last eighth, and every third between (llama-quant.cpp, use_more_bits).
func Mixed(i, n int) bool { return i < n/8 || i >= 7*n/8 || (i-n/8)%3 == 2 }

// Tensor is one to write.
type Tensor struct {
	Name string
	Dims []uint64
	Type ggml.Type
}

// Bytes is its size.
func (t Tensor) Bytes() uint64 {
	n := 1
	for _, d := range t.Dims {
		n *= int(d)
	}
	return t.Type.Bytes(n)
}

// Tensors are those of a model of a shape whose matrices are of a type.
func (s Shape) Tensors(most ggml.Type) []Tensor {
	width, ffn, kv := uint64(s.Width), uint64(s.FeedForward), uint64(s.Width/s.Heads*s.KVHeads)
	more := func(yes bool) ggml.Type {
		if most == ggml.Q4_K && yes {
			return ggml.Q6_K
		}
		return most
	}
	all := []Tensor{
		{"token_embd.weight", []uint64{width, uint64(s.Vocabulary)}, most},
		{"output_norm.weight", []uint64{width}, ggml.F32},
		{"output.weight", []uint64{width, uint64(s.Vocabulary)}, more(true)},
		{"rope_freqs.weight", []uint64{width / uint64(s.Heads) / 2}, ggml.F32},
	}
	for i := range s.Layers {
		b := fmt.Sprintf("blk.%d.", i)
		all = append(all,
			Tensor{b + "attn_norm.weight", []uint64{width}, ggml.F32},
			Tensor{b + "attn_q.weight", []uint64{width, width}, most},
			Tensor{b + "attn_k.weight", []uint64{width, kv}, most},
			Tensor{b + "attn_v.weight", []uint64{width, kv}, more(Mixed(i, s.Layers))},
			Tensor{b + "attn_output.weight", []uint64{width, width}, most},
			Tensor{b + "ffn_norm.weight", []uint64{width}, ggml.F32},
			Tensor{b + "ffn_gate.weight", []uint64{width, ffn}, most},
			Tensor{b + "ffn_up.weight", []uint64{width, ffn}, most},
			Tensor{b + "ffn_down.weight", []uint64{ffn, width}, more(Mixed(i, s.Layers))})
	}
	return all
}

// Bytes is the size of all tensors.
func (s Shape) Bytes(most ggml.Type) (n uint64) {
	for _, t := range s.Tensors(most) {
		n += t.Bytes()
	}
	return n
}

// Write makes the file at path, with the tokens of the model in vocabulary,
// which must be a byte-level BPE, padded to the shape's number.
func Write(ctx context.Context, path string, s Shape, most ggml.Type, vocabulary string, seed uint64) (err error) {
	if s.Layers < 1 || s.Heads < 1 || s.Width%s.Heads != 0 || s.KVHeads < 1 || s.Heads%s.KVHeads != 0 {
		return fault.New(fault.Usage, "synthetic: %d layers, width %d, %d heads of which %d have keys: no such model", s.Layers, s.Width, s.Heads, s.KVHeads)
	}
	for _, t := range s.Tensors(most) {
		if t.Dims[0]%uint64(t.Type.Block()) != 0 {
			return fault.New(fault.Usage, "synthetic: %s of %s needs a multiple of %d, its rows have %d", t.Name, t.Type, t.Type.Block(), t.Dims[0])
		}
	}
	if err := room(filepath.Dir(path), s.Bytes(most)); err != nil {
		return err
	}
	var w ggml.Writer
	if err := tokens(&w, vocabulary, s.Vocabulary); err != nil {
		return err
	}
	metadata(&w, s, most)
	for i, t := range s.Tensors(most) {
		r := rand.NewChaCha8(key(seed, uint64(i)))
		w.AddRaw(t.Name, t.Dims, t.Type, func() ([]byte, error) {
			if err := ctx.Err(); err != nil { // of gigabytes
				return nil, err
			}
			return blocks(t, r), nil
		})
	}
	f, err := os.Create(path + ".part")
	if err != nil {
		return fault.Wrap(fault.Capability, err)
	}
	defer func() {
		f.Close()
		if err != nil {
			os.Remove(path + ".part")
		}
	}()
	if _, err = w.WriteTo(f); ctx.Err() != nil {
		return ctx.Err()
	} else if err != nil {
		return fault.Wrap(fault.Capability, err)
	}
	if err = f.Close(); err != nil {
		return fault.Wrap(fault.Capability, err)
	}
	return os.Rename(path+".part", path)
}

func room(dir string, need uint64) error {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err == nil && fs.Bavail*uint64(fs.Bsize) < need+256<<20 {
		return fault.New(fault.Capability, "%s: %.1f GiB are needed, %.1f GiB are free", dir, float64(need+256<<20)/(1<<30), float64(fs.Bavail*uint64(fs.Bsize))/(1<<30))
	}
	return nil
}

func key(seed, stream uint64) (k [32]byte) {
	binary.LittleEndian.PutUint64(k[:], seed)
	binary.LittleEndian.PutUint64(k[8:], stream)
	return k
}

// fileTypes are llama.cpp's names of whole files (llama_ftype).
var fileTypes = map[ggml.Type]uint32{ggml.F16: 1, ggml.Q8_0: 7, ggml.Q4_K: 15}

func metadata(w *ggml.Writer, s Shape, most ggml.Type) {
	w.SetString("general.architecture", "llama")
	w.SetString("general.name", "synthetic "+s.Name+" (random weights)")
	w.SetUint32("general.file_type", fileTypes[most])
	w.SetUint32("llama.block_count", uint32(s.Layers))
	w.SetUint32("llama.context_length", uint32(s.Context))
	w.SetUint32("llama.embedding_length", uint32(s.Width))
	w.SetUint32("llama.feed_forward_length", uint32(s.FeedForward))
	w.SetUint32("llama.attention.head_count", uint32(s.Heads))
	w.SetUint32("llama.attention.head_count_kv", uint32(s.KVHeads))
	w.SetFloat32("llama.attention.layer_norm_rms_epsilon", s.Epsilon)
	w.SetFloat32("llama.rope.freq_base", s.RopeBase)
	w.SetUint32("llama.rope.dimension_count", uint32(s.Width/s.Heads))
	w.SetUint32("llama.vocab_size", uint32(s.Vocabulary))
}

// deviation of the weights: GPT-2's, so that nothing overflows on its way.
const deviation = 0.02

// blocks are random weights of a tensor. Norms are 1. Where a block has scales,
// its other bytes are random and the scale gives the weights their deviation
// (ggml-common.h has the layouts).
func blocks(t Tensor, r io.Reader) []byte {
	raw := make([]byte, t.Bytes())
	if t.Type == ggml.F32 {
		for i := 0; i < len(raw); i += 4 {
			binary.LittleEndian.PutUint32(raw[i:], math.Float32bits(1))
		}
		return raw
	}
	r.Read(raw)
	switch t.Type {
	case ggml.F16:
		// A random sign and fraction, an exponent that gives 2^-7 .. 2^-5.
		for i := 1; i < len(raw); i += 2 {
			raw[i] = raw[i]&0x87 | 0x20
		}
	case ggml.Q8_0: // d, 32 int8
		each(raw, 34, func(b []byte) { half(b, deviation/74) })
	case ggml.Q4_K: // d, least, 12 bytes of 6-bit scales, 256 nibbles: d*scale*q - least*m
		each(raw, 144, func(b []byte) {
			half(b, deviation/258)
			half(b[2:], 7.5*deviation/258)
		})
	case ggml.Q6_K: // 128 + 64 bytes of 6-bit q, 16 int8 scales, d: d*scale*(q-32)
		each(raw, 210, func(b []byte) { half(b[208:], deviation/1367) })
	}
	return raw
}

func each(raw []byte, size int, f func(b []byte)) {
	for i := 0; i < len(raw); i += size {
		f(raw[i : i+size])
	}
}

func half(b []byte, x float32) {
	h, _ := ggml.EncodeF16([]float32{x})
	copy(b, h)
}
