package reward

import (
	"bufio"
	"encoding/json"
	"math"
	"os"
	"strings"
	"testing"
)

// TestPaper recomputes the rewards that the paper's authors printed beside real
// ratings of Llama 3.1 8B: with the divisor 100 of their notebook the printed
// ones, with 90 those of their training code.
func TestPaper(t *testing.T) {
	f, err := os.Open("../../../shared/data/paper/rated_stories.jsonl")
	if err != nil {
		t.Skipf("the paper's ratings are not on this machine: %v", err)
	}
	defer f.Close()
	rated, printed := 0, 0
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var r struct {
			Readability, Coherence, Creativity float64
			Story                              string
			Words                              int      `json:"story_length_words"`
			Printed                            *float64 `json:"printed_reward"`
			Div100                             *float64 `json:"reward_formula_div100"`
			Div90                              *float64 `json:"reward_formula_div90"`
		}
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			t.Fatal(err)
		}
		rated++
		words := len(strings.Fields(r.Story))
		score := r.Readability + r.Coherence + r.Creativity
		if r.Printed == nil {
			continue
		}
		printed++
		if words != r.Words {
			t.Errorf("story of %d words, printed as %d: %.40q", words, r.Words, r.Story)
		}
		// Printed with two digits in some cells, with six in others.
		digits := 0.005
		if *r.Printed < 0.05 {
			digits = 5e-7
		}
		if got := (Settings{0.4, 100}).Of(score, words); math.Abs(got-*r.Printed) > digits*1.001 || math.Abs(got-*r.Div100) > 5e-7 {
			t.Errorf("divisor 100: %.6f, printed %v, formula %v", got, *r.Printed, *r.Div100)
		}
		if got := (Settings{0.4, 90}).Of(score, words); math.Abs(got-*r.Div90) > 5e-7 {
			t.Errorf("divisor 90: %.6f, want %v", got, *r.Div90)
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	if rated != 33 || printed != 23 {
		t.Errorf("%d ratings, %d with a reward; 33 and 23 are in the file", rated, printed)
	}
}

// TestBatchZero: the paper's log of the first batch of its 900 M run; the total
// that it printed adds the length bonus a second time, PPO does not get that.
func TestBatchZero(t *testing.T) {
	teacher, bonus := 0.347531, 0.233642
	s := Settings{0.4, 90}
	words := bonus / 0.4 * 90
	got := s.Of(9*teacher, 0) + 0.4*words/90/1.4
	if want := (teacher + bonus) / 1.4; math.Abs(got-want) > 1e-9 || math.Abs(want+bonus-0.648765) > 1e-6 {
		t.Errorf("%v, want %v", got, want)
	}
}

func TestLengthIsCapped(t *testing.T) {
	s := Settings{0.4, 90}
	if s.Of(5, 90) != s.Of(5, 1000) || s.Of(5, 89) >= s.Of(5, 90) || s.Of(9, 90) != 1 || s.Of(0, 0) != 0 {
		t.Error("a story must gain by its length up to the divisor, and not beyond")
	}
}
