package llama

import (
	"path/filepath"
	"strings"
	"testing"

	"onceupon/bindings/nvidia"
	"onceupon/trainer/fault"
)

func TestChoose(t *testing.T) {
	cpu, igpu := Device{Name: "CPU"}, Device{Name: "Vulkan0", Card: true}
	one, two := Device{Name: "CUDA0", Card: true, handle: 1}, Device{Name: "CUDA1", Card: true, handle: 2}
	for _, c := range []struct {
		devices []Device
		ask     string
		want    uintptr
		kind    fault.Kind
	}{
		{[]Device{one, two, cpu}, "cuda", 1, 0}, {[]Device{one, two, cpu}, "cuda:1", 2, 0}, {[]Device{igpu, two, cpu}, "cuda:0", 2, 0},
		{[]Device{one, cpu}, "cpu", 0, 0}, {[]Device{cpu}, "cuda", 0, fault.Capability}, {[]Device{one, cpu}, "cuda:1", 0, fault.Capability},
		{[]Device{igpu, cpu}, "cuda", 0, fault.Capability}, {[]Device{one}, "cuda:x", 0, fault.Usage}, {[]Device{one}, "cuda:", 0, fault.Usage},
		{[]Device{one}, "gpu", 0, fault.Usage}, {[]Device{one}, "cpu:0", 0, fault.Usage}, {[]Device{one}, "cuda:-1", 0, fault.Usage},
	} {
		d, err := choose(c.devices, c.ask)
		if fault.Code(err) != int(c.kind) || (d == nil) != (c.want == 0) || d != nil && d.handle != c.want {
			t.Errorf("%s of %v: %v, %v", c.ask, c.devices, d, err)
		}
	}
}

// On a machine without a card, the card is refused in one line; libllama alone
// would have computed on the processor without a word.
func TestNoSilentFallback(t *testing.T) {
	if _, err := nvidia.Open(""); err == nil {
		t.Skip("this machine has a card")
	}
	l, dir := open(t)
	if d := l.Devices(); len(d) == 0 || d[0].Card {
		t.Errorf("devices %+v", d)
	}
	for name, try := range map[string]func() error{
		"open": func() error { _, err := Open(filepath.Join(dir, "llama"), Options{Device: "cuda"}); return err },
		"load": func() error {
			_, err := l.LoadModel(filepath.Join(dir, "teachers", "SmolLM2-135M-Instruct.Q4_1.gguf"), "cuda:0")
			return err
		},
	} {
		if err := try(); fault.Code(err) != int(fault.Capability) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Open(filepath.Join(dir, "llama"), Options{Device: "gpu"}); fault.Code(err) != int(fault.Usage) {
		t.Errorf("gpu: %v", err)
	}
}

func TestOffloaded(t *testing.T) {
	const g = 1 << 30
	for _, c := range []struct {
		before, after, weights uint64
		want                   bool
	}{{20 * g, 12 * g, 8 * g, true}, {20 * g, 20 * g, 8 * g, false}, {20 * g, 19 * g, 8 * g, false}, {20 * g, 21 * g, 8 * g, false}, {20 * g, 15 * g, 8 * g, true}} {
		if got := offloaded(c.before, c.after, c.weights); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
}

func TestRoutes(t *testing.T) {
	for _, c := range []struct {
		cuda, major, minor int
		want               string
	}{
		{13010, 8, 9, "cuda13"}, {13000, 8, 9, "cuda13"}, {13000, 12, 0, "cuda13"}, {13000, 9, 0, "cuda12"}, {13010, 9, 0, "cuda13"}, {13020, 8, 0, "cuda13"},
		{13020, 7, 0, "cuda12"}, {12040, 8, 9, "cuda12"}, {12040, 8, 6, "cuda12"}, {12040, 9, 0, "cuda12"}, {12080, 12, 0, "cuda12"}, {12040, 12, 0, ""},
		{11080, 8, 0, ""}, {12040, 3, 5, ""},
	} {
		r, err := ChooseRoute(nvidia.Driver{CUDA: c.cuda}, nvidia.Card{Name: "card", Major: c.major, Minor: c.minor})
		if r.Name != c.want || (err == nil) != (c.want != "") {
			t.Errorf("CUDA %d, %d.%d: %+v, %v; want %s", c.cuda, c.major, c.minor, r, err, c.want)
		}
	}
}
