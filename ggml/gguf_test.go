package ggml

import (
	"bytes"
	"encoding/binary"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"onceupon/trainer/fault"
	"onceupon/trainer/xtest"
)

func sample(t testing.TB) []byte {
	t.Helper()
	var w Writer
	w.SetString("general.architecture", "gpt2")
	w.SetUint32("gpt2.block_count", 2)
	w.SetFloat32("gpt2.attention.layer_norm_epsilon", 1e-5)
	w.SetBool("flag", true)
	w.SetStrings("tokens", []string{"a", "", "ż"})
	w.SetInt32s("types", []int32{1, -3})
	w.AddTensor("one", []uint64{3}, func() ([]float32, error) { return []float32{1, 2, 3}, nil })
	w.AddTensor("two", []uint64{2, 2}, func() ([]float32, error) { return []float32{4, 5, 6, 7}, nil })
	var b bytes.Buffer
	if _, err := w.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func write(t testing.TB, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "x.gguf")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestRoundTrip(t *testing.T) {
	f, err := Open(write(t, sample(t)))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if s, err := f.String("general.architecture"); s != "gpt2" || err != nil {
		t.Errorf("architecture %q, %v", s, err)
	}
	if n, err := f.Int("gpt2.block_count"); n != 2 || err != nil {
		t.Errorf("block count %d, %v", n, err)
	}
	if s, err := f.Strings("tokens"); len(s) != 3 || s[2] != "ż" || err != nil {
		t.Errorf("tokens %q, %v", s, err)
	}
	two, err := f.ReadF32("two")
	if err != nil || two[3] != 7 {
		t.Errorf("tensor two = %v, %v", two, err)
	}
	if _, err := f.Int("tokens"); fault.Code(err) != int(fault.Damaged) {
		t.Errorf("an array read as an integer gave %v", err)
	}
	if !bytes.Equal(sample(t), sample(t)) {
		t.Error("the same calls gave other bytes")
	}
}

// Every prefix of a file is refused, whatever it cuts.
func TestTruncatedFilesAreRefused(t *testing.T) {
	data := sample(t)
	last := len(data) - 16 // padding after the last tensor may be missing
	for n := range last {
		f, err := Open(write(t, data[:n]))
		if err == nil {
			f.Close()
			t.Fatalf("%d of %d bytes were accepted", n, len(data))
		}
		if fault.Code(err) != int(fault.Damaged) {
			t.Fatalf("%d bytes: %v has exit code %d", n, err, fault.Code(err))
		}
	}
}

func TestMissingFile(t *testing.T) {
	if _, err := Open(filepath.Join(t.TempDir(), "none.gguf")); fault.Code(err) != int(fault.Capability) {
		t.Errorf("missing file gave %v", err)
	}
}

// lie writes a header by hand: numbers as they are, strings with their length.
func lie(parts ...any) []byte {
	raw := []byte(magic)
	for _, p := range parts {
		if s, ok := p.(string); ok {
			raw = append(binary.LittleEndian.AppendUint64(raw, uint64(len(s))), s...)
			continue
		}
		raw, _ = binary.Append(raw, binary.LittleEndian, p)
	}
	return append(raw, make([]byte, 256)...)
}

type (
	u32 = uint32
	u64 = uint64
)

func TestLies(t *testing.T) {
	one := func(name string, dims []u64, kind u32, offset u64) []any {
		return []any{name, u32(len(dims)), dims, kind, offset}
	}
	head := func(tensors, entries u64, rest ...any) []byte {
		return lie(append([]any{u32(3), tensors, entries}, rest...)...)
	}
	join := func(parts ...[]any) (all []any) {
		for _, p := range parts {
			all = append(all, p...)
		}
		return all
	}
	deep := []any{"deep"}
	for range maxDepth + 1 {
		deep = append(deep, u32(typeArray))
		if len(deep) > 2 {
			deep = append(deep, u64(1))
		}
	}
	for says, raw := range map[string][]byte{
		"is not a GGUF file":                       []byte("GGUX"),
		"GGUF version 9":                           lie(u32(9), u64(0), u64(0)),
		`"the number of tensors" claims`:           head(1<<63, 0),
		`"the number of metadata entries" claims`:  head(0, 1<<63),
		`"a metadata key" claims 92233720368547`:   head(0, 1, u64(1<<63)),
		`key "a" occurs twice`:                     head(0, 2, "a", u32(typeUint8), byte(1), "a", u32(typeUint8), byte(1)),
		`"a" has the unknown type 99`:              head(0, 1, "a", u32(99)),
		`"a" is an array of the unknown type 99`:   head(0, 1, "a", u32(typeArray), u32(99), u64(1)),
		`"a" claims to be 4611686018427387904`:     head(0, 1, "a", u32(typeArray), u32(typeUint32), u64(1<<62)),
		`"s" claims to be 4611686018427387904`:     head(0, 1, "s", u32(typeArray), u32(typeString), u64(1<<62)),
		`"a" has a truth value of 2`:               head(0, 1, "a", u32(typeBool), byte(2)),
		"arrays in arrays":                         head(0, 1, deep...),
		"has 5 dimensions":                         head(1, 0, one("x", []u64{1, 1, 1, 1, 1}, 0, 0)...),
		"has 0 dimensions":                         head(1, 0, one("x", nil, 0, 0)...),
		"impossible dimension 0":                   head(1, 0, one("x", []u64{4, 0}, 0, 0)...),
		"impossible dimension 9223372036854775808": head(1, 0, one("x", []u64{4, 1 << 63}, 0, 0)...),
		"are no multiple of Q8_0's block of 32":    head(1, 0, one("x", []u64{33}, u32(Q8_0), 0)...),
		"no multiple of 32":                        head(1, 0, one("x", []u64{4}, 0, 8)...),
		"it was cut short":                         head(1, 0, one("x", []u64{4096}, 0, 0)...),
		"at byte 18446744073709551584 of the data": head(1, 0, one("x", []u64{4}, 0, 1<<64-32)...),
		`tensor "x" occurs twice`:                  head(2, 0, join(one("x", []u64{4}, 0, 0), one("x", []u64{4}, 0, 32))...),
		`tensors "x" and "y" overlap`:              head(2, 0, join(one("x", []u64{16}, 0, 0), one("y", []u64{4}, 0, 32))...),
		"is not a power of two":                    head(0, 1, "general.alignment", u32(typeUint32), u32(24)),
		"general.alignment = aha":                  head(0, 1, "general.alignment", u32(typeString), "aha"),
	} {
		_, err := Parse("fuzz", raw)
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%v; want %q", err, says)
			continue
		}
		wellTold(t, err)
	}
}

