package equivalence

import (
	"math"
	"reflect"
	"strings"
	"testing"

	"onceupon/trainer/fault"
)

// The paper's table gives the paper's 410 M by its milestones alone:
// 500 M - 90 M. Between 500 M and 900 M the score 2.280 lies at
// 0.032 / 0.393 = 0.081425 of the way: 532.57 M over words, and over their
// logarithm 500 M * 1.8^0.081425 = 524.51 M.
func TestPaper(t *testing.T) {
	points, err := ReadPoints("../../docs/paper-points.csv")
	if err != nil {
		t.Fatal(err)
	}
	result, err := ReadResult("../../docs/paper-result.csv")
	if err != nil {
		t.Fatal(err)
	}
	for method, want := range map[Method]int64{Milestone: 410_000_000, Linear: 442_569_975, LogLinear: 434_512_000} {
		w, err := Of(points, result, method)
		if err != nil || math.Abs(float64(w.Words-want)) > 1000 {
			t.Errorf("%s: %d, want %d (%v)", method, w.Words, want, err)
		}
		if w.Equivalent != w.Words+90_000_000 || w.Beyond || (w.Bound == AtLeast) != (method == Milestone) || w.Method != string(method) {
			t.Errorf("%s: %+v", method, w)
		}
		if w.CI != nil || len(w.Notes) != 1 || !strings.HasPrefix(w.Notes[0], "no interval: nothing tells the error of the points of 20000000, ") {
			t.Errorf("%s: an interval of nothing: %v, %q", method, w.CI, w.Notes)
		}
	}
}

func curve(scores ...float64) []Point {
	var points []Point
	for i, s := range scores {
		points = append(points, Point{int64(10 * (i + 1)), Score{Mean: s}})
	}
	return points
}

func TestIsotonic(t *testing.T) {
	for _, c := range [][2][]float64{
		{{1, 2, 3}, {1, 2, 3}},
		{{1, 3, 2, 4}, {1, 2.5, 2.5, 4}},
		{{3, 2, 1}, {2, 2, 2}},
		{{4, 5, 0, 7}, {3, 3, 3, 7}}, // 5 and 0 pool to 2.5, which is below 4
	} {
		if got := isotonic(c[0]); !reflect.DeepEqual(got, c[1]) {
			t.Errorf("%v: %v, want %v", c[0], got, c[1])
		}
	}
}

// Points at 10, 20, ... words.
func TestOf(t *testing.T) {
	for _, c := range []struct {
		points []Point
		score  float64
		method Method
		words  int64
		beyond bool
		bound  string
	}{
		{curve(1, 2, 3), 2.5, Linear, 25, false, ""},
		{curve(1, 2, 3), 2.5, LogLinear, 24, false, ""}, // 20 * sqrt(1.5) = 24.49
		{curve(1, 2, 3), 2.5, Milestone, 20, false, AtLeast},
		{curve(1, 2, 3), 3, Linear, 30, false, ""},
		{curve(1, 2, 3), 1, Linear, 10, false, ""},
		{curve(1, 2, 3), 3.1, Linear, 30, true, AtLeast},
		{curve(1, 2, 3), 0.9, Milestone, 10, true, AtMost},
		{curve(1, 3, 2, 4), 2.75, Linear, 32, false, ""}, // 1/6 from 30 to 40
		{curve(1, 3, 2, 4), 2.5, Linear, 20, false, ""},  // where the level begins
		{curve(1, 3, 2, 4), 2.75, Milestone, 20, false, AtLeast},
		{curve(1, 3, 2), 2.9, Linear, 20, true, AtLeast}, // above the curve, not above the point of 20
		{curve(3, 2, 4), 1, Linear, 20, true, AtMost},
	} {
		w, err := Of(c.points, Result{PretrainWords: 5, Score: Score{Mean: c.score}}, c.method)
		if err != nil || w.Equivalent != c.words || w.Words != c.words-5 || w.Beyond != c.beyond || w.Bound != c.bound {
			t.Errorf("%v at %v: %+v, want %d (%v)", c.points, c.score, w, c.words, err)
		}
		fallen := falls([]float64{c.points[0].Score.Mean, c.points[1].Score.Mean, c.points[2].Score.Mean}) > 0
		if fallen != strings.HasSuffix(w.Method, " on isotonic regression (PAVA)") || fallen != strings.Contains(strings.Join(w.Notes, ""), "the score falls from 3 at ") {
			t.Errorf("%v: %q, %q", c.points, w.Method, w.Notes)
		}
	}
	if _, err := Of(curve(1, 2), Result{PretrainWords: 30, Score: Score{Mean: 3}}, Linear); fault.Code(err) != int(fault.Usage) || err.Error() != "the points end at 20 words, none reaches the score 3, and its student had read 30: give points of more words" {
		t.Errorf("points that say nothing: %v", err)
	}
	if w, err := Of(curve(1, 2), Result{PretrainWords: 30, Score: Score{Mean: 1.5}}, Linear); err != nil || w.Words != -15 {
		t.Errorf("a student that got worse: %+v, %v", w, err)
	}
	if _, err := Of([]Point{{0, Score{}}, {1, Score{Mean: 1}}}, Result{}, LogLinear); fault.Code(err) != int(fault.Usage) {
		t.Errorf("the logarithm of 0: %v", err)
	}
}

