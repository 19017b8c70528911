package llama

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"onceupon/ggml"
	"onceupon/trainer/fault"
)

// gguf writes a tiny file that looks like a model's.
func gguf(t *testing.T, architecture string, change func(w *ggml.Writer)) string {
	t.Helper()
	var w ggml.Writer
	w.SetString("general.architecture", architecture)
	w.SetUint32(architecture+".block_count", 2)
	w.SetUint32(architecture+".embedding_length", 64)
	w.SetUint32(architecture+".attention.head_count", 4)
	w.SetStrings("tokenizer.ggml.tokens", []string{"a", "b"})
	w.AddRaw("token_embd.weight", []uint64{64, 2}, ggml.Q8_0, func() ([]byte, error) { return make([]byte, 136), nil })
	if change != nil {
		change(&w)
	}
	path := filepath.Join(t.TempDir(), architecture+".gguf")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := w.WriteTo(f); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestHeader(t *testing.T) {
	h, err := ReadHeader(gguf(t, "llama", func(w *ggml.Writer) {
		w.SetUint32("llama.attention.head_count_kv", 2)
		w.SetUint32("llama.context_length", 512)
		w.SetString("tokenizer.chat_template", "x")
	}))
	if err != nil || h.Layers != 2 || h.KVHeads != 2 || h.KeyWidth != 16 || h.Context != 512 || h.Vocabulary != 2 || h.Bytes != 136 || h.OnCard != 136 ||
		h.Type != ggml.Q8_0 || h.ChatTemplate != "x" || h.CacheBytes() != 2*2*2*32 {
		t.Errorf("%+v, %v", h, err)
	}
	h, err = ReadHeader(gguf(t, "openelm", func(w *ggml.Writer) { w.SetInt32s("openelm.attention.head_count_kv", []int32{1, 3}) }))
	if err != nil || h.KVHeads != 3 {
		t.Errorf("heads by layer: %+v, %v", h, err)
	}
}

// What cannot teach is refused by its header alone: no library is opened here.
func TestHeadersThatAreRefused(t *testing.T) {
	// AddRaw has no type without a size, so the type is changed in the file.
	retyped := func(kind byte) string {
		path := gguf(t, "llama", nil)
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		// name, 4 bytes of dimensions, 2 x 8, then the type.
		raw[strings.Index(string(raw), "token_embd.weight")+len("token_embd.weight")+20] = kind
		os.WriteFile(path, raw, 0o600)
		return path
	}
	short := gguf(t, "llama", nil)
	if err := os.Truncate(short, 400); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		path, says string
		want       fault.Kind
	}{
		{gguf(t, "bert", nil), "is an encoder", fault.Damaged},
		{gguf(t, "mamba2", nil), "recurrent state", fault.Damaged},
		{gguf(t, "dream", nil), "denoising", fault.Damaged},
		{gguf(t, "llama", func(w *ggml.Writer) { w.SetUint32("split.count", 3) }), "one of 3 parts", fault.Damaged},
		{retyped(31), "type 31, which llama.cpp v0.5.0 lacks", fault.Damaged},
		{retyped(77), "type 77, which", fault.Damaged},
		{short, "cut short", fault.Damaged},
		{"none.gguf", "no such file", fault.Capability},
	} {
		_, err := ReadHeader(c.path)
		if fault.Code(err) != int(c.want) || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%v; want one line with %q", err, c.says)
		}
	}
}
