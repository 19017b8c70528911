package ggml

import (
	"encoding/binary"
	"maps"
	"math"

	"onceupon/trainer/fault"
)

func (f *File) wrong(key, want string) error {
	v, ok := f.values[key]
	if !ok {
		return fault.New(fault.Damaged, "%s: metadata %s is missing: this is not the kind of file that is needed", f.Path, key)
	}
	return fault.New(fault.Damaged, "%s: metadata %s is %T, not %s", f.Path, key, v, want)
}

// Metadata is a copy of all metadata: integers are uint64 or int64, floats
// float64, arrays []string or []any.
func (f *File) Metadata() map[string]any { return maps.Clone(f.values) }

// Has says whether the file has a metadata key.
func (f *File) Has(key string) bool {
	_, ok := f.values[key]
	return ok
}

// String returns a metadata string.
func (f *File) String(key string) (string, error) {
	if s, ok := f.values[key].(string); ok {
		return s, nil
	}
	return "", f.wrong(key, "a string")
}

// Int returns a metadata integer.
func (f *File) Int(key string) (int, error) {
	switch v := f.values[key].(type) {
	case uint64:
		if v <= math.MaxInt32 {
			return int(v), nil
		}
	case int64:
		if v >= math.MinInt32 && v <= math.MaxInt32 {
			return int(v), nil
		}
	}
	return 0, f.wrong(key, "an integer of 32 bits")
}

// Float returns a metadata number.
func (f *File) Float(key string) (float64, error) {
	if x, ok := f.values[key].(float64); ok {
		return x, nil
	}
	return 0, f.wrong(key, "a number")
}

// Strings returns a metadata array of strings.
func (f *File) Strings(key string) ([]string, error) {
	if s, ok := f.values[key].([]string); ok {
		return s, nil
	}
	return nil, f.wrong(key, "an array of strings")
}

// Tensor returns the description of a tensor.
func (f *File) Tensor(name string) (TensorInfo, error) {
	i, ok := f.index[name]
	if !ok {
		return TensorInfo{}, fault.New(fault.Damaged, "%s: tensor %s is missing", f.Path, name)
	}
	return f.Tensors[i], nil
}

// ReadF32 reads a tensor of type F32, F16 or BF16 as float32.
func (f *File) ReadF32(name string) ([]float32, error) {
	t, err := f.Tensor(name)
	if err != nil {
		return nil, err
	}
	if t.Type != F32 && t.Type != F16 && t.Type != BF16 {
		return nil, fault.New(fault.Damaged, "%s: tensor %s is of %s; F32, F16 and BF16 can be read", f.Path, name, t.Type)
	}
	raw := make([]byte, t.Size)
	if _, err := f.file.ReadAt(raw, f.data+int64(t.Offset)); err != nil {
		return nil, fault.New(fault.Damaged, "%s: tensor %s: %w", f.Path, name, err)
	}
	out := make([]float32, t.Elements())
	for i := range out {
		switch t.Type {
		case F32:
			out[i] = math.Float32frombits(binary.LittleEndian.Uint32(raw[4*i:]))
		case BF16:
			out[i] = math.Float32frombits(uint32(binary.LittleEndian.Uint16(raw[2*i:])) << 16)
		default:
			out[i] = halfToFloat(binary.LittleEndian.Uint16(raw[2*i:]))
		}
	}
	return out, nil
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
