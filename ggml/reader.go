package ggml

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"math/bits"
	"os"

	"onceupon/trainer/fault"
)

// Limits of what a header may claim before memory is spent on it.
const (
	maxEntries = 1 << 20
	maxString  = 1 << 24
	maxArray   = 1 << 24
	maxDims    = 4
)

// File is an open GGUF file.
type File struct {
	Path    string
	Version uint32
	Tensors []TensorInfo

	file   *os.File
	values map[string]any
	data   int64 // start of the data section
	index  map[string]int
}

// Open reads the header of a GGUF file and checks all that it claims against
// the file: errors are fault.Damaged and name the file, the field and the
// offset; a missing file is fault.Capability.
func Open(path string) (*File, error) {
	f, err := os.Open(path)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return nil, fault.New(fault.Capability, "%s: no such file: give the path of a GGUF file", path)
		}
		return nil, err
	}
	file, err := parse(f, path)
	if err != nil {
		f.Close()
		return nil, err
	}
	return file, nil
}

// Close closes the file.
func (f *File) Close() error { return f.file.Close() }

type parser struct {
	r      *bufio.Reader
	path   string
	offset int64
	size   int64
}

func (p *parser) damaged(format string, args ...any) error {
	args = append([]any{p.path}, append(args, p.offset)...)
	return fault.New(fault.Damaged, "%s: "+format+" (at byte %d): the file is damaged, fetch or write it again", args...)
}

func (p *parser) bytes(n uint64, what string) ([]byte, error) {
	if n > uint64(p.size-p.offset) {
		return nil, p.damaged("ends inside %s", what)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(p.r, b); err != nil {
		return nil, p.damaged("cannot read %s: %v", what, err)
	}
	p.offset += int64(n)
	return b, nil
}

func (p *parser) uint32(what string) (uint32, error) {
	b, err := p.bytes(4, what)
	if err != nil {
		return 0, err
	}
	return binary.LittleEndian.Uint32(b), nil
}

func (p *parser) uint64(what string) (uint64, error) {
	b, err := p.bytes(8, what)
	if err != nil {
		return 0, err
	}
	return binary.LittleEndian.Uint64(b), nil
}

func (p *parser) string(what string) (string, error) {
	n, err := p.uint64(what)
	if err != nil {
		return "", err
	}
	if n > maxString {
		return "", p.damaged("%s claims %d bytes", what, n)
	}
	b, err := p.bytes(n, what)
	return string(b), err
}

func parse(f *os.File, path string) (*File, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		return nil, fault.New(fault.Damaged, "%s: is a folder, not a GGUF file", path)
	}
	p := &parser{r: bufio.NewReaderSize(f, 1<<16), path: path, size: info.Size()}
	if b, err := p.bytes(4, "the magic"); err != nil || string(b) != magic {
		return nil, fault.New(fault.Damaged, "%s: is not a GGUF file (it does not begin with %q): give a GGUF file", path, magic)
	}
	out := &File{Path: path, file: f, values: map[string]any{}, index: map[string]int{}}
	if out.Version, err = p.uint32("the version"); err != nil {
		return nil, err
	}
	if out.Version != 2 && out.Version != version {
		return nil, p.damaged("GGUF version %d; 2 and 3 are known", out.Version)
	}
	tensors, err := p.uint64("the number of tensors")
	if err != nil {
		return nil, err
	}
	entries, err := p.uint64("the number of metadata entries")
	if err != nil {
		return nil, err
	}
	if tensors > maxEntries || entries > maxEntries {
		return nil, p.damaged("claims %d tensors and %d metadata entries", tensors, entries)
	}
	for range entries {
		key, err := p.string("a metadata key")
		if err != nil {
			return nil, err
		}
		if _, twice := out.values[key]; twice {
			return nil, p.damaged("metadata key %q occurs twice", key)
		}
		if out.values[key], err = p.value(key); err != nil {
			return nil, err
		}
	}
	for range tensors {
		t, err := p.tensor()
		if err != nil {
			return nil, err
		}
		if _, twice := out.index[t.Name]; twice {
			return nil, p.damaged("tensor %q occurs twice", t.Name)
		}
		out.index[t.Name] = len(out.Tensors)
		out.Tensors = append(out.Tensors, t)
	}
	return out, p.place(out)
}

