package equivalence

import (
	"bytes"
	"cmp"
	"encoding/csv"
	"errors"
	"io"
	"maps"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"

	"onceupon/trainer/fault"
)

// What a table may hold: a few rows, counts of words that a float64 tells
// apart, and scores of any scale.
const (
	maxBytes = 1 << 20
	maxWords = 1e15
	maxScore = 1e9
)

// errorColumns may follow in any table: standard deviation of n stories, or a
// 95 % interval.
var errorColumns = []string{"n", "sd", "ci_low", "ci_high"}

// normal is the 97.5 % point of the normal distribution.
const normal = 1.959963984540054

// ReadPoints reads a CSV of pretrain_words,score. Rows of the same words are
// seeds of one point; the points come back in the order of their words.
func ReadPoints(path string) ([]Point, error) {
	t, err := readTable(path, "pretrain_words", "score")
	if err != nil {
		return nil, err
	}
	of := map[int64][]row{}
	for _, r := range t.rows {
		words, err := t.words(r, "pretrain_words")
		if err != nil {
			return nil, err
		}
		of[words] = append(of[words], r)
	}
	var points []Point
	for _, words := range slices.Sorted(maps.Keys(of)) {
		score, err := t.score(of[words])
		if err != nil {
			return nil, err
		}
		points = append(points, Point{words, score})
	}
	if len(points) < 2 {
		return nil, fault.New(fault.Damaged, "%s: a single point: a curve needs two", path)
	}
	return points, nil
}

// ReadResult reads a CSV of pretrain_words,budget_words,score: one result, each
// row a seed of it.
func ReadResult(path string) (Result, error) {
	var r Result
	t, err := readTable(path, "pretrain_words", "budget_words", "score")
	if err != nil {
		return r, err
	}
	for i, row := range t.rows {
		pretrain, err := t.words(row, "pretrain_words")
		budget, budgetErr := t.words(row, "budget_words")
		if err := cmp.Or(err, budgetErr); err != nil {
			return r, err
		}
		if i > 0 && (pretrain != r.PretrainWords || budget != r.BudgetWords) {
			return r, fault.New(fault.Damaged, "%s: line %d: another result: give one in a file, its seeds as rows of the same words", path, row.line)
		}
		r.PretrainWords, r.BudgetWords = pretrain, budget
	}
	r.Score, err = t.score(t.rows)
	return r, err
}

type table struct {
	path   string
	column map[string]int
	rows   []row
}

type row struct {
	line  int
	cells []string
}

// readTable reads a CSV whose header has the needed columns and perhaps those
// of the error.
func readTable(path string, needed ...string) (table, error) {
	t := table{path: path, column: map[string]int{}}
	f, err := os.Open(path)
	if err != nil {
		return t, fault.Wrap(fault.Capability, err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxBytes+1))
	if err != nil {
		return t, fault.New(fault.Usage, "%w: give a CSV file", err)
	}
	if len(text) > maxBytes {
		return t, fault.New(fault.Damaged, "%s: more than %d bytes: not a table of points or a result", path, maxBytes)
	}
	lines := csv.NewReader(bytes.NewReader(bytes.TrimPrefix(text, []byte("\xef\xbb\xbf"))))
	lines.Comment, lines.TrimLeadingSpace = '#', true
	for {
		cells, err := lines.Read()
		if err == io.EOF {
			break
		}
		if err != nil && !errors.Is(err, csv.ErrFieldCount) {
			return t, fault.New(fault.Damaged, "%s: %w", path, fault.Brief(err))
		}
		line, _ := lines.FieldPos(0)
		if err != nil {
			return t, fault.New(fault.Damaged, "%s: line %d has %d fields, the header %d: give every column, with commas between them", path, line, len(cells), len(t.column))
		}
		if len(t.column) > 0 {
			t.rows = append(t.rows, row{line, cells})
			continue
		}
		for i, name := range cells {
			name = strings.TrimSpace(name)
			if _, twice := t.column[name]; twice || !slices.Contains(needed, name) && !slices.Contains(errorColumns, name) {
				return t, fault.New(fault.Damaged, "%s: line %d: column %.40q: the header is %s, and perhaps n,sd or ci_low,ci_high", path, line, name, strings.Join(needed, ","))
			}
			t.column[name] = i
		}
		for _, name := range needed {
			if _, ok := t.column[name]; !ok {
				return t, fault.New(fault.Damaged, "%s: line %d: no column %s: the header is %s, and perhaps n,sd or ci_low,ci_high", path, line, name, strings.Join(needed, ","))
			}
		}
	}
	if len(t.rows) == 0 {
		return t, fault.New(fault.Damaged, "%s: no row below the header", path)
	}
	return t, nil
}

