package tokenizer

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"onceupon/trainer/fault"
	"onceupon/trainer/xtest"
)

func TestJSONRoundTrip(t *testing.T) {
	tok := trained(t, 320)
	path := filepath.Join(t.TempDir(), "tokenizer.json")
	if err := tok.Save(path); err != nil {
		t.Fatal(err)
	}
	back, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	first, _ := tok.JSON()
	second, _ := back.JSON()
	if !bytes.Equal(first, second) {
		t.Error("a loaded tokenizer writes another file")
	}
	text := "the fox's egg</s>"
	if !slices.Equal(tok.EncodeSpecial(text), back.EncodeSpecial(text)) {
		t.Error("a loaded tokenizer gives other ids")
	}
	parts, err := FromParts(tok.Tokens(), tok.Merges(), tok.Specials())
	if err != nil {
		t.Fatal(err)
	}
	third, _ := parts.JSON()
	if !bytes.Equal(first, third) {
		t.Error("a tokenizer made of parts writes another file")
	}
	if info, _ := os.Stat(path); info.Mode().Perm() != 0o644 {
		t.Errorf("mode %v", info.Mode())
	}
	if err := tok.Save(filepath.Join(t.TempDir(), "none", "tokenizer.json")); err == nil {
		t.Error("saved into a folder that does not exist")
	}
}

func TestFromPartsRefuses(t *testing.T) {
	tok := trained(t, 300)
	tokens, merges := tok.Tokens(), tok.Merges()
	for name, c := range map[string]struct{ tokens, merges, specials []string }{
		"special":        {tokens, merges, []string{"<nope>"}},
		"missing byte":   {tokens[:100], nil, nil},
		"duplicate":      {append(slices.Clone(tokens), tokens[7]), merges, nil},
		"empty token":    {append(slices.Clone(tokens), ""), merges, nil},
		"merge no space": {tokens, []string{"ab"}, nil},
		"merge unknown":  {tokens, []string{"a ☃"}, nil},
		"merge result":   {tokens, []string{"z q"}, nil},
	} {
		_, err := FromParts(c.tokens, c.merges, c.specials)
		if fault.Code(err) != int(fault.Damaged) {
			t.Errorf("%s: error %v, want a damaged file", name, err)
		}
	}
}

// Each edit spoils one field of a good file; the error must name it.
func TestParseRefuses(t *testing.T) {
	good, err := trained(t, 300).JSON()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ old, new, field string }{
		{`"type": "BPE"`, `"type": "Unigram"`, "model.type"},
		{`"dropout": null`, `"dropout": 0.1`, "model.dropout"},
		{`"continuing_subword_prefix": ""`, `"continuing_subword_prefix": "##"`, "model.continuing_subword_prefix"},
		{`"end_of_word_suffix": ""`, `"end_of_word_suffix": "</w>"`, "model.end_of_word_suffix"},
		{`"byte_fallback": false`, `"byte_fallback": true`, "model.byte_fallback"},
		{`"ignore_merges": false`, `"ignore_merges": true`, "model.ignore_merges"},
		{`"normalizer": null`, `"normalizer": {"type": "NFC"}`, "normalizer"},
		{`"truncation": null`, `"truncation": {"max_length": 5}`, "truncation"},
		{`"padding": null`, `"padding": {}`, "padding"},
		{`"add_prefix_space": false`, `"add_prefix_space": true`, "pre_tokenizer.add_prefix_space"},
		{`"!": 5`, `"!": 6`, "vocab"},
		{`"!": 5`, `"!": 99999999999`, "vocab"},
		{`"!": 5`, `"!": -1`, "vocab"},
		{`"!": 5`, `"!": "5"`, "vocab"},
		{`"!": 5,`, ``, "model.vocab"},
		{`"id": 3`, `"id": 4`, "added_tokens"},
		{`"id": 3`, `"id": 3000000`, "added_tokens"},
		{`"content": "<unk>"`, `"content": ""`, "added_tokens"},
		{`"lstrip": false`, `"lstrip": true`, "added_tokens"},
		{`"merges": [`, `"merges": ["a ☃",`, "merge 0"},
		{`"merges": [`, `"merges": [["a"],`, "merges"},
		{`"merges": [`, `"merges": ["a b c",`, "merge 0"},
	} {
		bad := strings.Replace(string(good), c.old, c.new, 1)
		if bad == string(good) {
			t.Fatalf("%q is not in the file", c.old)
		}
		_, err := Parse([]byte(bad))
		if fault.Code(err) != int(fault.Damaged) || !strings.Contains(err.Error(), c.field) {
			t.Errorf("%s -> %s: error %v, want a damaged %s", c.old, c.new, err, c.field)
		}
	}
	for _, text := range []string{"", "null", "{}", "[]", string(good[:len(good)/2]), string(good) + "x"} {
		if _, err := Parse([]byte(text)); fault.Code(err) != int(fault.Damaged) {
			t.Errorf("%.20q: error %v, want a damaged file", text, err)
		}
	}
	missing := filepath.Join(t.TempDir(), "tokenizer.json")
	if _, err := Load(missing); fault.Code(err) != int(fault.Capability) || !strings.Contains(err.Error(), missing) {
		t.Errorf("missing file: %v", err)
	}
}

// Hugging Face writes merges as pairs of strings since 0.20.
func TestParsePairs(t *testing.T) {
	tok := trained(t, 300)
	good, _ := tok.JSON()
	pairs := string(good)
	for _, m := range tok.Merges() {
		a, b, _ := strings.Cut(m, " ")
		pairs = strings.Replace(pairs, `"`+m+`"`, `["`+a+`", "`+b+`"]`, 1)
	}
	back, err := Parse([]byte(pairs))
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(back.Merges(), tok.Merges()) {
		t.Error("merges written as pairs are read differently")
	}
}

// An error does not repeat a long file.
func TestErrorsAreShort(t *testing.T) {
	long := strings.Repeat("a", 1<<16)
	for _, text := range []string{`{"model":{"type":"` + long + `"}}`, `{"model":{"vocab":{"a":` + strings.Repeat("1", 1<<16) + `}}}`, `{"version":` + strings.Repeat("1", 1<<16) + `}`} {
		_, err := Parse([]byte(text))
		wellTold(t, err)
	}
}

func FuzzParse(f *testing.F) {
	good, _ := trained(f, 270).JSON()
	f.Add(good)
	f.Add([]byte(`{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": [["a", "a"]]}}`))
	f.Add([]byte(`{"added_tokens": [{"id": 1000000000, "content": "x"}], "model": {"type": "BPE", "vocab": {"a": 9000000000000000000}, "merges": ["a b"]}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var tok *Tokenizer
		var err error
		xtest.Frugal(t, len(data), 64, func() { tok, err = Parse(data) })
		if err != nil {
			wellTold(t, err)
			return
		}
		if text := "a fox, \xff"; tok.Decode(tok.Encode(text), false) != text {
			t.Fatal("an accepted tokenizer loses text")
		}
		again, err := tok.JSON()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Parse(again); err != nil {
			t.Fatalf("an accepted tokenizer writes a file it refuses: %v", err)
		}
	})
}

// wellTold checks an error about damage: one line, of the kind that the
// command line tells apart.
func wellTold(t *testing.T, err error) {
	t.Helper()
	if said := err.Error(); fault.Code(err) != int(fault.Damaged) || strings.Contains(said, "\n") || len(said) > 2000 {
		t.Fatalf("code %d: %q", fault.Code(err), said)
	}
}
