package ggml

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"onceupon/trainer/fault"
	"onceupon/trainer/xtest"
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
		`{`:     "header",
		`[]`:    "header",
		`{} {}`: "follow its end",
		`{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}`: `"a" occurs twice`,
		`{"__metadata__":{},"__metadata__":{}}`:                                                                       "occurs twice",
		`{"__metadata__":{"a":1}}`:                                                                                    "__metadata__",
		`{"a":{"dtype":"F4","shape":[3],"data_offsets":[0,1]}}`:                                                       "no whole number of bytes",
		`{"a":` + strings.Repeat("[", 20_000):                                                                         "depth",
		`{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}`:                                                      "does not fit the bytes",
		`{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,12]}}`:                                                     "does not fit the bytes",
		`{"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,8]}}`:                                  "impossible shape",
		`{"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}}`:                                                     "impossible shape",
		`{"a":{"dtype":"Q4","shape":[2],"data_offsets":[0,8]}}`:                                                       `type "Q4" is not known`,
		`{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}`:                                                      "overlap or leave a hole",
		`{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}`: "overlap or leave a hole",
		`{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}`:                                                      "4 bytes of the data belong to no tensor",
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

// An error does not repeat a long header.
func TestSafetensorsErrorsAreShort(t *testing.T) {
	long := strings.Repeat("1", 1<<16)
	for _, header := range []string{`{"a":{"` + long + `":1}}`, `{"a":{"shape":[` + long + `]}}`, `{"__metadata__":{"a":` + long + `}}`, `{"` + long + `":{"dtype":"` + long + `"}}`,
		`{"a":{"dtype":"F32","shape":[` + long[:4000] + strings.Repeat(",1", 4000) + `]}}`} {
		_, err := ParseSafetensors("fuzz", safe(header, 0))
		wellTold(t, err)
	}
}

func FuzzSafetensors(f *testing.F) {
	f.Add(safe(`{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}`, 8))
	f.Add(safe(`{"a":{"dtype":"F16","shape":[],"data_offsets":[0,2]},"__metadata__":{"format":"pt"}}`, 2))
	f.Add(safe(`{"a":{"dtype":"I64","shape":[1],"data_offsets":[0,9223372036854775807]}}`, 8))
	f.Add(safe(`{"a":{"dtype":"F4","shape":[2],"data_offsets":[0,1]},"a":{"dtype":"BOOL","shape":[0],"data_offsets":[0,0]}}`, 1))
	f.Fuzz(func(t *testing.T, raw []byte) {
		xtest.Frugal(t, len(raw), 64, func() {
			s, err := ParseSafetensors("fuzz", raw)
			if err != nil {
				wellTold(t, err)
				return
			}
			total := 0
			for _, x := range s.Tensors {
				total += x.Bytes()
				if x.Type == "F32" || x.Type == "F16" || x.Type == "BF16" {
					if _, err := x.Float32(); err != nil {
						t.Errorf("accepted tensor %s cannot be read: %v", x.Name, err)
					}
				}
			}
			if total > len(raw) {
				t.Errorf("%d bytes of tensors in %d", total, len(raw))
			}
		})
	})
}

// wellTold checks an error about damage: one line, which names the file, of
// the kind that the command line tells apart.
func wellTold(t *testing.T, err error) {
	t.Helper()
	if said := err.Error(); fault.Code(err) != int(fault.Damaged) || !strings.HasPrefix(said, "fuzz: ") || strings.Contains(said, "\n") || len(said) > 2000 {
		t.Errorf("code %d: %q", fault.Code(err), said)
	}
}

// A model in parts is one model; an index that lies is refused.
func TestSafetensorsParts(t *testing.T) {
	dir := t.TempDir()
	put := func(name string, data []byte) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	put("1.safetensors", safe(`{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}`, 8))
	put("2.safetensors", safe(`{"b":{"dtype":"F16","shape":[3],"data_offsets":[0,6]}}`, 6))
	path := filepath.Join(dir, "index.json")
	put("index.json", []byte(`{"metadata":{"total_size":14},"weight_map":{"a":"1.safetensors","b":"2.safetensors"}}`))
	s, err := OpenSafetensorsIndex(path)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := s.Tensor("b"); err != nil || b.Bytes() != 6 || len(s.Tensors) != 2 {
		t.Errorf("%+v, %v", b, err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	for index, says := range map[string]string{
		`{"weight_map":{"a":"1.safetensors","b":"1.safetensors"}}`:                     `"b" is not in 1.safetensors`,
		`{"weight_map":{"a":"1.safetensors","c":"2.safetensors"}}`:                     `"b" lies in 2.safetensors; weight_map says ""`,
		`{"weight_map":{"a":"../1.safetensors"}}`:                                      "no file beside it",
		`{"weight_map":{"a":"/etc/passwd"}}`:                                           "no file beside it",
		`{"weight_map":{"a":"3.safetensors"}}`:                                         "no such file",
		`{"weight_map":[]}`:                                                            "field weight_map must be an object, found array",
		`{"weight_map":{"a":"1.safetensors","b":"2.safetensors","c":"2.safetensors"}}`: `"c" is not in 2.safetensors`,
	} {
		put("index.json", []byte(index))
		if _, err := OpenSafetensorsIndex(path); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", index, err)
		}
	}
}
