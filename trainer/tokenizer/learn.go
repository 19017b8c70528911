package tokenizer

import (
	"context"
	"fmt"

	"onceupon/trainer/fault"
)

// learn merges the most frequent pair of neighbours until the vocabulary is
// full or no pair is frequent enough.
//
// Counts are kept per pair and changed only around the places where a merge
// happens, so a merge costs the words that hold the pair, not the corpus. The
// queue is lazy: an entry is queued with the count of that moment and the words
// where the pair was new; one whose count has changed since goes back with the
// present count. This is also how Hugging Face's trainer works, down to the
// case that a pair is queued twice with different words and merged twice; its
// merges are reproduced only by doing the same.
func (tr *trainer) learn(ctx context.Context, o TrainOptions) error {
	tr.pairs.init()
	for i := range tr.words {
		w := &tr.words[i]
		for j := 0; j+1 < len(w.symbols); j++ {
			p := pair{w.symbols[j], w.symbols[j+1]}
			tr.pairs.add(p, w.count, int32(i))
		}
	}
	tr.pairs.flush(&tr.queue)
	for len(tr.tokens) < o.VocabSize && tr.queue.len() > 0 {
		top := tr.queue.pop()
		if now := tr.pairs.count(top.pair); now != top.count {
			top.count = now
			tr.queue.push(top)
			continue
		}
		if top.count < int64(o.MinFrequency) {
			break
		}
		if err := tr.merge(top, o.Specials); err != nil {
			return err
		}
		if len(tr.merges)%256 == 0 {
			if err := ctx.Err(); err != nil {
				return fmt.Errorf("learn the merges: %w", err)
			}
			if o.Progress != nil {
				o.Progress(len(tr.tokens), o.VocabSize)
			}
		}
	}
	if o.Progress != nil {
		o.Progress(len(tr.tokens), len(tr.tokens))
	}
	return nil
}

// merge makes one token of the pair in all the entry's words.
func (tr *trainer) merge(e entry, specials []string) error {
	a, b := tr.tokens[e.pair.a], tr.tokens[e.pair.b]
	id, ok := tr.ids[a+b]
	if !ok {
		id = tr.addToken(a + b)
	} else if int(id) < len(specials) {
		return fault.New(fault.Usage, "special token %q also occurs in the corpus as plain text and would be learnt as a word: choose another name", a+b)
	}
	tr.merges = append(tr.merges, a+" "+b)
	for _, at := range e.words {
		tr.mergeIn(at, e.pair, id)
	}
	tr.pairs.flush(&tr.queue)
	return nil
}

// mergeIn replaces pair p by id in one word, left to right, and counts the
// neighbours that vanish and appear. p itself keeps its count, as in the
// original.
func (tr *trainer) mergeIn(at int32, p pair, id int32) {
	w := &tr.words[at]
	s := w.symbols
	out := 0 // s[:out] is done; s[i:] is still to be read, out <= i
	for i := 0; i < len(s); i++ {
		if s[i] != p.a || i+1 == len(s) || s[i+1] != p.b {
			s[out] = s[i]
			out++
			continue
		}
		if out > 0 {
			tr.pairs.add(pair{s[out-1], p.a}, -w.count, at)
			tr.pairs.add(pair{s[out-1], id}, w.count, at)
		}
		i++
		if i+1 < len(s) {
			tr.pairs.add(pair{p.b, s[i+1]}, -w.count, at)
			tr.pairs.add(pair{id, s[i+1]}, w.count, at)
		}
		s[out] = id
		out++
	}
	w.symbols = s[:out]
}
