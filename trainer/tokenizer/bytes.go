package tokenizer

// GPT-2 writes every byte as one printable character: printable Latin-1
// bytes stand for themselves, the 68 others are numbered from U+0100 on in
// order of their value. A vocabulary is therefore plain text with no spaces.

const firstShifted = 0x100

// stands reports whether byte b is written as the character of the same number.
func stands(b int) bool {
	return b >= '!' && b <= '~' || b >= 0xA1 && b <= 0xAC || b >= 0xAE && b <= 0xFF
}

// alphabet is the two-way table between bytes and their characters.
type alphabet struct {
	char [256]rune
	byte map[rune]byte
}

func newAlphabet() *alphabet {
	a := &alphabet{byte: make(map[rune]byte, 256)}
	next := rune(firstShifted)
	for b := range 256 {
		c := rune(b)
		if !stands(b) {
			c = next
			next++
		}
		a.char[b] = c
		a.byte[c] = byte(b)
	}
	return a
}

// raw returns the bytes that a vocabulary entry stands for. An entry with a
// character outside the alphabet (an added token such as "<a b>") stands for
// its own text.
func (a *alphabet) raw(name string) string {
	out := make([]byte, 0, len(name))
	for _, c := range name {
		b, ok := a.byte[c]
		if !ok {
			return name
		}
		out = append(out, b)
	}
	return string(out)
}
