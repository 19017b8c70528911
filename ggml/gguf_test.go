package ggml

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"onceupon/trainer/fault"
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

func FuzzOpen(f *testing.F) {
	f.Add(sample(f))
	f.Add([]byte("GGUF"))
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := Open(write(t, data))
		if err != nil {
			return
		}
		defer file.Close()
		for _, info := range file.Tensors {
			if info.Type == F32 {
				if _, err := file.ReadF32(info.Name); err != nil {
					t.Errorf("accepted tensor %s cannot be read: %v", info.Name, err)
				}
			}
		}
	})
}
