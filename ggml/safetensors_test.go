package ggml

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"onceupon/trainer/fault"
)

func safe(header string, data int) []byte {
	raw := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	return append(append(raw, header...), make([]byte, data)...)
}

func TestSafetensorsRoundTrip(t *testing.T) {
	var out bytes.Buffer
	read := func(x ...float32) func() ([]float32, error) { return func() ([]float32, error) { return x, nil } }
	err := WriteSafetensors(&out, map[string]string{"format": "pt"}, []Tensor{
		{Name: "matrix", Rows: 2, Cols: 3, Read: read(1, 2, 3, 4, 5, 6)}, {Name: "vector", Cols: 2, Read: read(-1, 0.5)}})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "x.safetensors")
	if err := os.WriteFile(path, out.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := OpenSafetensors(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	m, err := f.Tensor("matrix")
	if err != nil || len(m.Shape) != 2 || m.Shape[0] != 2 || m.Shape[1] != 3 || f.Metadata["format"] != "pt" {
		t.Fatalf("%+v, %v, %v", m, f.Metadata, err)
	}
	x, err := m.Float32()
	if err != nil || x[5] != 6 {
		t.Errorf("%v, %v", x, err)
	}
	if _, err := f.Tensor("none"); fault.Code(err) != int(fault.Damaged) {
		t.Errorf("a missing tensor gave %v", err)
	}
}

func TestSafetensorsLies(t *testing.T) {
	for header, says := range map[string]string{
		`{`:  "header",
		`[]`: "header",
		`{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}`:                                                      "does not fit the bytes",
		`{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,12]}}`:                                                     "does not fit the bytes",
		`{"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,8]}}`:                                  "impossible shape",
		`{"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}}`:                                                     "impossible shape",
		`{"a":{"dtype":"Q4","shape":[2],"data_offsets":[0,8]}}`:                                                       `type "Q4" is not known`,
		`{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}`:                                                      "overlap or leave a hole",
		`{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}`: "overlap or leave a hole",
		`{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}`:                                                      "4 bytes belong to no tensor",
		`{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8],"more":1}}`:                                             "unknown field",
		`{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,9223372036854775807]}}`:                                    "does not fit the bytes",
		`{"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}}`:                                                      "does not fit the bytes",
		`{"a":{"dtype":"F32","shape":[2],"data_offsets":[0]}}`:                                                        "does not fit the bytes",
		`{"a":{"dtype":"F32","shape":[18446744073709551616],"data_offsets":[0,8]}}`:                                   "tensor",
	} {
		_, err := ParseSafetensors("x", safe(header, 8))
		if fault.Code(err) != int(fault.Damaged) || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v; want %q", header, err, says)
		}
	}
	long := safe("{}", 0)
	binary.LittleEndian.PutUint64(long, 1<<63)
	if _, err := ParseSafetensors("x", long); fault.Code(err) != int(fault.Damaged) {
		t.Errorf("a header of 2^63 bytes gave %v", err)
	}
}

func FuzzSafetensors(f *testing.F) {
	f.Add(safe(`{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}`, 8))
	f.Add(safe(`{"a":{"dtype":"F16","shape":[],"data_offsets":[0,2]},"__metadata__":{"format":"pt"}}`, 2))
	f.Add(safe(`{"a":{"dtype":"I64","shape":[1],"data_offsets":[0,9223372036854775807]}}`, 8))
	f.Fuzz(func(t *testing.T, raw []byte) {
		s, err := ParseSafetensors("fuzz", raw)
		if err != nil {
			return
		}
		total := 0
		for _, x := range s.Tensors {
			total += x.Bytes()
		}
		if total > len(raw) {
			t.Errorf("%d bytes of tensors in %d", total, len(raw))
		}
	})
}
