package bench

import (
	"os"
	"runtime/debug"
	"strconv"
	"strings"

	"onceupon/bindings/student"
	"onceupon/trainer/fault"
)

// memoryStatus reads a line of /proc/self/status, which is in kB.
func memoryStatus(key string) (int64, error) {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, fault.Wrap(fault.Capability, err)
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, key+":"); ok {
			kb, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(value), "kB")), 10, 64)
			return kb * 1024, err
		}
	}
	return 0, fault.New(fault.Capability, "/proc/self/status has no %s: peak memory is measured on Linux only", key)
}

// peakGrowth is how far resident memory grows, at its highest, while run runs.
func peakGrowth(run func() error) (int64, error) {
	debug.FreeOSMemory()
	// 5 sets VmHWM back to VmRSS (proc(5), clear_refs).
	if err := os.WriteFile("/proc/self/clear_refs", []byte("5"), 0); err != nil {
		return 0, fault.Wrap(fault.Capability, err)
	}
	before, err := memoryStatus("VmRSS")
	if err != nil {
		return 0, err
	}
	if err := run(); err != nil {
		return 0, err
	}
	after, err := memoryStatus("VmHWM")
	return after - before, err
}

// peak is the memory of a training step: a student of its own, made for
// nothing else, trained for two steps.
func (b *studentBench) peak() (int64, error) {
	as := b.policy.Options()
	return peakGrowth(func() error {
		w := b.work
		m, err := student.New(w.Config, student.Options{Backend: as.Backend, ISA: as.ISA, Kernels: as.Kernels, Threads: as.Threads,
			MaxTokens: w.Stories * w.Length, MaxStories: w.Stories, Train: true, Recompute: as.Recompute})
		if err != nil {
			return err
		}
		defer m.Close()
		alone := *b
		alone.policy, alone.step = m, 0
		if err := initialize(m); err != nil {
			return err
		}
		for range 2 {
			if _, err := alone.train(0); err != nil {
				return err
			}
		}
		return nil
	})
}
