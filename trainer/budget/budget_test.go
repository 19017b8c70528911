package budget

import "testing"

// The paper's figures: 16 prompt words once for each of 360 stories, 3 words a
// story, 1 M words: 920 batches, 331,200 stories.
func TestPaperBudget(t *testing.T) {
	var m Meter
	batches := 0
	for m.Allows(1_000_000, 360, 16, true) {
		m.Charge(360, 16, true)
		batches++
	}
	if batches != 920 || batches*360 != 331_200 || m.Spent != 5760+920*1080 {
		t.Errorf("%d batches, %d words spent", batches, m.Spent)
	}
}

func TestPromptOnce(t *testing.T) {
	var m Meter
	m.Charge(48, 16, false)
	m.Charge(48, 16, false)
	if m.Spent != 16+2*48*3 {
		t.Errorf("spent %d", m.Spent)
	}
	if !m.Allows(0, 1, 1, false) {
		t.Error("no limit does not allow")
	}
}

func TestMilestones(t *testing.T) {
	for _, c := range []struct{ before, after, want int }{
		{0, 99_999, 0}, {0, 100_000, 100_000}, {100_000, 199_999, 0}, {950_000, 1_000_100, 1_000_000},
		{1_000_100, 1_150_000, 0}, {1_100_000, 1_250_000, 1_200_000}, {1_990_000, 2_990_000, 2_000_000}, {2_500_000, 3_000_000, 3_000_000},
	} {
		if got := Milestone(c.before, c.after); got != c.want {
			t.Errorf("Milestone(%d, %d) = %d, want %d", c.before, c.after, got, c.want)
		}
	}
}
