package run

import (
	"context"
	"fmt"

	"onceupon/trainer/checkpoint"
	"onceupon/trainer/config"
	"onceupon/trainer/metrics"
)

// Run does what the configuration says in a run folder, or goes on with it,
// and returns the result that was also logged.
func Run(ctx context.Context, c config.Config, o Options) (metrics.ResultEvent, error) {
	s, err := open(ctx, c, o)
	if err != nil {
		return metrics.ResultEvent{}, err
	}
	defer s.close()
	if err := s.pretrain(ctx); err != nil {
		return metrics.ResultEvent{}, err
	}
	if o.Only == "pretrain" {
		return s.pretrained()
	}
	if err := s.interact(ctx); err != nil {
		return metrics.ResultEvent{}, err
	}
	return s.finish(ctx)
}

// pretrained ends a run that only reads.
func (s *session) pretrained() (metrics.ResultEvent, error) {
	r := metrics.ResultEvent{Event: "result", Command: "pretrain", Run: s.folder.Path, Seed: s.c.Run.Seed, PretrainWords: s.state.Pretrain.Words,
		Seconds: s.state.Seconds, Resumed: s.state.Resumed}
	var err error
	if r.WeightsSHA256, err = checkpoint.WeightsHash(s.policy); err != nil {
		return r, err
	}
	if err := s.keep(pretrained); err != nil {
		return r, err
	}
	return r, s.save()
}

func milestoneName(words int64) string { return fmt.Sprintf("words-%d", words) }
