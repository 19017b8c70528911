package ggml

import (
	"encoding/binary"
	"math"
)

// EncodeF16 rounds to IEEE 754 binary16, to nearest even.
func EncodeF16(x []float32) ([]byte, error) {
	raw := make([]byte, 2*len(x))
	for i, v := range x {
		binary.LittleEndian.PutUint16(raw[2*i:], floatToHalf(v))
	}
	return raw, nil
}

// EncodeBF16 rounds to bfloat16, to nearest even.
func EncodeBF16(x []float32) ([]byte, error) {
	raw := make([]byte, 2*len(x))
	for i, v := range x {
		bits := math.Float32bits(v)
		if v == v { // a NaN keeps its bits
			bits += 0x7fff + bits>>16&1
		}
		binary.LittleEndian.PutUint16(raw[2*i:], uint16(bits>>16))
	}
	return raw, nil
}

func floatToHalf(v float32) uint16 {
	bits := math.Float32bits(v)
	sign, magnitude := uint16(bits>>16&0x8000), bits&0x7fffffff
	switch {
	case magnitude > 0x7f800000:
		return sign | 0x7e00
	case magnitude >= 0x477ff000: // rounds beyond 65504
		return sign | 0x7c00
	case magnitude < 0x38800000: // subnormal: units of 2^-24
		return sign | uint16(math.RoundToEven(float64(math.Float32frombits(magnitude))*(1<<24)))
	}
	return sign | uint16((magnitude+0xfff+magnitude>>13&1-0x38000000)>>13)
}

// halfToFloat widens an IEEE 754 binary16.
func halfToFloat(h uint16) float32 {
	sign, exponent, fraction := uint32(h>>15)<<31, uint32(h>>10&31), uint32(h&1023)
	switch exponent {
	case 0: // zero and subnormal: fraction * 2^-24
		x := float32(fraction) / (1 << 24)
		return math.Float32frombits(math.Float32bits(x) | sign)
	case 31:
		return math.Float32frombits(sign | 0x7f800000 | fraction<<13)
	}
	return math.Float32frombits(sign | (exponent+112)<<23 | fraction<<13)
}
