// Package trace owns the replay of recorded traces: it reads the folders that
// PyTorch and TRL left (npz, safetensors, JSON), runs the student on the same
// numbers and says, array by array, how far it is from them.
package trace

import (
	"math"
	"slices"

	"onceupon/trainer/fault"
)

// Array is a dense array of a file, row-major. Integers are kept as floats,
// which is exact up to 2^53.
type Array struct {
	Shape []int
	X     []float64
}

// Arrays are the arrays of one file by name.
type Arrays struct {
	Path   string
	ByName map[string]Array
}

// Has says whether an array is there.
func (a Arrays) Has(name string) bool {
	_, ok := a.ByName[name]
	return ok
}

// Get returns an array; a shape of -1s takes any size at that place.
func (a Arrays) Get(name string, shape ...int) (Array, error) {
	x, ok := a.ByName[name]
	if !ok {
		return x, fault.New(fault.Damaged, "%s: array %s is missing", a.Path, name)
	}
	fits := len(shape) == len(x.Shape)
	for i := 0; fits && i < len(shape); i++ {
		fits = shape[i] == -1 || shape[i] == x.Shape[i]
	}
	if !fits {
		return x, fault.New(fault.Damaged, "%s: array %s has shape %v; %v is needed (-1: any)", a.Path, name, x.Shape, shape)
	}
	if i := slices.IndexFunc(x.X, func(v float64) bool { return math.IsNaN(v) || math.IsInf(v, 0) }); i >= 0 {
		return x, fault.New(fault.Damaged, "%s: array %s: entry %d is %v", a.Path, name, i, x.X[i])
	}
	return x, nil
}

// Integers returns an array of whole numbers within low..high.
func (a Arrays) Integers(name string, low, high int, shape ...int) ([]int, error) {
	x, err := a.Get(name, shape...)
	if err != nil {
		return nil, err
	}
	out := make([]int, len(x.X))
	for i, v := range x.X {
		if v != math.Trunc(v) || v < float64(low) || v > float64(high) {
			return nil, fault.New(fault.Damaged, "%s: array %s: entry %d is %v; whole numbers of %d..%d are needed", a.Path, name, i, v, low, high)
		}
		out[i] = int(v)
	}
	return out, nil
}

// Floats32 rounds to float32, which is exact for what was stored so.
func (x Array) Floats32() []float32 {
	out := make([]float32, len(x.X))
	for i, v := range x.X {
		out[i] = float32(v)
	}
	return out
}

// count multiplies a shape; false when it is negative or exceeds limit.
func count(shape []int, limit int64) (int64, bool) {
	n := int64(1)
	for _, s := range shape {
		if s < 0 || (s > 0 && n > limit/int64(s)) {
			return 0, false
		}
		n *= int64(s)
	}
	return n, n <= limit
}
