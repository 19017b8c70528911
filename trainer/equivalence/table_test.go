package equivalence

import (
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"onceupon/trainer/fault"
)

func file(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "x.csv")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// Rows in any order, columns too; seeds 1, 2, 3 have the mean 2 and the
// standard error 1/sqrt(3); an interval of +-0.98 the error 0.5.
func TestReadPoints(t *testing.T) {
	points, err := ReadPoints(file(t, "\ufeffscore, pretrain_words,n,sd,ci_low,ci_high\r\n# a comment\n1,200,,,,\n2,200,,,,\n3,200,,,,\n0.5,100,16,2,,\n4,3e2,,,3.0200180077,4.9799819923\n7,400,,,,\n"))
	if err != nil {
		t.Fatal(err)
	}
	want := []Point{{100, Score{.5, .5, 15}}, {200, Score{2, 1 / math.Sqrt(3), 2}}, {300, Score{4, .5, math.Inf(1)}}, {400, Score{Mean: 7}}}
	for i, p := range points {
		if p.Words != want[i].Words || math.Abs(p.Score.Mean-want[i].Score.Mean) > 1e-9 || math.Abs(p.Score.Error-want[i].Score.Error) > 1e-9 || p.Score.Freedom != want[i].Score.Freedom {
			t.Errorf("%+v, want %+v", p, want[i])
		}
	}
	if len(points) != len(want) {
		t.Errorf("%d points", len(points))
	}
	if points, err := ReadPoints(file(t, "pretrain_words,score\n1,2\n1,2\n3,4\n")); err != nil || points[0].Score != (Score{Mean: 2}) {
		t.Errorf("a row that stands twice: %+v, %v", points, err)
	}
	r, err := ReadResult(file(t, "pretrain_words,budget_words,score\n90,10,1\n90,10,2\n"))
	if want := (Result{90, 10, Score{1.5, .5, 1}}); err != nil || !reflect.DeepEqual(r, want) {
		t.Errorf("%+v, want %+v (%v)", r, want, err)
	}
}

func TestDamaged(t *testing.T) {
	points := func(path string) error { _, err := ReadPoints(path); return err }
	result := func(path string) error { _, err := ReadResult(path); return err }
	for _, c := range []struct {
		read       func(string) error
		text, want string
	}{
		{points, "", "no row below the header"},
		{points, "pretrain_words,score\n", "no row below the header"},
		{points, "words,score\n1,2\n", `line 1: column "words": the header is pretrain_words,score, and perhaps n,sd or ci_low,ci_high`},
		{points, "pretrain_words,score,score\n", `column "score"`},
		{points, "pretrain_words,sd\n1,2\n", "no column score"},
		{points, "pretrain_words,score\n1,2\n", "a single point: a curve needs two"},
		{points, "pretrain_words,score\n1,2\n2,x\n", `line 3: score = "x" must be a number`},
		{points, "pretrain_words,score\n1,NaN\n", `line 2: score = "NaN"`},
		{points, "pretrain_words,score\n1,\n", `line 2: score = ""`},
		{points, "pretrain_words,score\n-1,2\n", `pretrain_words = "-1" must be a number in 0..1e+15`},
		{points, "pretrain_words,score\n1.5,2\n", "pretrain_words = 1.5 must be a whole number"},
		{points, "pretrain_words,score\n1,2,3\n", "line 2 has 3 fields, the header 2: give every column"},
		{points, "pretrain_words,score\n\"1,2\n", "line 2"},
		{points, "pretrain_words,score,n,sd\n1,2,5,\n2,3,5,1\n", "line 2: give n and sd, or ci_low and ci_high, or none"},
		{points, "pretrain_words,score,n\n1,2,5\n2,3,5\n", "line 2: give n and sd"},
		{points, "pretrain_words,score,n,sd\n1,2,1,1\n", `n = "1" must be a number in 2..`},
		{points, "pretrain_words,score,ci_low,ci_high\n1,2,2.5,3\n", `ci_low = "2.5" must be a number in -2e+09..2`},
		{points, "pretrain_words,score,n,sd\n1,2,5,1\n1,3,5,1\n2,3,,\n", "line 2: one of 2 rows of the same words"},
		{points, strings.Repeat("x", maxBytes+1), "more than 1048576 bytes"},
		{result, "pretrain_words,score\n1,2\n", "no column budget_words"},
		{result, "pretrain_words,budget_words,score\n1,2,3\n1,3,3\n", "line 3: another result"},
	} {
		path := file(t, c.text)
		err := c.read(path)
		if fault.Code(err) != int(fault.Damaged) || !strings.HasPrefix(err.Error(), path+": ") || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%.60q: %v, want %q", c.text, err, c.want)
		}
	}
	if err := points("none.csv"); fault.Code(err) != int(fault.Capability) {
		t.Errorf("no file: %v", err)
	}
	if err := points("."); fault.Code(err) != int(fault.Usage) {
		t.Errorf("a folder: %v", err)
	}
}
