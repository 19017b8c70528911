package trace

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"onceupon/trainer/fault"
)

const golden = "../../../shared/data/golden"

func folder(t testing.TB, name string) string {
	t.Helper()
	dir := filepath.Join(golden, name)
	if _, err := os.Stat(dir); err != nil {
		t.Skipf("the recorded traces are not on this machine: %v", err)
	}
	return dir
}

var variants = []Options{
	{Backend: "ref", Threads: 1},
	{Backend: "cpu", ISA: "portable", Threads: 2},
	{Backend: "cpu", ISA: "auto", Threads: 1},
	{Backend: "cpu", ISA: "auto", Threads: 2},
}

// The cuda backend's kernels on the CPU, where `make test-emulation` built them.
func emulated(t *testing.T) Options {
	library := os.Getenv("ONCEUPON_CUDA_EMULATED")
	if library == "" {
		t.Skip("ONCEUPON_CUDA_EMULATED names no library: make test-emulation builds it")
	}
	t.Setenv("ONCEUPON_CUDA_LIBRARY", library)
	return Options{Backend: "cuda", Threads: 1}
}

// oneThread keeps a test on its thread: ThreadSanitizer does not see how Go
// hands a goroutine, and with it a student, from thread to thread.
func oneThread(t *testing.T) {
	runtime.LockOSThread()
	t.Cleanup(runtime.UnlockOSThread)
}

func TestGPT2IsPyTorchsEmulated(t *testing.T) {
	oneThread(t)
	o := emulated(t)
	checks, err := GPT2(folder(t, "gpt2"), o)
	if err != nil {
		t.Fatal(err)
	}
	judge(t, o, checks, 120)
}

// By case: under ThreadSanitizer there is time for one.
func TestPPOIsTRLsEmulated(t *testing.T) {
	o, dir := emulated(t), folder(t, "ppo")
	for _, name := range []string{"accumulate", "eos", "equal", "left", "minibatch", "skip", "unequal", "variants"} {
		t.Run(name, func(t *testing.T) {
			oneThread(t)
			o := o
			o.Case = name
			checks, err := PPO(context.Background(), dir, o)
			if err != nil {
				t.Fatal(err)
			}
			judge(t, o, checks, 130)
		})
	}
}

func judge(t *testing.T, o Options, checks []Check, atLeast int) {
	t.Helper()
	moved := 0
	for _, c := range checks {
		if !c.Pass {
			t.Errorf("%+v: %s %s differs by %.2e, tolerance %.1e", o, c.Case, c.Array, c.MaxDiff, c.Tolerance)
		}
		if c.MaxDiff > 0 {
			moved++
		}
	}
	// Two programs never agree on every bit: no difference at all would mean that
	// nothing was compared.
	if len(checks) < atLeast || moved < len(checks)/2 {
		t.Errorf("%+v: %d arrays compared, %d of them differ at all", o, len(checks), moved)
	}
}

func TestGPT2IsPyTorchs(t *testing.T) {
	dir := folder(t, "gpt2")
	for _, o := range variants {
		checks, err := GPT2(dir, o)
		if err != nil {
			t.Fatal(err)
		}
		judge(t, o, checks, 120)
	}
}

func TestPPOIsTRLs(t *testing.T) {
	dir := folder(t, "ppo")
	for _, o := range variants {
		checks, err := PPO(context.Background(), dir, o)
		if err != nil {
			t.Fatal(err)
		}
		cases := map[string]bool{}
		for _, c := range checks {
			cases[c.Case] = true
		}
		if len(cases) != 8 {
			t.Errorf("cases %v, eight are recorded", cases)
		}
		judge(t, o, checks, 1500)
	}
}

// copied is a copy of a trace that a test may damage.
func copied(t *testing.T, name string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(folder(t, name))); err != nil {
		t.Fatal(err)
	}
	return dir
}

