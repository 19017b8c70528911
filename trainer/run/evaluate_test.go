package run

import "testing"

func TestWeighed(t *testing.T) {
	for _, c := range []struct{ score, distinct2, limit, want float64 }{
		{6, 0.6, 0.6, 6},
		{6, 0.9, 0.6, 6},
		{6, 0.3, 0.6, 1.5},
		{6, 0, 0.6, 0},
		{6, 0, 0, 6}, // min_distinct2 = 0: no limit
	} {
		if got := weighed(c.score, c.distinct2, c.limit); got != c.want {
			t.Errorf("weighed(%v, %v, %v) = %v, want %v", c.score, c.distinct2, c.limit, got, c.want)
		}
	}
}
