package ggml

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"

	"golang.org/x/sys/unix"

	"onceupon/trainer/fault"
)

// Safetensors is an open, memory-mapped safetensors file: 8 bytes with the
// header's length, the header in JSON, the data
// (github.com/huggingface/safetensors, README); or several, by their index.
type Safetensors struct {
	Path     string
	Metadata map[string]string
	Tensors  []SafeTensor // in the order of their data

	mapped [][]byte
	index  map[string]int
}

// SafeTensor is one tensor of a file, row-major.
type SafeTensor struct {
	Name  string
	Type  string // a key of safeBits
	Shape []int
	raw   []byte
	path  string
}

// maxSafeHeader is the format's own limit of the header, in bytes.
const maxSafeHeader = 100 << 20

// safeBits are the bits of an element of each type of the format.
var safeBits = map[string]int64{"C64": 64, "F64": 64, "I64": 64, "U64": 64, "F32": 32, "I32": 32, "U32": 32, "F16": 16, "BF16": 16, "I16": 16,
	"U16": 16, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "I8": 8, "U8": 8, "BOOL": 8, "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4}

// OpenSafetensors maps a file and checks all that its header claims before it
// is used: errors are fault.Damaged; a missing file is fault.Capability. Close
// it; its tensors are gone then.
func OpenSafetensors(path string) (*Safetensors, error) {
	raw, err := mapFile(path, "safetensors")
	if err != nil {
		return nil, err
	}
	var s *Safetensors
	if err := reading(path, func() (err error) { s, err = ParseSafetensors(path, raw); return err }); err != nil {
		return nil, errors.Join(err, unix.Munmap(raw))
	}
	s.mapped = [][]byte{raw}
	return s, nil
}

// Close unmaps the file.
func (s *Safetensors) Close() error {
	var err error
	for _, raw := range s.mapped {
		err = errors.Join(err, unix.Munmap(raw))
	}
	s.mapped, s.Tensors, s.index = nil, nil, nil
	return err
}

// safeEntry is a tensor in the header.
type safeEntry struct {
	Type    string  `json:"dtype"`
	Shape   []int64 `json:"shape"`
	Offsets []int64 `json:"data_offsets"`
}

// ParseSafetensors reads a file's bytes, which the tensors go on using.
func ParseSafetensors(path string, raw []byte) (*Safetensors, error) {
	if len(raw) < 8 {
		return nil, fault.New(fault.Damaged, "%s: %d bytes are no safetensors file: give another", path, len(raw))
	}
	n := binary.LittleEndian.Uint64(raw)
	if n > uint64(len(raw)-8) || n > maxSafeHeader {
		return nil, fault.New(fault.Damaged, "%s: the header claims %d bytes (at byte 0); the file has %d: fetch or write it again", path, n, len(raw))
	}
	h := &safeHeader{s: &Safetensors{Path: path, index: map[string]int{}}, header: raw[8 : 8+n], data: raw[8+n:], starts: map[string]int64{}}
	h.json = json.NewDecoder(bytes.NewReader(h.header))
	h.json.DisallowUnknownFields()
	if err := h.read(); err != nil {
		return nil, err
	}
	return h.s, h.place()
}

// safeHeader reads a header entry by entry, so that a bad one ends it before
// the rest takes memory.
type safeHeader struct {
	s            *Safetensors
	json         *json.Decoder
	header, data []byte
	starts       map[string]int64 // byte of the data where a tensor begins
}

func (h *safeHeader) damaged(format string, args ...any) error {
	args = append([]any{h.s.Path}, append(args, 8+h.json.InputOffset())...)
	return fault.New(fault.Damaged, "%s: header: "+format+" (before byte %d): fetch or write it again", args...)
}

func (h *safeHeader) read() error {
	if t, err := h.json.Token(); err != nil || t != json.Delim('{') {
		return h.damaged("is no object of JSON")
	}
	for h.json.More() {
		key, err := h.json.Token()
		if err != nil {
			return h.damaged("%w", fault.Brief(err))
		}
		name, _ := key.(string) // the decoder gives nothing else here
		if name == "__metadata__" && h.s.Metadata == nil {
			if err := h.json.Decode(&h.s.Metadata); err != nil {
				return h.damaged("__metadata__: %w", fault.Brief(err))
			}
			continue
		}
		if _, twice := h.starts[name]; twice || name == "__metadata__" {
			return h.damaged("%.80q occurs twice", name)
		}
		var t safeEntry
		if err := h.json.Decode(&t); err != nil {
			return h.damaged("tensor %.80q: %w", name, fault.Brief(err))
		}
		if err := h.tensor(name, t); err != nil {
			return err
		}
	}
	if _, err := h.json.Token(); err != nil {
		return h.damaged("%w", fault.Brief(err))
	}
	if rest := bytes.TrimRight(h.header[h.json.InputOffset():], " \t\r\n"); len(rest) > 0 {
		return h.damaged("%d bytes follow its end", len(rest))
	}
	return nil
}

func (h *safeHeader) tensor(name string, t safeEntry) error {
	size, ok := safeBits[t.Type]
	if !ok {
		return h.damaged("tensor %.80q: type %.20q is not known", name, t.Type)
	}
	shape := make([]int, 0, len(t.Shape))
	for _, d := range t.Shape {
		if d < 0 || d > 0 && size > math.MaxInt64/d {
			return h.damaged("tensor %.80q: impossible shape %.120s", name, short(t.Shape))
		}
		size *= d
		shape = append(shape, int(d))
	}
	if size%8 != 0 {
		return h.damaged("tensor %.80q: shape %.120s of %s is no whole number of bytes", name, short(t.Shape), t.Type)
	}
	o := t.Offsets
	if len(o) != 2 || o[0] < 0 || o[0] > o[1] || o[1] > int64(len(h.data)) || o[1]-o[0] != size/8 {
		return h.damaged("tensor %.80q: shape %s of %s does not fit the bytes %s of %d", name, short(t.Shape), t.Type, short(o), len(h.data))
	}
	h.starts[name] = o[0]
	h.s.Tensors = append(h.s.Tensors, SafeTensor{name, t.Type, shape, h.data[o[0]:o[1]:o[1]], h.s.Path})
	return nil
}

// short is the beginning of numbers, for messages.
func short(x []int64) string {
	if len(x) > 6 {
		return fmt.Sprint(x[:6]) + "..."
	}
	return fmt.Sprint(x)
}

// place orders the tensors and checks that they lie side by side.
func (h *safeHeader) place() error {
	s := h.s
	slices.SortFunc(s.Tensors, func(a, b SafeTensor) int {
		// Empty tensors before the one that begins there.
		return cmp.Or(cmp.Compare(h.starts[a.Name], h.starts[b.Name]), cmp.Compare(len(a.raw), len(b.raw)))
	})
	at := int64(0)
	for i, t := range s.Tensors {
		if h.starts[t.Name] != at {
			return h.damaged("tensor %.80q begins at byte %d of the data, not at %d: tensors overlap or leave a hole", t.Name, h.starts[t.Name], at)
		}
		at += int64(len(t.raw))
		s.index[t.Name] = i
	}
	if at != int64(len(h.data)) {
		return h.damaged("%d bytes of the data belong to no tensor", int64(len(h.data))-at)
	}
	return nil
}

// Tensor returns a tensor by name.
func (s *Safetensors) Tensor(name string) (SafeTensor, error) {
	i, ok := s.index[name]
	if !ok {
		return SafeTensor{}, fault.New(fault.Damaged, "%s: tensor %s is missing", s.Path, name)
	}
	return s.Tensors[i], nil
}

// Has says whether a tensor is there.
func (s *Safetensors) Has(name string) bool {
	_, ok := s.index[name]
	return ok
}

// Bytes is the size of the tensor's data.
func (t SafeTensor) Bytes() int { return len(t.raw) }

// Float32 returns the numbers of a tensor of F32, F16 or BF16.
func (t SafeTensor) Float32() (x []float32, err error) {
	kind, ok := map[string]Type{"F32": F32, "F16": F16, "BF16": BF16}[t.Type]
	if !ok {
		return nil, fault.New(fault.Damaged, "tensor %s is of %s; F32, F16 and BF16 can be read as weights", t.Name, t.Type)
	}
	err = reading(t.path, func() (err error) { x, err = Decode(kind, t.raw); return err })
	return x, err
}
