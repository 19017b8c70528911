package metrics

import (
	"math"
	"testing"
)

func TestTQuantile(t *testing.T) {
	// Tables of Student's t, two-sided 95 %.
	for v, want := range map[float64]float64{3: 3.182, 4: 2.776, 10: 2.228, 30: 2.042, 127: 1.979} {
		if got := tQuantile(v); math.Abs(got-want) > 0.01 {
			t.Errorf("t(%v) = %v, want %v", v, got, want)
		}
	}
}

func TestPairedRise(t *testing.T) {
	rise, ci := PairedRise([]float64{1, 2, 3, 4, 5}, []float64{2, 3, 3, 6, 6})
	// Differences 1 1 0 2 1: mean 1, deviation 0.7071, half width 2.776 * 0.3162.
	if math.Abs(rise-1) > 1e-12 || math.Abs(ci[0]-0.122) > 0.005 || math.Abs(ci[1]-1.878) > 0.005 {
		t.Errorf("rise %v, interval %v", rise, ci)
	}
}

func TestDistinct(t *testing.T) {
	d := Distinct([]string{"a b a", "a b"})
	if d[0] != 2.0/5 || math.Abs(d[1]-2.0/3) > 1e-12 || d[2] != 1 {
		t.Errorf("distinct %v", d)
	}
}

func TestSpearman(t *testing.T) {
	// Ranks 0 1.5 1.5 3 and 0 1 3 2: covariance 3, variances 4.5 and 5.
	if got := Spearman([]float64{1, 2, 2, 3}, []float64{10, 20, 40, 30}); math.Abs(got-3/math.Sqrt(22.5)) > 1e-12 {
		t.Errorf("rho %v", got)
	}
	if got := Spearman([]float64{1, 2, 3}, []float64{5, 5, 5}); got != 0 {
		t.Errorf("rho %v of what orders nothing", got)
	}
}
