package tokenizer

// pairTable counts how often two tokens stand side by side in the corpus.
type pairTable struct {
	index map[pair]int32
	rows  []pairRow
	fresh []int32 // rows with words not yet queued
}

type pairRow struct {
	pair  pair
	count int64
	words []int32 // where the pair appeared since the last flush, each once
}

func (t *pairTable) init() { t.index = make(map[pair]int32) }

func (t *pairTable) count(p pair) int64 { return t.rows[t.index[p]].count }

// add changes the count of p by n because of the word at place at. Calls for
// one word must be consecutive.
func (t *pairTable) add(p pair, n int64, at int32) {
	i, ok := t.index[p]
	if !ok {
		i = int32(len(t.rows))
		t.index[p] = i
		t.rows = append(t.rows, pairRow{pair: p})
	}
	r := &t.rows[i]
	r.count += n
	if n < 0 || len(r.words) > 0 && r.words[len(r.words)-1] == at {
		return
	}
	if len(r.words) == 0 {
		t.fresh = append(t.fresh, i)
	}
	r.words = append(r.words, at)
}

// flush queues every pair that has new words.
func (t *pairTable) flush(q *pairQueue) {
	for _, i := range t.fresh {
		r := &t.rows[i]
		if r.count > 0 {
			q.push(entry{r.pair, r.count, r.words})
		}
		r.words = nil
	}
	t.fresh = t.fresh[:0]
}

// entry is a pair to merge in certain words.
type entry struct {
	pair  pair
	count int64 // when it was queued
	words []int32
}

// before reports whether e is merged before f: more frequent, then smaller ids.
func (e *entry) before(f *entry) bool {
	if e.count != f.count {
		return e.count > f.count
	}
	if e.pair.a != f.pair.a {
		return e.pair.a < f.pair.a
	}
	return e.pair.b < f.pair.b
}

// pairQueue is a binary heap of entries, the next to merge first.
type pairQueue struct{ heap []entry }

func (q *pairQueue) len() int { return len(q.heap) }

func (q *pairQueue) push(e entry) {
	q.heap = append(q.heap, e)
	h, i := q.heap, len(q.heap)-1
	for i > 0 {
		up := (i - 1) / 2
		if !e.before(&h[up]) {
			break
		}
		h[i] = h[up]
		i = up
	}
	h[i] = e
}

func (q *pairQueue) pop() entry {
	h := q.heap
	top, e := h[0], h[len(h)-1]
	h[len(h)-1] = entry{} // lets go of its words
	h = h[:len(h)-1]
	q.heap = h
	if len(h) == 0 {
		return top
	}
	i := 0
	for {
		down := 2*i + 1
		if down >= len(h) {
			break
		}
		if down+1 < len(h) && h[down+1].before(&h[down]) {
			down++
		}
		if !h[down].before(&e) {
			break
		}
		h[i] = h[down]
		i = down
	}
	h[i] = e
	return top
}