// number reads a cell, which is in low..high; an empty one of the error's
// columns is not there.
func (t table) number(r row, name string, low, high float64) (x float64, there bool, err error) {
	i, ok := t.column[name]
	if !ok {
		return 0, false, nil
	}
	cell := strings.TrimSpace(r.cells[i])
	if cell == "" && slices.Contains(errorColumns, name) {
		return 0, false, nil
	}
	x, err = strconv.ParseFloat(cell, 64)
	if err != nil || !(x >= low && x <= high) {
		return 0, false, fault.New(fault.Damaged, "%s: line %d: %s = %.40q must be a number in %g..%g", t.path, r.line, name, cell, low, high)
	}
	return x, true, nil
}

func (t table) words(r row, name string) (int64, error) {
	x, _, err := t.number(r, name, 0, maxWords)
	if err == nil && x != math.Trunc(x) {
		err = fault.New(fault.Damaged, "%s: line %d: %s = %g must be a whole number", t.path, r.line, name, x)
	}
	return int64(x), err
}

// score is the mean of rows that are seeds, with the error that their spread
// tells, or the score of one row with the error that it gives.
func (t table) score(rows []row) (Score, error) {
	var scores []Score
	for _, r := range rows {
		one, err := t.one(r)
		if err != nil || len(rows) == 1 {
			return one, err
		}
		if one.Freedom != 0 {
			return one, fault.New(fault.Damaged, "%s: line %d: one of %d rows of the same words, whose spread is the error: leave n, sd, ci_low and ci_high empty", t.path, r.line, len(rows))
		}
		scores = append(scores, one)
	}
	return spread(scores), nil
}

// spread is the mean of seeds, with the error of their spread. Equal scores, as
// of a row that stands twice, tell of no error.
func spread(seeds []Score) (s Score) {
	n := float64(len(seeds))
	for _, x := range seeds {
		s.Mean += x.Mean / n
	}
	for _, x := range seeds {
		s.Error += (x.Mean - s.Mean) * (x.Mean - s.Mean)
	}
	if !slices.ContainsFunc(seeds, func(x Score) bool { return x.Mean != seeds[0].Mean }) {
		return Score{Mean: seeds[0].Mean}
	}
	s.Error, s.Freedom = math.Sqrt(s.Error/(n-1)/n), n-1
	return s
}

// one is the score of a row.
func (t table) one(r row) (Score, error) {
	mean, _, err := t.number(r, "score", -maxScore, maxScore)
	n, hasN, nErr := t.number(r, "n", 2, maxWords)
	sd, hasSD, sdErr := t.number(r, "sd", 0, maxScore)
	low, hasLow, lowErr := t.number(r, "ci_low", -2*maxScore, mean)
	high, hasHigh, highErr := t.number(r, "ci_high", mean, 2*maxScore)
	if err := cmp.Or(err, nErr, sdErr, lowErr, highErr); err != nil {
		return Score{}, err
	}
	if hasN != hasSD || hasLow != hasHigh || hasN && hasLow {
		return Score{}, fault.New(fault.Damaged, "%s: line %d: give n and sd, or ci_low and ci_high, or none of them", t.path, r.line)
	}
	switch {
	case hasN:
		return Score{mean, sd / math.Sqrt(n), n - 1}, nil
	case hasLow:
		return Score{mean, (high - low) / 2 / normal, math.Inf(1)}, nil
	}
	return Score{Mean: mean}, nil
}
