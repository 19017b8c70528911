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
	Q6_K Type = 14
	BF16 Type = 30
)

func (t Type) String() string {
	if name, ok := typeNames[t]; ok {
		return name
	}
	return fmt.Sprintf("type %d", uint32(t))
}

// kinds are ggml's types: name, elements and bytes of one block. The test of
// bindings/llama holds them against libggml's own.
var kinds = []struct {
	Type
	name            string
	elements, bytes uint64
}{
	{F32, "F32", 1, 4}, {F16, "F16", 1, 2}, {Q4_0, "Q4_0", 32, 18}, {3, "Q4_1", 32, 20}, {6, "Q5_0", 32, 22}, {7, "Q5_1", 32, 24},
	{Q8_0, "Q8_0", 32, 34}, {9, "Q8_1", 32, 36}, {10, "Q2_K", 256, 84}, {11, "Q3_K", 256, 110}, {Q4_K, "Q4_K", 256, 144}, {13, "Q5_K", 256, 176},
	{14, "Q6_K", 256, 210}, {15, "Q8_K", 256, 292}, {16, "IQ2_XXS", 256, 66}, {17, "IQ2_XS", 256, 74}, {18, "IQ3_XXS", 256, 98},
	{19, "IQ1_S", 256, 50}, {20, "IQ4_NL", 32, 18}, {21, "IQ3_S", 256, 110}, {22, "IQ2_S", 256, 82}, {23, "IQ4_XS", 256, 136},
	{24, "I8", 1, 1}, {25, "I16", 1, 2}, {26, "I32", 1, 4}, {27, "I64", 1, 8}, {28, "F64", 1, 8}, {29, "IQ1_M", 256, 56}, {BF16, "BF16", 1, 2},
	{34, "TQ1_0", 256, 54}, {35, "TQ2_0", 256, 66}, {39, "MXFP4", 32, 17}, {40, "NVFP4", 64, 36},
	{41, "Q1_0", 128, 18}, {42, "Q2_0", 64, 18},
}

var typeNames, blocks = byType()

// byType indexes kinds: names, and elements and bytes of a block.
func byType() (names map[Type]string, blocks map[Type][2]uint64) {
	names, blocks = map[Type]string{}, map[Type][2]uint64{}
	for _, k := range kinds {
		names[k.Type], blocks[k.Type] = k.name, [2]uint64{k.elements, k.bytes}
	}
	return names, blocks
}

// Known says whether the size of a type is known.
func (t Type) Known() bool { return blocks[t][0] > 0 }

// Block is how many elements share a block of a type; a row is a multiple of
// it.
func (t Type) Block() int { return int(blocks[t][0]) }

// Bytes is the size of so many elements, whole blocks.
func (t Type) Bytes(elements int) uint64 { return uint64(elements) / blocks[t][0] * blocks[t][1] }

// fileTypes are llama.cpp's names of a whole file's type (llama_ftype).
var fileTypes = map[Type]uint32{F32: 0, F16: 1, Q4_0: 2, Q8_0: 7, Q4_K: 14, BF16: 32}

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
