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

// paperMarks are the marks that the paper's teacher.py makes of an answer:
// missing integers count 0, and an answer without any gets half of the nine
// points.
func paperMarks(answer string) (marks [3]float64, found int) {
	marks, found = ParseMarks(answer)
	if found == 0 {
		marks = [3]float64{1.5, 1.5, 1.5}
	}
	return marks, found
}
