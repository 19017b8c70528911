// Package judge owns the teacher: the rubric, the reading of its marks, their
// calibration on the rubric's own examples, and the probe that decides whether
// a teacher may teach.
package judge

import (
	"context"
	"math"
)

// Criteria are the names of the three marks, in order.
var Criteria = [3]string{"readability", "coherence", "creativity"}

// Rating is what a teacher says of one story.
type Rating struct {
	Marks        [3]float64    // as read, 0..3
	Calibrated   [3]float64    // after calibration; equal to Marks without one
	Distribution [3][4]float64 // probabilities of 0..3 at the three places
	Entropy      float64       // mean entropy of the three distributions, nats
	Text         string        // the teacher's words, when it was sampled
	Unreadable   bool          // no three marks, also when asked again
	Missing      int           // marks that were made up under Options.MissingMarks = "paper"
	Asked        int
}

// Score is the sum of the calibrated marks, 0..9.
func (r Rating) Score() float64 {
	return r.Calibrated[0] + r.Calibrated[1] + r.Calibrated[2]
}

// Weighted is the weighted mean of the calibrated marks times three, so that
// equal weights give Score.
func (r Rating) Weighted(weights [3]float64) float64 {
	sum, total := 0.0, 0.0
	for i, w := range weights {
		sum += w * r.Calibrated[i]
		total += w
	}
	return 3 * sum / total
}

// Teacher rates stories, one rating each, in order. libllama is the
// implementation (Judge).
type Teacher interface {
	Rate(ctx context.Context, stories []string) ([]Rating, error)
}

// fromDistribution is the expected reading.
func fromDistribution(d [3][4]float64) Rating {
	r := Rating{Distribution: d, Asked: 1}
	for i := range d {
		for mark, p := range d[i] {
			r.Marks[i] += float64(mark) * p
			if p > 0 {
				r.Entropy -= p * math.Log(p) / 3
			}
		}
	}
	r.Calibrated = r.Marks
	return r
}
