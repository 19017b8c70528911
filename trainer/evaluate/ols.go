package evaluate

import "math"

// rSquared is the share of y's variance that ordinary least squares on the
// columns and a constant explains; y must vary. The columns are made
// orthonormal (Gram and Schmidt, twice, as rounding asks for), then y's
// projection is a sum. One that the others before it already span adds nothing.
func rSquared(y []float64, columns [][]float64) float64 {
	y = centred(y)
	var base [][]float64
	explained := 0.0
	for _, c := range columns {
		v := centred(c)
		whole := math.Sqrt(dot(v, v))
		for range 2 {
			for _, b := range base {
				along := dot(b, v)
				for i := range v {
					v[i] -= along * b[i]
				}
			}
		}
		rest := math.Sqrt(dot(v, v))
		if rest <= 1e-10*whole {
			continue
		}
		for i := range v {
			v[i] /= rest
		}
		base = append(base, v)
		along := dot(v, y)
		explained += along * along
	}
	return explained / dot(y, y)
}

func centred(x []float64) []float64 {
	mean := 0.0
	for _, v := range x {
		mean += v / float64(len(x))
	}
	out := make([]float64, len(x))
	for i, v := range x {
		out[i] = v - mean
	}
	return out
}

func dot(a, b []float64) float64 {
	sum := 0.0
	for i := range a {
		sum += a[i] * b[i]
	}
	return sum
}
