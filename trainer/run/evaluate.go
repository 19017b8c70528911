package run

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"onceupon/trainer/checkpoint"
	"onceupon/trainer/fault"
	"onceupon/trainer/judge"
	"onceupon/trainer/metrics"
	"onceupon/trainer/rollout"
)

// Held-out stories have ids that no batch reaches; with the seed they decide
// every draw, so a set before and after is told under the same numbers.
const (
	chooseIDs uint64 = 1 << 48
	reportIDs uint64 = 1 << 49
)

func ids(first uint64, n int) []uint64 {
	all := make([]uint64, n)
	for i := range all {
		all[i] = first + uint64(i)
	}
	return all
}

// tell tells held-out stories.
func (s *session) tell(ctx context.Context, first uint64, n int) ([]rollout.Story, error) {
	return s.teller().Tell(ctx, s.prompt, ids(first, n), nil)
}

// rate reads a set with one judge and logs what it found. An unreadable
// rating is an error here: a set must be read whole to be compared.
func (s *session) rate(ctx context.Context, j *judge.Judge, who, set string, stories []rollout.Story) (Evaluated, error) {
	var e Evaluated
	var replies []string
	event := metrics.EvaluationEvent{Event: "evaluation", Batch: s.state.Batch, Set: set, Judge: who, N: len(stories)}
	for wave := range slices.Chunk(stories, j.Pace().Wave) {
		var texts []string
		for _, story := range wave {
			texts = append(texts, story.Text)
		}
		ratings, err := j.Rate(ctx, texts)
		if err != nil {
			return e, storyError(err)
		}
		for i, r := range ratings {
			if r.Unreadable {
				return e, fault.New(fault.Teacher, "held-out story %d: the %s's answer %q has no three marks: take teacher.reading = expected", len(replies), who, r.Text)
			}
			e.Scores = append(e.Scores, r.Score())
			for k := range e.Marks {
				e.Marks[k] += r.Calibrated[k] / float64(len(stories))
			}
			replies = append(replies, wave[i].Words)
			event.Words += float64(len(storyWords(wave[i]))) / float64(len(stories))
		}
		s.o.Reporter.Progress("read by "+who, int64(len(replies)), int64(len(stories)), "stories", set)
	}
	e.Distinct = metrics.Distinct(replies)
	event.Marks, event.Distinct = e.Marks, e.Distinct
	event.Score, event.ScoreCI = metrics.MeanCI(e.Scores)
	for _, story := range stories[:min(sampleStories, len(stories))] {
		e.Texts = append(e.Texts, story.Text)
	}
	return e, s.record("evaluation/"+set+"/"+who, int64(s.state.Batch), event)
}

// sampleStories are kept of each set for the report.
const sampleStories = 6

// second reads stories of the report set, before and after, with the judge
// that never teaches, at the teacher's pace. The teacher is closed by then: two
// models at once would share the cache of the processor.
func (s *session) second(ctx context.Context, pace judge.Pace, before, after []rollout.Story) (*metrics.SecondJudge, error) {
	if s.c.Teacher.SecondJudge == "" {
		return nil, nil
	}
	o := JudgeOptions(s.c, s.o.Log)
	o.Model, o.Pace = s.c.Teacher.SecondJudge, pace
	j, err := judge.Open(ctx, o)
	if err != nil {
		return nil, err
	}
	defer j.Close()
	n := len(after)
	if s.c.Evaluate.SecondStories > 0 {
		n = s.c.Evaluate.SecondStories
	}
	b, err := s.rate(ctx, j, "second", "before", before[:n])
	if err != nil {
		return nil, err
	}
	a, err := s.rate(ctx, j, "second", "after", after[:n])
	if err != nil {
		return nil, err
	}
	r := &metrics.SecondJudge{}
	r.Before, _ = metrics.MeanCI(b.Scores)
	r.After, _ = metrics.MeanCI(a.Scores)
	r.Rise, r.RiseCI = metrics.PairedRise(b.Scores, a.Scores)
	return r, nil
}

// begin measures the pretrained student and writes the first checkpoint of the
// interaction.
func (s *session) begin(ctx context.Context) error {
	choose, err := s.tell(ctx, chooseIDs, s.c.Evaluate.ChooseOn)
	if err != nil {
		return err
	}
	report, err := s.tell(ctx, reportIDs, s.c.Evaluate.ReportOn)
	if err != nil {
		return err
	}
	chosen, err := s.rate(ctx, s.teacher, "teacher", "choose", choose)
	if err != nil {
		return err
	}
	b := &s.state.Before
	b.Choose, _ = metrics.MeanCI(chosen.Scores)
	b.ChooseDistinct2 = chosen.Distinct[1]
	if b.Report, err = s.rate(ctx, s.teacher, "teacher", "before", report); err != nil {
		return err
	}
	s.state.Best = Best{Choose: b.Choose}
	if err := s.keep(best); err != nil {
		return err
	}
	return s.save()
}

// weighed is the score by which students are chosen: that of a student whose
// distinct-2 is below the limit is multiplied by the square of its part of it.
// Refusing at the limit would let a thousandth of distinct-2 decide between two
// batches; in proportion, a favourite plot would pay for itself.
func weighed(score, distinct2, limit float64) float64 {
	if distinct2 >= limit {
		return score
	}
	return score * (distinct2 / limit) * (distinct2 / limit)
}

