package run

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"onceupon/trainer/fault"
	"onceupon/trainer/judge"
	"onceupon/trainer/metrics"
	"onceupon/trainer/rollout"
)

// scripted is a teacher that remembers what it read together, and whose marks
// depend on all of it: the company, which a real one's last digits depend on.
type scripted struct {
	waves [][]string
	read  chan struct{} // told of every wave
	wrong func(text string) bool
	err   error
}

func (s *scripted) Rate(ctx context.Context, texts []string) ([]judge.Rating, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.waves = append(s.waves, slices.Clone(texts))
	if s.read != nil {
		s.read <- struct{}{}
	}
	var all []judge.Rating
	for _, text := range texts {
		r := judge.Rating{Text: text + " in " + strings.Join(texts, "+")}
		r.Unreadable = s.wrong != nil && s.wrong(text)
		all = append(all, r)
	}
	return all, s.err
}

const seven = 7

// endings is the order in which seven stories end.
var endings = []int{4, 0, 6, 2, 5, 1, 3}

// teller ends them so; before is called ahead of the n-th ending.
func teller(before func(ctx context.Context, n int) error) func(context.Context, func(int, rollout.Story) error) ([]rollout.Story, error) {
	return func(ctx context.Context, ended func(int, rollout.Story) error) ([]rollout.Story, error) {
		all := make([]rollout.Story, seven)
		for n, i := range endings {
			if err := before(ctx, n); err != nil {
				return nil, err
			}
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			all[i] = rollout.Story{Text: fmt.Sprint("s", i)}
			if err := ended(i, all[i]); err != nil {
				return nil, err
			}
		}
		return all, nil
	}
}

func atOnce(context.Context, int) error { return nil }

func TestOverlapChangesNoRating(t *testing.T) {
	for wave, want := range map[int]string{1: "[[s4] [s0] [s6] [s2] [s5] [s1] [s3]]", 3: "[[s4 s0 s6] [s2 s5 s1] [s3]]", 7: "[[s4 s0 s6 s2 s5 s1 s3]]", 255: "[[s4 s0 s6 s2 s5 s1 s3]]"} {
		off := &scripted{}
		stories, ratings, spent, err := handover{stories: seven, wave: wave, teacher: off, tell: teller(atOnce)}.run(context.Background())
		if err != nil || fmt.Sprint(off.waves) != want || spent.Overlap != 0 {
			t.Errorf("waves of %d: %v, %+v, %v", wave, off.waves, spent, err)
		}
		for i, s := range stories {
			if s.Text != fmt.Sprint("s", i) || !strings.HasPrefix(ratings[i].Text, s.Text+" in ") {
				t.Errorf("waves of %d: story %d is %q, rated as %q", wave, i, s.Text, ratings[i].Text)
			}
		}
		// The telling goes on only when the teacher has read the waves that are
		// full: it must have read while stories were told.
		on := &scripted{read: make(chan struct{}, seven)}
		alsoStories, alsoRatings, spent, err := handover{stories: seven, wave: wave, overlap: true, teacher: on, tell: teller(func(_ context.Context, n int) error {
			if n > 0 && n%wave == 0 {
				<-on.read
				time.Sleep(time.Millisecond)
			}
			return nil
		})}.run(context.Background())
		if err != nil || !reflect.DeepEqual(on.waves, off.waves) || !reflect.DeepEqual(alsoStories, stories) || !reflect.DeepEqual(alsoRatings, ratings) {
			t.Errorf("waves of %d, overlapped: %v, %v", wave, on.waves, err)
		}
		if wave < seven && spent.Overlap <= 0 {
			t.Errorf("waves of %d, overlapped: %+v", wave, spent)
		}
	}
}

// The seconds exclude each other and add up to the clock's.
func TestOverlapSeconds(t *testing.T) {
	const pause = 20 * time.Millisecond
	slow := &scripted{wrong: func(string) bool { time.Sleep(pause); return false }}
	for _, overlap := range []bool{false, true} {
		start := time.Now()
		_, _, s, err := handover{stories: seven, wave: 1, overlap: overlap, teacher: slow, tell: teller(func(context.Context, int) error { time.Sleep(pause); return nil })}.run(context.Background())
		wall := time.Since(start).Seconds()
		if err != nil || s.Rollout+s.Judge+s.Overlap > wall || s.Rollout+s.Judge+s.Overlap < .8*wall {
			t.Errorf("overlap %v: %+v of %g s, %v", overlap, s, wall, err)
		}
		if each := seven * pause.Seconds(); s.Rollout+s.Overlap < each || s.Judge+s.Overlap < .9*each || (s.Overlap > .5*each) != overlap {
			t.Errorf("overlap %v: %+v, where each takes %g s", overlap, s, each)
		}
	}
}

// A batch of which nothing can be read has no reward to learn from, whatever
// the limit.
func TestNothingReadable(t *testing.T) {
	none := &scripted{wrong: func(string) bool { return true }}
	_, _, _, err := handover{stories: seven, wave: 2, unreadable: 1, teacher: none, tell: teller(atOnce)}.run(context.Background())
	if fault.Code(err) != int(fault.Teacher) {
		t.Errorf("%v", err)
	}
}

// What goes wrong on one side stops the other, is the error that comes out, and
// leaves no goroutine.
func TestEitherSideStopsBoth(t *testing.T) {
	broken, full := errors.New("broken"), errors.New("the disk is full")
	for _, overlap := range []bool{false, true} {
		for name, x := range map[string]struct {
			teacher *scripted
			before  func(cancel func(), n int) error
			want    error
			code    fault.Kind
			most    int // waves that may have been read
		}{
			"teacher":    {&scripted{err: broken}, nil, broken, fault.Failed, 1},
			"unreadable": {&scripted{wrong: func(text string) bool { return text != "s4" }}, nil, nil, fault.Teacher, 4},
			"student":    {&scripted{}, func(_ func(), n int) error { return map[int]error{3: full}[n] }, full, fault.Failed, 3},
			"cancelled": {&scripted{}, func(cancel func(), n int) error {
				if n == 2 {
					cancel()
				}
				return nil
			}, context.Canceled, fault.Interrupted, 2},
		} {
			goroutines := runtime.NumGoroutine()
			ctx, cancel := context.WithCancel(context.Background())
			told := 0
			x.teacher.read = make(chan struct{}, seven)
			_, _, spent, err := handover{stories: seven, wave: 1, overlap: overlap, unreadable: .3, teacher: x.teacher, tell: teller(func(ctx context.Context, n int) error {
				if told = n; overlap && n > 0 {
					select { // the teacher has its turn
					case <-x.teacher.read:
					case <-ctx.Done():
					}
				}
				if x.before == nil {
					return nil
				}
				return x.before(cancel, n)
			})}.run(ctx)
			cancel()
			if (x.want != nil && !errors.Is(err, x.want)) || fault.Code(err) != int(x.code) || spent != (metrics.Seconds{}) {
				t.Errorf("%s, overlap %v: %v (code %d), %+v", name, overlap, err, fault.Code(err), spent)
			}
			if overlap && told == seven-1 && name != "student" {
				t.Errorf("%s: all stories were told", name)
			}
			if n := len(x.teacher.waves); n > x.most {
				t.Errorf("%s, overlap %v: %d waves were read", name, overlap, n)
			}
			for wait := 0; runtime.NumGoroutine() > goroutines && wait < 100; wait++ {
				time.Sleep(time.Millisecond)
			}
			if n := runtime.NumGoroutine(); n > goroutines {
				t.Errorf("%s, overlap %v: %d goroutines, %d before", name, overlap, n, goroutines)
			}
		}
	}
}
