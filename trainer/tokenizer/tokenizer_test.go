package tokenizer

import (
	"context"
	"slices"
	"strings"
	"testing"
)

// trained returns a small tokenizer over a text with enough repetition to
// learn from.
func trained(t testing.TB, size int) *Tokenizer {
	t.Helper()
	doc := strings.Repeat("Once upon a time the old fox saw the little fox's egg. It wasn't his; they'll say so: 12 eggs, 345 foxes!\n", 8)
	tok, err := Train(context.Background(), slices.Values([]string{doc, "the hen and the egg"}),
		TrainOptions{VocabSize: size, MinFrequency: 2})
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

func TestSplit(t *testing.T) {
	for text, want := range map[string]string{
		"the fox's egg":          "the| fox|'s| egg",
		"they'll we've I'm he'd": "they|'ll| we|'ve| I|'m| he|'d",
		"don't 'street THEY'LL":  "don|'t| '|street| THEY|'|LL",
		"a  b   c":               "a| | b|  | c",
		"a\n\nb \n c":            "a|\n|\n|b| \n| c",
		"end  \n":                "end|  \n",
		" 12 foxes2":             "| 12| foxes|2",
		"?'s":                    "?'|s",
		"naïve café №5":          "naïve| café| №|5",
		"x\u00a0\u00a0y":         "x|\u00a0|\u00a0|y",
		"x\u3000y":               "x|\u3000|y",
		"½ Ⅷ 二":                  "½| Ⅷ| 二",
		"\xff\xfea":              "\xff\xfe|a",
		" ":                      " ",
		"'":                      "'",
		"":                       "",
	} {
		var words []string
		for i := 0; i < len(text); {
			end := nextWord(text, i)
			words = append(words, text[i:end])
			i = end
		}
		if got := strings.Join(words, "|"); got != strings.TrimPrefix(want, "|") {
			t.Errorf("split %q = %q, want %q", text, got, want)
		}
	}
}

func TestTrainByHand(t *testing.T) {
	// " ab" x3 and " abc" x2: (a,b) 5 times and (Ġ,a) 5 times. Ġ is the later
	// character, so (a,b) has the smaller ids and goes first.
	docs := slices.Values([]string{" ab ab ab abc abc"})
	tok, err := Train(context.Background(), docs, TrainOptions{VocabSize: 300, MinFrequency: 2})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := tok.Merges(), []string{"a b", "Ġ ab", "Ġab c"}; !slices.Equal(got, want) {
		t.Errorf("merges %q, want %q", got, want)
	}
	if got := tok.Tokens()[:6]; !slices.Equal(got, []string{"<s>", "<pad>", "</s>", "<unk>", "<mask>", "!"}) {
		t.Errorf("first tokens %q", got)
	}
	if got := tok.Encode(" abc abx"); !slices.Equal(got, []int32{263, 262, tok.byteID['x']}) {
		t.Errorf("ids %d", got)
	}
	if tok.VocabSize() != 264 || tok.EOS() != 2 {
		t.Errorf("size %d, eos %d", tok.VocabSize(), tok.EOS())
	}
}

func TestTrainRefuses(t *testing.T) {
	ctx := context.Background()
	some := slices.Values([]string{"words"})
	for name, o := range map[string]TrainOptions{
		"too small":      {VocabSize: 260, MinFrequency: 2},
		"no frequency":   {VocabSize: 300},
		"twice":          {VocabSize: 300, MinFrequency: 2, Specials: []string{"<s>", "<s>"}},
		"name of a byte": {VocabSize: 300, MinFrequency: 2, Specials: []string{"a"}},
	} {
		if _, err := Train(ctx, some, o); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if _, err := Train(ctx, slices.Values([]string{""}), TrainOptions{VocabSize: 300, MinFrequency: 2}); err == nil {
		t.Error("empty corpus: no error")
	}
	stopped, stop := context.WithCancel(ctx)
	stop()
	if _, err := Train(stopped, some, TrainOptions{VocabSize: 300, MinFrequency: 2}); err == nil {
		t.Error("cancelled: no error")
	}
}

func TestEncodeSpecial(t *testing.T) {
	tok := trained(t, 300)
	end, _ := tok.TokenID("</s>")
	text := "the fox</s></s> egg<s"
	if ids := tok.Encode(text); slices.Contains(ids, end) {
		t.Errorf("Encode made a special token: %d", ids)
	}
	ids := tok.EncodeSpecial(text)
	want := tok.Encode("the fox")
	want = append(want, end, end)
	want = append(want, tok.Encode(" egg<s")...)
	if !slices.Equal(ids, want) {
		t.Errorf("EncodeSpecial %d, want %d", ids, want)
	}
	if got := tok.Decode(ids, true); got != "the fox egg<s" {
		t.Errorf("without specials %q", got)
	}
	if got := tok.Decode(ids, false); got != text {
		t.Errorf("with specials %q", got)
	}
	if got := tok.Decode([]int32{-1, 1 << 30}, false); got != "" {
		t.Errorf("unknown ids gave %q", got)
	}
}

func TestEncodeConcurrently(t *testing.T) {
	tok := trained(t, 320)
	text := "the old fox's egg wasn't little"
	want := tok.Encode(text)
	done := make(chan bool)
	for range 8 {
		go func() {
			same := true
			for range 200 {
				same = same && slices.Equal(tok.Encode(text), want)
			}
			done <- same
		}()
	}
	for range 8 {
		if !<-done {
			t.Error("ids differ between goroutines")
		}
	}
}

// A word longer than any cache or stack would like, and a cache that overflows.
func TestEncodeExtremes(t *testing.T) {
	tok := trained(t, 320)
	long := strings.Repeat("fox", 1<<18)
	if got := tok.Decode(tok.Encode(long), false); got != long {
		t.Error("long word does not come back")
	}
	var many strings.Builder
	for i := range maxCachedWords + 100 {
		many.WriteString(" w")
		for n := i; n > 0; n /= 26 {
			many.WriteByte(byte('a' + n%26))
		}
	}
	text := many.String()
	first := tok.Encode(text)
	if tok.Decode(first, false) != text || !slices.Equal(first, tok.Encode(text)) {
		t.Error("an overflowing cache changes ids")
	}
}

// mergeSlowly is the definition of BPE: the earliest merge present, everywhere
// from the left, until none applies.
func mergeSlowly(t *Tokenizer, word string) []int32 {
	var ids []int32
	for i := range len(word) {
		ids = append(ids, t.byteID[word[i]])
	}
	for {
		best, at := int32(1<<30), -1
		for i := range len(ids) - 1 {
			if m, ok := t.rank[pair{ids[i], ids[i+1]}]; ok && m.rank < best {
				best, at = m.rank, i
			}
		}
		if at < 0 {
			return ids
		}
		m := t.rank[pair{ids[at], ids[at+1]}]
		ids = slices.Replace(ids, at, at+2, m.id)
	}
}

func FuzzRoundTrip(f *testing.F) {
	tok := trained(f, 360)
	for _, s := range []string{"", "the fox's egg", "  \n\t a", "naïve № ½", "\xff\x00\xc3", "</s><pad>", "aaaaaaaaaaaa", "theheeggegg"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		ids := tok.Encode(s)
		if got := tok.Decode(ids, true); got != s {
			t.Fatalf("%q came back as %q", s, got)
		}
		if s != "" {
			var w mergeWork
			if got, want := tok.mergeWord(&w, s), mergeSlowly(tok, s); !slices.Equal(got, want) {
				t.Fatalf("merges of %q: %d, want %d", s, got, want)
			}
		}
		if got := tok.Decode(tok.EncodeSpecial(s), false); got != s {
			t.Fatalf("%q came back from specials as %q", s, got)
		}
	})
}
