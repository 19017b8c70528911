package evaluate

import (
	"context"
	"encoding/csv"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"

	"onceupon/trainer/fault"
	"onceupon/trainer/xtest"
)

// y = 2 + 3x has R2 1; for x = 0 1 2 3 and y = 0 1 1 4, b = 6/5, so R2 is
// (6/5 * 6) / 9 = 0.8. A column that the others span adds nothing.
func TestRSquared(t *testing.T) {
	x := []float64{0, 1, 2, 3}
	for _, c := range []struct {
		y       []float64
		columns [][]float64
		want    float64
	}{
		{[]float64{2, 5, 8, 11}, [][]float64{x}, 1},
		{[]float64{0, 1, 1, 4}, [][]float64{x}, .8},
		{[]float64{0, 1, 1, 4}, [][]float64{x, {1, 3, 5, 7}, {5, 5, 5, 5}}, .8},
	} {
		if got := rSquared(c.y, c.columns); math.Abs(got-c.want) > 1e-12 {
			t.Errorf("R2 %v, want %v", got, c.want)
		}
	}
}

// With GPT-2's surprisals, which the shared file has, the gains are those that
// numpy's least squares finds (data.md, to the printed digits).
func TestGainsOfGPT2(t *testing.T) {
	path := data(t, "reading/reading_data.csv.zst")
	words, err := ReadWords(path)
	if err != nil {
		t.Fatal(err)
	}
	table, err := csv.NewReader(strings.NewReader(string(xtest.ReadZstd(t, path)))).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	column := slices.Index(table[0], "s_GPT2")
	var surprisals []float64
	for _, row := range table[1:] {
		x, err := strconv.ParseFloat(row[column], 64)
		if err != nil {
			t.Fatal(err)
		}
		surprisals = append(surprisals, x)
	}
	gains, err := Gains(words, surprisals)
	if err != nil {
		t.Fatal(err)
	}
	var told []string
	eye := 0.0
	for i, g := range gains {
		told = append(told, fmt.Sprintf("%s %d %.5f %.5f", g.Measure, g.Rows, g.R2Base, g.R2Model))
		if i < 4 {
			eye += g.Score / 4
		}
	}
	told = append(told, fmt.Sprintf("%.4f %.4f", eye, gains[4].Score))
	want := []string{
		"RTfirstfix 1696 0.64408 0.65119", "RTfirstpass 1696 0.64432 0.66421", "RTgopast 1696 0.53909 0.63967",
		"RTrightbound 1696 0.61867 0.65551", "self_paced_reading_time 1497 0.12831 0.14733", "9.7675 2.1819",
	}
	if !slices.Equal(told, want) {
		t.Errorf("got  %q\nwant %q", told, want)
	}
}

const header = "item,word,context_length,length,Subtlex_log10,prev_item,prev_word,RTfirstfix,RTfirstpass,RTgopast,RTrightbound,self_paced_reading_time\n"

