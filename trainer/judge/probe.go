package judge

import (
	"context"
	"math"
	"slices"

	"onceupon/trainer/fault"
	"onceupon/trainer/metrics"
)

// Kind is one row of the probe's table: stories damaged in one way.
type Kind struct {
	Kind string  `json:"kind"`
	Mean float64 `json:"mean"` // of the score, 0..9
	SD   float64 `json:"sd"`   // of the stories, not of the mean
	N    int     `json:"n"`    // ratings that could be read
	rank float64 // as a person would order the kinds, best first
}

// ProbeResult says whether a teacher may teach.
type ProbeResult struct {
	Kinds []Kind `json:"kinds"`
	// RankCorrelation is Spearman's rho between the kinds' means and the order
	// a person would give them.
	RankCorrelation float64 `json:"rank_correlation"`
	Passed          bool    `json:"passed"`
}

// minRankCorrelation is what a teacher needs besides preferring stories to
// noise: the kinds in broadly the right order.
const minRankCorrelation = 0.5

// Probe rates n stories of every kind of damage, made from well-made stories
// (replies) by a generator that is seeded. A teacher passes when well-made
// stories stand above shuffled words and above random letters by more than
// the standard error of the difference, and the order of all kinds agrees with
// a person's (minRankCorrelation).
func Probe(ctx context.Context, t Teacher, wellMade []string, n int, seed uint64, progress func(done, total int)) (ProbeResult, error) {
	if len(wellMade) < n || n < 2 {
		return ProbeResult{}, fault.New(fault.Usage, "probe: %d stories for %d of every kind; at least 2 of a kind are needed", len(wellMade), n)
	}
	var result ProbeResult
	for i, d := range damages {
		var stories []string
		for k := range n {
			stories = append(stories, d.apply(newDamager(seed, i, k), wellMade, k))
		}
		ratings, err := t.Rate(ctx, stories)
		if err != nil {
			return result, err
		}
		kind := Kind{Kind: d.name, rank: d.rank}
		ratings = slices.DeleteFunc(ratings, func(r Rating) bool { return r.Unreadable })
		if kind.N = len(ratings); kind.N < 2 {
			return result, fault.New(fault.Teacher, "probe: %d of %d ratings of %q can be read, at least 2 are needed: take another teacher, or --reading expected", kind.N, n, d.name)
		}
		for _, r := range ratings {
			kind.Mean += r.Score() / float64(kind.N)
		}
		for _, r := range ratings {
			kind.SD += (r.Score() - kind.Mean) * (r.Score() - kind.Mean) / float64(kind.N-1)
		}
		kind.SD = math.Sqrt(kind.SD)
		result.Kinds = append(result.Kinds, kind)
		if progress != nil {
			progress(i+1, len(damages))
		}
	}
	person, teacher := make([]float64, len(result.Kinds)), make([]float64, len(result.Kinds))
	for i, k := range result.Kinds {
		person[i], teacher[i] = -k.rank, k.Mean
	}
	result.RankCorrelation = metrics.Spearman(person, teacher)
	well := result.Kinds[0]
	result.Passed = result.RankCorrelation >= minRankCorrelation
	for _, k := range result.Kinds {
		if k.Kind == "words shuffled" || k.Kind == "letters at random" {
			margin := math.Sqrt(well.SD*well.SD/float64(well.N) + k.SD*k.SD/float64(k.N))
			result.Passed = result.Passed && well.Mean-k.Mean > margin
		}
	}
	return result, nil
}
