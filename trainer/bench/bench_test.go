package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"onceupon/bindings/student"
	"onceupon/trainer/fault"
)

func quick(t *testing.T) Options {
	return Options{Threads: 2, Time: time.Millisecond, Count: 2, Say: t.Logf}
}

// Every op runs in every shape of a student, with finite costs, on every
// variant that this machine has.
func TestOpsAreAllTimed(t *testing.T) {
	m := Machine{GFLOPPerS: 100, ReadGBPerS: 10}
	for _, backend := range []string{"cpu", "ref"} {
		results, err := Ops(context.Background(), m, quick(t), "tiny", backend, []string{student.BestISA()}, &OpenBLAS{missing: "not asked for"})
		if err != nil {
			t.Fatal(err)
		}
		if len(results) != len(student.BenchOps()) {
			t.Errorf("%s: %d results of %d ops", backend, len(results), len(student.BenchOps()))
		}
		for _, r := range results {
			if r.NsPerOp <= 0 || r.GBPerS <= 0 || r.RooflineShare <= 0 || len(r.Samples) != 2 {
				t.Errorf("%+v", r)
			}
			if strings.HasPrefix(r.Name, "matmul") != (len(r.Peers) == 1) {
				t.Errorf("%s has peers %v", r.Name, r.Peers)
			}
		}
	}
}

// The costs of a multiplication, by hand: 16 tokens, 16 to 64 wide.
func TestCostOfMultiplication(t *testing.T) {
	for i, name := range student.BenchOps() {
		if name != "matmul_forward_up" && name != "matmul_backward_weight_up" {
			continue
		}
		op, err := student.NewBenchOp(i, Shapes["tiny"], "cpu", "portable", "", 1)
		if err != nil {
			t.Fatal(err)
		}
		defer op.Close()
		bytes, rows, cols, depth := 4.*(16*16+16*64+16*64), 16, 64, 16
		if strings.Contains(name, "weight") {
			bytes, rows, cols, depth = bytes+4*16*64, 64, 16, 16
		}
		if c := op.Cost; c.FLOPs != 2*16*16*64 || c.Bytes != bytes || c.Rows != rows || c.Cols != cols || c.Depth != depth {
			t.Errorf("%s: %+v", name, c)
		}
	}
}

func TestStudentAndPeers(t *testing.T) {
	peers := []Command{{"fixed", []string{"sh", "-c", `echo '{"seconds": 100, "peak_bytes": 5}'`}}, {"absent", []string{"/nowhere/peer"}}}
	results, err := Student(context.Background(), Machine{GFLOPPerS: 1, ReadGBPerS: 1}, quick(t), "tiny", "cpu", "auto", "none", false, peers)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range results {
		if len(r.Peers) != 2 || r.Rate <= 0 || r.Peers[0].NsPerOp != 100e9 || r.Peers[0].Ratio <= 1 || r.Peers[0].PeakBytes != 5 || r.Peers[1].Missing == "" {
			t.Errorf("%+v", r)
		}
	}
	o := quick(t)
	o.Filter = regexp.MustCompile("nothing")
	if _, err := Student(context.Background(), Machine{}, o, "tiny", "cpu", "auto", "none", false, nil); fault.Code(err) != int(fault.Usage) {
		t.Errorf("a filter that matches nothing: %v", err)
	}
}

// The ops of a student's work and what lies between them make up its time.
func TestStages(t *testing.T) {
	all, err := Student(context.Background(), Machine{GFLOPPerS: 1, ReadGBPerS: 1}, quick(t), "tiny", "cpu", "auto", "none", true, nil)
	if err != nil {
		t.Fatal(err)
	}
	shares, names := map[string]float64{}, map[string]bool{}
	for _, r := range all {
		names[r.Name] = true
		if task, ok := strings.CutPrefix(r.RateUnit, "%"); ok {
			shares[task] += r.Rate
		}
	}
	for _, task := range tasks {
		if math.Abs(shares[task.name]-100) > 1e-6 {
			t.Errorf("the ops of %s are %g %% of it", task.name, shares[task.name])
		}
	}
	for _, name := range []string{"train_matmul_norm_backward_weight_16x48", "train_adamw", "generate_attention_decode", "ppo_logprob_forward", "ppo_between_ops"} {
		if !names[name] {
			t.Errorf("no result %s", name)
		}
	}
}

// The stages of a batch and what is left make up its wall time.
func TestBatchClock(t *testing.T) {
	b := &batchClock{}
	line := []byte(`{"event":"batch","seconds":{"rollout":0.01,"judge":0.02,"overlap":0.005,"logprob":0.003,"update":0.004}}` + "\n")
	for range 3 {
		if _, err := b.Write(line); err != nil {
			t.Fatal(err)
		}
		time.Sleep(50 * time.Millisecond)
	}
	if _, err := b.Write([]byte(`{"event":"evaluation"}`)); err != nil || b.err != nil {
		t.Fatal(err, b.err)
	}
	all := b.results(LoopOptions{Name: "x", Stages: true}, "avx2")
	if len(all) != 1+len(stages) || len(all[0].Samples) != 2 || all[2].Samples[0] != .02e9 {
		t.Fatalf("%+v", all)
	}
	sum, share := 0.0, 0.0
	for _, r := range all[1:] {
		sum += r.Samples[0]
		share += r.Rate
	}
	if math.Abs(sum-all[0].Samples[0]) > 10 || math.Abs(share-100) > 1e-6 {
		t.Errorf("the stages make %g of %g ns and %g %%", sum, all[0].Samples[0], share)
	}
	// On a processor nothing is told and rated at once.
	for i := range b.events {
		b.events[i].Seconds.Overlap = 0
	}
	for _, r := range b.results(LoopOptions{Name: "x", Stages: true}, "avx2") {
		if r.Name == "loop_overlap" {
			t.Errorf("%+v", r)
		}
	}
}

