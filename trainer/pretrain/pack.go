package pretrain

import (
	"iter"
	"strings"

	"onceupon/trainer/fault"
)

// Pack joins documents with the end token and cuts the stream into rows of
// context tokens; a tail shorter than a row is dropped, as in the recipe. The
// words of a document count for the row in which the document ends.
func Pack(documents iter.Seq[string], encode func(string) []int32, end int32, context int) (rows [][]int32, words []int) {
	var stream []int32
	counted := 0
	for d := range documents {
		stream = append(stream, encode(d)...)
		stream = append(stream, end)
		counted += len(strings.Fields(d))
		for len(stream) >= context {
			rows = append(rows, append([]int32(nil), stream[:context]...))
			words = append(words, counted)
			counted = 0
			stream = stream[context:]
		}
	}
	return rows, words
}

// NewCorpus packs documents into what Run reads; held out are those that are
// only measured. Too little text for one row is fault.Usage.
func NewCorpus(name string, documents, heldOut iter.Seq[string], encode func(string) []int32, end int32, context int) (*Corpus, error) {
	c := &Corpus{}
	c.Rows, c.Words = Pack(documents, encode, end, context)
	c.HeldOut, _ = Pack(heldOut, encode, end, context)
	if len(c.Rows) == 0 || len(c.HeldOut) == 0 {
		return nil, fault.New(fault.Usage, "corpus %s: shorter than one context of %d tokens (in the part for reading or the held-out part): give more text, or a smaller student.context", name, context)
	}
	return c, nil
}
