package bench

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"

	"onceupon/trainer/fault"
)

// Read reads a report that `bench --json` wrote: its last line counts.
func Read(path string) (Report, error) {
	var r Report
	text, err := os.ReadFile(path)
	if err != nil {
		return r, fault.New(fault.Capability, "%w: give what `bench --json` wrote", err)
	}
	if err := json.Unmarshal(lastLine(text), &r); err != nil {
		return r, fault.New(fault.Damaged, "%s: not a report of `bench --json`: %w", path, err)
	}
	if r.Format != ReportFormat {
		return r, fault.New(fault.Damaged, "%s: format %d; this version of onceupon reads %d: measure again with it", path, r.Format, ReportFormat)
	}
	for i, x := range r.Results {
		if x.Name == "" || len(x.Samples) == 0 || slices.Min(x.Samples) <= 0 {
			return r, fault.New(fault.Damaged, "%s: results[%d] has no name or no samples_ns: write it again with `bench --json`", path, i)
		}
	}
	if len(r.Results) == 0 {
		return r, fault.New(fault.Damaged, "%s: no results: write it again with `bench --json`", path)
	}
	return r, nil
}

func lastLine(text []byte) []byte {
	end := len(text)
	for end > 0 && text[end-1] == '\n' {
		end--
	}
	start := end
	for start > 0 && text[start-1] != '\n' {
		start--
	}
	return text[start:end]
}

// Comparison is one case in two reports.
type Comparison struct {
	Name   string  `json:"name"`
	Old    float64 `json:"old_ns_per_op"`
	New    float64 `json:"new_ns_per_op"`
	Ratio  float64 `json:"ratio"`  // new over old: below 1 is faster
	Noise  float64 `json:"noise"`  // how far the median lies above the least, the greater of both
	Change string  `json:"change"` // faster, slower, or "~": within the noise
}

// Compare matches the cases of two reports of one machine. Cases that only one
// has are named in alone. Reports of different machines are not compared.
func Compare(a, b Report) (all []Comparison, alone []string, err error) {
	if x, y := a.Machine.place(), b.Machine.place(); x != y {
		return nil, nil, fault.New(fault.Usage, "bench compare: %s against %s: only results of one machine can be compared", x, y)
	}
	find := map[string]Result{}
	for _, r := range b.Results {
		find[r.key()] = r
	}
	for _, r := range a.Results {
		other, ok := find[r.key()]
		if !ok {
			alone = append(alone, r.key())
			continue
		}
		delete(find, r.key())
		c := Comparison{Name: r.key(), Old: slices.Min(r.Samples), New: slices.Min(other.Samples), Noise: max(noise(r.Samples), noise(other.Samples)), Change: "~"}
		c.Ratio = c.New / c.Old
		switch {
		case c.Ratio > 1+c.Noise:
			c.Change = "slower"
		case c.Ratio < 1/(1+c.Noise):
			c.Change = "faster"
		}
		all = append(all, c)
	}
	for key := range find {
		alone = append(alone, key)
	}
	slices.Sort(alone)
	return all, alone, nil
}

func (r Result) key() string {
	return fmt.Sprintf("%s/%s/%s/%s", r.Name, r.Shape, r.Backend, r.Variant)
}

// noise is how far the median lies above the least.
func noise(samples []float64) float64 {
	sorted := slices.Sorted(slices.Values(samples))
	return sorted[len(sorted)/2]/sorted[0] - 1
}
