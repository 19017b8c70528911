// Package bench owns the measuring of ops, of the student's work, of the
// teacher and of the tokenizer: how often a thing is repeated, what is kept of
// it, how it stands to the machine's limits and to peers, and how two
// measurements are compared.
package bench

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"onceupon/bindings/student"
)

// Machine is where a measurement was made. Results of different machines or
// builds are not compared.
type Machine struct {
	CPU     string `json:"cpu"`
	Cores   int    `json:"cores"`
	Threads int    `json:"threads"`
	OS      string `json:"os"`
	Go      string `json:"go"`
	Version string `json:"version"` // of onceupon: VCS revision, "+dirty" when changed
	Library string `json:"library"` // first digits of libstudent's sha256
	// Roofline of the ISA, measured on the spot: multiply-add peak in fp32 and,
	// where the ISA has it, with bf16 factors, and memory read, all threads.
	ISA           string  `json:"isa"`
	GFLOPPerS     float64 `json:"peak_gflop_per_s,omitempty"`
	BF16GFLOPPerS float64 `json:"peak_bf16_gflop_per_s,omitempty"`
	ReadGBPerS    float64 `json:"read_gb_per_s,omitempty"`
	// Device is the card of backend cuda, whose roofline is its maker's figures.
	Device *student.Device `json:"device,omitempty"`
}

// limits of a result's backend in GFLOP/s and GB/s; 0 where they are not known.
// The cpu backend's bf16 is that of its multiplications and of attention.
func (m Machine) limits(op, backend, variant string) (gflops, gbytes float64) {
	switch {
	case variant == "avx512bf16" && (strings.Contains(op, "matmul") || strings.Contains(op, "attention")):
		return m.BF16GFLOPPerS, m.ReadGBPerS
	case backend != "cuda":
		return m.GFLOPPerS, m.ReadGBPerS
	case m.Device == nil:
		return 0, 0
	case strings.HasPrefix(variant, "bf16"):
		return m.Device.BF16GFLOPPerS, m.Device.GBPerS
	}
	return m.Device.FP32GFLOPPerS, m.Device.GBPerS
}

// place is what two measurements must share to be compared.
func (m Machine) place() string {
	place := fmt.Sprintf("%s with %d of %d cores, %s", m.CPU, m.Threads, m.Cores, m.OS)
	if m.Device != nil {
		place += ", " + m.Device.Name
	}
	return place
}

// Peer is another program that did the same work in the same run.
type Peer struct {
	Name    string  `json:"name"`
	NsPerOp float64 `json:"ns_per_op,omitempty"`
	Ratio   float64 `json:"ratio,omitempty"`   // its time over ours: above 1 we are faster
	Missing string  `json:"missing,omitempty"` // why there is no figure

	PeakBytes int64 `json:"peak_bytes,omitempty"` // as Result's
}

// Result is one case: samples of the time of one op, and what follows from the
// least of them.
type Result struct {
	Name    string    `json:"name"`
	Shape   string    `json:"shape"`
	Backend string    `json:"backend"`
	Variant string    `json:"variant"`
	Samples []float64 `json:"samples_ns"`
	NsPerOp float64   `json:"ns_per_op"` // the least of Samples
	Calls   int64     `json:"calls"`     // of each sample

	GBPerS        float64 `json:"gb_per_s,omitempty"`
	GFLOPPerS     float64 `json:"gflop_per_s,omitempty"`
	RooflineShare float64 `json:"roofline_share,omitempty"` // least time the roofline allows over the time taken

	Rate     float64 `json:"rate,omitempty"` // of RateUnit
	RateUnit string  `json:"rate_unit,omitempty"`

	// PeakBytes is how far the process's resident memory grew, at its highest,
	// from before the student was made to the end of its second step; of a loop on
	// a card, how much of the card was in use at most.
	PeakBytes int64  `json:"peak_bytes,omitempty"`
	Peers     []Peer `json:"peer,omitempty"`
}

