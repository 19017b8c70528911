package tokenizer

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"onceupon/trainer/fault"
	"onceupon/trainer/xtest"
)

// vocabAndMerges are a tokenizer as the two files.
func vocabAndMerges(t testing.TB, tok *Tokenizer) (vocab, merges []byte) {
	t.Helper()
	vocab, err := json.Marshal(orderedVocab(tok.Tokens()))
	if err != nil {
		t.Fatal(err)
	}
	return vocab, []byte("#version: 0.2\n" + strings.Join(tok.Merges(), "\n") + "\n")
}

func TestPair(t *testing.T) {
	tok := trained(t, 300)
	vocab, merges := vocabAndMerges(t, tok)
	dir := t.TempDir()
	v, m := filepath.Join(dir, "vocab.json"), filepath.Join(dir, "merges.txt")
	put := func(path string, data []byte) {
		t.Helper()
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	put(v, vocab)
	put(m, []byte(strings.ReplaceAll(string(merges), "\n", "\r\n")))
	back, err := LoadPair(v, m)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(back.Tokens(), tok.Tokens()) || !slices.Equal(back.Merges(), tok.Merges()) || !slices.Equal(back.Specials(), tok.Specials()) {
		t.Error("another tokenizer came back")
	}
	for _, c := range []struct{ path, text, says string }{
		{m, "#version: 0.2\na b c\n", `line 2 (at byte 14): "a b c" is not two tokens`},
		{m, "a \n", "line 1 (at byte 0)"},
		{m, "a zebra\n", "is not in the vocabulary"},
		{v, `{"a":0,"b":2,"cdefgh":3}`, "no token has the id 1"},
		{v, `{"a":0,"b":0}`, "id 0 is given to two tokens"},
		{v, `{"a":0,"b":9223372036854775807}`, "outside the vocabulary"},
		{v, `{"a":0,"b":1e3}`, "at byte"},
		{v, `{"a":-1}`, "outside the vocabulary"},
		{v, `{"a":0`, "at byte 6"},
		{v, `[]`, "not a vocab.json"},
	} {
		old, err := os.ReadFile(c.path)
		if err != nil {
			t.Fatal(err)
		}
		put(c.path, []byte(c.text))
		_, err = LoadPair(v, m)
		if fault.Code(err) != int(fault.Damaged) || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), c.path) {
			t.Errorf("%s: %v; want %q", c.text, err, c.says)
		}
		put(c.path, old)
	}
	if _, err := LoadPair(v, filepath.Join(dir, "none")); fault.Code(err) != int(fault.Capability) {
		t.Errorf("missing merges gave %v", err)
	}
}

func FuzzVocab(f *testing.F) {
	vocab, _ := vocabAndMerges(f, trained(f, 270))
	f.Add(vocab)
	f.Add([]byte(`{"a":0,"b":1}`))
	f.Add([]byte(`{"a":9223372036854775807}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		xtest.Frugal(t, len(data), 64, func() {
			tokens, err := ParseVocab(data)
			if err != nil {
				wellTold(t, err)
			} else if slices.Contains(tokens, "") {
				t.Error("a hole was accepted")
			}
		})
	})
}

func FuzzMerges(f *testing.F) {
	_, merges := vocabAndMerges(f, trained(f, 270))
	f.Add(merges)
	f.Add([]byte("#version: 0.2\na b\r\n\nab c"))
	f.Fuzz(func(t *testing.T, data []byte) {
		xtest.Frugal(t, len(data), 64, func() {
			merges, err := ParseMerges(data)
			if err != nil {
				wellTold(t, err)
				return
			}
			for _, m := range merges {
				if a, b, ok := strings.Cut(m, " "); !ok || a == "" || b == "" || strings.ContainsAny(m, "\n") {
					t.Errorf("%q was accepted", m)
				}
			}
		})
	})
}
