// Package checkpoint owns checkpoints/NAME/{student.gguf, optimizer.gguf,
// state.json}: written beside, synced, renamed, hashed; a crash at any instant
// leaves the last good one.
package checkpoint

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"onceupon/bindings/student"
	"onceupon/ggml"
	"onceupon/trainer/fault"
)

// FormatVersion is the version of the folder's layout.
const FormatVersion = 1

// Header is what state.json says besides the trainer's own state.
type Header struct {
	Version       int               `json:"version"`
	Counter       int64             `json:"counter"` // rises with every checkpoint of a run
	Files         map[string]string `json:"files"`   // sha256
	WeightsSHA256 string            `json:"weights_sha256"`
	State         json.RawMessage   `json:"state"`
}

// Contents are what a checkpoint keeps.
type Contents struct {
	Model      *student.Model
	Vocabulary ggml.Vocabulary
	Counter    int64
	State      any // of the trainer, as JSON
	// Weights only: no optimizer moments, for students that are kept to be read.
	WeightsOnly bool
}

// isHead says whether a parameter is the value head, which is kept with the
// optimizer, since llama.cpp's gpt2 has none.
func isHead(p student.Parameter) bool { return strings.HasPrefix(p.Name, "value_head.") }

func tensors(m *student.Model, a student.Array, prefix string, head bool) []ggml.Tensor {
	var all []ggml.Tensor
	for i, p := range m.Parameters() {
		if isHead(p) != head {
			continue
		}
		rows := 0
		if p.Matrix {
			rows = p.Rows
		}
		all = append(all, ggml.Tensor{Name: prefix + p.Name, Rows: rows, Cols: p.Cols, Read: func() ([]float32, error) {
			x := make([]float32, p.Count())
			return x, m.Read(a, i, x)
		}})
	}
	return all
}

