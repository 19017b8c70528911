package evaluate

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"

	"onceupon/trainer/fault"
)

// Word is a word of a text that people read.
type Word struct {
	Context, Text    string // Text with the space before it
	Previous         int    // the word before it in its sentence, -1 for none
	Length, Position float64
	Frequency        float64 // log10; like the measures, NaN where it is missing
	EyeTracking      [4]float64
	SelfPaced        float64
	At               Place
}

// EyeTracking are the columns of Word.EyeTracking, SelfPaced that of Word.SelfPaced.
var (
	EyeTracking = [4]string{"RTfirstfix", "RTfirstpass", "RTgopast", "RTrightbound"}
	SelfPaced   = "self_paced_reading_time"
)

// ReadWords reads the CSV of reading times: item is the context of a word,
// prev_item and prev_word say which word is before it.
func ReadWords(path string) ([]Word, error) {
	text, err := read(path)
	if err != nil {
		return nil, err
	}
	table := csv.NewReader(strings.NewReader(text))
	header, err := table.Read()
	if err != nil {
		return nil, fault.New(fault.Damaged, "%s: is not CSV: %w", path, err)
	}
	for _, name := range append([]string{"item", "word", "length", "context_length", "Subtlex_log10", "prev_item", "prev_word", SelfPaced}, EyeTracking[:]...) {
		if !slices.Contains(header, name) {
			return nil, fault.New(fault.Damaged, "%s: column %s is missing: docs/formats.md has the columns", path, name)
		}
	}
	var words []Word
	index := map[[2]string]int{}
	for {
		record, err := table.Read()
		if errors.Is(err, io.EOF) {
			return words, nil
		}
		if err != nil && !errors.Is(err, csv.ErrFieldCount) {
			return nil, fault.New(fault.Damaged, "%s: %w: write it as RFC 4180 has it", path, err)
		}
		line, _ := table.FieldPos(0)
		if len(record) != len(header) {
			return nil, fault.New(fault.Damaged, "%s: line %d has %d fields, the header %d: give every column, empty where it is missing", path, line, len(record), len(header))
		}
		w := Word{At: Place{path, line}, Previous: -1}
		var failed error
		column := func(name string) string { return record[slices.Index(header, name)] }
		number := func(name string) float64 {
			text := column(name)
			if text == "" {
				return math.NaN()
			}
			x, err := strconv.ParseFloat(text, 64)
			if err != nil || math.IsInf(x, 0) {
				failed = w.At.damaged(name, "%.40q is not a number: give one, or leave it empty", text)
			}
			return x
		}
		w.Context, w.Text = column("item"), column("word")
		w.Length, w.Position, w.Frequency = number("length"), number("context_length"), number("Subtlex_log10")
		for i, name := range EyeTracking {
			w.EyeTracking[i] = number(name)
		}
		w.SelfPaced = number(SelfPaced)
		previous := [2]string{column("prev_item"), column("prev_word")}
		if strings.TrimSpace(w.Context) == "" || strings.TrimSpace(w.Text) == "" {
			failed = w.At.damaged("item or word", "is empty: leave the line out")
		}
		if failed != nil {
			return nil, failed
		}
		if before, found := index[previous]; found {
			w.Previous = before
		} else if previous[1] != "" {
			return nil, w.At.damaged("prev_word", "%.40q is the word of no line before: give every sentence whole", previous[1])
		}
		index[[2]string{w.Context, w.Text}] = len(words)
		// Inside a sentence BPE's words begin with a space; a file may leave it out.
		w.Text = " " + strings.TrimSpace(w.Text)
		words = append(words, w)
	}
}

// Surprisals are -log p(word | its context), in nats.
func (s Student) Surprisals(ctx context.Context, words []Word) ([]float64, error) {
	items := make([][]Text, len(words))
	for i, w := range words {
		text, err := s.Text(w.At, "item with word", w.Context, w.Text)
		if err != nil {
			return nil, err
		}
		items[i] = []Text{text}
	}
	scores, err := s.Score(ctx, items)
	surprisals := make([]float64, len(scores))
	for i := range scores {
		surprisals[i] = -scores[i][0]
	}
	return surprisals, err
}

