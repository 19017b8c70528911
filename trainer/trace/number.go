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

// numbers by NumPy's description of their type.
var numbers = map[string]number{
	"<f8": {8, func(b []byte) float64 { return math.Float64frombits(binary.LittleEndian.Uint64(b)) }},
	"<f4": {4, func(b []byte) float64 { return float64(math.Float32frombits(binary.LittleEndian.Uint32(b))) }},
	"<i8": {8, func(b []byte) float64 { return float64(int64(binary.LittleEndian.Uint64(b))) }},
	"<i4": {4, func(b []byte) float64 { return float64(int32(binary.LittleEndian.Uint32(b))) }},
	"|u1": {1, func(b []byte) float64 { return float64(b[0]) }},
	"|b1": {1, func(b []byte) float64 { return float64(b[0]) }},
}

func (n number) all(raw []byte) []float64 {
	x := make([]float64, len(raw)/n.size)
	for i := range x {
		x[i] = n.read(raw[i*n.size:])
	}
	return x
}
