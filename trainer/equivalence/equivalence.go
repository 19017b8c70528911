// Package equivalence owns how many words of pretraining an interaction is
// worth: the curve of the scores that pretraining alone reaches is read
// backwards at the score of the interaction.
package equivalence

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"

	"onceupon/trainer/fault"
)

// Score is a measured score, of any scale, and what its table says of its error.
type Score struct {
	Mean    float64
	Error   float64 // standard error of the mean
	Freedom float64 // of Student's t; +Inf is normal, 0 when the table says nothing of the error
}

// Point is what words of pretraining alone reach.
type Point struct {
	Words int64
	Score Score
}

// Result is what an interaction reached.
type Result struct {
	PretrainWords, BudgetWords int64
	Score                      Score
}

// Method is how the curve is read between two points.
type Method string

// Milestone does not interpolate: the last point that the score reaches is
// what the student can be said to be worth, as in the paper. The others draw a
// line to the next point, over words or over their logarithm.
const (
	Milestone Method = "milestone"
	Linear    Method = "linear"
	LogLinear Method = "log-linear"
)

// Methods are all of them.
var Methods = []Method{Milestone, Linear, LogLinear}

// Bounds of a worth that is not its estimate.
const (
	AtLeast = "at_least"
	AtMost  = "at_most"
)

// Worth is the answer: the words of pretraining alone that reach the score,
// less those that the student had read.
type Worth struct {
	Words      int64     `json:"worth_words"`
	CI         *Interval `json:"ci95"`
	Method     string    `json:"method"`
	Beyond     bool      `json:"beyond"`          // the score lies above or below the whole curve
	Bound      string    `json:"bound,omitempty"` // at_least, at_most
	Equivalent int64     `json:"equivalent_words"`
	Notes      []string  `json:"notes,omitempty"`
}

// Interval has an end that is nil where the curve does not reach.
type Interval [2]*int64

// draws and level of the interval.
const (
	draws = 10_000
	tail  = 0.025
)

// Of computes what a result is worth. The interval is a parametric bootstrap:
// every score is drawn anew from its error (Student's t, or normal where the
// table gives an interval) and the curve read again.
func Of(points []Point, result Result, method Method) (Worth, error) {
	if method == LogLinear && points[0].Words == 0 {
		return Worth{}, fault.New(fault.Usage, "log-linear: a point of 0 words has no logarithm: take --method linear or leave the point out")
	}
	if last := points[len(points)-1].Words; last < result.PretrainWords && result.Score.Mean > highest(points) {
		return Worth{}, fault.New(fault.Usage, "the points end at %d words, none reaches the score %g, and its student had read %d: give points of more words", last, result.Score.Mean, result.PretrainWords)
	}
	means := make([]float64, len(points))
	for i, p := range points {
		means[i] = p.Score.Mean
	}
	w := Worth{Method: string(method)}
	if i := falls(means); i > 0 {
		w.Method += " on isotonic regression (PAVA)"
		w.Notes = append(w.Notes, fmt.Sprintf("the score falls from %g at %d words to %g at %d: the curve is the isotonic regression of the points",
			means[i-1], points[i-1].Words, means[i], points[i].Words))
	}
	words, side := read(points, isotonic(means), result.Score.Mean, method)
	w.Equivalent = int64(math.Round(words))
	w.Words = w.Equivalent - result.PretrainWords
	w.Beyond = side != 0
	switch {
	case side < 0:
		w.Bound = AtMost
	case side > 0, method == Milestone:
		w.Bound = AtLeast
	}
	if w.Beyond {
		where := map[int]string{-1: "below", 1: "above"}[side]
		w.Notes = append(w.Notes, fmt.Sprintf("the score %g is %s the whole curve: the worth is a bound", result.Score.Mean, where))
	}
	if missing := silent(points, result); missing != "" {
		w.Notes = append(w.Notes, "no interval: "+missing)
		return w, nil
	}
	w.CI = interval(points, result, method)
	return w, nil
}

func highest(points []Point) float64 {
	return slices.MaxFunc(points, func(a, b Point) int { return cmp.Compare(a.Score.Mean, b.Score.Mean) }).Score.Mean
}

