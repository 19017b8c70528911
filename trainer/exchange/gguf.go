package exchange

import (
	"io"

	"onceupon/ggml"
	"onceupon/trainer/fault"
)

// Types are the element types of an exported GGUF by their flag.
var Types = map[string]ggml.Type{"f32": ggml.F32, "f16": ggml.F16, "bf16": ggml.BF16, "q8_0": ggml.Q8_0, "q4_0": ggml.Q4_0, "q4_k": ggml.Q4_K}

// Quantizer turns a matrix [rows][cols] into blocks of a type; libggml's.
type Quantizer func(t ggml.Type, rows, cols int, x []float32) ([]byte, error)

// WriteGGUF writes a student's file with its matrices in another type. Vectors
// and positions stay F32, as llama.cpp's own quantisation leaves them.
func WriteGGUF(f *ggml.File, to io.Writer, t ggml.Type, quantize Quantizer) error {
	h, v, err := ggml.ReadModel(f)
	if err != nil {
		return err
	}
	tensors, err := Tensors(f)
	if err != nil {
		return err
	}
	for i := range tensors {
		x := &tensors[i]
		if t == ggml.F32 || x.Rows == 0 || x.Name == "position_embd.weight" {
			continue
		}
		if x.Cols%t.Block() != 0 {
			return fault.New(fault.Usage, "export: %s has blocks of %d; tensor %s is %d wide: take f16, bf16 or q8_0", t, t.Block(), x.Name, x.Cols)
		}
		x.Type = t
		switch t {
		case ggml.F16:
			x.Encode = ggml.EncodeF16
		case ggml.BF16:
			x.Encode = ggml.EncodeBF16
		default:
			rows, cols := x.Rows, x.Cols
			x.Encode = func(w []float32) ([]byte, error) { return quantize(t, rows, cols, w) }
		}
	}
	return ggml.WriteModel(to, "onceupon student", h, v, t, tensors)
}

// Tensors are the parameters of a student's file, in its order.
func Tensors(f *ggml.File) ([]ggml.Tensor, error) {
	var all []ggml.Tensor
	for _, info := range f.Tensors {
		t := ggml.Tensor{Name: info.Name, Read: func() ([]float32, error) { return f.ReadF32(info.Name) }}
		switch len(info.Dims) {
		case 1:
			t.Cols = int(info.Dims[0])
		case 2:
			t.Cols, t.Rows = int(info.Dims[0]), int(info.Dims[1])
		default:
			return nil, fault.New(fault.Damaged, "%s: tensor %s has %d dimensions; a student's have 1 or 2", f.Path, info.Name, len(info.Dims))
		}
		all = append(all, t)
	}
	return all, nil
}
