package run

import (
	"context"
	"time"

	"onceupon/trainer/config"
	"onceupon/trainer/fault"
	"onceupon/trainer/judge"
	"onceupon/trainer/metrics"
	"onceupon/trainer/rollout"
)

// Overlaps says whether the stories of a batch are rated while others are
// still being told: by default when student or teacher is on a card. On a
// processor both want every core, and libllama's threads spin while they wait
// (docs/performance.md).
func Overlaps(c config.Config) bool {
	return c.Interact.Overlap == "on" || c.Interact.Overlap == "auto" && (c.Run.Backend == "cuda" || c.Teacher.Device != "cpu")
}

// handover passes the stories of one batch from the student to the teacher, a
// wave at a time, in the order in which they end. That order follows from the
// stories (the shorter first, of equally long ones the lower number), not from
// a clock, so a wave has the same company, and a story the same marks, whether
// the teacher reads while others are told or after them all.
type handover struct {
	stories    int
	wave       int
	overlap    bool
	unreadable float64 // the largest share of the stories
	teacher    judge.Teacher
	tell       func(ctx context.Context, ended func(i int, s rollout.Story) error) ([]rollout.Story, error)
}

type ended struct {
	index int
	text  string
}

// run returns stories and ratings by the stories' numbers, and where the time
// went. An error on either side stops the other; both have ended when it
// returns.
func (h handover) run(ctx context.Context) ([]rollout.Story, []judge.Rating, metrics.Seconds, error) {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	queue := make(chan ended, h.stories) // holds a batch: the telling never waits
	ratings, busy := make([]judge.Rating, h.stories), time.Duration(0)
	rated := make(chan error, 1)
	rate := func() {
		var err error
		busy, err = h.rate(ctx, queue, ratings)
		if err != nil {
			stop(err)
		}
		rated <- err
	}
	start := time.Now()
	if h.overlap {
		go rate()
	}
	stories, err := h.tell(ctx, func(i int, s rollout.Story) error {
		queue <- ended{i, s.Text}
		return nil
	})
	if err != nil {
		stop(err)
	}
	close(queue)
	told := time.Now()
	if !h.overlap {
		rate()
	}
	if rateErr := <-rated; err != nil || rateErr != nil {
		return nil, nil, metrics.Seconds{}, context.Cause(ctx) // the first of them
	}
	alone := time.Since(told).Seconds()
	both := max(0, busy.Seconds()-alone)
	return stories, ratings, metrics.Seconds{Rollout: told.Sub(start).Seconds() - both, Judge: alone, Overlap: both}, nil
}

// rate rates the stories that come, in full waves; the last may be smaller. It
// gives up as soon as more are unreadable than may be, or all, as fault.Teacher.
func (h handover) rate(ctx context.Context, queue <-chan ended, ratings []judge.Rating) (busy time.Duration, err error) {
	wave, texts := make([]ended, 0, h.wave), make([]string, 0, h.wave)
	unreadable := 0
	for open := true; open; {
		var next ended
		if next, open = <-queue; open {
			wave, texts = append(wave, next), append(texts, next.text)
		}
		if len(wave) == 0 || open && len(wave) < h.wave {
			continue
		}
		start := time.Now()
		r, err := h.teacher.Rate(ctx, texts)
		busy += time.Since(start)
		if err != nil {
			return busy, storyError(err)
		}
		for i, s := range wave {
			if ratings[s.index] = r[i]; !r[i].Unreadable {
				continue
			}
			if unreadable++; float64(unreadable) > h.unreadable*float64(h.stories) || unreadable == h.stories {
				return busy, fault.New(fault.Teacher, "%d ratings of a batch of %d were unreadable, the last one %q; teacher.max_unreadable = %g: take another teacher or reading = expected", unreadable, h.stories, r[i].Text, h.unreadable)
			}
		}
		wave, texts = wave[:0], texts[:0]
	}
	return busy, nil
}