// Resident memory grows by what a run touches, and by little else.
func TestPeakGrowth(t *testing.T) {
	const touched = 96 << 20
	grown, err := peakGrowth(func() error {
		memory := make([]byte, touched)
		for i := 0; i < len(memory); i += 4096 {
			memory[i] = 1
		}
		runtime.KeepAlive(memory)
		return nil
	})
	if err != nil || grown < touched*9/10 || grown > touched*3/2 {
		t.Errorf("%d bytes touched, growth %d, %v", touched, grown, err)
	}
}

func TestCompare(t *testing.T) {
	report := func(cpu string, a, b []float64) Report {
		return Report{1, Machine{CPU: cpu}, []Result{{Name: "a", Samples: a}, {Name: "b", Samples: b}}}
	}
	old := report("x", []float64{100, 101, 102}, []float64{50, 51, 60})
	now := report("x", []float64{80, 81, 82}, []float64{50.5, 51, 52})
	now.Results = append(now.Results, Result{Name: "c", Samples: []float64{1}})
	all, alone, err := Compare(old, now)
	if err != nil || len(all) != 2 || all[0].Change != "faster" || all[1].Change != "~" || len(alone) != 1 {
		t.Errorf("%+v %v %v", all, alone, err)
	}
	if all, _, _ = Compare(now, old); all[0].Change != "slower" {
		t.Errorf("%+v", all)
	}
	if _, _, err = Compare(old, report("y", nil, nil)); fault.Code(err) != int(fault.Usage) {
		t.Errorf("another machine: %v", err)
	}
}

func TestReadRefusesWhatIsNoReport(t *testing.T) {
	path := filepath.Join(t.TempDir(), "r.json")
	for _, text := range []string{"", "{}", "x", `{"format":1}`, `{"format":1,"results":[{"name":"a"}]}`, `{"format":1,"results":[{"name":"a","samples_ns":[0]}]}`,
		`{"format":2,"results":[{"name":"a","samples_ns":[1]}]}`} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := Read(path); fault.Code(err) != int(fault.Damaged) || !strings.Contains(err.Error(), path) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestFormats(t *testing.T) {
	r := Result{Name: "train", Shape: "tiny", Backend: "cpu", Variant: "avx2", Samples: []float64{2e6, 1e6}, NsPerOp: 1e6, Calls: 3, Rate: 10, RateUnit: "tokens/s"}
	r.against("torch", 2e6)
	r.Peers = append(r.Peers, Peer{Name: "llm.c", Missing: "not built"})
	share := Result{Name: "loop_judge", Shape: "x", Backend: "cpu", Variant: "avx2", Samples: []float64{4e6, 1e6}, NsPerOp: 1e6, Calls: 1, Rate: 90, RateUnit: "%batch"}
	report := Report{1, Machine{Threads: 2}, []Result{r, share}}
	var text, table bytes.Buffer
	if err := report.Text(&text); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"BenchmarkTrain/tiny/cpu/avx2-2\t3\t2000000 ns/op\t5 tokens/s\n", "\t1000000 ns/op\t10 tokens/s\n", "\t4000000 ns/op\t90 %batch\n", "torch: 2000000 ns/op, 2.00 x", "llm.c: no figure: not built"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("%q is not in\n%s", want, &text)
		}
	}
	if err := report.Markdown(&table); err != nil || !strings.Contains(table.String(), "| torch / ours | llm.c / ours |") || !strings.Contains(table.String(), "| 2.00 |  |") {
		t.Errorf("%v\n%s", err, &table)
	}
	if _, err := json.Marshal(report); err != nil {
		t.Error(err)
	}
}

// A training step's FLOP by hand: one layer of width 16, 64 tokens of
// vocabulary, two stories of 32: six per weight of a matrix and token, and
// attention over 32 * 33 / 2 pairs a story: two products of 16, forward and twice
// backward, a multiply-add counted as two.
func TestTrainFLOPs(t *testing.T) {
	matrices := 6. * (4*16*16 + 2*4*16*16 + 64*16) * 64
	attention := 2. * (32 * 33 / 2) * 2 * 16 * 2 * 3
	if got := Works["tiny"].trainFLOPs(); got != matrices+attention {
		t.Errorf("%g, by hand %g", got, matrices+attention)
	}
	r := Result{Backend: "cuda", Variant: "bf16", NsPerOp: 1e9}
	r.cost(5e14, 0, Machine{Device: &student.Device{BF16GFLOPPerS: 1e6, GBPerS: 1000}})
	if r.RooflineShare != .5 || r.GFLOPPerS != 5e5 {
		t.Errorf("share of the peak: %+v", r)
	}
}
