package ggml

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math"
)

// Writer collects metadata and tensors and writes a GGUF file. The same
// calls give the same bytes.
type Writer struct {
	values  []byte
	count   uint64
	tensors []tensorSource
}

type tensorSource struct {
	info TensorInfo
	read func() ([]byte, error)
}

func (w *Writer) u32(x uint32) { w.values = binary.LittleEndian.AppendUint32(w.values, x) }
func (w *Writer) u64(x uint64) { w.values = binary.LittleEndian.AppendUint64(w.values, x) }

func (w *Writer) text(s string) {
	w.u64(uint64(len(s)))
	w.values = append(w.values, s...)
}

func (w *Writer) key(key string, kind uint32) {
	w.text(key)
	w.u32(kind)
	w.count++
}

// SetString sets a metadata string.
func (w *Writer) SetString(key, value string) {
	w.key(key, typeString)
	w.text(value)
}

// SetUint32 sets a metadata integer.
func (w *Writer) SetUint32(key string, value uint32) {
	w.key(key, typeUint32)
	w.u32(value)
}

// SetFloat32 sets a metadata number.
func (w *Writer) SetFloat32(key string, value float32) {
	w.key(key, typeFloat32)
	w.u32(math.Float32bits(value))
}

// SetBool sets a metadata truth value.
func (w *Writer) SetBool(key string, value bool) {
	w.key(key, typeBool)
	b := byte(0)
	if value {
		b = 1
	}
	w.values = append(w.values, b)
}

// SetStrings sets a metadata array of strings.
func (w *Writer) SetStrings(key string, values []string) {
	w.key(key, typeArray)
	w.u32(typeString)
	w.u64(uint64(len(values)))
	for _, s := range values {
		w.text(s)
	}
}

// SetInt32s sets a metadata array of integers.
func (w *Writer) SetInt32s(key string, values []int32) {
	w.key(key, typeArray)
	w.u32(typeInt32)
	w.u64(uint64(len(values)))
	for _, x := range values {
		w.u32(uint32(x))
	}
}

// AddTensor adds an F32 tensor; dims are in ggml's order (a matrix [out][in]
// is {in, out}). read is called once, while the file is written, so that no
// second copy of all weights is held.
func (w *Writer) AddTensor(name string, dims []uint64, read func() ([]float32, error)) {
	w.AddRaw(name, dims, F32, func() ([]byte, error) {
		values, err := read()
		raw := make([]byte, 4*len(values))
		for i, x := range values {
			binary.LittleEndian.PutUint32(raw[4*i:], math.Float32bits(x))
		}
		return raw, err
	})
}

// AddRaw adds a tensor of any known type, whose bytes read returns.
func (w *Writer) AddRaw(name string, dims []uint64, t Type, read func() ([]byte, error)) {
	info := TensorInfo{Name: name, Dims: dims, Type: t}
	info.Size = info.Elements() / blocks[t][0] * blocks[t][1]
	if n := len(w.tensors); n > 0 {
		last := w.tensors[n-1].info
		info.Offset = align(last.Offset + last.Size)
	}
	w.tensors = append(w.tensors, tensorSource{info, read})
}

func align(n uint64) uint64 {
	return (n + defaultAlignment - 1) / defaultAlignment * defaultAlignment
}

// WriteTo writes the file.
func (w *Writer) WriteTo(to io.Writer) (int64, error) {
	var header bytes.Buffer
	header.WriteString(magic)
	head := Writer{}
	head.u32(version)
	head.u64(uint64(len(w.tensors)))
	head.u64(w.count)
	head.values = append(head.values, w.values...)
	for _, t := range w.tensors {
		head.text(t.info.Name)
		head.u32(uint32(len(t.info.Dims)))
		for _, d := range t.info.Dims {
			head.u64(d)
		}
		head.u32(uint32(t.info.Type))
		head.u64(t.info.Offset)
	}
	header.Write(head.values)
	header.Write(make([]byte, align(uint64(header.Len()))-uint64(header.Len())))

	out := bufio.NewWriterSize(to, 1<<20)
	written, err := out.Write(header.Bytes())
	total := int64(written)
	for _, t := range w.tensors {
		if err != nil {
			return total, err
		}
		raw, readErr := t.read()
		if readErr != nil {
			return total, fmt.Errorf("tensor %s: %w", t.info.Name, readErr)
		}
		if uint64(len(raw)) != t.info.Size {
			return total, fmt.Errorf("tensor %s: %d bytes for dimensions %v of %s", t.info.Name, len(raw), t.info.Dims, t.info.Type)
		}
		raw = append(raw, make([]byte, align(t.info.Size)-t.info.Size)...)
		written, err = out.Write(raw)
		total += int64(written)
	}
	if err != nil {
		return total, err
	}
	return total, out.Flush()
}
