package equivalence

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"onceupon/trainer/config"
	"onceupon/trainer/fault"
	"onceupon/trainer/metrics"
)

// Run is what a run folder tells: what its student scored before the
// interaction, which is a point, and after it, which is a result.
type Run struct {
	Before Point
	After  Result
	path   string
	config config.Config
}

// ReadRun reads the result of a run that has ended, and how it rated.
func ReadRun(folder string) (Run, error) {
	r := Run{path: folder}
	path := filepath.Join(folder, "result.json")
	text, err := os.ReadFile(path)
	if err != nil {
		return r, fault.New(fault.Capability, "%w: give the folder of a run that has ended, or a CSV file", err)
	}
	var e metrics.ResultEvent
	if err := json.Unmarshal(text, &e); err != nil {
		return r, fault.New(fault.Damaged, "%s: %w", path, fault.Brief(err))
	}
	if e.PretrainWords == nil {
		return r, fault.New(fault.Usage, "%s: pretrain_words is not known: interact with a checkpoint that `onceupon pretrain` kept, or write the numbers as CSV", path)
	}
	if r.config, err = config.Load(filepath.Join(folder, "config.toml")); err != nil {
		return r, err
	}
	score := func(mean, half float64) Score {
		if e.HeldOut < 2 { // written before runs told it
			return Score{Mean: mean}
		}
		return Score{mean, metrics.StandardError(half, e.HeldOut), float64(e.HeldOut - 1)}
	}
	r.Before = Point{*e.PretrainWords, score(e.ScoreBefore, e.ScoreBeforeCI)}
	r.After = Result{*e.PretrainWords, int64(e.BudgetWords), score(e.ScoreAfter, e.ScoreAfterCI)}
	return r, nil
}

// PointsOf makes a curve of runs. Several that began after the same words are
// seeds of one point.
func PointsOf(runs []Run) ([]Point, error) {
	of := map[int64][]Score{}
	for _, r := range runs {
		of[r.Before.Words] = append(of[r.Before.Words], r.Before.Score)
	}
	var points []Point
	for _, words := range slices.Sorted(maps.Keys(of)) {
		score := of[words][0]
		if len(of[words]) > 1 {
			score = spread(of[words])
		}
		points = append(points, Point{words, score})
	}
	if len(points) < 2 {
		return nil, fault.New(fault.Usage, "the runs of --points all began after %d words: a curve needs two numbers", points[0].Words)
	}
	return points, nil
}

// Comparable is an error where two runs have different scales.
func Comparable(runs []Run) error {
	type setting struct {
		key   string
		value any
	}
	scale := func(c config.Config) []setting {
		t, r := c.Teacher, c.Rollout
		return []setting{{"teacher.model", t.Model}, {"teacher.rubric", t.Rubric}, {"teacher.reading", t.Reading}, {"teacher.calibrate", t.Calibrate},
			{"rollout.prompt", r.Prompt}, {"rollout.max_new_tokens", r.MaxNewTokens}, {"rollout.temperature", r.Temperature}, {"rollout.top_k", r.TopK}, {"rollout.top_p", r.TopP}}
	}
	for _, r := range runs {
		for i, s := range scale(r.config) {
			if first := scale(runs[0].config)[i]; s.value != first.value {
				return fault.New(fault.Usage, "%s and %s have different scales: %s = %v and %v: take runs of one teacher that told alike", runs[0].path, r.path, s.key, first.value, s.value)
			}
		}
	}
	return nil
}
