package ggml

import (
	"cmp"
	"encoding/binary"
	"errors"
	"math"
	"math/bits"
	"slices"

	"golang.org/x/sys/unix"

	"onceupon/trainer/fault"
)

// Limits of what a header may claim. Counts are bounded by the bytes that are
// left as well, so a lie costs no memory.
const (
	maxString = 1 << 24
	maxDims   = 4
	maxDepth  = 4 // of arrays in arrays
)

// The least bytes that one of these takes in a file.
const (
	leastString = 8          // its length
	leastArray  = 4 + 8      // type, length
	leastEntry  = 8 + 4 + 1  // key, type, value
	leastTensor = 8 + 4 + 20 // name, number of dimensions, one of them, type, offset
)

// File is an open, memory-mapped GGUF file.
type File struct {
	Path    string
	Version uint32
	Tensors []TensorInfo

	raw    []byte // the whole file
	mapped bool
	values map[string]any
	data   uint64 // start of the data section
	index  map[string]int
}

// Open maps a GGUF file and checks all that its header claims against the
// file: errors are fault.Damaged and name the file, the field and the offset; a
// missing file is fault.Capability. Close it; its tensors are gone then.
func Open(path string) (*File, error) {
	raw, err := mapFile(path, "GGUF")
	if err != nil {
		return nil, err
	}
	var f *File
	if err := reading(path, func() (err error) { f, err = Parse(path, raw); return err }); err != nil {
		return nil, errors.Join(err, unix.Munmap(raw))
	}
	f.mapped = true
	return f, nil
}

// Close unmaps the file.
func (f *File) Close() error {
	raw, mapped := f.raw, f.mapped
	f.raw, f.mapped = nil, false
	if !mapped {
		return nil
	}
	return unix.Munmap(raw)
}

type parser struct {
	raw    []byte
	path   string
	offset uint64 // of the next byte
	field  uint64 // where the field that is read begins
}

func (p *parser) damaged(format string, args ...any) error {
	args = append([]any{p.path}, append(args, p.field)...)
	return fault.New(fault.Damaged, "%s: "+format+" (at byte %d): the file is damaged, fetch or write it again", args...)
}

func (p *parser) left() uint64 { return uint64(len(p.raw)) - p.offset }