func TestWordsAreRead(t *testing.T) {
	words, err := ReadWords(write(t, "r.csv", header+"The,cat,1,3,5.5,,,1,2,3,4,5\nThe cat, sat,2,3,,The,cat,1,2,3,4,\n"))
	if err != nil {
		t.Fatal(err)
	}
	first, second := words[0], words[1]
	if first.Text != " cat" || first.Previous != -1 || first.EyeTracking != [4]float64{1, 2, 3, 4} || second.Context != "The cat" || second.Text != " sat" ||
		second.Previous != 0 || !math.IsNaN(second.Frequency) || !math.IsNaN(second.SelfPaced) || second.At.Line != 3 {
		t.Errorf("%+v", words)
	}
	for text, want := range map[string]string{
		"item,word\nThe,cat\n":                     "column ",
		header + "The,cat,1,x,5,,,1,2,3,4,5\n":     "line 2: field length \"x\" is not a number",
		header + "The,cat,1,3,5,A,dog,1,2,3,4,5\n": "line 2: field prev_word \"dog\" is the word of no line before",
		header + "The,,1,3,5,,,1,2,3,4,5\n":        "line 2: field item or word is empty",
		header + "The,cat\n":                       "line 2 has 2 fields, the header 12: give every column",
		header + "The,\"cat,1,3,5,,,1,2,3,4,5\n":   "line 2",
		header + "The,cat,1,3,5,,,1,2,3,4,+Inf\n":  "line 2: field self_paced_reading_time",
	} {
		if _, err := ReadWords(write(t, "r.csv", text)); err == nil || !strings.Contains(err.Error(), want) || fault.Code(err) != int(fault.Damaged) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// A word's surprisal is that of the whole text less that of its context, whose
// first letter is not scored in either.
func TestSurprisals(t *testing.T) {
	s := newStudent(t, 128)
	got, err := s.Surprisals(context.Background(), []Word{{Context: "once upon", Text: " a"}})
	if err != nil {
		t.Fatal(err)
	}
	whole, _ := s.Text(Place{}, "", "", "once upon a")
	before, _ := s.Text(Place{}, "", "", "once upon")
	scores, err := s.Score(context.Background(), [][]Text{{whole, before}})
	if err != nil || math.Abs(got[0]-(scores[0][1]-scores[0][0])) > 1e-9 {
		t.Errorf("surprisal %v, scores %v, %v", got, scores, err)
	}
}

func TestGainsNeedRows(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	words, surprisals := make([]Word, 40), make([]float64, 40)
	for i := range words {
		words[i] = Word{Previous: i - 1, Length: r.Float64(), Position: r.Float64(), Frequency: r.Float64(), EyeTracking: [4]float64{r.Float64(), r.Float64(), r.Float64(), r.Float64()}, SelfPaced: 1}
		surprisals[i] = r.Float64()
	}
	if _, err := Gains(words, surprisals); err == nil || err.Error() != "column self_paced_reading_time: is the same in every row: nothing is to be explained" {
		t.Error(err)
	}
	if _, err := Gains(words[:8], surprisals[:8]); err == nil || err.Error() != "column RTfirstfix: 8 rows have every value, more than 8 are needed" {
		t.Error(err)
	}
}

// Differences of 1, 40, 80 and -5 order the first three as people do: ranks
// 1 2 3 0 and 0 1 2 3, rho = 1 - 6 * 12 / (4 * 15) = -0.2. Fisher's half width
// is 1.96 * sqrt(1.02). P would be 1 for both 40 and 80.
func TestAgreement(t *testing.T) {
	all := []Nominalization{{Ratio: .1}, {Ratio: .2}, {Ratio: .3}, {Ratio: .9}}
	scores := [][]float64{{-9, -10}, {-10, -50}, {-10, -90}, {-10, -5}}
	a := agree(all, scores)
	if math.Abs(a.Score+20) > 1e-9 || a.Items != 4 {
		t.Errorf("%+v", a)
	}
	if low := 100 * math.Tanh(math.Atanh(-.2)-1.96*math.Sqrt(1.02)); math.Abs(a.Interval[0]-low) > 1e-9 {
		t.Errorf("interval %v", *a.Interval)
	}
	if a := agree(all[:3], scores[:3]); a.Interval != nil || math.Abs(a.Score-100) > 1e-9 {
		t.Errorf("%+v", a)
	}
	scores[3][1] = -500 // now all four are in people's order
	if a := agree(all, scores); a.Interval != nil || a.Score != 100 {
		t.Errorf("a rho of 1, whose z is not finite: %+v", a)
	}
}

func TestNominalizationsAreRead(t *testing.T) {
	for text, want := range map[string]string{
		`{"sentences": "a b", "ratio": 0.5}`:     "line 1: field sentences is not two sentences with a tab between them",
		`{"sentences": "a b\tc d"}`:              "line 1: field ratio is not a number in 0..1",
		`{"sentences": "a b\tc d", "ratio": 50}`: "line 1: field ratio is not a number in 0..1",
	} {
		if _, err := ReadNominalizations(write(t, "w.jsonl", text)); err == nil || !strings.Contains(err.Error(), want) || fault.Code(err) != int(fault.Damaged) {
			t.Errorf("%s: %v", text, err)
		}
	}
	same := `{"sentences": "a b\tc d", "ratio": 0.5}` + "\n"
	if _, err := ReadNominalizations(write(t, "w.jsonl", same+same)); fault.Code(err) != int(fault.Usage) || !strings.Contains(err.Error(), "the ratio is the same in every line") {
		t.Error(err)
	}
	all, err := ReadNominalizations(data(t, "wug_adj/wug_adj_nominalization_rebuilt.jsonl"))
	if err != nil || len(all) != 200 || all[0].First != "Create a noun out of the following adjective: actignable. actignability" {
		t.Errorf("%d, %v", len(all), err)
	}
}
