package run

import (
	"context"
	"fmt"

	"onceupon/trainer/checkpoint"
	"onceupon/trainer/config"
	"onceupon/trainer/fault"
	"onceupon/trainer/judge"
	"onceupon/trainer/metrics"
)

// Run does what the configuration says in a run folder, or goes on with it,
// and returns the result, which is also logged and kept in result.json. A run
// that is done returns the result it ended with.
func Run(ctx context.Context, c config.Config, o Options) (result metrics.ResultEvent, err error) {
	s, err := open(c, o)
	if err != nil {
		return metrics.ResultEvent{}, err
	}
	defer s.close()
	defer func() { s.interrupted(err) }()
	if r, err := s.finished(); err != nil || r != nil {
		if r == nil {
			return metrics.ResultEvent{}, err
		}
		o.Reporter.Say("%s is done; this is its result. Another --run or --seed begins a new one", o.Folder)
		return *r, nil
	}
	// In a moment, before hours of pretraining.
	for _, model := range []string{c.Teacher.Model, c.Teacher.SecondJudge} {
		judged := JudgeOptions(c, o.Log)
		judged.Model = model
		if model == "" { // no second judge
			continue
		}
		if _, err := judge.Check(judged); err != nil {
			return metrics.ResultEvent{}, err
		}
	}
	if err := s.prepare(ctx); err != nil {
		return metrics.ResultEvent{}, err
	}
	if o.Student == "" {
		if err := s.pretrain(ctx); err != nil {
			return metrics.ResultEvent{}, err
		}
	}
	if err := s.interact(ctx); err != nil {
		return metrics.ResultEvent{}, err
	}
	return s.finish(ctx)
}

// Pretrain reads the corpus in a run folder and stops there; Run goes on from
// it.
func Pretrain(ctx context.Context, c config.Config, o Options) (result metrics.PretrainResult, err error) {
	s, err := open(c, o)
	if err != nil {
		return metrics.PretrainResult{}, err
	}
	defer s.close()
	defer func() { s.interrupted(err) }()
	if err := s.prepare(ctx); err != nil {
		return metrics.PretrainResult{}, err
	}
	if err := s.pretrain(ctx); err != nil {
		return metrics.PretrainResult{}, err
	}
	r := metrics.PretrainResult{Event: "result", Command: "pretrain", Run: s.folder.Path, Seed: s.c.Run.Seed, Words: s.state.Pretrain.Words,
		Tokens: s.state.Pretrain.Tokens, Loss: s.state.Read.Loss, ValLoss: s.state.Read.ValLoss, TokPerSec: s.state.Read.TokPerSec,
		Resumed: s.state.Resumed}
	if s.state.Phase != phasePretrain {
		return r, fmt.Errorf("run folder %s is past its pretraining: choose another --run", o.Folder)
	}
	if r.WeightsSHA256, err = checkpoint.WeightsHash(s.policy); err != nil {
		return r, err
	}
	return r, s.keep(pretrained)
}

func (s *session) interrupted(err error) {
	if fault.Code(err) == int(fault.Interrupted) {
		s.o.Reporter.Say("interrupted; the same command goes on from here")
	}
}

func milestoneName(words int64) string { return fmt.Sprintf("words-%d", words) }
