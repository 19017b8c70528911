package ggml

import (
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"onceupon/trainer/fault"
)

// OpenSafetensorsIndex opens the files of a model that transformers saved in
// parts: path is its model.safetensors.index.json, whose weight_map names the
// part, beside it, of every tensor.
func OpenSafetensorsIndex(path string) (*Safetensors, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fault.New(fault.Capability, "%w", err)
	}
	var index struct {
		WeightMap map[string]string `json:"weight_map"`
	}
	if err := json.Unmarshal(text, &index); err != nil {
		return nil, fault.New(fault.Damaged, "%s: %w", path, fault.Brief(err))
	}
	all := &Safetensors{Path: path, index: map[string]int{}}
	if err := all.add(index.WeightMap, filepath.Dir(path)); err != nil {
		return nil, errors.Join(err, all.Close())
	}
	return all, nil
}

// add opens every part once and takes its tensors.
func (s *Safetensors) add(parts map[string]string, dir string) error {
	for _, part := range slices.Compact(slices.Sorted(maps.Values(parts))) {
		if part != filepath.Base(part) || !filepath.IsLocal(part) {
			return fault.New(fault.Damaged, "%s: weight_map names %.80q, which is no file beside it", s.Path, part)
		}
		f, err := OpenSafetensors(filepath.Join(dir, part))
		if err != nil {
			return err
		}
		s.mapped = append(s.mapped, f.mapped...)
		for _, t := range f.Tensors {
			if parts[t.Name] != part {
				return fault.New(fault.Damaged, "%s: tensor %.80q lies in %.80s; weight_map says %.80q", s.Path, t.Name, part, parts[t.Name])
			}
			s.index[t.Name] = len(s.Tensors)
			s.Tensors = append(s.Tensors, t)
		}
	}
	for name, part := range parts {
		if !s.Has(name) {
			return fault.New(fault.Damaged, "%s: tensor %.80q is not in %.80s, where weight_map has it", s.Path, name, part)
		}
	}
	return nil
}
