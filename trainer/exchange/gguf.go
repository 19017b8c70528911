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

// Fallback is a matrix that could not have the type that was asked for, since
// its rows are no whole number of that type's blocks.
type Fallback struct {
	Tensor string `json:"tensor"`
	Cols   int    `json:"cols"`
	Type   string `json:"type"` // that it got
}

// WriteGGUF writes a student's file with its matrices in another type. Vectors
// and positions stay F32, as llama.cpp's own quantisation leaves them. A matrix
// that the type's blocks do not fit becomes Q8_0, or F16 where those of 32 do
// not fit either; the answer lists them.
func WriteGGUF(f *ggml.File, to io.Writer, t ggml.Type, quantize Quantizer) ([]Fallback, error) {
	h, v, err := ggml.ReadModel(f)
	if err != nil {
		return nil, err
	}
	tensors, err := Tensors(f)
	if err != nil {
		return nil, err
	}
	var fallen []Fallback
	for i := range tensors {
		x := &tensors[i]
		if x.Rows == 0 || x.Name == "position_embd.weight" {
			continue
		}
		if x.Type = fitting(t, x.Cols); x.Type != t {
			fallen = append(fallen, Fallback{x.Name, x.Cols, x.Type.String()})
		}
		switch x.Type {
		case ggml.F32:
		case ggml.F16:
			x.Encode = ggml.EncodeF16
		case ggml.BF16:
			x.Encode = ggml.EncodeBF16
		default:
			kind, rows, cols := x.Type, x.Rows, x.Cols
			x.Encode = func(w []float32) ([]byte, error) { return quantize(kind, rows, cols, w) }
		}
	}
	return fallen, ggml.WriteModel(to, "onceupon student", h, v, t, tensors)
}

// fitting is the type itself, or the next that rows of so many columns fit.
func fitting(t ggml.Type, cols int) ggml.Type {
	for _, t := range []ggml.Type{t, ggml.Q8_0} {
		if cols%t.Block() == 0 {
			return t
		}
	}
	return ggml.F16
}

// head is the head of a file that has one of its own.
const head = "output.weight"

// Tensors are the parameters of a student's file, in its order.
func Tensors(f *ggml.File) ([]ggml.Tensor, error) {
	if err := tied(f); err != nil {
		return nil, err
	}
	var all []ggml.Tensor
	for _, info := range f.Tensors {
		if info.Name == head {
			continue
		}
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
