package metrics

import (
	"encoding/json"
	"fmt"
	"io"
	"sync"
	"time"
)

// Reporter tells the person at the terminal how far a run is, and a script
// what happened. People's text goes to Text, JSON lines to JSON; either may be
// nil.
type Reporter struct {
	Text     io.Writer
	JSON     io.Writer
	Terminal bool // Text is a terminal: one line is rewritten

	mu      sync.Mutex
	stage   string
	started time.Time
	first   int64
	last    time.Time
	open    bool // a rewritten line has no end yet
}

// Emit writes an event as a line of JSON.
func (r *Reporter) Emit(event any) error {
	if r.JSON == nil {
		return nil
	}
	line, err := json.Marshal(event)
	if err != nil {
		return err
	}
	_, err = r.JSON.Write(append(line, '\n'))
	return err
}

// Say writes a line for people.
func (r *Reporter) Say(format string, args ...any) {
	if r.Text == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.open {
		fmt.Fprintln(r.Text)
		r.open = false
	}
	fmt.Fprintf(r.Text, format+"\n", args...)
}

// How often progress is written: a rewritten line four times a second, plain
// lines every ten seconds.
const (
	terminalEvery = 250 * time.Millisecond
	plainEvery    = 10 * time.Second
)

// Progress says that done of total units of a stage are done. A stage's last
// call, done = total, is always written.
func (r *Reporter) Progress(stage string, done, total int64, unit, detail string) {
	if r.Text == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	if stage != r.stage {
		if r.open {
			fmt.Fprintln(r.Text)
			r.open = false
		}
		r.stage, r.started, r.first, r.last = stage, now, done, now
	}
	every := plainEvery
	if r.Terminal {
		every = terminalEvery
	}
	if done < total && now.Sub(r.last) < every {
		return
	}
	r.last = now
	line := fmt.Sprintf("%-10s %d/%d %s", stage, done, total, unit)
	if spent := now.Sub(r.started).Seconds(); spent > 0 && done > r.first {
		rate := float64(done-r.first) / spent
		left := time.Duration(float64(total-done)/rate) * time.Second
		digits := "%.4g"
		if rate >= 1e4 { // no powers of ten
			digits = "%.0f"
		}
		line += fmt.Sprintf("  "+digits+" %s/s  %s left", rate, unit, left.Round(time.Second))
	}
	if detail != "" {
		line += "  " + detail
	}
	if r.Terminal {
		fmt.Fprintf(r.Text, "\r\x1b[K%s", line)
		r.open = true
		if done >= total {
			fmt.Fprintln(r.Text)
			r.open = false
		}
		return
	}
	fmt.Fprintln(r.Text, line)
}
