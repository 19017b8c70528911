package ggml

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"math"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"onceupon/trainer/fault"
)

// Safetensors is an open, memory-mapped safetensors file: 8 bytes with the
// header's length, the header in JSON, the data
// (github.com/huggingface/safetensors, README).
type Safetensors struct {
	Path     string
	Metadata map[string]string
	Tensors  []SafeTensor // in the order of their data

	mapped []byte
	index  map[string]int
}

// SafeTensor is one tensor of a file, row-major.
type SafeTensor struct {
	Name  string
	Type  string // F32, F16, BF16, F64, I64, I32, I16, I8, U8, BOOL
	Shape []int
	raw   []byte
}

// maxSafeHeader is the format's own limit of the header, in bytes.
const maxSafeHeader = 100 << 20

var safeSizes = map[string]int{"F64": 8, "I64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}

// OpenSafetensors maps a file and checks all that its header claims before it
// is used: errors are fault.Damaged; a missing file is fault.Capability. Close
// it; its tensors are gone then.
func OpenSafetensors(path string) (*Safetensors, error) {
	f, err := os.Open(path)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return nil, fault.New(fault.Capability, "%s: no such file: give the path of a safetensors file", path)
		}
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.IsDir() || info.Size() < 8 {
		return nil, fault.New(fault.Damaged, "%s: is not a safetensors file", path)
	}
	mapped, err := unix.Mmap(int(f.Fd()), 0, int(info.Size()), unix.PROT_READ, unix.MAP_PRIVATE)
	if err != nil {
		return nil, err
	}
	s, err := ParseSafetensors(path, mapped)
	if err != nil {
		return nil, errors.Join(err, unix.Munmap(mapped))
	}
	s.mapped = mapped
	return s, nil
}

// Close unmaps the file.
func (s *Safetensors) Close() error {
	mapped := s.mapped
	s.mapped, s.Tensors = nil, nil
	if mapped == nil {
		return nil
	}
	return unix.Munmap(mapped)
}

// ParseSafetensors reads a file's bytes, which the tensors go on using.
func ParseSafetensors(path string, raw []byte) (*Safetensors, error) {
	damaged := func(format string, args ...any) error {
		return fault.New(fault.Damaged, "%s: "+format, append([]any{path}, args...)...)
	}
	if len(raw) < 8 {
		return nil, damaged("%d bytes are no safetensors file", len(raw))
	}
	n := binary.LittleEndian.Uint64(raw)
	if n > uint64(len(raw)-8) || n > maxSafeHeader {
		return nil, damaged("the header claims %d bytes; the file has %d", n, len(raw))
	}
	data := raw[8+n:]
	var entries map[string]json.RawMessage
	if err := json.Unmarshal(raw[8:8+n], &entries); err != nil {
		return nil, damaged("header: %w", err)
	}
	s := &Safetensors{Path: path, index: map[string]int{}}
	starts := map[string]int64{}
	for name, text := range entries {
		if name == "__metadata__" {
			if err := json.Unmarshal(text, &s.Metadata); err != nil {
				return nil, damaged("__metadata__: %w", err)
			}
			continue
		}
		var t struct {
			Type    string  `json:"dtype"`
			Shape   []int64 `json:"shape"`
			Offsets []int64 `json:"data_offsets"`
		}
		d := json.NewDecoder(bytes.NewReader(text))
		d.DisallowUnknownFields()
		if err := d.Decode(&t); err != nil {
			return nil, damaged("tensor %q: %w", name, err)
		}
		size, ok := safeSizes[t.Type]
		if !ok {
			return nil, damaged("tensor %q: type %q is not known", name, t.Type)
		}
		bytes, shape := int64(size), make([]int, 0, 4)
		for _, d := range t.Shape {
			if d < 0 || (d > 0 && bytes > math.MaxInt64/d) {
				return nil, damaged("tensor %q: impossible shape %v", name, t.Shape)
			}
			bytes *= d
			shape = append(shape, int(d))
		}
		if len(t.Offsets) != 2 || t.Offsets[0] < 0 || t.Offsets[0] > t.Offsets[1] || t.Offsets[1] > int64(len(data)) || t.Offsets[1]-t.Offsets[0] != bytes {
			return nil, damaged("tensor %q: shape %v of %s does not fit the bytes %v of %d", name, t.Shape, t.Type, t.Offsets, len(data))
		}
		starts[name] = t.Offsets[0]
		s.Tensors = append(s.Tensors, SafeTensor{name, t.Type, shape, data[t.Offsets[0]:t.Offsets[1]]})
	}
	slices.SortFunc(s.Tensors, func(a, b SafeTensor) int {
		return cmpFirst(starts[a.Name], starts[b.Name], int64(len(a.raw)), int64(len(b.raw)))
	})
	at := int64(0)
	for i, t := range s.Tensors {
		if starts[t.Name] != at {
			return nil, damaged("tensor %q begins at byte %d of the data, not at %d: tensors overlap or leave a hole", t.Name, starts[t.Name], at)
		}
		at += int64(len(t.raw))
		s.index[t.Name] = i
	}
	if at != int64(len(data)) {
		return nil, damaged("%d bytes belong to no tensor", int64(len(data))-at)
	}
	return s, nil
}

