package trace

import (
	"encoding/binary"
	"math"
)

// number reads one little-endian number of a type.
type number struct {
	size int
	read func(b []byte) float64
}

// numbers by their names in safetensors; npy's are mapped to these.
var numbers = map[string]number{
	"F64": {8, func(b []byte) float64 { return math.Float64frombits(binary.LittleEndian.Uint64(b)) }},
	"F32": {4, func(b []byte) float64 { return float64(math.Float32frombits(binary.LittleEndian.Uint32(b))) }},
	"BF16": {2, func(b []byte) float64 {
		return float64(math.Float32frombits(uint32(binary.LittleEndian.Uint16(b)) << 16))
	}},
	"I64":  {8, func(b []byte) float64 { return float64(int64(binary.LittleEndian.Uint64(b))) }},
	"I32":  {4, func(b []byte) float64 { return float64(int32(binary.LittleEndian.Uint32(b))) }},
	"U8":   {1, func(b []byte) float64 { return float64(b[0]) }},
	"BOOL": {1, func(b []byte) float64 { return float64(b[0]) }},
}

// npyTypes are NumPy's descriptions of the same types.
var npyTypes = map[string]string{"<f8": "F64", "<f4": "F32", "<i8": "I64", "<i4": "I32", "|u1": "U8", "|b1": "BOOL"}

func (n number) all(raw []byte) []float64 {
	x := make([]float64, len(raw)/n.size)
	for i := range x {
		x[i] = n.read(raw[i*n.size:])
	}
	return x
}
