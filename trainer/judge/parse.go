package judge

import (
	"regexp"
	"strconv"
)

// integers are runs of digits between word boundaries, the paper's \b\d+\b.
var integers = regexp.MustCompile(`\b\d+\b`)

// ParseMarks reads an answer as the paper's teacher.py does: every integer is
// clamped to 0..3 and the first three count; found says how many there are.
func ParseMarks(answer string) (marks [3]float64, found int) {
	for _, s := range integers.FindAllString(answer, 3) {
		n, err := strconv.Atoi(s)
		if err != nil || n > 3 {
			n = 3 // too long for an int is above 3 too
		}
		marks[found] = float64(n)
		found++
	}
	return marks, found
}

// PaperScore is the paper's teacher reward of an answer, 0..1: the sum of the
// first three integers over 9, missing ones counting 0, and 0.5 when there is
// none. Only for comparing with its published figures.
func PaperScore(answer string) float64 {
	marks, found := ParseMarks(answer)
	if found == 0 {
		return 0.5
	}
	return (marks[0] + marks[1] + marks[2]) / 9
}
