package tokenizer

import "strings"

// EncodeSpecial returns the ids of text with the names of added tokens (such
// as </s>) in it turned into those tokens: leftmost first, the longest where
// several begin at one place. What lies between is encoded on its own, as
// Hugging Face's library does.
func (t *Tokenizer) EncodeSpecial(text string) []int32 {
	var dst []int32
	begin := 0
	for i := 0; i < len(text); {
		id := t.addedAt(text[i:])
		if id < 0 {
			i++
			continue
		}
		dst = t.EncodeAppend(dst, text[begin:i])
		dst = append(dst, id)
		i += len(t.tokens[id])
		begin = i
	}
	return t.EncodeAppend(dst, text[begin:])
}

// addedAt returns the longest added token that s begins with, or -1.
func (t *Tokenizer) addedAt(s string) int32 {
	best := int32(-1)
	if !t.addedFirst[s[0]] {
		return best
	}
	for _, a := range t.added {
		name := t.tokens[a.id]
		if strings.HasPrefix(s, name) && (best < 0 || len(name) > len(t.tokens[best])) {
			best = a.id
		}
	}
	return best
}