// Exact points on a line of 100 words a score: the interval is 100 times that
// of the score.
func TestInterval(t *testing.T) {
	exact := math.Inf(1)
	points := []Point{{0, Score{0, 0, exact}}, {1000, Score{10, 0, exact}}}
	for _, c := range []struct {
		score     Score
		half, tol float64
	}{
		{Score{5, .5, exact}, 1.960 * 50, 5},
		{Score{5, .5, 2}, 4.303 * 50, 25},
		{Score{5, .5, 100}, 1.984 * 50, 5},
		{Score{5, 0, exact}, 0, 0},
	} {
		w, err := Of(points, Result{Score: c.score}, Linear)
		if err != nil || w.Words != 500 || w.CI == nil || len(w.Notes) > 0 {
			t.Fatalf("%+v: %+v, %v", c.score, w, err)
		}
		for i, want := range []float64{500 - c.half, 500 + c.half} {
			if got := float64(*w.CI[i]); math.Abs(got-want) > c.tol {
				t.Errorf("%+v: end %d at %v, want %v", c.score, i, got, want)
			}
		}
	}
	// The error of the points counts as that of the result does.
	noisy := []Point{{0, Score{0, .3, exact}}, {1000, Score{10, .3, exact}}}
	w, _ := Of(noisy, Result{Score: Score{5, .5, exact}}, Linear)
	if half := float64(*w.CI[1]-*w.CI[0]) / 2; math.Abs(half-1.96*100*math.Hypot(.5, .3/math.Sqrt2)) > 6 {
		t.Errorf("half width %v", half)
	}
	// An end beyond the curve is open.
	if w, _ := Of(points, Result{Score: Score{9.9, .5, exact}}, Linear); w.CI[0] == nil || w.CI[1] != nil {
		t.Errorf("near the end: %v", w.CI)
	}
	if w, _ := Of(points, Result{Score: Score{12, .1, exact}}, Linear); !w.Beyond || w.CI[0] != nil || w.CI[1] != nil {
		t.Errorf("beyond the end: %+v", w)
	}
	// One point without an error leaves no interval.
	points[1].Score.Freedom = 0
	if w, _ := Of(points, Result{Score: Score{5, .5, exact}}, Linear); w.CI != nil || !strings.HasPrefix(w.Notes[0], "no interval: nothing tells the error of the points of 1000 words (n and sd") {
		t.Errorf("%+v", w)
	}
}
