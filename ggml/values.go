package ggml

import (
	"maps"
	"math"
	"reflect"

	"onceupon/trainer/fault"
)

func (f *File) wrong(key, want string) error {
	v, ok := f.values[key]
	if !ok {
		return fault.New(fault.Damaged, "%s: metadata %s is missing: this is not the kind of file that is needed", f.Path, key)
	}
	return fault.New(fault.Damaged, "%s: metadata %s is %T, not %s", f.Path, key, v, want)
}

// Metadata is a copy of all metadata. Values have the Go type of their width:
// uint8 .. float64, bool, string, slices of those, []any of slices.
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

// Int returns a metadata integer of any width.
func (f *File) Int(key string) (int, error) {
	v := reflect.ValueOf(f.values[key])
	if v.CanUint() && v.Uint() <= math.MaxInt32 {
		return int(v.Uint()), nil
	}
	if v.CanInt() && v.Int() >= math.MinInt32 && v.Int() <= math.MaxInt32 {
		return int(v.Int()), nil
	}
	return 0, f.wrong(key, "an integer of 32 bits")
}

// Float returns a metadata number.
func (f *File) Float(key string) (float64, error) {
	if v := reflect.ValueOf(f.values[key]); v.CanFloat() {
		return v.Float(), nil
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

// Raw is a tensor's data as the file has them, mapped; nil when the type is
// unknown.
func (f *File) Raw(t TensorInfo) []byte {
	if t.Size == 0 {
		return nil
	}
	return f.raw[f.data+t.Offset:][:t.Size:t.Size]
}

// ReadF32 reads a tensor as float32, if Decode knows its type.
func (f *File) ReadF32(name string) ([]float32, error) {
	t, err := f.Tensor(name)
	if err != nil {
		return nil, err
	}
	var x []float32
	err = reading(f.Path, func() (err error) {
		if x, err = Decode(t.Type, f.Raw(t)); err != nil {
			err = fault.New(fault.Damaged, "%s: tensor %s: %w", f.Path, name, err)
		}
		return err
	})
	return x, err
}
