package tokenizer

import (
	"slices"
	"strings"
	"sync"

	"onceupon/trainer/fault"
)

// Tokenizer is a vocabulary and its merges. It does not change after it is
// made and may be used by any number of goroutines.
type Tokenizer struct {
	tokens []string         // id -> name, in the alphabet of bytes.go
	raw    []string         // id -> the bytes it stands for
	ids    map[string]int32 // name -> id
	merges []string         // "a b", in order of rank
	added  []addedToken     // in order of id
	eos    int32

	byteID     [256]int32      // byte -> id
	addedFirst [256]bool       // whether an added token begins with the byte
	rank       map[pair]merged // what two neighbours become, and how early
	cache      sync.Pool       // *wordCache
}

// addedToken is a token that EncodeSpecial finds in a text before it is split
// into words.
type addedToken struct {
	id      int32
	special bool // left out by Decode with skipSpecial
}

// pair is two neighbouring ids.
type pair struct{ a, b int32 }

// merged is the outcome of a merge: the new token and the merge's rank.
type merged struct{ rank, id int32 }

// endNames are the names an end-of-document token goes by, the first found wins.
func endNames() []string { return []string{"</s>", "<|endoftext|>"} }

// FromParts makes a tokenizer from what a GGUF file holds: tokens in order of
// id, merges "a b" in order of rank, and the names of the special tokens.
// Anything inconsistent is a fault.Damaged that names the field.
func FromParts(tokens, merges, specials []string) (*Tokenizer, error) {
	t := &Tokenizer{tokens: slices.Clone(tokens), merges: slices.Clone(merges)}
	if err := t.indexTokens(); err != nil {
		return nil, err
	}
	for _, name := range specials {
		id, ok := t.ids[name]
		if !ok {
			return nil, fault.New(fault.Damaged, "special token %.80q is not in the vocabulary", name)
		}
		t.added = append(t.added, addedToken{id: id, special: true})
	}
	return t, t.finish()
}

// indexTokens fills ids from tokens and refuses duplicates.
func (t *Tokenizer) indexTokens() error {
	t.ids = make(map[string]int32, len(t.tokens))
	for id, name := range t.tokens {
		if name == "" {
			return fault.New(fault.Damaged, "token %d is empty", id)
		}
		if first, ok := t.ids[name]; ok {
			return fault.New(fault.Damaged, "token %.80q has two ids, %d and %d", name, first, id)
		}
		t.ids[name] = int32(id)
	}
	return nil
}

// finish derives every table from tokens, ids, merges and added.
func (t *Tokenizer) finish() error {
	alpha := newAlphabet()
	for b, c := range alpha.char {
		id, ok := t.ids[string(c)]
		if !ok {
			return fault.New(fault.Damaged, "the vocabulary has no token %.80q for byte 0x%02x: not a byte-level vocabulary", string(c), b)
		}
		t.byteID[b] = id
	}
	t.raw = make([]string, len(t.tokens))
	for id, name := range t.tokens {
		t.raw[id] = alpha.raw(name)
	}
	if err := t.rankMerges(); err != nil {
		return err
	}
	slices.SortFunc(t.added, func(a, b addedToken) int { return int(a.id) - int(b.id) })
	t.added = slices.CompactFunc(t.added, func(a, b addedToken) bool { return a.id == b.id })
	for _, a := range t.added {
		t.addedFirst[t.tokens[a.id][0]] = true
	}
	t.eos = -1
	for _, name := range endNames() {
		if id, ok := t.ids[name]; ok {
			t.eos = id
			break
		}
	}
	t.cache.New = func() any { return newWordCache() }
	return nil
}

// rankMerges fills rank. A merge that is listed twice keeps its later rank, as
// in Hugging Face's library, whose trainer can list one twice.
func (t *Tokenizer) rankMerges() error {
	t.rank = make(map[pair]merged, len(t.merges))
	for i, m := range t.merges {
		a, b, ok := strings.Cut(m, " ")
		if !ok || strings.Contains(b, " ") {
			return fault.New(fault.Damaged, "merge %d %.80q is not two tokens with a space between", i, m)
		}
		left, okA := t.ids[a]
		right, okB := t.ids[b]
		id, okAB := t.ids[a+b]
		if !okA || !okB || !okAB {
			return fault.New(fault.Damaged, "merge %d %.80q uses or makes a token that is not in the vocabulary", i, m)
		}
		t.rank[pair{left, right}] = merged{rank: int32(i), id: id}
	}
	return nil
}

// VocabSize returns the number of tokens; ids are 0 to VocabSize-1.
func (t *Tokenizer) VocabSize() int { return len(t.tokens) }

// Tokens returns the names of all tokens in order of id.
func (t *Tokenizer) Tokens() []string { return slices.Clone(t.tokens) }

// Merges returns all merges as "a b", earliest first.
func (t *Tokenizer) Merges() []string { return slices.Clone(t.merges) }

// Specials returns the names of the special tokens in order of id.
func (t *Tokenizer) Specials() []string {
	var names []string
	for _, a := range t.added {
		if a.special {
			names = append(names, t.tokens[a.id])
		}
	}
	return names
}

// TokenID returns the id of the token with that name. Names are spelt as in
// the vocabulary: the word " dragon" is "Ġdragon".
func (t *Tokenizer) TokenID(name string) (int32, bool) {
	id, ok := t.ids[name]
	return id, ok
}

// EOS returns the id of the token that ends a document, </s> or
// <|endoftext|>, or -1 when the vocabulary has neither.
func (t *Tokenizer) EOS() int32 { return t.eos }

// Decode returns the text of ids. With skipSpecial the special tokens are left
// out. Ids outside the vocabulary are left out too. The result may end within
// a character when ids were cut there.
func (t *Tokenizer) Decode(ids []int32, skipSpecial bool) string {
	var s strings.Builder
	for _, id := range ids {
		if id < 0 || int(id) >= len(t.raw) || skipSpecial && t.isSpecial(id) {
			continue
		}
		s.WriteString(t.raw[id])
	}
	return s.String()
}

func (t *Tokenizer) isSpecial(id int32) bool {
	i, ok := slices.BinarySearchFunc(t.added, id, func(a addedToken, id int32) int { return int(a.id) - int(id) })
	return ok && t.added[i].special
}