// place checks that every tensor lies inside the file.
func (p *parser) place(f *File) error {
	alignment := uint64(defaultAlignment)
	if v, ok := f.values["general.alignment"]; ok {
		n, isInt := v.(uint64)
		if !isInt || n == 0 || bits.OnesCount64(n) != 1 || n > 1<<20 {
			return p.damaged("general.alignment = %v is not a power of two", v)
		}
		alignment = n
	}
	f.data = int64((uint64(p.offset) + alignment - 1) / alignment * alignment)
	for _, t := range f.Tensors {
		if t.Offset%alignment != 0 {
			return p.damaged("tensor %q is not aligned to %d", t.Name, alignment)
		}
		room := uint64(max(0, p.size-f.data))
		if t.Offset > room || t.Size > room-t.Offset {
			return p.damaged("tensor %q ends after the file: it was cut short", t.Name)
		}
	}
	return nil
}

func (p *parser) tensor() (TensorInfo, error) {
	name, err := p.string("a tensor's name")
	if err != nil {
		return TensorInfo{}, err
	}
	t := TensorInfo{Name: name}
	dims, err := p.uint32("dimensions of " + name)
	if err != nil {
		return t, err
	}
	if dims == 0 || dims > maxDims {
		return t, p.damaged("tensor %q has %d dimensions", name, dims)
	}
	elements := uint64(1)
	for range dims {
		d, err := p.uint64("a dimension of " + name)
		if err != nil {
			return t, err
		}
		high, low := bits.Mul64(elements, d)
		if d == 0 || high != 0 || low > math.MaxInt64/8 {
			return t, p.damaged("tensor %q has an impossible dimension %d", name, d)
		}
		elements = low
		t.Dims = append(t.Dims, d)
	}
	kind, err := p.uint32("type of " + name)
	if err != nil {
		return t, err
	}
	t.Type = Type(kind)
	if block, known := blocks[t.Type]; known {
		if t.Dims[0]%block[0] != 0 {
			return t, p.damaged("tensor %q: %d is no multiple of its block of %d", name, t.Dims[0], block[0])
		}
		t.Size = elements / block[0] * block[1]
	}
	t.Offset, err = p.uint64("offset of " + name)
	return t, err
}

func (p *parser) value(key string) (any, error) {
	kind, err := p.uint32("type of " + key)
	if err != nil {
		return nil, err
	}
	if kind != typeArray {
		return p.scalar(kind, key)
	}
	if kind, err = p.uint32("element type of " + key); err != nil {
		return nil, err
	}
	n, err := p.uint64("length of " + key)
	if err != nil {
		return nil, err
	}
	if n > maxArray || n > uint64(p.size-p.offset) || kind == typeArray {
		return nil, p.damaged("%s claims %d elements of type %d", key, n, kind)
	}
	if kind == typeString {
		all := make([]string, n)
		for i := range all {
			if all[i], err = p.string(key); err != nil {
				return nil, err
			}
		}
		return all, nil
	}
	all := make([]any, n)
	for i := range all {
		if all[i], err = p.scalar(kind, key); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// scalar reads a value; integers become uint64 or int64, floats float64.
func (p *parser) scalar(kind uint32, key string) (any, error) {
	if kind == typeString {
		return p.string(key)
	}
	sizes := map[uint32]uint64{typeUint8: 1, typeInt8: 1, typeUint16: 2, typeInt16: 2, typeUint32: 4, typeInt32: 4, typeFloat32: 4,
		typeBool: 1, typeUint64: 8, typeInt64: 8, typeFloat64: 8}
	n, known := sizes[kind]
	if !known {
		return nil, p.damaged("%s has unknown type %d", key, kind)
	}
	b, err := p.bytes(n, key)
	if err != nil {
		return nil, err
	}
	var raw [8]byte
	copy(raw[:], b)
	u := binary.LittleEndian.Uint64(raw[:])
	switch kind {
	case typeInt8:
		return int64(int8(u)), nil
	case typeInt16:
		return int64(int16(u)), nil
	case typeInt32:
		return int64(int32(u)), nil
	case typeInt64:
		return int64(u), nil
	case typeFloat32:
		return float64(math.Float32frombits(uint32(u))), nil
	case typeFloat64:
		return math.Float64frombits(u), nil
	case typeBool:
		if u > 1 {
			return nil, p.damaged("%s is a truth value of %d", key, u)
		}
		return u == 1, nil
	}
	return u, nil
}