func (p *parser) bytes(n uint64, what string) ([]byte, error) {
	p.field = p.offset
	if n > p.left() {
		return nil, p.damaged("ends inside %.80q", what)
	}
	p.offset += n
	return p.raw[p.field:p.offset], nil
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

// count reads how many things follow, of at least so many bytes each.
func (p *parser) count(what string, least uint64) (int, error) {
	n, err := p.uint64(what)
	if err != nil {
		return 0, err
	}
	if n > p.left()/least {
		return 0, p.damaged("%.80q claims to be %d; %d bytes are left", what, n, p.left())
	}
	return int(n), nil
}

func (p *parser) string(what string) (string, error) {
	n, err := p.uint64(what)
	if err != nil {
		return "", err
	}
	if n > maxString {
		return "", p.damaged("%.80q claims %d bytes", what, n)
	}
	b, err := p.bytes(n, what)
	return string(b), err
}

// Parse reads a file's bytes, which the tensors go on using.
func Parse(path string, raw []byte) (*File, error) {
	p := &parser{raw: raw, path: path}
	b, err := p.bytes(4, "the magic")
	if err != nil || string(b) != magic {
		return nil, fault.New(fault.Damaged, "%s: is not a GGUF file (it does not begin with %q): give a GGUF file", path, magic)
	}
	out := &File{Path: path, raw: raw, values: map[string]any{}, index: map[string]int{}}
	if out.Version, err = p.uint32("the version"); err != nil {
		return nil, err
	}
	if out.Version != 2 && out.Version != version {
		return nil, p.damaged("GGUF version %d; 2 and 3 are known", out.Version)
	}
	tensors, err := p.count("the number of tensors", leastTensor)
	if err != nil {
		return nil, err
	}
	entries, err := p.count("the number of metadata entries", leastEntry)
	if err != nil {
		return nil, err
	}
	for range entries {
		begin := p.offset
		key, err := p.string("a metadata key")
		if err != nil {
			return nil, err
		}
		if _, twice := out.values[key]; twice {
			p.field = begin
			return nil, p.damaged("metadata key %.80q occurs twice", key)
		}
		kind, err := p.uint32(key)
		if err != nil {
			return nil, err
		}
		if out.values[key], err = p.value(kind, key, 0); err != nil {
			return nil, err
		}
	}
	for range tensors {
		begin := p.offset
		t, err := p.tensor()
		if err != nil {
			return nil, err
		}
		if _, twice := out.index[t.Name]; twice {
			p.field = begin
			return nil, p.damaged("tensor %.80q occurs twice", t.Name)
		}
		out.index[t.Name] = len(out.Tensors)
		out.Tensors = append(out.Tensors, t)
	}
	return out, p.place(out)
}

// place checks that every tensor lies inside the file and on no other.
func (p *parser) place(f *File) error {
	alignment := uint64(defaultAlignment)
	p.field = p.offset
	if v, ok := f.values["general.alignment"]; ok {
		n, err := f.Int("general.alignment")
		if err != nil || n < 1 || n&(n-1) != 0 || n > 1<<20 {
			return p.damaged("general.alignment = %v is not a power of two up to 2^20", v)
		}
		alignment = uint64(n)
	}
	f.data = (p.offset + alignment - 1) / alignment * alignment
	room := uint64(len(p.raw)) - min(f.data, uint64(len(p.raw)))
	order := make([]int, len(f.Tensors))
	for i, t := range f.Tensors {
		order[i] = i
		switch {
		case t.Offset%alignment != 0:
			return p.damaged("the data of tensor %.80q begin at byte %d of the data, no multiple of %d", t.Name, t.Offset, alignment)
		case t.Offset > room || t.Size > room-t.Offset:
			return p.damaged("tensor %.80q has %d bytes at byte %d of the data, which has %d: it was cut short", t.Name, t.Size, t.Offset, room)
		}
	}
	slices.SortFunc(order, func(a, b int) int {
		x, y := f.Tensors[a], f.Tensors[b]
		return cmp.Or(cmp.Compare(x.Offset, y.Offset), cmp.Compare(x.Size, y.Size))
	})
	end, last := uint64(0), ""
	for _, i := range order {
		t := f.Tensors[i]
		if t.Offset < end {
			return p.damaged("the data of tensors %.80q and %.80q overlap at byte %d of the data", last, t.Name, t.Offset)
		}
		end, last = t.Offset+t.Size, t.Name
	}
	return nil
}

func (p *parser) tensor() (TensorInfo, error) {
	name, err := p.string("a tensor's name")
	if err != nil {
		return TensorInfo{}, err
	}
	t := TensorInfo{Name: name}
	dims, err := p.uint32(name)
	if err != nil {
		return t, err
	}
	if dims == 0 || dims > maxDims {
		return t, p.damaged("tensor %.80q has %d dimensions; 1 to %d are possible", name, dims, maxDims)
	}
	t.Dims = make([]uint64, dims)
	elements := uint64(1)
	for i := range t.Dims {
		d, err := p.uint64(name)
		if err != nil {
			return t, err
		}
		high, low := bits.Mul64(elements, d)
		if d == 0 || high != 0 || low > math.MaxInt64/8 {
			return t, p.damaged("tensor %.80q has an impossible dimension %d", name, d)
		}
		elements = low
		t.Dims[i] = d
	}
	kind, err := p.uint32(name)
	if err != nil {
		return t, err
	}
	t.Type = Type(kind)
	if block, known := blocks[t.Type]; known {
		if t.Dims[0]%block[0] != 0 {
			return t, p.damaged("tensor %.80q: its rows of %d are no multiple of %s's block of %d", name, t.Dims[0], t.Type, block[0])
		}
		t.Size = elements / block[0] * block[1]
	}
	t.Offset, err = p.uint64(name)
	return t, err
}
