// Package budget owns the meter of the interaction: the words that the student
// has read, as the paper counts them.
package budget

// WordsOfRating is what a teacher writes per story: three marks.
const WordsOfRating = 3

// Meter counts the words read in the interaction. It is kept in checkpoints.
type Meter struct {
	Spent int `json:"spent"`
}

// Cost is what the next batch of stories would add: the teacher's words, and
// before the first batch the prompt's, once or once per story (the paper's
// rule).
func (m Meter) Cost(stories, promptWords int, promptPerStory bool) int {
	cost := stories * WordsOfRating
	if m.Spent == 0 {
		if promptPerStory {
			promptWords *= stories
		}
		cost += promptWords
	}
	return cost
}

// Charge adds a batch.
func (m *Meter) Charge(stories, promptWords int, promptPerStory bool) {
	m.Spent += m.Cost(stories, promptWords, promptPerStory)
}

// Allows says whether a batch still fits a budget; 0 is no limit. The batch
// that would overflow is not told.
func (m Meter) Allows(budget, stories, promptWords int, promptPerStory bool) bool {
	return budget == 0 || m.Spent+m.Cost(stories, promptWords, promptPerStory) <= budget
}

// Milestone returns the highest of the paper's checkpoints that lies in
// (before, after]: every 100 k words below 1 M, 200 k below 2 M, 1 M below 10 M;
// 0 for none.
func Milestone(before, after int) int {
	step := func(words int) int {
		switch {
		case words < 1_000_000:
			return 100_000
		case words < 2_000_000:
			return 200_000
		default:
			return 1_000_000
		}
	}
	last := 0
	for at := 100_000; at <= after && at <= 10_000_000; at += step(at) {
		if at > before {
			last = at
		}
	}
	return last
}
