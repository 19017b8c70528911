package tokenizer

import (
	"unicode"
	"unicode/utf8"
)

// The split pattern of GPT-2, which Go's regexp cannot say for lack of
// look-ahead:
//
//	's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
//
// Alternatives are tried in this order at each place, so words partition the
// text: nothing is dropped and every word has at least one byte.

type class uint8

const (
	other class = iota
	letter
	number
	space
)

// asciiClass answers for the bytes below utf8.RuneSelf without a call.
func asciiClass(b byte) class {
	switch {
	case b|0x20 >= 'a' && b|0x20 <= 'z':
		return letter
	case b >= '0' && b <= '9':
		return number
	case b == ' ' || b >= '\t' && b <= '\r':
		return space
	}
	return other
}

// classAt returns the class and width in bytes of the character at s[i]. A
// byte that is not UTF-8 is one character of class other.
func classAt(s string, i int) (class, int) {
	if b := s[i]; b < utf8.RuneSelf {
		return asciiClass(b), 1
	}
	r, n := utf8.DecodeRuneInString(s[i:])
	switch {
	case r == utf8.RuneError && n == 1:
		return other, 1
	case unicode.IsLetter(r):
		return letter, n
	case unicode.IsNumber(r):
		return number, n
	case unicode.IsSpace(r):
		return space, n
	}
	return other, n
}

// runEnd returns the end of the run of class c that goes on at s[i:].
func runEnd(s string, i int, c class) int {
	for i < len(s) {
		d, n := classAt(s, i)
		if d != c {
			break
		}
		i += n
	}
	return i
}

// nextWord returns the end of the word that begins at s[i]; i < len(s).
func nextWord(s string, i int) int {
	if s[i] == '\'' {
		if n := contraction(s[i+1:]); n > 0 {
			return i + 1 + n
		}
	}
	c, n := classAt(s, i)
	if s[i] == ' ' && i+1 < len(s) {
		if d, m := classAt(s, i+1); d != space {
			return runEnd(s, i+1+m, d)
		}
	}
	if c != space {
		return runEnd(s, i+n, c)
	}
	return spaceEnd(s, i, n)
}

// contraction returns the length of the suffix (s t re ve m ll d) that s
// begins with, 0 for none. What follows it does not matter: 'street is 's
// and treet.
func contraction(s string) int {
	if s == "" {
		return 0
	}
	switch s[0] {
	case 's', 't', 'm', 'd':
		return 1
	}
	if len(s) > 1 {
		switch s[:2] {
		case "re", "ve", "ll":
			return 2
		}
	}
	return 0
}

// spaceEnd ends a run of white space at s[i], whose first character is n
// bytes: the whole run at the end of the text, else all but its last
// character, which belongs to the word that follows, unless it is alone.
func spaceEnd(s string, i, n int) int {
	last, end := i, i+n
	for end < len(s) {
		c, m := classAt(s, end)
		if c != space {
			if last > i {
				return last
			}
			return end
		}
		last, end = end, end+m
	}
	return end
}
