package evaluate

import (
	"context"
	"math"
	"slices"
	"strings"

	"onceupon/trainer/fault"
	"onceupon/trainer/metrics"
)

// Nominalization is a nonce adjective with two sentences that make a noun of it
// in two ways, and the part of people that chose the first.
type Nominalization struct {
	First, Second string
	Ratio         float64
	At            Place
}

// ReadNominalizations reads {sentences, ratio}: two sentences with a tab
// between them.
func ReadNominalizations(path string) ([]Nominalization, error) {
	type line struct {
		Sentences string   `json:"sentences"`
		Ratio     *float64 `json:"ratio"`
	}
	var all []Nominalization
	err := readLines(path, func(at Place, l line) error {
		first, second, found := strings.Cut(l.Sentences, "\t")
		if !found || strings.TrimSpace(first) == "" || strings.TrimSpace(second) == "" {
			return at.damaged("sentences", "is not two sentences with a tab between them: give both")
		}
		if l.Ratio == nil || !(*l.Ratio >= 0 && *l.Ratio <= 1) {
			return at.damaged("ratio", "is not a number in 0..1: give the part of people that chose the first sentence")
		}
		all = append(all, Nominalization{first, second, *l.Ratio, at})
		return nil
	})
	if err == nil && !slices.ContainsFunc(all, func(n Nominalization) bool { return n.Ratio != all[0].Ratio }) {
		err = fault.New(fault.Usage, "%s: the ratio is the same in every line: it ranks nothing, give more adjectives", path)
	}
	return all, err
}

// Agreement is Spearman's rho between people's ratios and the student's
// P(first), in percent, with its 95 % interval: Fisher's z with the variance
// (1 + rho^2/2)/(n - 3) of Bonett and Wright (2000); nil below four items and for
// a rho of 1 or -1, whose z is not finite.
type Agreement struct {
	Score    float64
	Interval *[2]float64
	Items    int
}

// Agree measures that. P(first), a softmax over two sums of log-probabilities,
// rises with their difference, which is ranked in its place: it does not become
// 1 where P rounds to it.
func (s Student) Agree(ctx context.Context, all []Nominalization) (Agreement, error) {
	items := make([][]Text, len(all))
	for i, n := range all {
		for _, sentence := range []string{n.First, n.Second} {
			text, err := s.Text(n.At, "sentences", "", sentence)
			if err != nil {
				return Agreement{}, err
			}
			items[i] = append(items[i], text)
		}
	}
	scores, err := s.Score(ctx, items)
	if err != nil {
		return Agreement{}, err
	}
	return agree(all, scores), nil
}

func agree(all []Nominalization, scores [][]float64) Agreement {
	people, prefers := make([]float64, len(all)), make([]float64, len(all))
	for i, n := range all {
		people[i], prefers[i] = n.Ratio, scores[i][0]-scores[i][1]
	}
	rho := metrics.Spearman(people, prefers)
	a := Agreement{Score: 100 * rho, Items: len(all)}
	if n := float64(len(all)); n > 3 && math.Abs(rho) < 1 {
		half := 1.96 * math.Sqrt((1+rho*rho/2)/(n-3))
		a.Interval = &[2]float64{100 * math.Tanh(math.Atanh(rho)-half), 100 * math.Tanh(math.Atanh(rho)+half)}
	}
	return a
}