// cmpFirst orders by place, empty tensors before the one that begins there.
func cmpFirst(a, b, sizeA, sizeB int64) int {
	if a != b {
		return int(min(max(a-b, -1), 1))
	}
	return int(min(max(sizeA-sizeB, -1), 1))
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
func (t SafeTensor) Float32() ([]float32, error) {
	size := safeSizes[t.Type]
	out := make([]float32, len(t.raw)/size)
	for i := range out {
		switch t.Type {
		case "F32":
			out[i] = math.Float32frombits(binary.LittleEndian.Uint32(t.raw[4*i:]))
		case "BF16":
			out[i] = math.Float32frombits(uint32(binary.LittleEndian.Uint16(t.raw[2*i:])) << 16)
		case "F16":
			out[i] = halfToFloat(binary.LittleEndian.Uint16(t.raw[2*i:]))
		default:
			return nil, fault.New(fault.Damaged, "tensor %s is of %s; F32, F16 and BF16 can be read as weights", t.Name, t.Type)
		}
	}
	return out, nil
}

// WriteSafetensors writes F32 tensors in the given order.
func WriteSafetensors(to io.Writer, metadata map[string]string, tensors []Tensor) error {
	type entry struct {
		Type    string `json:"dtype"`
		Shape   []int  `json:"shape"`
		Offsets [2]int `json:"data_offsets"`
	}
	header := map[string]any{"__metadata__": metadata}
	at := 0
	for _, t := range tensors {
		shape, count := []int{t.Cols}, t.Cols
		if t.Rows > 0 {
			shape, count = []int{t.Rows, t.Cols}, t.Rows*t.Cols
		}
		header[t.Name] = entry{"F32", shape, [2]int{at, at + 4*count}}
		at += 4 * count
	}
	text, err := json.Marshal(header)
	if err != nil {
		return err
	}
	for len(text)%8 != 0 {
		text = append(text, ' ') // the data begins at a multiple of 8
	}
	if _, err := to.Write(append(binary.LittleEndian.AppendUint64(nil, uint64(len(text))), text...)); err != nil {
		return err
	}
	for _, t := range tensors {
		x, err := t.Read()
		if err != nil {
			return err
		}
		if len(x) != max(t.Rows, 1)*t.Cols {
			return fault.New(fault.Failed, "tensor %s: %d numbers for %d x %d", t.Name, len(x), t.Rows, t.Cols)
		}
		raw := make([]byte, 4*len(x))
		for i, v := range x {
			binary.LittleEndian.PutUint32(raw[4*i:], math.Float32bits(v))
		}
		if _, err := to.Write(raw); err != nil {
			return err
		}
	}
	return nil
}
