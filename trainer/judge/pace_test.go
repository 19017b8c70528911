package judge

import (
	"context"
	"errors"
	"os"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"onceupon/bindings/llama"
	"onceupon/trainer/fault"
)

// Every pace is tried with the real teacher for as long as waves get faster; the
// judge that comes out has the fastest, and rates as one that was opened at it.
func TestOpenFastest(t *testing.T) {
	o := Options{Model: "smollm2-135m", Rubric: "chat", Prompt: "Once upon a time,", Reading: "expected", MaxTokens: 200, Threads: 2}
	waves, microBatches := []int{1, 3}, []int{512, 64}
	j, trials, err := OpenFastest(context.Background(), o, waves, microBatches, wellMade[:3])
	if fault.Code(err) == int(fault.Capability) {
		t.Skipf("no teacher on this machine: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	best := Trial{}
	for _, x := range trials {
		t.Logf("%+v", x)
		if x.StoriesPerS <= 0 || x.Why != "" {
			t.Errorf("%+v", x)
		}
		if x.StoriesPerS > gain*best.StoriesPerS {
			best = x
		}
	}
	if len(trials) != 3 || j.Pace() != best.Pace || j.Info().Pace != best.Pace {
		t.Errorf("%d trials, %+v was taken, %+v is the fastest", len(trials), j.Pace(), best)
	}
	o.Pace = j.Pace()
	fresh, err := Open(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer fresh.Close()
	a, err := j.Rate(context.Background(), wellMade[:3])
	if err != nil {
		t.Fatal(err)
	}
	b, err := fresh.Rate(context.Background(), wellMade[:3])
	if err != nil {
		t.Fatal(err)
	}
	for i := range a {
		if a[i].Distribution != b[i].Distribution {
			t.Errorf("story %d: %v after the trials, %v without", i, a[i].Distribution, b[i].Distribution)
		}
	}
}

// A pace without room is a trial that says why, and never the one that is taken.
func TestPaceThatDoesNotFit(t *testing.T) {
	if _, err := FindLlama("", ""); err != nil {
		t.Skip(err)
	}
	status, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Skip(err)
	}
	pages, err := strconv.ParseUint(strings.Fields(string(status))[0], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_AS, &old); err != nil {
		t.Fatal(err)
	}
	// The cache of 255 such stories would take 33 GiB.
	limit := unix.Rlimit{Cur: pages*uint64(os.Getpagesize()) + 4<<30, Max: old.Max}
	if err := unix.Setrlimit(unix.RLIMIT_AS, &limit); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Setrlimit(unix.RLIMIT_AS, &old); err != nil {
			t.Fatal(err)
		}
	}()
	o := Options{Model: "smollm2-135m", Rubric: "chat", Prompt: "Once upon a time,", Reading: "expected", MaxTokens: 6_000, Threads: 2, Pace: Pace{MaxWave, 512}}
	j, trials, err := OpenFastest(context.Background(), o, []int{1, MaxWave}, []int{512}, wellMade)
	if err != nil {
		t.Fatal(err)
	}
	j.Close()
	if len(trials) != 2 || trials[1].StoriesPerS != 0 || !strings.Contains(trials[1].Why, "not enough memory") || j.Pace() != (Pace{1, 512}) {
		t.Errorf("%+v of %+v", j.Pace(), trials)
	}
	if _, err := Open(context.Background(), o); !errors.Is(err, llama.ErrMemory) || fault.Code(err) != int(fault.Capability) {
		t.Errorf("%v", err)
	}
}
