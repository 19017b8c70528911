package judge

import (
	"math/rand/v2"
	"regexp"
	"strings"
)

// damager is the generator of one damaged story.
type damager struct{ *rand.Rand }

func newDamager(seed uint64, kind, story int) damager {
	return damager{rand.New(rand.NewPCG(seed, uint64(kind)<<32|uint64(story)))}
}

// damage makes the k-th story of its kind from well-made ones. rank is its
// place in a person's order, equal for kinds a person would not order.
type damage struct {
	name  string
	rank  float64
	apply func(r damager, stories []string, k int) string
}

// damages begin with the undamaged.
var damages = []damage{
	{"well-made", 1, func(_ damager, s []string, k int) string { return s[k] }},
	{"its sentences in another order", 2, func(r damager, s []string, k int) string {
		return strings.Join(r.shuffled(sentences(s[k])), " ")
	}},
	{"sentences of four stories mixed", 3.5, func(r damager, s []string, k int) string {
		var all []string
		for i := range 4 {
			from := sentences(s[(k+i)%len(s)])
			all = append(all, from[r.IntN(len(from))])
		}
		return strings.Join(r.shuffled(all), " ")
	}},
	{"first sentence five times", 3.5, func(_ damager, s []string, k int) string {
		return strings.TrimSpace(strings.Repeat(sentences(s[k])[0]+" ", 5))
	}},
	{"a quarter of the words dropped", 5, func(r damager, s []string, k int) string {
		var kept []string
		for _, w := range strings.Fields(s[k]) {
			if r.Float64() >= 0.25 {
				kept = append(kept, w)
			}
		}
		return strings.Join(kept, " ")
	}},
	{"40 % of neighbours swapped", 5, func(r damager, s []string, k int) string {
		w := strings.Fields(s[k])
		for i := 0; i+1 < len(w); i++ {
			if r.Float64() < 0.4 {
				w[i], w[i+1] = w[i+1], w[i]
				i++
			}
		}
		return strings.Join(w, " ")
	}},
	{"twelve words only", 7, func(_ damager, s []string, k int) string {
		w := strings.Fields(s[k])
		return strings.Join(w[:min(12, len(w))], " ")
	}},
	{"words shuffled", 8, func(r damager, s []string, k int) string {
		return strings.Join(r.shuffled(strings.Fields(s[k])), " ")
	}},
	{"letters at random", 9, func(r damager, s []string, k int) string {
		var words []string
		for range strings.Fields(s[k]) {
			letters := make([]byte, 2+r.IntN(7))
			for i := range letters {
				letters[i] = byte('a' + r.IntN(26))
			}
			words = append(words, string(letters))
		}
		return strings.Join(words, " ")
	}},
}

func (r damager) shuffled(x []string) []string {
	out := append([]string(nil), x...)
	r.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out
}

var sentence = regexp.MustCompile(`[^.!?]+[.!?]*["']?`)

// sentences splits at . ! ? with the quotation mark that may follow.
func sentences(text string) []string {
	var all []string
	for _, s := range sentence.FindAllString(text, -1) {
		if s = strings.TrimSpace(s); s != "" {
			all = append(all, s)
		}
	}
	if len(all) == 0 {
		return []string{text}
	}
	return all
}
