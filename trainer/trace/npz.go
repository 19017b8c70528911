package trace

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"io"
	"os"
	"regexp"
	"strconv"
	"strings"

	"onceupon/trainer/fault"
)

// maxMember bounds one array of an archive, in bytes: traces are small, and an
// archive may claim anything.
const maxMember = 1 << 28

// ReadNPZ reads a NumPy archive: a zip of .npy files
// (numpy.lib.format, versions 1 and 2).
func ReadNPZ(path string) (Arrays, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return Arrays{}, fault.New(fault.Damaged, "trace: %w", err)
	}
	return parseNPZ(path, raw)
}

func parseNPZ(path string, raw []byte) (Arrays, error) {
	a := Arrays{path, map[string]Array{}}
	z, err := zip.NewReader(bytes.NewReader(raw), int64(len(raw)))
	if err != nil {
		return a, fault.New(fault.Damaged, "%s: %w", path, err)
	}
	for _, member := range z.File {
		name := strings.TrimSuffix(member.Name, ".npy")
		if member.UncompressedSize64 > maxMember {
			return a, fault.New(fault.Damaged, "%s: array %s claims %d bytes, the limit is %d", path, name, member.UncompressedSize64, maxMember)
		}
		r, err := member.Open()
		if err != nil {
			return a, fault.New(fault.Damaged, "%s: array %s: %w", path, name, err)
		}
		text, err := io.ReadAll(io.LimitReader(r, maxMember))
		if err != nil {
			return a, fault.New(fault.Damaged, "%s: array %s: %w", path, name, err)
		}
		if a.ByName[name], err = parseNPY(text); err != nil {
			return a, fault.New(fault.Damaged, "%s: array %s: %w", path, name, err)
		}
	}
	return a, nil
}

// header matches the three keys of a .npy header, a Python literal.
var header = regexp.MustCompile(`^\{'descr': '([^']+)', 'fortran_order': (True|False), 'shape': \(([0-9, ]*)\), *\}\s*$`)

func parseNPY(raw []byte) (Array, error) {
	if len(raw) < 10 || string(raw[:6]) != "\x93NUMPY" {
		return Array{}, fault.New(fault.Damaged, "is no .npy file")
	}
	first, length := 10, int(binary.LittleEndian.Uint16(raw[8:]))
	if raw[6] == 2 && len(raw) >= 12 {
		first, length = 12, int(binary.LittleEndian.Uint32(raw[8:]))
	} else if raw[6] != 1 {
		return Array{}, fault.New(fault.Damaged, ".npy version %d is not read here", raw[6])
	}
	if length > len(raw)-first {
		return Array{}, fault.New(fault.Damaged, "the header claims %d bytes of %d", length, len(raw))
	}
	m := header.FindStringSubmatch(string(raw[first : first+length]))
	if m == nil {
		return Array{}, fault.New(fault.Damaged, "header %q", raw[first:first+min(length, 100)])
	}
	kind, ok := numbers[m[1]]
	if !ok {
		return Array{}, fault.New(fault.Damaged, "type %q is not read here", m[1])
	}
	shape := []int{}
	for s := range strings.SplitSeq(m[3], ",") {
		if s = strings.TrimSpace(s); s == "" {
			continue
		}
		n, err := strconv.Atoi(s)
		if err != nil {
			return Array{}, fault.New(fault.Damaged, "shape (%s)", m[3])
		}
		shape = append(shape, n)
	}
	data := raw[first+length:]
	n, ok := count(shape, int64(len(data)))
	if !ok || n*int64(kind.size) != int64(len(data)) {
		return Array{}, fault.New(fault.Damaged, "shape %v of %s does not fit %d bytes", shape, m[1], len(data))
	}
	a := Array{shape, kind.all(data)}
	if m[2] == "True" {
		a.X = rowMajor(a)
	}
	return a, nil
}

// rowMajor reorders an array stored with its first index fastest.
func rowMajor(a Array) []float64 {
	out := make([]float64, len(a.X))
	index := make([]int, len(a.Shape))
	for i := range out {
		at, stride := 0, 1
		for k, s := range a.Shape {
			at += index[k] * stride
			stride *= s
		}
		out[i] = a.X[at]
		for k := len(index) - 1; k >= 0; k-- {
			if index[k]++; index[k] < a.Shape[k] {
				break
			}
			index[k] = 0
		}
	}
	return out
}