// silent names the scores whose error nobody gave.
func silent(points []Point, result Result) string {
	var without []string
	for _, p := range points {
		if p.Score.Freedom == 0 {
			without = append(without, fmt.Sprint(p.Words))
		}
	}
	var missing []string
	if len(without) > 0 {
		missing = append(missing, "the points of "+strings.Join(without, ", ")+" words")
	}
	if result.Score.Freedom == 0 {
		missing = append(missing, "the result")
	}
	if missing == nil {
		return ""
	}
	return "nothing tells the error of " + strings.Join(missing, " and ") + " (n and sd, ci_low and ci_high, or rows that differ)"
}

// falls is the first score that is lower than the one before it, or 0.
func falls(y []float64) int {
	for i := 1; i < len(y); i++ {
		if y[i] < y[i-1] {
			return i
		}
	}
	return 0
}

// isotonic is the nearest curve, in least squares, that never falls: pool
// adjacent violators, all points of the same weight (Barlow et al. 1972).
func isotonic(y []float64) []float64 {
	type pool struct {
		sum float64
		n   int
	}
	mean := func(p pool) float64 { return p.sum / float64(p.n) }
	var pools []pool
	for _, v := range y {
		p := pool{v, 1}
		for len(pools) > 0 && mean(pools[len(pools)-1]) > mean(p) {
			last := pools[len(pools)-1]
			p = pool{p.sum + last.sum, p.n + last.n}
			pools = pools[:len(pools)-1]
		}
		pools = append(pools, p)
	}
	var fit []float64
	for _, p := range pools {
		fit = append(fit, slices.Repeat([]float64{mean(p)}, p.n)...)
	}
	return fit
}

// read finds a score on the curve. A level stretch is reached where it begins.
// side is -1 and +1 where the score lies below and above the curve: the words
// are then those up to, and from, the level next to it.
func read(points []Point, fit []float64, score float64, method Method) (words float64, side int) {
	x := func(i int) float64 { return float64(points[i].Words) }
	above := func(level float64) (i int) {
		for i < len(fit) && fit[i] <= level {
			i++
		}
		return i
	}
	next := above(score)
	if next == 0 {
		return x(above(fit[0]) - 1), -1
	}
	last := next - 1
	reached := slices.Index(fit, fit[last])
	switch {
	case next == len(fit) && score > fit[last]:
		return x(reached), 1
	case method == Milestone, score == fit[last]:
		return x(reached), 0
	}
	part := (score - fit[last]) / (fit[next] - fit[last])
	if method == LogLinear {
		return x(last) * math.Pow(x(next)/x(last), part), 0
	}
	return x(last) + part*(x(next)-x(last)), 0
}

func interval(points []Point, result Result, method Method) *Interval {
	random := rand.New(rand.NewPCG(1, 0))
	drawn, all := make([]float64, len(points)), make([]float64, draws)
	for i := range all {
		for k, p := range points {
			drawn[k] = draw(p.Score, random)
		}
		words, side := read(points, isotonic(drawn), draw(result.Score, random), method)
		if side != 0 {
			words = math.Inf(side)
		}
		all[i] = words
	}
	slices.Sort(all)
	var ends Interval
	for i, at := range []int{tail * draws, draws - 1 - tail*draws} {
		if !math.IsInf(all[at], 0) {
			words := int64(math.Round(all[at])) - result.PretrainWords
			ends[i] = &words
		}
	}
	return &ends
}

// draw is one score that could have been measured: Student's t by Bailey's
// polar method (Math. Comp. 62, 1994).
func draw(s Score, random *rand.Rand) float64 {
	if math.IsInf(s.Freedom, 1) {
		return s.Mean + s.Error*random.NormFloat64()
	}
	for {
		u, v := 2*random.Float64()-1, 2*random.Float64()-1
		if w := u*u + v*v; w > 0 && w <= 1 {
			return s.Mean + s.Error*u*math.Sqrt(s.Freedom*(math.Pow(w, -2/s.Freedom)-1)/w)
		}
	}
}
