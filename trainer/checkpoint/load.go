package checkpoint

import (
	"encoding/json"
	"path/filepath"

	"onceupon/bindings/student"
	"onceupon/ggml"
	"onceupon/trainer/fault"
)

// fill copies a tensor of a file into one array of parameter i.
func fill(f *ggml.File, m *student.Model, a student.Array, i int, name string) error {
	x, err := f.ReadF32(name)
	if err != nil {
		return err
	}
	if p := m.Parameters()[i]; len(x) != p.Count() {
		return fault.New(fault.Damaged, "%s: tensor %s has %d numbers; the student needs %d", f.Path, name, len(x), p.Count())
	}
	return m.Write(a, i, x)
}

// LoadWeights fills a student from a GGUF file; a value head stays as it is.
func LoadWeights(path string, m *student.Model) error {
	f, err := ggml.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	for i, p := range m.Parameters() {
		if isHead(p) {
			continue
		}
		if err := fill(f, m, student.Weights, i, p.Name); err != nil {
			return err
		}
	}
	return nil
}

// Describe reads what a checkpoint's state.json says, and holds the files beside
// it against it.
func Describe(folder string) (Header, error) { return readHeader(folder) }

// Load fills a student, its moments and its value head from dir/name, and
// state from its JSON.
func Load(dir, name string, m *student.Model, state any) (Header, error) {
	folder := filepath.Join(dir, name)
	h, err := readHeader(folder)
	if err != nil {
		return h, err
	}
	if err := LoadWeights(filepath.Join(folder, "student.gguf"), m); err != nil {
		return h, err
	}
	f, err := ggml.Open(filepath.Join(folder, "optimizer.gguf"))
	if err != nil {
		return h, err
	}
	defer f.Close()
	for i, p := range m.Parameters() {
		arrays := map[string]student.Array{"m." + p.Name: student.Moment1, "v." + p.Name: student.Moment2}
		if isHead(p) {
			arrays[p.Name] = student.Weights
		}
		for tensor, array := range arrays {
			if err := fill(f, m, array, i, tensor); err != nil {
				return h, err
			}
		}
	}
	if err := json.Unmarshal(h.State, state); err != nil {
		return h, fault.New(fault.Damaged, "%s: state: %w", filepath.Join(folder, "state.json"), err)
	}
	return h, nil
}