// All kinds of metadata go out and in unchanged.
func TestMetadata(t *testing.T) {
	want := map[string]any{
		"u8": uint8(1), "i8": int8(-1), "u16": uint16(2), "i16": int16(-2), "u32": uint32(3), "i32": int32(-3), "u64": uint64(1 << 63), "i64": int64(-1 << 63),
		"f32": float32(.5), "f64": -.25, "yes": true, "text": "ż", "u8s": []uint8{1, 2}, "i8s": []int8{-1}, "u16s": []uint16{3}, "i16s": []int16{}, "u32s": []uint32{4},
		"i32s": []int32{-4, 4}, "u64s": []uint64{5}, "i64s": []int64{-5}, "f32s": []float32{.5, 1}, "f64s": []float64{2}, "bools": []bool{true, false},
		"texts": []string{"", "a"}, "nested": []any{[]int32{1, 2}, []string{"b"}, []any{[]uint8{7}}}, "none": []any{},
	}
	var w Writer
	for _, key := range slices.Sorted(maps.Keys(want)) {
		if err := w.Set(key, want[key]); err != nil {
			t.Fatal(err)
		}
	}
	var b bytes.Buffer
	if _, err := w.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	f, err := Parse("x", b.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	if got := f.Metadata(); !reflect.DeepEqual(got, want) {
		t.Errorf("%#v\nwant %#v", got, want)
	}
	for _, wrong := range []any{nil, struct{}{}, []any{1}, map[string]int{}} {
		if err := new(Writer).Set("x", wrong); err == nil {
			t.Errorf("%#v was written", wrong)
		}
	}
}

// A file that is cut while it is open is an error of its reader, not the end
// of the process.
func TestCutWhileOpen(t *testing.T) {
	var w Writer
	w.AddTensor("x", []uint64{1 << 16}, func() ([]float32, error) { return make([]float32, 1<<16), nil })
	var b bytes.Buffer
	if _, err := w.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	path := write(t, b.Bytes())
	f, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := os.Truncate(path, 4096); err != nil {
		t.Fatal(err)
	}
	if _, err := f.ReadF32("x"); fault.Code(err) != int(fault.Damaged) || !strings.Contains(err.Error(), "became shorter") {
		t.Errorf("a file cut while open gave %v", err)
	}
}

func FuzzGGUF(f *testing.F) {
	f.Add(sample(f))
	f.Add([]byte(magic))
	f.Add(lie(u32(3), u64(0), u64(1), "a", u32(typeArray), u32(typeArray), u64(1), u32(typeUint8), u64(3), byte(1), byte(2), byte(3)))
	f.Add(lie(u32(2), u64(2), u64(0), "x", u32(1), u64(32), u32(Q8_0), u64(0), "y", u32(1), u64(4), u32(BF16), u64(64)))
	f.Fuzz(func(t *testing.T, raw []byte) {
		xtest.Frugal(t, len(raw), 32, func() {
			file, err := Parse("fuzz", raw)
			if err != nil {
				wellTold(t, err)
				return
			}
			for _, info := range file.Tensors {
				if decoders[info.Type] != nil {
					if _, err := file.ReadF32(info.Name); err != nil {
						t.Errorf("accepted tensor %s cannot be read: %v", info.Name, err)
					}
				}
			}
			for key, value := range file.Metadata() {
				if err := new(Writer).Set(key, value); err != nil {
					t.Errorf("metadata %s cannot be written: %v", key, err)
				}
			}
			if _, _, err := ReadModel(file); err != nil {
				wellTold(t, err)
			}
		})
	})
}
