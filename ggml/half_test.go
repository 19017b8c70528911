package ggml

import (
	"math"
	"testing"
)

// Every half goes to float32 and back to itself, and what lies between two
// halves goes to the nearer one, at the middle to the even one.
func TestHalf(t *testing.T) {
	for h := range uint32(0x7c00) {
		x := halfToFloat(uint16(h))
		if got := floatToHalf(x); got != uint16(h) {
			t.Fatalf("%#04x -> %v -> %#04x", h, x, got)
		}
		if floatToHalf(-x) != uint16(h)|0x8000 {
			t.Fatalf("-%v", x)
		}
		next := 65536.0
		if h+1 < 0x7c00 {
			next = float64(halfToFloat(uint16(h + 1)))
		}
		middle := float32((float64(x) + next) / 2)
		even := uint16(h + h&1)
		for v, want := range map[float32]uint16{middle: even, math.Nextafter32(middle, 0): uint16(h), math.Nextafter32(middle, 1e9): uint16(h + 1)} {
			if got := floatToHalf(v); got != want {
				t.Fatalf("%v: %#04x, want %#04x", v, got, want)
			}
		}
	}
	if floatToHalf(float32(math.Inf(1))) != 0x7c00 || floatToHalf(float32(math.NaN()))&0x7c00 != 0x7c00 || floatToHalf(1e9) != 0x7c00 {
		t.Error("infinities and NaN")
	}
}

func TestBF16(t *testing.T) {
	for x, want := range map[float32]uint16{1: 0x3f80, -2: 0xc000, math.Float32frombits(0x3f808000): 0x3f80, math.Float32frombits(0x3f818000): 0x3f82,
		math.Float32frombits(0x3f808001): 0x3f81} {
		raw, err := EncodeBF16([]float32{x})
		if got := uint16(raw[0]) | uint16(raw[1])<<8; err != nil || got != want {
			t.Errorf("%v: %#04x, want %#04x", x, got, want)
		}
	}
}
