package judge

import "math"

// Line maps a teacher's expected mark to the mark an anchor was given.
type Line struct {
	Slope     float64 `json:"slope"`
	Intercept float64 `json:"intercept"`
	// Fitted is false when the anchors gave no rising line; the mark is then
	// taken as it is.
	Fitted bool `json:"fitted"`
}

// Calibration has one line per criterion, fitted by least squares on the
// rubric's worked examples, each rated as a story (after contextual
// calibration, Zhao et al. 2021). The examples stand in the shared prefix while
// they are rated, so the fit is optimistic; it only needs to be monotone.
type Calibration struct {
	Lines   [3]Line `json:"lines"`
	Anchors int     `json:"anchors"`
}

// fit needs anchors with ratings; a criterion whose line would not rise keeps
// its marks.
func fit(examples []Example, ratings []Rating) Calibration {
	c := Calibration{Anchors: len(examples)}
	for k := range c.Lines {
		var n, sx, sy, sxx, sxy float64
		for i, e := range examples {
			if ratings[i].Unreadable {
				continue
			}
			x, y := ratings[i].Marks[k], float64(e.Marks[k])
			n++
			sx += x
			sy += y
			sxx += x * x
			sxy += x * y
		}
		c.Lines[k] = Line{Slope: 1}
		if spread := n*sxx - sx*sx; spread > 1e-9*n*n {
			if slope := (n*sxy - sx*sy) / spread; slope > 0 {
				c.Lines[k] = Line{slope, (sy - slope*sx) / n, true}
			}
		}
	}
	return c
}

// apply returns calibrated marks, clipped to 0..3.
func (c Calibration) apply(marks [3]float64) (out [3]float64) {
	for k, l := range c.Lines {
		out[k] = math.Max(0, math.Min(3, l.Intercept+l.Slope*marks[k]))
	}
	return out
}