// rewrite passes every member of an archive through edit; nil drops it.
func rewrite(t *testing.T, path string, edit func(name string, text []byte) []byte) {
	t.Helper()
	z, err := zip.OpenReader(path)
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	var out bytes.Buffer
	w := zip.NewWriter(&out)
	for _, m := range z.File {
		r, err := m.Open()
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if text = edit(strings.TrimSuffix(m.Name, ".npy"), text); text == nil {
			continue
		}
		to, err := w.Create(m.Name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := to.Write(text); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, out.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}

func only(name string, edit func([]byte) []byte) func(string, []byte) []byte {
	return func(n string, text []byte) []byte {
		if n == name {
			return edit(text)
		}
		return text
	}
}

// A wrong number fails its check; it is not an error of the folder.
func TestAChangedNumberIsSeen(t *testing.T) {
	dir := copied(t, "ppo")
	rewrite(t, filepath.Join(dir, "equal.npz"), only("s0.advantages", func(text []byte) []byte {
		at := len(text) - 4*4 // the array is stored columns first: its last column
		for i := at; i < len(text); i += 4 {
			x := math.Float32frombits(binary.LittleEndian.Uint32(text[i:]))
			binary.LittleEndian.PutUint32(text[i:], math.Float32bits(x+1e-3))
		}
		return text
	}))
	checks, err := PPO(context.Background(), dir, Options{Backend: "ref", Threads: 1, Case: "equal"})
	if err != nil {
		t.Fatal(err)
	}
	var failed []string
	for _, c := range checks {
		if !c.Pass {
			failed = append(failed, c.Array)
		}
	}
	if len(failed) != 1 || failed[0] != "s0.advantages" {
		t.Errorf("failed: %v; only s0.advantages was changed", failed)
	}
}

func TestDamagedFolders(t *testing.T) {
	for _, c := range []struct {
		name, says string
		damage     func(dir string) error
	}{
		{"a missing array", "array s0.rewards is missing", func(dir string) error {
			rewrite(t, filepath.Join(dir, "equal.npz"), only("s0.rewards", func([]byte) []byte { return nil }))
			return nil
		}},
		{"a wrong shape", "array s0.scores has shape [2 2]; [4] is needed", func(dir string) error {
			rewrite(t, filepath.Join(dir, "equal.npz"), only("s0.scores", func(text []byte) []byte {
				return bytes.Replace(text, []byte("(4,), } "), []byte("(2,2), }"), 1)
			}))
			return nil
		}},
		{"a NaN", "array s0.values: entry 0 is NaN", func(dir string) error {
			rewrite(t, filepath.Join(dir, "equal.npz"), only("s0.values", func(text []byte) []byte {
				binary.LittleEndian.PutUint32(text[10+int(binary.LittleEndian.Uint16(text[8:])):], math.Float32bits(float32(math.NaN())))
				return text
			}))
			return nil
		}},
		{"a token outside the vocabulary", "array s0.queries: entry 0 is 9999", func(dir string) error {
			rewrite(t, filepath.Join(dir, "equal.npz"), only("s0.queries", func(text []byte) []byte {
				binary.LittleEndian.PutUint32(text[10+int(binary.LittleEndian.Uint16(text[8:])):], 9999)
				return text
			}))
			return nil
		}},
		{"no archive", "equal.npz", func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "equal.npz"), []byte("PK"), 0o644)
		}},
		{"a header longer than the file", "the header claims 9223372036854775807 bytes", func(dir string) error {
			return lie(dir, func(raw []byte) { binary.LittleEndian.PutUint64(raw, math.MaxInt64) })
		}},
		{"offsets beyond the file", "does not fit the bytes", func(dir string) error {
			return lie(dir, func(raw []byte) { copy(raw[bytes.Index(raw, []byte(`"data_offsets":[0,`)):], `"data_offsets":[9,`) })
		}},
		{"settings that are no JSON", "equal.json", func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "equal.json"), []byte("{"), 0o644)
		}},
		{"weights that are not there", "policy.safetensors", func(dir string) error { return os.Remove(filepath.Join(dir, "policy.safetensors")) }},
	} {
		dir := copied(t, "ppo")
		if err := c.damage(dir); err != nil {
			t.Fatal(err)
		}
		_, err := PPO(context.Background(), dir, Options{Backend: "ref", Threads: 1, Case: "equal"})
		if fault.Code(err) != int(fault.Damaged) || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v; want one line with %q", c.name, err, c.says)
		}
	}
	if _, err := GPT2(t.TempDir(), Options{Backend: "ref", Threads: 1}); fault.Code(err) != int(fault.Damaged) {
		t.Errorf("an empty folder gave %v", err)
	}
}

func TestATargetNeedsATokenBeforeIt(t *testing.T) {
	dir := copied(t, "gpt2")
	rewrite(t, filepath.Join(dir, "data.npz"), only("left.labels", func(text []byte) []byte {
		const row1, firstReal, columns = 1, 7, 24
		at := 10 + int(binary.LittleEndian.Uint16(text[8:])) + 4*(row1*columns+firstReal)
		binary.LittleEndian.PutUint32(text[at:], 3)
		return text
	}))
	if _, err := GPT2(dir, Options{Backend: "ref", Threads: 1}); fault.Code(err) != int(fault.Damaged) || !strings.Contains(err.Error(), "left.labels: row 1 scores column 7") {
		t.Errorf("%v", err)
	}
}

func lie(dir string, edit func(raw []byte)) error {
	path := filepath.Join(dir, "policy.safetensors")
	raw, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	edit(raw)
	return os.WriteFile(path, raw, 0o644)
}

func npy(shape string, data int) []byte {
	head := fmt.Sprintf("{'descr': '<f4', 'fortran_order': False, 'shape': (%s), }\n", shape)
	raw := binary.LittleEndian.AppendUint16([]byte("\x93NUMPY\x01\x00"), uint16(len(head)))
	return append(append(raw, head...), make([]byte, data)...)
}

// The reader never panics and never keeps more numbers than the file has bytes.
func FuzzNPY(f *testing.F) {
	f.Add(npy("2, 3,", 24))
	f.Add(npy("9223372036854775807, 9223372036854775807", 8))
	f.Add(npy("", 4))
	f.Add(npy("-1,", 0))
	f.Fuzz(func(t *testing.T, raw []byte) {
		a, err := parseNPY(raw)
		if err == nil && len(a.X) > len(raw) {
			t.Errorf("%d numbers from %d bytes", len(a.X), len(raw))
		}
	})
}

func TestChecksAreJSON(t *testing.T) {
	c := checks{name: "case"}
	c.add("array", math.NaN(), 1)
	text, err := json.Marshal(c.all)
	if err != nil || c.all[0].Pass {
		t.Errorf("%s, %v: a NaN must fail and be told", text, err)
	}
}
