package ggml

import (
	"encoding/binary"
	"math"
)

// value reads a value of metadata as the Go type of the same width: uint8 ..
// float64, bool, string; arrays as slices of those, arrays of arrays as []any.
func (p *parser) value(kind uint32, key string, depth int) (any, error) {
	switch kind {
	case typeString:
		return p.string(key)
	case typeArray:
		return p.array(key, depth+1)
	}
	return p.numbers(kind, key, -1)
}

func (p *parser) array(key string, depth int) (any, error) {
	kind, err := p.uint32(key)
	if err != nil {
		return nil, err
	}
	switch kind {
	case typeString:
		n, err := p.count(key, leastString)
		if err != nil {
			return nil, err
		}
		all := make([]string, n)
		for i := range all {
			if all[i], err = p.string(key); err != nil {
				return nil, err
			}
		}
		return all, nil
	case typeArray:
		if depth == maxDepth {
			return nil, p.damaged("%.80q has arrays in arrays, more than %d deep", key, maxDepth)
		}
		n, err := p.count(key, leastArray)
		if err != nil {
			return nil, err
		}
		all := make([]any, n)
		for i := range all {
			if all[i], err = p.array(key, depth+1); err != nil {
				return nil, err
			}
		}
		return all, nil
	}
	width, known := widths[kind]
	if !known {
		return nil, p.damaged("%.80q is an array of the unknown type %d", key, kind)
	}
	n, err := p.count(key, width)
	if err != nil {
		return nil, err
	}
	return p.numbers(kind, key, n)
}

// widths are the bytes of the types of fixed width.
var widths = map[uint32]uint64{typeUint8: 1, typeInt8: 1, typeUint16: 2, typeInt16: 2, typeUint32: 4, typeInt32: 4, typeFloat32: 4,
	typeBool: 1, typeUint64: 8, typeInt64: 8, typeFloat64: 8}

// numbers reads n numbers or truth values, or with n = -1 one alone.
func (p *parser) numbers(kind uint32, key string, n int) (any, error) {
	width, known := widths[kind]
	if !known {
		return nil, p.damaged("%.80q has the unknown type %d", key, kind)
	}
	b, err := p.bytes(width*uint64(max(n, -n)), key)
	if err != nil {
		return nil, err
	}
	little := binary.LittleEndian
	switch kind {
	case typeUint8:
		return each(b, 1, n, func(b []byte) uint8 { return b[0] }), nil
	case typeInt8:
		return each(b, 1, n, func(b []byte) int8 { return int8(b[0]) }), nil
	case typeUint16:
		return each(b, 2, n, little.Uint16), nil
	case typeInt16:
		return each(b, 2, n, func(b []byte) int16 { return int16(little.Uint16(b)) }), nil
	case typeUint32:
		return each(b, 4, n, little.Uint32), nil
	case typeInt32:
		return each(b, 4, n, func(b []byte) int32 { return int32(little.Uint32(b)) }), nil
	case typeFloat32:
		return each(b, 4, n, func(b []byte) float32 { return math.Float32frombits(little.Uint32(b)) }), nil
	case typeUint64:
		return each(b, 8, n, little.Uint64), nil
	case typeInt64:
		return each(b, 8, n, func(b []byte) int64 { return int64(little.Uint64(b)) }), nil
	case typeFloat64:
		return each(b, 8, n, func(b []byte) float64 { return math.Float64frombits(little.Uint64(b)) }), nil
	}
	for _, x := range b { // typeBool
		if x > 1 {
			return nil, p.damaged("%.80q has a truth value of %d", key, x)
		}
	}
	return each(b, 1, n, func(b []byte) bool { return b[0] == 1 }), nil
}

func each[T any](b []byte, width, n int, decode func([]byte) T) any {
	if n < 0 {
		return decode(b)
	}
	all := make([]T, n)
	for i := range all {
		all[i] = decode(b[i*width:])
	}
	return all
}
