package storybook

import (
	"hash/fnv"
	"strings"
	"testing"
)

func TestNoStoryTwice(t *testing.T) {
	seen := map[uint64]bool{}
	words, stories := 0, 0
	for text := range New(1).Documents(5_000_000) {
		h := fnv.New64a()
		h.Write([]byte(text))
		if seen[h.Sum64()] {
			t.Fatalf("story %d is told twice: %s", stories, text)
		}
		seen[h.Sum64()] = true
		words += len(strings.Fields(text))
		stories++
	}
	t.Logf("%d words in %d stories, %.1f words a story", words, stories, float64(words)/float64(stories))
}

func TestEveryPlotIsClean(t *testing.T) {
	b, plots := New(2), map[string]int{}
	for i := range uint64(20000) {
		s := b.Story(i)
		plots[s.Plot]++
		for _, wrong := range []string{"{", "}", "  ", " .", "|", " a a ", " the the ", "..", "?."} {
			if strings.Contains(s.Text, wrong) {
				t.Fatalf("story %d (%s) has %q: %s", i, s.Plot, wrong, s.Text)
			}
		}
		for _, f := range s.Facts {
			if !strings.Contains(s.Text, f.Answer) {
				t.Fatalf("story %d: answer %q of %q is not in %s", i, f.Answer, f.Question, s.Text)
			}
		}
	}
	if len(plots) < 20 {
		t.Errorf("%d plots, want at least 20", len(plots))
	}
}

func TestStoriesAreAFunctionOfTheirIndex(t *testing.T) {
	if a, b := New(3).Story(12345).Text, New(3).Story(12345).Text; a != b {
		t.Errorf("the same story differs:\n%s\n%s", a, b)
	}
	if a, b := New(3).Story(5).Text, New(4).Story(5).Text; a == b {
		t.Error("two seeds tell the same story")
	}
	if a, b := New(3).Story(5).Text, New(3).HeldOutStory(5).Text; a == b {
		t.Error("a held-out story is in the corpus")
	}
}

func BenchmarkStory(b *testing.B) {
	book, bytes := New(1), 0
	i := uint64(0)
	for b.Loop() {
		bytes += len(book.Story(i).Text)
		i++
	}
	b.ReportMetric(float64(bytes)/b.Elapsed().Seconds()/1e6, "MB/s")
}
