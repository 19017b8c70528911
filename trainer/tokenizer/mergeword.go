package tokenizer

// mergeWork is the scratch memory of mergeWord.
type mergeWork struct {
	ids        []int32 // symbol -> token, dead for one merged into its left neighbour
	prev, next []int32 // symbol -> its living neighbours, -1 for none
	queue      []candidate
}

const dead = -1

// candidate is a merge that was possible when it was queued: of the symbol at
// place at with its right neighbour. Rank in the high half, so that the
// smallest candidate is the earliest merge, leftmost first.
type candidate uint64

func newCandidate(rank, at int32) candidate { return candidate(uint64(rank)<<32 | uint64(at)) }
func (c candidate) rank() int32             { return int32(c >> 32) }
func (c candidate) at() int32               { return int32(uint32(c)) }

// mergeWord returns the ids of one word: its bytes, with the merge of lowest
// rank applied over and over, leftmost first. The cost is n log n in the bytes
// of the word, so that a megabyte without a space does no harm. The result is
// valid until the next call with w.
func (t *Tokenizer) mergeWord(w *mergeWork, word string) []int32 {
	n := len(word)
	w.ids, w.prev, w.next, w.queue = w.ids[:0], w.prev[:0], w.next[:0], w.queue[:0]
	for i := range n {
		w.ids = append(w.ids, t.byteID[word[i]])
		w.prev = append(w.prev, int32(i-1))
		w.next = append(w.next, int32(i+1))
	}
	w.next[n-1] = -1
	for i := range n - 1 {
		t.propose(w, int32(i))
	}
	for len(w.queue) > 0 {
		c := w.pop()
		at := c.at()
		right := int32(-1)
		if w.ids[at] != dead {
			right = w.next[at]
		}
		if right < 0 {
			continue
		}
		m, ok := t.rank[pair{w.ids[at], w.ids[right]}]
		if !ok || m.rank != c.rank() {
			continue // a neighbour has changed since
		}
		w.ids[at], w.ids[right] = m.id, dead
		w.next[at] = w.next[right]
		if after := w.next[at]; after >= 0 {
			w.prev[after] = at
			t.propose(w, at)
		}
		if before := w.prev[at]; before >= 0 {
			t.propose(w, before)
		}
	}
	out := w.ids[:0]
	for _, id := range w.ids {
		if id != dead {
			out = append(out, id)
		}
	}
	return out
}

// propose queues the merge of the symbol at i with its right neighbour.
func (t *Tokenizer) propose(w *mergeWork, i int32) {
	if m, ok := t.rank[pair{w.ids[i], w.ids[w.next[i]]}]; ok {
		w.push(newCandidate(m.rank, i))
	}
}

// push and pop keep queue a binary heap, smallest first.
func (w *mergeWork) push(c candidate) {
	q := append(w.queue, c)
	i := len(q) - 1
	for i > 0 {
		up := (i - 1) / 2
		if q[up] <= c {
			break
		}
		q[i] = q[up]
		i = up
	}
	q[i] = c
	w.queue = q
}

func (w *mergeWork) pop() candidate {
	q := w.queue
	top, c := q[0], q[len(q)-1]
	q = q[:len(q)-1]
	w.queue = q
	i := 0
	for {
		down := 2*i + 1
		if down >= len(q) {
			break
		}
		if down+1 < len(q) && q[down+1] < q[down] {
			down++
		}
		if c <= q[down] {
			break
		}
		q[i] = q[down]
		i = down
	}
	if len(q) > 0 {
		q[i] = c
	}
	return top
}
