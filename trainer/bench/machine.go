package bench

import (
	"cmp"
	"os"
	"runtime"
	"runtime/debug"
	"strings"

	"onceupon/bindings/student"
	"onceupon/trainer/plan"
)

// probeSeconds is how long the roofline is measured.
const probeSeconds = 1

// WithDevice adds the card of backend cuda; its error says what is missing.
func (m Machine) WithDevice() (Machine, error) {
	d, err := student.CUDADevice()
	if card, ok := plan.DataSheet(d.Name); ok {
		d.BF16GFLOPPerS, d.FP32GFLOPPerS, d.GBPerS, d.PeaksFrom = 1e3*card.TFLOPs, 1e3*card.FP32, card.GBs, "data sheet"
	}
	m.Device = &d
	return m, err
}

// ThisMachine describes the machine and measures its roofline.
func ThisMachine(isa string, threads int) (Machine, error) {
	if isa == "" || isa == "auto" {
		isa = student.BestISA()
	}
	m := Machine{CPU: cpuName(), Cores: runtime.NumCPU(), Threads: threads, OS: runtime.GOOS + "/" + runtime.GOARCH, Go: runtime.Version(),
		Version: Version(), Library: student.LibrarySHA256()[:12], ISA: isa}
	flops, bf16, bytes, err := student.Roofline(isa, threads, probeSeconds)
	m.GFLOPPerS, m.BF16GFLOPPerS, m.ReadGBPerS = flops/1e9, bf16/1e9, bytes/1e9
	return m, err
}

// cpuName is the processor's name with its family and model: virtual machines
// call processors of several generations by one name.
func cpuName() string {
	text, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return runtime.GOARCH
	}
	found := map[string]string{}
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(line, ":")
		if key = strings.TrimSpace(key); found[key] == "" {
			found[key] = strings.TrimSpace(value)
		}
	}
	name := cmp.Or(found["model name"], runtime.GOARCH)
	if found["cpu family"] != "" {
		name += " (family " + found["cpu family"] + ", model " + found["model"] + ")"
	}
	return name
}

// revision is what `make build` says (git describe).
var revision string

// Version is the revision the program was built from: that of make, else of the
// go command, else "unknown".
func Version() string {
	if revision != "" {
		return revision
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	revision, dirty := "unknown", ""
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			revision = s.Value[:min(12, len(s.Value))]
		case s.Key == "vcs.modified" && s.Value == "true":
			dirty = "+dirty"
		}
	}
	return revision + dirty
}
