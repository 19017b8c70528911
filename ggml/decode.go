package ggml

import (
	"encoding/binary"
	"math"

	"onceupon/trainer/fault"
)

// Decode turns whole blocks of a type into numbers. The formulas are those of
// ggml-quants.c (dequantize_row_*).
func Decode(t Type, raw []byte) ([]float32, error) {
	decode := decoders[t]
	if decode == nil {
		return nil, fault.New(fault.Damaged, "is of %s; F32, F16, BF16, Q8_0, Q4_0 and Q4_K can be read as weights", t)
	}
	elements, bytes := t.Block(), int(blocks[t][1])
	out := make([]float32, len(raw)/bytes*elements)
	for i := range len(raw) / bytes {
		decode(out[i*elements:][:elements], raw[i*bytes:][:bytes])
	}
	return out, nil
}

// decoders read one block.
var decoders = map[Type]func(out []float32, b []byte){
	F32: func(out []float32, b []byte) { out[0] = math.Float32frombits(binary.LittleEndian.Uint32(b)) },
	F16: func(out []float32, b []byte) { out[0] = half(b) },
	BF16: func(out []float32, b []byte) {
		out[0] = math.Float32frombits(uint32(binary.LittleEndian.Uint16(b)) << 16)
	},
	Q8_0: func(out []float32, b []byte) { // d, then 32 signed bytes
		for i := range out {
			out[i] = half(b) * float32(int8(b[2+i]))
		}
	},
	Q4_0: func(out []float32, b []byte) { // d, then 16 bytes: low halves first
		for i, q := range b[2:] {
			out[i], out[i+16] = half(b)*(float32(q&15)-8), half(b)*(float32(q>>4)-8)
		}
	},
	Q4_K: decodeQ4K,
}

func half(b []byte) float32 { return halfToFloat(binary.LittleEndian.Uint16(b)) }

// decodeQ4K reads d, dmin, eight scales and eight minima of 6 bits in 12 bytes,
// and 128 bytes: x = d scale q - dmin minimum, per group of 32.
func decodeQ4K(out []float32, b []byte) {
	d, least, packed, q := half(b), half(b[2:]), b[4:16], b[16:]
	for group := range 8 {
		scale, minimum := packed[group&3], packed[group&3+4]
		if group < 4 {
			scale, minimum = scale&63, minimum&63
		} else {
			scale, minimum = packed[group+4]&15|scale>>6<<4, packed[group+4]>>4|minimum>>6<<4
		}
		for i, pair := range q[group/2*32:][:32] {
			nibble := pair >> (group % 2 * 4) & 15
			out[group*32+i] = d*float32(scale)*float32(nibble) - least*float32(minimum)
		}
	}
}
