// Package storybook owns a seeded grammar of children's stories: the corpus of
// the embedded run. Its words, openings and plots are data (data/*.txt), made
// to be read and edited; the code only keeps track of who is who and who holds
// what.
//
// Story i of a book is a pure function of (seed, i). A story draws a plot, one
// alternative per line and some ten words from lists, so the number of distinct
// stories of a single plot exceeds 10^12; TestNoStoryTwice counts that five
// million words repeat none.
package storybook

import (
	"iter"
	"math/rand/v2"
	"strings"
)

// Fact is a question about a story whose answer the grammar knows.
type Fact struct{ Question, Answer string }

// Story is one tale.
type Story struct {
	Text  string
	Plot  string
	Facts []Fact
}

// Book is an endless sequence of stories.
type Book struct {
	seed uint64
	data *data
}

// New opens the book of a seed.
func New(seed uint64) *Book { return &Book{seed, book()} }

// heldOutBit sets the held-out stories apart: no index below 2^63 meets them.
const heldOutBit = 1 << 63

// Story returns story i.
func (b *Book) Story(i uint64) Story {
	r := rand.New(rand.NewPCG(b.seed, i))
	plot := b.data.plots[r.IntN(len(b.data.plots))]
	t := telling{data: b.data, r: r, words: map[string]string{}}
	t.cast()
	var parts []string
	for _, line := range plot.lines {
		if line.optional && r.IntN(2) == 0 {
			continue
		}
		part := t.fill(line.choices[r.IntN(len(line.choices))])
		if len(parts) > 0 {
			part = capital(part) // the first part goes on from the opening
		}
		parts = append(parts, part)
	}
	text := strings.Join(parts, " ")
	opening := b.data.openings[r.IntN(len(b.data.openings))]
	story := Story{Text: opening + " " + text, Plot: plot.name}
	for _, f := range plot.facts {
		story.Facts = append(story.Facts, Fact{t.fill(f.Question), t.fill(f.Answer)})
	}
	return story
}

// HeldOutStory returns story i of the part that Documents never gives.
func (b *Book) HeldOutStory(i uint64) Story { return b.Story(heldOutBit | i) }

// Documents gives stories until they hold that many words.
func (b *Book) Documents(words int) iter.Seq[string] { return b.until(words, b.Story) }

// HeldOut gives stories that Documents never gives.
func (b *Book) HeldOut(words int) iter.Seq[string] { return b.until(words, b.HeldOutStory) }

func (b *Book) until(words int, story func(uint64) Story) iter.Seq[string] {
	return func(yield func(string) bool) {
		for i, n := uint64(0), 0; n < words; i++ {
			text := story(i).Text
			n += len(strings.Fields(text))
			if !yield(text) {
				return
			}
		}
	}
}