// Sample times run in count samples of at least `least` each and fills
// Samples, Calls and NsPerOp. One call before is not timed.
func (r *Result) Sample(count int, least time.Duration, run func(times int64) error) error {
	if err := run(1); err != nil {
		return err
	}
	r.Calls = 1
	for len(r.Samples) < count {
		start := time.Now()
		if err := run(r.Calls); err != nil {
			return err
		}
		took := time.Since(start)
		if took < least && len(r.Samples) == 0 {
			// Aim a fifth above, so that a sample is seldom too short again.
			r.Calls = max(r.Calls+1, int64(1.2*float64(r.Calls)*float64(least)/float64(max(took, 1))))
			continue
		}
		r.Samples = append(r.Samples, float64(took.Nanoseconds())/float64(r.Calls))
	}
	r.NsPerOp = slices.Min(r.Samples)
	return nil
}

// finish fills what follows from the least sample; units of the rate are done
// by one op.
func (r *Result) finish(units float64) {
	r.NsPerOp = slices.Min(r.Samples)
	r.Rate = units / r.NsPerOp * 1e9
}

// cost derives rates from an op's cost and the machine's limits.
func (r *Result) cost(flops, bytes float64, m Machine) {
	r.GFLOPPerS, r.GBPerS = flops/r.NsPerOp, bytes/r.NsPerOp
	if gflops, gbytes := m.limits(r.Name, r.Backend, r.Variant); gflops > 0 && gbytes > 0 {
		r.RooflineShare = max(flops/gflops, bytes/gbytes) / r.NsPerOp
	}
}

// against adds a peer's time.
func (r *Result) against(name string, ns float64) {
	r.Peers = append(r.Peers, Peer{Name: name, NsPerOp: ns, Ratio: ns / r.NsPerOp})
}

// peer adds what a peer answered.
func (r *Result) peer(p Peer, o Options) {
	if p.Ratio = p.NsPerOp / r.NsPerOp; p.Missing != "" {
		o.Say("  %s: no figure: %s", p.Name, p.Missing)
	} else {
		o.Say("  %s takes %.2f x our time", p.Name, p.Ratio)
	}
	r.Peers = append(r.Peers, p)
}

// Report is a whole measurement.
type Report struct {
	Format  int      `json:"format"` // of this JSON: ReportFormat
	Machine Machine  `json:"machine"`
	Results []Result `json:"results"`
}

// ReportFormat changes when a field changes its meaning.
const ReportFormat = 1

// Text writes the samples as `go test -bench` does, which benchstat reads. What
// differs between two runs of one machine is a comment: benchstat compares only
// under the same keys.
func (r Report) Text(w io.Writer) error {
	m := r.Machine
	_, err := fmt.Fprintf(w, "goos: %s\ncpu: %s\n# onceupon: %s, libstudent %s\n# roofline: %s, %.0f GFLOP/s fp32, %.0f bf16, %.0f GB/s read, %d threads\n",
		m.OS, m.CPU, m.Version, m.Library, m.ISA, m.GFLOPPerS, m.BF16GFLOPPerS, m.ReadGBPerS, m.Threads)
	if d := m.Device; d != nil && err == nil {
		_, err = fmt.Fprintf(w, "card: %s, driver for CUDA %s; peaks by %s %.0f GFLOP/s bf16, %.0f fp32, %.0f GB/s\n", d.Name, d.Driver, d.PeaksFrom, d.BF16GFLOPPerS, d.FP32GFLOPPerS, d.GBPerS)
	}
	for _, x := range r.Results {
		name := fmt.Sprintf("Benchmark%s/%s/%s/%s-%d", strings.ToUpper(x.Name[:1])+x.Name[1:], x.Shape, x.Backend, x.Variant, m.Threads)
		for _, ns := range x.Samples {
			line := fmt.Sprintf("%s\t%d\t%.0f ns/op", name, x.Calls, ns)
			scale := x.NsPerOp / ns
			rate := x.Rate * scale
			if strings.HasPrefix(x.RateUnit, "%") { // a share of all samples' time
				rate = x.Rate
			}
			for _, metric := range []struct {
				value float64
				unit  string
			}{{x.GBPerS * scale, "GB/s"}, {x.GFLOPPerS * scale, "GFLOP/s"}, {100 * x.RooflineShare * scale, "%roofline"}, {rate, x.RateUnit}, {float64(x.PeakBytes), "peak-B"}} {
				if metric.value > 0 {
					line += fmt.Sprintf("\t%.4g %s", metric.value, metric.unit)
				}
			}
			if err == nil {
				_, err = fmt.Fprintln(w, line)
			}
		}
		for _, p := range x.Peers {
			line := fmt.Sprintf("# %s: %s: ", name, p.Name)
			if p.Missing != "" {
				line += "no figure: " + p.Missing
			} else {
				line += fmt.Sprintf("%.0f ns/op, %.2f x our time", p.NsPerOp, p.Ratio)
				if p.PeakBytes > 0 {
					line += fmt.Sprintf(", %d peak-B", p.PeakBytes)
				}
			}
			if err == nil {
				_, err = fmt.Fprintln(w, line)
			}
		}
	}
	return err
}

