package metrics

import (
	"math"
	"sort"
	"strings"
)

// MeanCI returns the mean and the half width of its 95 % interval (Student's
// t); the half width is 0 for fewer than two numbers.
func MeanCI(x []float64) (mean, half float64) {
	n := float64(len(x))
	for _, v := range x {
		mean += v / n
	}
	if len(x) < 2 {
		return mean, 0
	}
	variance := 0.0
	for _, v := range x {
		variance += (v - mean) * (v - mean) / (n - 1)
	}
	return mean, tQuantile(n-1) * math.Sqrt(variance/n)
}

// StandardError is that of the mean of n numbers whose half width is MeanCI's.
func StandardError(half float64, n int) float64 { return half / tQuantile(float64(n-1)) }

// PairedRise is the mean of after - before, number by number, and its 95 %
// interval by Student's t on the differences.
func PairedRise(before, after []float64) (rise float64, interval [2]float64) {
	differences := make([]float64, len(before))
	for i := range before {
		differences[i] = after[i] - before[i]
	}
	rise, half := MeanCI(differences)
	return rise, [2]float64{rise - half, rise + half}
}

// tQuantile is the 97.5 % point of Student's t with v degrees of freedom:
// Fisher's expansion around the normal (Abramowitz & Stegun 26.7.5), within
// 0.01 from v = 4 on; exact values below.
func tQuantile(v float64) float64 {
	if v < 4 {
		return []float64{math.NaN(), 12.706, 4.303, 3.182}[int(v)]
	}
	const z = 1.959963984540054
	z3, z5, z7 := z*z*z, math.Pow(z, 5), math.Pow(z, 7)
	return z + (z3+z)/(4*v) + (5*z5+16*z3+3*z)/(96*v*v) + (3*z7+19*z5+17*z3-15*z)/(384*v*v*v)
}

// Distinct is distinct-n of texts for n = 1, 2, 3 (Li et al. 2016): different
// n-grams of words over all n-grams, words split at blanks.
func Distinct(texts []string) (d [3]float64) {
	for n := 1; n <= 3; n++ {
		seen, total := map[string]bool{}, 0
		for _, t := range texts {
			words := strings.Fields(t)
			for i := 0; i+n <= len(words); i++ {
				seen[strings.Join(words[i:i+n], " ")] = true
				total++
			}
		}
		if total > 0 {
			d[n-1] = float64(len(seen)) / float64(total)
		}
	}
	return d
}

// Spearman is Pearson's correlation of ranks; ties share their mean rank. It is
// 0 where one side is the same everywhere, which orders nothing.
func Spearman(x, y []float64) float64 {
	a, b := ranks(x), ranks(y)
	n := float64(len(a))
	var sa, sb, saa, sbb, sab float64
	for i := range a {
		sa += a[i]
		sb += b[i]
		saa += a[i] * a[i]
		sbb += b[i] * b[i]
		sab += a[i] * b[i]
	}
	denominator := math.Sqrt((n*saa - sa*sa) * (n*sbb - sb*sb))
	if denominator == 0 {
		return 0
	}
	return (n*sab - sa*sb) / denominator
}

func ranks(x []float64) []float64 {
	order := make([]int, len(x))
	for i := range order {
		order[i] = i
	}
	sort.SliceStable(order, func(i, j int) bool { return x[order[i]] < x[order[j]] })
	out := make([]float64, len(x))
	for i := 0; i < len(order); {
		end := i
		for end < len(order) && x[order[end]] == x[order[i]] {
			end++
		}
		for k := i; k < end; k++ {
			out[order[k]] = float64(i+end-1) / 2
		}
		i = end
	}
	return out
}