// WeightsHash is the sha256 of the student's weights, F32 little-endian in the
// order of its parameters, without the value head: equal weights, equal hash.
func WeightsHash(m *student.Model) (string, error) {
	h := sha256.New()
	for _, t := range tensors(m, student.Weights, "", false) {
		x, err := t.Read()
		if err != nil {
			return "", err
		}
		raw := make([]byte, 4*len(x))
		for i, v := range x {
			binary.LittleEndian.PutUint32(raw[4*i:], math.Float32bits(v))
		}
		h.Write(raw)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// Save writes dir/name. A folder of that name is replaced. An error names the
// file; nothing that was there is lost by it.
func Save(dir, name string, c Contents) (Header, error) {
	h := Header{Version: FormatVersion, Counter: c.Counter, Files: map[string]string{}}
	var err error
	if h.WeightsSHA256, err = WeightsHash(c.Model); err != nil {
		return h, err
	}
	if h.State, err = json.Marshal(c.State); err != nil {
		return h, err
	}
	o := c.Model.Config()
	final, temporary := filepath.Join(dir, name), filepath.Join(dir, fmt.Sprintf(".%s.%d.part", name, os.Getpid()))
	if err := os.MkdirAll(temporary, 0o755); err != nil {
		return h, err
	}
	defer os.RemoveAll(temporary)
	files := map[string]func(io.Writer) error{
		"student.gguf": func(w io.Writer) error {
			return ggml.WriteModel(w, "onceupon student", ggml.Hyper{Layers: o.Layers, Heads: o.Heads, Width: o.Width, Context: o.Context,
				Vocab: o.Vocab, LayerNormEpsilon: o.LayerNormEpsilon}, c.Vocabulary, ggml.F32, tensors(c.Model, student.Weights, "", false))
		},
	}
	if !c.WeightsOnly {
		files["optimizer.gguf"] = func(w io.Writer) error {
			all := tensors(c.Model, student.Weights, "", true)
			for prefix, array := range map[string]student.Array{"m.": student.Moment1, "v.": student.Moment2} {
				all = append(all, tensors(c.Model, array, prefix, false)...)
				all = append(all, tensors(c.Model, array, prefix, true)...)
			}
			sort.Slice(all, func(i, j int) bool { return all[i].Name < all[j].Name })
			return ggml.WriteArrays(w, "onceupon-optimizer", all)
		}
	}
	for file, write := range files {
		if h.Files[file], err = writeFile(filepath.Join(temporary, file), write); err != nil {
			return h, fmt.Errorf("checkpoint %s: %w", name, err)
		}
	}
	_, err = writeFile(filepath.Join(temporary, "state.json"), func(w io.Writer) error {
		e := json.NewEncoder(w)
		e.SetIndent("", " ")
		return e.Encode(h)
	})
	if err != nil {
		return h, fmt.Errorf("checkpoint %s: %w", name, err)
	}
	return h, replace(temporary, final, dir)
}

// replace renames a finished folder into place; the old one of that name is
// moved away first and removed last.
func replace(temporary, final, dir string) error {
	if err := syncFolder(temporary); err != nil {
		return err
	}
	old := final + ".old"
	if err := os.RemoveAll(old); err != nil {
		return err
	}
	if err := os.Rename(final, old); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := os.Rename(temporary, final); err != nil {
		return err
	}
	if err := syncFolder(dir); err != nil {
		return err
	}
	return os.RemoveAll(old)
}

func syncFolder(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

// writeFile writes and syncs a file and returns its sha256.
func writeFile(path string, write func(io.Writer) error) (string, error) {
	f, err := os.Create(path)
	if err != nil {
		return "", err
	}
	h := sha256.New()
	if err := write(io.MultiWriter(f, h)); err != nil {
		f.Close()
		return "", fmt.Errorf("%s: %w", filepath.Base(path), err)
	}
	if err := f.Sync(); err != nil {
		f.Close()
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), f.Close()
}

// readHeader reads and checks state.json and the hashes of the files beside it.
func readHeader(folder string) (Header, error) {
	var h Header
	path := filepath.Join(folder, "state.json")
	text, err := os.ReadFile(path)
	if err != nil {
		return h, fault.New(fault.Damaged, "%s: %w", path, err)
	}
	if err := json.Unmarshal(text, &h); err != nil {
		return h, fault.New(fault.Damaged, "%s: %w", path, err)
	}
	if h.Version > FormatVersion {
		return h, fault.New(fault.Usage, "%s: version %d is newer than this program's %d: update onceupon", path, h.Version, FormatVersion)
	}
	if h.Version < 1 || h.Files["student.gguf"] == "" {
		return h, fault.New(fault.Damaged, "%s: version %d with %d files is not what a checkpoint says of itself: the file is damaged", path, h.Version, len(h.Files))
	}
	if h.Files["optimizer.gguf"] == "" && exists(filepath.Join(folder, "optimizer.gguf")) {
		return h, fault.New(fault.Damaged, "%s: optimizer.gguf is there and not among its files: the file is damaged", path)
	}
	for file, want := range h.Files {
		f, err := os.Open(filepath.Join(folder, file))
		if err != nil {
			return h, fault.New(fault.Damaged, "checkpoint: %w", err)
		}
		sum := sha256.New()
		_, err = io.Copy(sum, f)
		f.Close()
		if err != nil || hex.EncodeToString(sum.Sum(nil)) != want {
			return h, fault.New(fault.Damaged, "%s: its sha256 is not the one in state.json: the file is damaged", filepath.Join(folder, file))
		}
	}
	return h, nil
}

// ReadState reads the trainer's state of a checkpoint whose files are whole.
func ReadState(folder string, state any) error {
	h, err := readHeader(folder)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(h.State, state); err != nil {
		return fault.New(fault.Damaged, "%s: %w", filepath.Join(folder, "state.json"), fault.Brief(err))
	}
	return nil
}

// Latest returns the undamaged checkpoint with the highest counter, "" when
// there is none, and clears what a crash left behind. When only damaged ones
// are there, that is the error.
func Latest(dir string) (name string, h Header, err error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return "", h, nil
	}
	if err != nil {
		return "", h, err
	}
	var damaged error
	for _, e := range entries {
		if n := e.Name(); strings.HasSuffix(n, ".old") {
			// The crash came between the two renames when the new one is missing.
			if original := strings.TrimSuffix(n, ".old"); !exists(filepath.Join(dir, original)) {
				if err := os.Rename(filepath.Join(dir, n), filepath.Join(dir, original)); err != nil {
					return "", h, err
				}
			} else if err := os.RemoveAll(filepath.Join(dir, n)); err != nil {
				return "", h, err
			}
		} else if strings.HasSuffix(n, ".part") {
			if err := os.RemoveAll(filepath.Join(dir, n)); err != nil {
				return "", h, err
			}
		}
	}
	if entries, err = os.ReadDir(dir); err != nil {
		return "", h, err
	}
	for _, e := range entries {
		header, err := readHeader(filepath.Join(dir, e.Name()))
		if err != nil {
			if fault.Code(err) == int(fault.Usage) {
				return "", h, err
			}
			damaged = err
			continue
		}
		if _, resumable := header.Files["optimizer.gguf"]; resumable && (name == "" || header.Counter > h.Counter) {
			name, h = e.Name(), header
		}
	}
	if name == "" && damaged != nil {
		return "", h, fmt.Errorf("%w: restore it or begin another run folder", damaged)
	}
	return name, h, nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
