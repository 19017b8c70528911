// Package reward owns what PPO gets for a rated story.
package reward

import "math"

// Settings of the reward. The paper's: bonus 0.4, divisor 90 (its most new
// tokens; its notebook divides by 100).
type Settings struct {
	Bonus   float64 // weight of the length beside that of the score, 1
	Divisor float64 // words at which the length bonus is full
}

// Of is (score / 9 + bonus * words / divisor) / (1 + bonus), score 0..9. Words
// count up to the divisor: without a limit a student could be paid for length
// alone.
func (s Settings) Of(score float64, words int) float64 {
	length := math.Min(float64(words), s.Divisor) / s.Divisor
	return (score/9 + s.Bonus*length) / (1 + s.Bonus)
}
