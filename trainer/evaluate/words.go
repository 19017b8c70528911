package evaluate

import (
	"strings"
	"unicode"
)

// Vocabulary is a set of words in lower case.
type Vocabulary map[string]bool

// ReadVocabulary reads one word a line.
func ReadVocabulary(path string) (Vocabulary, error) {
	text, err := read(path)
	if err != nil {
		return nil, err
	}
	v := Vocabulary{}
	for word := range strings.SplitSeq(text, "\n") {
		v[strings.ToLower(strings.TrimSpace(word))] = true
	}
	return v, nil
}

// Keep are the pairs of which every word is in the vocabulary, BabyLM's filter.
func (v Vocabulary) Keep(pairs []Pair) []Pair {
	var kept []Pair
	for _, p := range pairs {
		if v.has(p.Good) && v.has(p.Bad) {
			kept = append(kept, p)
		}
	}
	return kept
}

func (v Vocabulary) has(sentence string) bool {
	for _, w := range words(sentence) {
		if !v[w] {
			return false
		}
	}
	return true
}

// Endings that the Penn Treebank counts as words of their own.
var endings = []string{"n't", "'ll", "'re", "'ve", "'s", "'m", "'d", "'"}

// words splits a sentence in lower case as the Penn Treebank does: punctuation
// and the endings of contractions stand alone, a period only at the end. The
// filter was made with NLTK's word tokenizer; on all of BLiMP this keeps the
// same pairs (TestVocabularyKeepsBabyLMsPairs).
func words(sentence string) []string {
	text := []rune(strings.ToLower(strings.TrimSpace(sentence)))
	var spaced strings.Builder
	for i, r := range text {
		last := i == len(text)-1
		alone := strings.ContainsRune("?!;@#$%&*()[]{}<>\"", r) ||
			strings.ContainsRune(",:", r) && (last || !unicode.IsDigit(text[i+1])) ||
			r == '.' && last
		if alone {
			spaced.WriteRune(' ')
		}
		spaced.WriteRune(r)
		if alone {
			spaced.WriteRune(' ')
		}
	}
	var all []string
	for w := range strings.FieldsSeq(spaced.String()) {
		if w == "cannot" {
			all = append(all, "can", "not")
			continue
		}
		all = append(all, w)
		for _, e := range endings {
			if stem, found := strings.CutSuffix(w, e); found && stem != "" {
				all = append(all[:len(all)-1], stem, e)
				break
			}
		}
	}
	return all
}
