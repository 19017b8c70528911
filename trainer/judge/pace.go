package judge

import (
	"context"
	"errors"
	"fmt"
	"time"

	"onceupon/bindings/llama"
	"onceupon/trainer/fault"
)

// Pace is how a teacher reads. A rating depends in its last digits on the shape
// of the decodes, so a run keeps one, and only waves of 1 give a story the same
// marks in any company; on a processor, larger ones are hardly faster.
type Pace struct {
	Wave       int `json:"wave"`        // stories of one decode
	MicroBatch int `json:"micro_batch"` // tokens of one pass of it, libllama's n_ubatch
}

// Limits of a pace. libllama has 256 sequences, and one is the rubric's.
const (
	MaxWave       = 255
	MaxMicroBatch = 16384
)

// Fixed is the pace that nobody measured: marks without company, and libllama's
// own micro-batch.
var Fixed = Pace{1, 512}

// Waves and MicroBatches are worth a trial. The first micro-batch goes with
// every wave, the others with the best wave.
var (
	Waves        = []int{1, 8, 16, 32, 64, 128, MaxWave}
	MicroBatches = []int{512, 256, 1024, 2048}
)

// gain is what a larger wave or another micro-batch must bring to be taken; less
// is noise.
const gain = 1.03

// spare is how much of a card must stay free, in percent: libllama's pools grow
// while it computes, and it ends the process when they cannot.
const spare = 5

// Trial is a pace that was measured.
type Trial struct {
	Pace
	StoriesPerS float64 `json:"stories_per_s"`
	Why         string  `json:"why,omitempty"` // it does not fit
}

// OpenFastest is Open at the fastest of the paces that fit. The waves are tried
// by rising size for as long as they get faster, with the stories given, which
// should be as many as the largest. The trials are returned too.
func OpenFastest(ctx context.Context, o Options, waves, microBatches []int, stories []string) (*Judge, []Trial, error) {
	j, err := load(o)
	if err != nil {
		return nil, nil, err
	}
	trials, best, err := j.fastest(ctx, waves, microBatches, stories)
	if err == nil {
		err = j.begin(ctx, best)
	}
	if err != nil {
		j.Close()
		return nil, trials, fmt.Errorf("teacher %s: %w", j.model.Path, err)
	}
	return j, trials, nil
}

func (j *Judge) fastest(ctx context.Context, waves, microBatches []int, stories []string) (trials []Trial, best Pace, err error) {
	rate := 0.0
	try := func(p Pace) (better bool, err error) {
		t := Trial{Pace: p}
		t.StoriesPerS, err = j.try(ctx, p, stories)
		if errors.Is(err, llama.ErrMemory) {
			t.Why, err = err.Error(), nil
		}
		trials = append(trials, t)
		if better = t.StoriesPerS > gain*rate; better {
			best, rate = p, t.StoriesPerS
		}
		return better, err
	}
	for _, wave := range waves {
		better, err := try(Pace{wave, microBatches[0]})
		if err != nil {
			return trials, best, err
		}
		if !better {
			break
		}
	}
	if rate == 0 {
		return trials, best, fault.New(fault.Capability, "not even waves of %d fit: %s: take a smaller quantisation or run.max_tokens", waves[0], trials[0].Why)
	}
	for _, m := range microBatches[1:] {
		if _, err := try(Pace{best.Wave, m}); err != nil {
			return trials, best, err
		}
	}
	return trials, best, nil
}

// Fewest stories are read in a trial, so that small waves have a mean too.
const Fewest = 8

// try measures the stories/s of a pace; llama.ErrMemory says that it does not
// fit.
func (j *Judge) try(ctx context.Context, p Pace, stories []string) (float64, error) {
	if err := j.resize(ctx, p); err != nil {
		return 0, err
	}
	stories = stories[:min(len(stories), max(p.Wave, Fewest))]
	var took time.Duration
	for range 2 { // the first time warms caches and fills pools
		if free, total := j.model.CardMemory(); free < total/100*spare {
			return 0, fmt.Errorf("%d of %d MiB stay free, less than %d %%: %w", free>>20, total>>20, spare, llama.ErrMemory)
		}
		start := time.Now()
		if _, err := j.Rate(ctx, stories); err != nil {
			return 0, err
		}
		took = time.Since(start)
	}
	return float64(len(stories)) / took.Seconds(), nil
}