// Gain is how much of what a regression leaves unexplained of a measure the
// surprisals explain, in percent.
type Gain struct {
	Measure string  `json:"measure"`
	Rows    int     `json:"rows"` // those without a missing value
	R2Base  float64 `json:"r2_base"`
	R2Model float64 `json:"r2_model"`
	Score   float64 `json:"score"`
}

// Gains are those of the eye-tracking measures and, last, of self-paced
// reading, by ordinary least squares. The base regresses a measure on frequency,
// length, position and their products; for self-paced reading also on length and
// surprisal of the word before, with all products.
func Gains(words []Word, surprisals []float64) ([]Gain, error) {
	n := len(words)
	column := func(of func(w Word) float64) []float64 {
		x := make([]float64, n)
		for i, w := range words {
			x[i] = of(w)
		}
		return x
	}
	before := func(of func(i int) float64) []float64 {
		return column(func(w Word) float64 {
			if w.Previous < 0 {
				return math.NaN()
			}
			return of(w.Previous)
		})
	}
	base := [][]float64{column(func(w Word) float64 { return w.Frequency }), column(func(w Word) float64 { return w.Length }), column(func(w Word) float64 { return w.Position })}
	spill := append(slices.Clone(base), before(func(i int) float64 { return words[i].Length }), before(func(i int) float64 { return surprisals[i] }))
	var gains []Gain
	add := func(measure string, y []float64, base [][]float64) error {
		g, err := gain(y, surprisals, withProducts(base))
		if err != nil {
			return fmt.Errorf("column %s: %w", measure, err)
		}
		g.Measure = measure
		gains = append(gains, g)
		return nil
	}
	for i, measure := range EyeTracking {
		if err := add(measure, column(func(w Word) float64 { return w.EyeTracking[i] }), base); err != nil {
			return nil, err
		}
	}
	return gains, add(SelfPaced, column(func(w Word) float64 { return w.SelfPaced }), spill)
}

// withProducts are the columns and the products of any two.
func withProducts(columns [][]float64) [][]float64 {
	all := slices.Clone(columns)
	for i, a := range columns {
		for _, b := range columns[i+1:] {
			product := make([]float64, len(a))
			for k := range a {
				product[k] = a[k] * b[k]
			}
			all = append(all, product)
		}
	}
	return all
}

// gain leaves out the rows that lack a value.
func gain(y, surprisals []float64, base [][]float64) (Gain, error) {
	all := append([][]float64{y, surprisals}, base...)
	rows := make([][]float64, len(all))
	for i := range y {
		if slices.ContainsFunc(all, func(c []float64) bool { return math.IsNaN(c[i]) }) {
			continue
		}
		for k, c := range all {
			rows[k] = append(rows[k], c[i])
		}
	}
	g := Gain{Rows: len(rows[0])}
	if g.Rows <= len(all) {
		return g, fault.New(fault.Usage, "%d rows have every value, more than %d are needed", g.Rows, len(all))
	}
	if slices.Min(rows[0]) == slices.Max(rows[0]) {
		return g, fault.New(fault.Usage, "is the same in every row: nothing is to be explained")
	}
	g.R2Base, g.R2Model = rSquared(rows[0], rows[2:]), rSquared(rows[0], append(rows[2:len(rows):len(rows)], rows[1]))
	g.Score = 100 * (g.R2Model - g.R2Base) / (1 - g.R2Base)
	if math.IsNaN(g.Score) || math.IsInf(g.Score, 0) {
		return g, fault.New(fault.Usage, "R2 of the base is %g: the values are too large for a regression, or nothing is left to be explained", g.R2Base)
	}
	return g, nil
}
