// Package ggml owns the GGUF file format (version 3): a reader that trusts
// nothing, a writer, and the mapping of the student onto llama.cpp's gpt2
// architecture.
package ggml

import "fmt"

// Type is the element type of a tensor (ggml_type).
type Type uint32

// The element types this package reads or writes.
const (
	F32  Type = 0
	F16  Type = 1
	Q4_0 Type = 2
	Q8_0 Type = 8
	Q4_K Type = 12
	BF16 Type = 30
)

func (t Type) String() string {
	if name, ok := typeNames[t]; ok {
		return name
	}
	return fmt.Sprintf("type %d", uint32(t))
}

var typeNames = map[Type]string{
	F32: "F32", F16: "F16", BF16: "BF16", Q4_0: "Q4_0", 3: "Q4_1", 6: "Q5_0", 7: "Q5_1", Q8_0: "Q8_0", 9: "Q8_1", 10: "Q2_K", 11: "Q3_K",
	Q4_K: "Q4_K", 13: "Q5_K", 14: "Q6_K", 15: "Q8_K", 24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64",
}

// Block is how many elements share a block of a type; a row is a multiple of
// it.
func (t Type) Block() int { return int(blocks[t][0]) }

// Bytes is the size of so many elements, whole blocks.
func (t Type) Bytes(elements int) uint64 { return uint64(elements) / blocks[t][0] * blocks[t][1] }

// fileTypes are llama.cpp's names of a whole file's type (llama_ftype).
var fileTypes = map[Type]uint32{F32: 0, F16: 1, Q4_0: 2, Q8_0: 7, Q4_K: 14, BF16: 32}

// blocks maps a type to elements and bytes of one block (ggml.c, type traits),
// for checking that a tensor lies inside its file.
var blocks = map[Type][2]uint64{
	F32: {1, 4}, F16: {1, 2}, BF16: {1, 2},
	2: {32, 18}, 3: {32, 20}, 6: {32, 22}, 7: {32, 24}, 8: {32, 34}, 9: {32, 36}, // Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q8_1
	10: {256, 84}, 11: {256, 110}, 12: {256, 144}, 13: {256, 176}, 14: {256, 210}, 15: {256, 292}, // Q2_K .. Q8_K
	24: {1, 1}, 25: {1, 2}, 26: {1, 4}, 27: {1, 8}, 28: {1, 8}, // I8 I16 I32 I64 F64
}

// TensorInfo describes a tensor of a file. Dims are in ggml's order: the first
// is the one whose elements lie side by side, so a matrix [out][in] has
// Dims {in, out}.
type TensorInfo struct {
	Name   string
	Dims   []uint64
	Type   Type
	Offset uint64 // from the start of the data section
	Size   uint64 // bytes; 0 when the type is unknown to this package
}

// Elements is the number of elements.
func (t TensorInfo) Elements() uint64 {
	n := uint64(1)
	for _, d := range t.Dims {
		n *= d
	}
	return n
}

// Value types of metadata (gguf_type).
const (
	typeUint8 = iota
	typeInt8
	typeUint16
	typeInt16
	typeUint32
	typeInt32
	typeFloat32
	typeBool
	typeString
	typeArray
	typeUint64
	typeInt64
	typeFloat64
)

const (
	magic            = "GGUF"
	version          = 3
	defaultAlignment = 32
)
