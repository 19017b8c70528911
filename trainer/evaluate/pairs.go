package evaluate

import (
	"cmp"
	"context"
	"hash/fnv"
	"maps"
	"math"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"

	"onceupon/trainer/metrics"
)

// Pair is two sentences of which the first is grammatical, of the paradigm UID.
type Pair struct {
	UID, Good, Bad string
	At             Place
}

// ReadPairs reads minimal pairs: {good, bad, UID}, or BLiMP's own sentence_good
// and sentence_bad; a line without UID is of the paradigm that its file is
// named after.
func ReadPairs(path string) ([]Pair, error) {
	type line struct {
		UID          string
		Good         string `json:"good"`
		Bad          string `json:"bad"`
		SentenceGood string `json:"sentence_good"`
		SentenceBad  string `json:"sentence_bad"`
	}
	var pairs []Pair
	err := readLines(path, func(at Place, l line) error {
		p := Pair{l.UID, cmp.Or(l.Good, l.SentenceGood), cmp.Or(l.Bad, l.SentenceBad), at}
		if p.UID == "" {
			p.UID = strings.TrimSuffix(filepath.Base(plainName(at.File)), ".jsonl")
		}
		for _, x := range [][2]string{{"good", p.Good}, {"bad", p.Bad}} {
			if strings.TrimSpace(x[1]) == "" {
				return at.damaged(x[0], "(or sentence_%s) is missing or empty: give a sentence", x[0])
			}
		}
		pairs = append(pairs, p)
		return nil
	})
	return pairs, err
}

// Sample draws n pairs of each paradigm, or all where there are fewer. What is
// drawn of a paradigm depends on the seed and on that paradigm alone.
func Sample(pairs []Pair, n int, seed uint64) []Pair {
	of := map[string][]Pair{}
	for _, p := range pairs {
		of[p.UID] = append(of[p.UID], p)
	}
	var drawn []Pair
	for _, uid := range slices.Sorted(maps.Keys(of)) {
		name := fnv.New64a()
		name.Write([]byte(uid))
		order := rand.New(rand.NewPCG(seed, name.Sum64())).Perm(len(of[uid]))
		for _, i := range order[:min(n, len(order))] {
			drawn = append(drawn, of[uid][i])
		}
	}
	return drawn
}

// Accuracy is how often a student prefers the grammatical sentence, in percent.
type Accuracy struct {
	Score, Strict float64 // a tie counts as right, as wrong
	Items, Ties   int
}

// Preference is the mean over paradigms.
type Preference struct {
	Accuracy
	Interval *[2]float64 // 95 %, within 0..100; nil when a paradigm has a single pair, or none both right and wrong ones
	UIDs     map[string]Accuracy
}

// Prefer scores both sentences of every pair in whole: the sum of the
// log-probabilities of all tokens but the first. The protocol counts a tie as
// right.
func (s Student) Prefer(ctx context.Context, pairs []Pair) (Preference, error) {
	items := make([][]Text, len(pairs))
	for i, p := range pairs {
		good, err := s.Text(p.At, "good", "", p.Good)
		if err != nil {
			return Preference{}, err
		}
		bad, err := s.Text(p.At, "bad", "", p.Bad)
		if err != nil {
			return Preference{}, err
		}
		items[i] = []Text{good, bad}
	}
	scores, err := s.Score(ctx, items)
	if err != nil {
		return Preference{}, err
	}
	return prefer(pairs, scores), nil
}

// prefer counts. Its interval takes the paradigms as given and their pairs as
// drawn: the half widths of the paradigms' means (Student's t) add in squares.
func prefer(pairs []Pair, scores [][]float64) Preference {
	right, uids := map[string][]float64{}, map[string]Accuracy{}
	for i, p := range pairs {
		good, bad := scores[i][0], scores[i][1]
		a, x := uids[p.UID], 0.0
		a.Items++
		if good == bad {
			a.Ties++
		}
		if good >= bad {
			x = 1
			a.Score++
		}
		uids[p.UID], right[p.UID] = a, append(right[p.UID], x)
	}
	r := Preference{UIDs: uids}
	squares, single, varies := 0.0, false, false
	for _, uid := range slices.Sorted(maps.Keys(uids)) {
		a, items := uids[uid], float64(uids[uid].Items)
		single = single || a.Items < 2
		varies = varies || a.Score > 0 && a.Score < items
		a.Score, a.Strict = 100*a.Score/items, 100*(a.Score-float64(a.Ties))/items
		uids[uid] = a
		r.Score += a.Score
		r.Strict += a.Strict
		r.Items += a.Items
		r.Ties += a.Ties
		_, half := metrics.MeanCI(right[uid])
		squares += half * half
	}
	n := float64(len(uids))
	r.Score /= n
	r.Strict /= n
	if half := 100 * math.Sqrt(squares) / n; !single && varies {
		r.Interval = &[2]float64{max(0, r.Score-half), min(100, r.Score+half)}
	}
	return r
}