// Markdown writes a table with a column for every peer.
func (r Report) Markdown(w io.Writer) error {
	m := r.Machine
	var peers []string
	for _, x := range r.Results {
		for _, p := range x.Peers {
			if !slices.Contains(peers, p.Name) {
				peers = append(peers, p.Name)
			}
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s, %d cores, %d threads, %s; roofline %.0f GFLOP/s fp32, %.0f bf16, %.0f GB/s read; onceupon %s, libstudent %s\n\n", m.CPU, m.Cores, m.Threads, m.ISA, m.GFLOPPerS, m.BF16GFLOPPerS, m.ReadGBPerS, m.Version, m.Library)
	if d := m.Device; d != nil {
		fmt.Fprintf(&b, "%s, driver for CUDA %s; peaks by %s %.0f GFLOP/s bf16, %.0f fp32, %.0f GB/s\n\n", d.Name, d.Driver, d.PeaksFrom, d.BF16GFLOPPerS, d.FP32GFLOPPerS, d.GBPerS)
	}
	b.WriteString("| op | shape | backend | variant | time | GB/s | GFLOP/s | of roofline | rate |")
	for _, p := range peers {
		fmt.Fprintf(&b, " %s / ours |", p)
	}
	b.WriteString("\n|---|---|---|---|---|---|---|---|---|" + strings.Repeat("---|", len(peers)) + "\n")
	number := func(format string, x float64) string {
		if x == 0 {
			return ""
		}
		return fmt.Sprintf(format, x)
	}
	for _, x := range r.Results {
		rate := number("%.4g ", x.Rate) + strings.Replace(x.RateUnit, "%", "% of a ", 1)
		if x.PeakBytes > 0 {
			rate += fmt.Sprintf(", %d MB at most", x.PeakBytes/1e6)
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s | %s | %s | %s |", x.Name, x.Shape, x.Backend, x.Variant,
			time.Duration(x.NsPerOp).Round(time.Duration(max(1, x.NsPerOp/1000))), number("%.1f", x.GBPerS), number("%.1f", x.GFLOPPerS), number("%.0f %%", 100*x.RooflineShare), rate)
		for _, name := range peers {
			cell := ""
			for _, p := range x.Peers {
				if p.Name == name {
					cell = number("%.2f", p.Ratio)
				}
			}
			fmt.Fprintf(&b, " %s |", cell)
		}
		b.WriteString("\n")
	}
	for _, x := range r.Results {
		for _, p := range x.Peers {
			if p.Missing != "" {
				fmt.Fprintf(&b, "\n%s of %s: no figure: %s\n", p.Name, x.Name, p.Missing)
			}
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}