// choose keeps the student if it is the best so far on the set for choosing,
// its score weighed with its variety, within the limit of KL.
func (s *session) choose(ctx context.Context) error {
	stories, err := s.tell(ctx, chooseIDs, s.c.Evaluate.ChooseOn)
	if err != nil {
		return err
	}
	e, err := s.rate(ctx, s.teacher, "teacher", "choose", stories)
	if err != nil {
		return err
	}
	mean, _ := metrics.MeanCI(e.Scores)
	// Variety is compared on the same set: distinct-n depends on its size.
	limit := s.c.Interact.MinDistinct2 * s.state.Before.ChooseDistinct2
	score := weighed(mean, e.Distinct[1], limit)
	says := fmt.Sprintf("batch %d: %.2f on the set for choosing", s.state.Batch, mean)
	if score < mean {
		says += fmt.Sprintf(", counted as %.2f for its distinct-2, %.3f of %.3f", score, e.Distinct[1], limit)
	}
	switch {
	case s.state.KL > s.c.Interact.MaxKL:
		s.o.Reporter.Say("%s; not chosen: KL %.2f exceeds interact.max_kl = %g", says, s.state.KL, s.c.Interact.MaxKL)
	case score > s.state.Best.Choose:
		s.o.Reporter.Say("%s; the best so far (%.2f before)", says, s.state.Before.Choose)
		s.state.Best = Best{Batch: s.state.Batch, Choose: score, KL: s.state.KL}
		return s.keep(best)
	default:
		s.o.Reporter.Say("%s; the best is %.2f", says, s.state.Best.Choose)
	}
	return nil
}

// finish reads the chosen student on the set for reporting and writes
// result.json, which says that the run is done.
func (s *session) finish(ctx context.Context) (metrics.ResultEvent, error) {
	if s.c.Interact.Select == "last" {
		s.state.Best = Best{Batch: s.state.Batch, KL: s.state.KL}
		if err := s.keep(best); err != nil {
			return metrics.ResultEvent{}, err
		}
	}
	// The stories of before are told again, for the second judge.
	if err := s.load(pretrained, s.policy); err != nil {
		return metrics.ResultEvent{}, err
	}
	told, err := s.tell(ctx, reportIDs, s.c.Evaluate.ReportOn)
	if err != nil {
		return metrics.ResultEvent{}, err
	}
	if err := s.load(best, s.policy); err != nil {
		return metrics.ResultEvent{}, err
	}
	stories, err := s.tell(ctx, reportIDs, s.c.Evaluate.ReportOn)
	if err != nil {
		return metrics.ResultEvent{}, err
	}
	after, err := s.rate(ctx, s.teacher, "teacher", "after", stories)
	if err != nil {
		return metrics.ResultEvent{}, err
	}
	pace := s.teacher.Pace()
	s.teacher.Close()
	s.teacher = nil
	before := s.state.Before.Report
	r := metrics.ResultEvent{
		Event: "result", Command: "run", Run: s.folder.Path, Seed: s.c.Run.Seed, HeldOut: len(after.Scores),
		BudgetWords: s.state.Budget.Spent, Batches: s.state.Batch, ChosenBatch: s.state.Best.Batch, Stories: s.state.Stories,
		Unreadable: s.state.Unreadable, MarksBefore: before.Marks, MarksAfter: after.Marks,
		Distinct2Before: before.Distinct[1], Distinct2After: after.Distinct[1], KL: s.state.Best.KL,
		MaxLogprobDiff: s.state.MaxDiff, Resumed: s.state.Resumed,
	}
	if !s.state.WordsUnknown {
		r.PretrainWords = &s.state.Pretrain.Words
	}
	r.ScoreBefore, r.ScoreBeforeCI = metrics.MeanCI(before.Scores)
	r.ScoreAfter, r.ScoreAfterCI = metrics.MeanCI(after.Scores)
	r.Rise, r.RiseCI = metrics.PairedRise(before.Scores, after.Scores)
	if r.SecondJudge, err = s.second(ctx, pace, told, stories); err != nil {
		return r, err
	}
	if r.WeightsSHA256, err = checkpoint.WeightsHash(s.policy); err != nil {
		return r, err
	}
	s.state.Seconds.Other += s.lap()
	r.Seconds = s.state.Seconds
	if err := s.folder.Log(map[string]any{"event": "pairs", "pairs": pairs(before.Texts, after.Texts)}); err != nil {
		return r, err
	}
	if err := s.folder.Log(r); err != nil {
		return r, err
	}
	text, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return r, err
	}
	return r, s.folder.WriteFile(resultFile, append(text, '\n'))
}

// resultFile is the result of a run that is done.
const resultFile = "result.json"

// finished reads the result of a run that was done before; nil when it is not.
func (s *session) finished() (*metrics.ResultEvent, error) {
	path := filepath.Join(s.folder.Path, resultFile)
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	r := &metrics.ResultEvent{}
	if err := json.Unmarshal(text, r); err != nil {
		return nil, fault.New(fault.Damaged, "%s: %w: remove it to measure the student again", path, err)
	}
	return r, nil
}

// pairs are stories of the same seeds before and after, for the report.
func pairs(before, after []string) []any {
	var all []any
	for i := range before {
		all = append(all, map[string]any{"kind": "held-out", "seed": reportIDs + uint64(i), "before": before[i], "after": after[i]})
	}
	return all
}
