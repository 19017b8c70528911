package tokenizer

import "strings"

// Encode returns the ids of text. Names of special tokens in it are plain
// text; see EncodeSpecial.
func (t *Tokenizer) Encode(text string) []int32 {
	// English needs about four bytes a token.
	return t.EncodeAppend(make([]int32, 0, len(text)/4+8), text)
}

// EncodeAppend appends the ids of text to dst and returns it.
func (t *Tokenizer) EncodeAppend(dst []int32, text string) []int32 {
	c := t.cache.Get().(*wordCache)
	defer t.cache.Put(c)
	for i := 0; i < len(text); {
		end := nextWord(text, i)
		dst = t.appendWord(dst, c, text[i:end])
		i = end
	}
	return dst
}

// A wordCache keeps the ids of words met before. Text repeats its words, so
// nearly every word costs one look-up instead of its merges. One goroutine
// uses a cache at a time; the tokenizer's pool hands them out.
type wordCache struct {
	spans map[string]span
	ids   []int32 // the ids of all cached words, end to end
	work  mergeWork
}

// span is where a word's ids lie in wordCache.ids.
type span struct{ begin, end uint32 }

const (
	maxCachedWords = 1 << 16 // 8 MB or so a goroutine
	maxCachedBytes = 64      // longer words rarely come again
)

func newWordCache() *wordCache { return &wordCache{spans: make(map[string]span)} }

func (t *Tokenizer) appendWord(dst []int32, c *wordCache, word string) []int32 {
	if len(word) == 1 {
		return append(dst, t.byteID[word[0]])
	}
	if s, ok := c.spans[word]; ok {
		return append(dst, c.ids[s.begin:s.end]...)
	}
	ids := t.mergeWord(&c.work, word)
	if len(word) <= maxCachedBytes {
		if len(c.spans) == maxCachedWords {
			clear(c.spans)
			c.ids = c.ids[:0]
		}
		begin := uint32(len(c.ids))
		c.ids = append(c.ids, ids...)
		c.spans[strings.Clone(word)] = span{begin, uint32(len(c.ids))}
	}
	return append(dst, ids...)
}
