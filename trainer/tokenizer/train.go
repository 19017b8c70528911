package tokenizer

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"strings"

	"onceupon/trainer/fault"
)

// TrainOptions says what vocabulary to learn.
type TrainOptions struct {
	VocabSize    int                   // tokens in all: specials, 256 bytes, the rest merges
	MinFrequency int                   // a pair seen fewer times is never merged; 2 in the recipe
	Specials     []string              // get the ids from 0 on; nil is PaperSpecials
	Progress     func(done, total int) // called now and then with the size reached; may be nil
}

// PaperSpecials returns the special tokens of the recipe, ids 0 to 4.
func PaperSpecials() []string { return []string{"<s>", "<pad>", "</s>", "<unk>", "<mask>"} }

// Train learns a vocabulary from docs. For the same texts and options the
// merges are those of Hugging Face's BpeTrainer: the most frequent pair first,
// of equals the one with the smaller ids. A corpus with too little variety
// gives fewer tokens than asked; see VocabSize of the result.
func Train(ctx context.Context, docs iter.Seq[string], o TrainOptions) (*Tokenizer, error) {
	if o.Specials == nil {
		o.Specials = PaperSpecials()
	}
	if least := len(o.Specials) + 256; o.VocabSize < least {
		return nil, fault.New(fault.Usage, "vocabulary of %d tokens is too small: %d special tokens and 256 bytes need %d", o.VocabSize, len(o.Specials), least)
	}
	if o.MinFrequency < 1 {
		return nil, fault.New(fault.Usage, "minimum frequency %d of a merge must be at least 1", o.MinFrequency)
	}
	tr := &trainer{tokens: slices.Clone(o.Specials), ids: make(map[string]int32)}
	alpha := newAlphabet()
	if err := tr.addAlphabet(alpha); err != nil {
		return nil, err
	}
	if err := tr.countWords(ctx, docs); err != nil {
		return nil, err
	}
	if len(tr.words) == 0 {
		return nil, fault.New(fault.Usage, "no text to learn a vocabulary from: give a corpus with at least one word")
	}
	if err := tr.learn(ctx, o); err != nil {
		return nil, err
	}
	return FromParts(tr.tokens, tr.merges, o.Specials)
}

// trainer holds the state of one training.
type trainer struct {
	tokens []string
	ids    map[string]int32
	merges []string
	byteID [256]int32
	words  []word // each distinct word of the corpus
	pairs  pairTable
	queue  pairQueue
}

// word is a distinct word as it is spelt with the tokens so far.
type word struct {
	symbols []int32
	count   int64 // how often the corpus has it
}

// addAlphabet gives the 256 bytes their ids, in order of their characters'
// code points: the order Hugging Face's trainer sorts its alphabet in.
func (tr *trainer) addAlphabet(alpha *alphabet) error {
	for id, name := range tr.tokens {
		if _, ok := tr.ids[name]; ok || name == "" {
			return fault.New(fault.Usage, "special token %q is empty or given twice", name)
		}
		tr.ids[name] = int32(id)
	}
	chars := slices.Sorted(slices.Values(alpha.char[:]))
	for _, c := range chars {
		if _, ok := tr.ids[string(c)]; ok {
			return fault.New(fault.Usage, "special token %q is also the name of a byte: choose another", string(c))
		}
		tr.byteID[alpha.byte[c]] = tr.addToken(string(c))
	}
	return nil
}

func (tr *trainer) addToken(name string) int32 {
	id := int32(len(tr.tokens))
	tr.tokens = append(tr.tokens, name)
	tr.ids[name] = id
	return id
}

// countWords splits docs into words and spells each distinct one in bytes.
// Words keep the order in which they were first met, so that nothing below
// depends on the order of a map.
func (tr *trainer) countWords(ctx context.Context, docs iter.Seq[string]) error {
	index := make(map[string]int32)
	for doc := range docs {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("count the words of the corpus: %w", err)
		}
		for i := 0; i < len(doc); {
			end := nextWord(doc, i)
			if at, ok := index[doc[i:end]]; ok {
				tr.words[at].count++
			} else {
				// A clone, since a slice would keep the whole document in memory.
				index[strings.Clone(doc[i:end])] = int32(len(tr.words))
				tr.words = append(tr.words, word{tr.spell(doc[i:end]), 1})
			}
			i = end
		}
	}
	return nil
}

func (tr *trainer) spell(s string) []int32 {
	symbols := make([]int32, len(s))
	for i := range len(s) {
		symbols[i] = tr.byteID[s[i]]
	}
	return symbols
}
