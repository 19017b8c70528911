package main

import (
	"fmt"
	"runtime"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"onceupon/bindings/student"
	"onceupon/trainer/config"
	"onceupon/trainer/fault"
	"onceupon/trainer/judge"
	"onceupon/trainer/plan"
	"onceupon/trainer/run"
)

func doctorCommand() *cli.Command {
	return &cli.Command{
		Name:   "doctor",
		Usage:  "what this machine has, and whether a configuration fits it",
		Flags:  append(slices.Concat(studentFlags(), teacherFlags(), teachingFlags(), paceFlags(), planFlags()), overlapFlag()),
		Action: doctor,
	}
}

// finding is one line of the doctor's.
type finding struct {
	Name  string `json:"name"`
	Value string `json:"value"`
	OK    bool   `json:"ok"`
}

func doctor(c *cli.Context) error {
	k, err := resolve(c)
	if err != nil {
		return err
	}
	var all []finding
	add := func(name string, ok bool, format string, args ...any) {
		all = append(all, finding{name, fmt.Sprintf(format, args...), ok})
	}
	add("processor", true, "%s/%s, %d threads, student isa %s", runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), student.BestISA())
	abi := student.CheckABI()
	add("libstudent", abi == nil, "interface %s, sha256 %.12s", text(abi), student.LibrarySHA256())

	var info unix.Sysinfo_t
	var free uint64
	if err := unix.Sysinfo(&info); err == nil {
		free = (info.Freeram + info.Bufferram) * uint64(info.Unit)
		add("memory", true, "%.1f GiB, %.1f GiB free", gib(info.Totalram*uint64(info.Unit)), gib(free))
	}
	need, memory, err := studentMemory(k)
	if err != nil {
		return err
	}
	for _, part := range memory {
		m := part.memory
		add(part.name, true, "%.2f GiB: weights %.2f, gradients %.2f, moments %.2f, activations %.2f, workspace %.2f, cache %.2f",
			gib(m.Total()), gib(m.Weights), gib(m.Gradients), gib(m.Moments), gib(m.Activations), gib(m.Workspace), gib(m.Cache))
	}
	levels, err := recomputeLevels(k)
	if err != nil {
		return err
	}
	add("recompute", true, "%s", levels)
	device, err := student.CUDADevice()
	onCard := k.Run.Backend == "cuda"
	switch {
	case err == nil:
		add("cuda", true, "%s, %.1f GiB, %.1f GiB free, driver for CUDA %s", device.Name, gib(device.MemoryBytes), gib(device.FreeBytes), device.Driver)
	case onCard:
		add("cuda", false, "%v", err)
	default:
		add("cuda", true, "not asked for, and not there: %v", err)
	}
	switch {
	case onCard && err == nil:
		ok, text := fits(need, device.FreeBytes, "free on the card", levels)
		add("memory plan", ok, "%s", text)
	case !onCard && !cardAsked(c) && free > 0:
		ok, text := fits(need, uint64(info.Totalram)*uint64(info.Unit), "in this machine", levels)
		add("memory plan", ok, "%s", text)
	}

	check := judge.Check
	if l, err := judge.OpenLlama(k.Teacher.LlamaDir, k.Teacher.Device, warnings(c)); err == nil {
		add("libllama", true, "%s, %d devices, %s", l.Version(), len(l.Devices()), l.SystemInfo())
	} else {
		add("libllama", false, "%v", err)
		check = judge.Examine // which needs no library
	}
	for _, name := range []string{k.Teacher.Model, k.Teacher.SecondJudge} {
		if name == "" {
			continue
		}
		o := run.JudgeOptions(k, warnings(c))
		o.Model = name
		if candidate, err := check(o); err != nil {
			add("teacher "+name, false, "%v", err)
		} else {
			add("teacher "+name, true, "%s", candidate.Header.Path)
		}
	}
	planned, err := planCards(c, k, add)
	if err != nil {
		return err
	}
	missing := 0
	for _, f := range all {
		mark := "ok"
		if !f.OK {
			mark = "MISSING"
			missing++
		}
		if !c.Bool("json") {
			fmt.Fprintf(c.App.Writer, "%-8s %-20s %s\n", mark, f.Name, f.Value)
		}
	}
	if err := reporter(c).Emit(map[string]any{"event": "result", "command": "doctor", "findings": all, "plan": planned, "ok": missing == 0}); err != nil {
		return err
	}
	if missing > 0 {
		return fault.New(fault.Capability, "MISSING: %d of %d findings", missing, len(all))
	}
	return nil
}

// fits says whether the students fit into so many bytes, and where they do not
// what would.
func fits(need, limit uint64, where string, levels recomputePlan) (bool, string) {
	text := fmt.Sprintf("%.2f GiB for the student, %.1f GiB %s", gib(need), gib(limit), where)
	if need < limit {
		return true, text
	}
	for _, l := range levels {
		if l.bytes < limit {
			return false, fmt.Sprintf("%s: run.recompute = %q needs %.2f GiB", text, l.name, gib(l.bytes))
		}
	}
	return false, text + ": shrink run.max_tokens"
}

type studentPart struct {
	name   string
	memory student.Memory
}

// studentMemory is what a configuration's two students take.
func studentMemory(k config.Config) (need uint64, parts []studentPart, err error) {
	for _, part := range []struct {
		name    string
		options student.Options
	}{{"student, trained", run.PolicyOptions(k, len(k.Rollout.Prompt))}, {"student, reference", run.ReferenceOptions(k)}} {
		m, err := student.Plan(student.Config{Layers: k.Student.Layers, Heads: k.Student.Heads, Width: k.Student.Width, Context: k.Student.Context,
			Vocab: k.Student.Vocab, LayerNormEpsilon: float32(k.Student.LayerNormEpsilon)}, part.options)
		if err != nil {
			return 0, nil, err
		}
		need += m.Total()
		parts = append(parts, studentPart{part.name, m})
	}
	return need, parts, nil
}

type recomputeLevel struct {
	name  string
	bytes uint64
}

type recomputePlan []recomputeLevel

func (p recomputePlan) String() string {
	var all []string
	for _, l := range p {
		all = append(all, fmt.Sprintf("%s %.2f GiB", l.name, gib(l.bytes)))
	}
	return strings.Join(all, ", ")
}

// recomputeLevels is what both students take at the configuration's level of
// recomputation and those beyond it.
func recomputeLevels(k config.Config) (recomputePlan, error) {
	var all recomputePlan
	for _, k.Run.Recompute = range plan.Levels(k) {
		need, _, err := studentMemory(k)
		if err != nil {
			return nil, err
		}
		all = append(all, recomputeLevel{k.Run.Recompute, need})
	}
	return all, nil
}

func gib(bytes uint64) float64 { return float64(bytes) / (1 << 30) }

func text(err error) string {
	if err != nil {
		return err.Error()
	}
	return "as compiled"
}
