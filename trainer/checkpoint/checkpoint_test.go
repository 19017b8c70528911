package checkpoint

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"syscall"
	"testing"

	"onceupon/bindings/student"
	"onceupon/ggml"
	"onceupon/trainer/fault"
)

func newModel(t *testing.T, seed uint64) *student.Model {
	t.Helper()
	m, err := student.New(student.Config{Layers: 1, Heads: 2, Width: 8, Context: 16, Vocab: 12, LayerNormEpsilon: 1e-5},
		student.Options{Backend: "ref", Threads: 1, MaxTokens: 16, MaxStories: 2, Train: true, ValueHead: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	r := rand.New(rand.NewPCG(seed, 0))
	for i, p := range m.Parameters() {
		for _, a := range []student.Array{student.Weights, student.Moment1, student.Moment2} {
			x := make([]float32, p.Count())
			for k := range x {
				x[k] = r.Float32()
			}
			if err := m.Write(a, i, x); err != nil {
				t.Fatal(err)
			}
		}
	}
	return m
}

func vocabulary() ggml.Vocabulary {
	v := ggml.Vocabulary{Specials: []string{"</s>"}, End: 0}
	v.Tokens = append(v.Tokens, "</s>")
	for i := 1; i < 12; i++ {
		v.Tokens = append(v.Tokens, string(rune('a'+i)))
	}
	return v
}

type counters struct{ Batch int }

func save(t *testing.T, dir, name string, m *student.Model, counter int64) {
	t.Helper()
	if _, err := Save(dir, name, Contents{Model: m, Vocabulary: vocabulary(), Counter: counter, State: counters{int(counter)}}); err != nil {
		t.Fatal(err)
	}
}

func TestRoundTripKeepsEveryBit(t *testing.T) {
	dir := t.TempDir()
	a, b := newModel(t, 1), newModel(t, 2)
	save(t, dir, "latest", a, 7)
	name, h, err := Latest(dir)
	if err != nil || name != "latest" || h.Counter != 7 {
		t.Fatalf("%s %+v %v", name, h, err)
	}
	var state counters
	if _, err := Load(dir, name, b, &state); err != nil || state.Batch != 7 {
		t.Fatalf("%+v, %v", state, err)
	}
	for i, p := range a.Parameters() {
		for _, array := range []student.Array{student.Weights, student.Moment1, student.Moment2} {
			x, y := make([]float32, p.Count()), make([]float32, p.Count())
			if err := errors.Join(a.Read(array, i, x), b.Read(array, i, y)); err != nil {
				t.Fatal(err)
			}
			for k := range x {
				if math.Float32bits(x[k]) != math.Float32bits(y[k]) {
					t.Fatalf("%s, array %d, %d: %v and %v", p.Name, array, k, x[k], y[k])
				}
			}
		}
	}
	ha, _ := WeightsHash(a)
	hb, _ := WeightsHash(b)
	if ha != hb || ha != h.WeightsSHA256 {
		t.Errorf("hashes %s %s %s", ha, hb, h.WeightsSHA256)
	}
}

// A crash may come between any two steps of Save: what it leaves behind is
// made by hand here.
func TestCrashLeftovers(t *testing.T) {
	m := newModel(t, 1)
	for _, c := range []struct {
		name  string
		leave func(dir string) error
		want  int64
	}{
		{"a part", func(dir string) error { return os.MkdirAll(filepath.Join(dir, ".latest.1.part"), 0o755) }, 2},
		{"between the renames", func(dir string) error {
			return os.Rename(filepath.Join(dir, "latest"), filepath.Join(dir, "latest.old"))
		}, 2},
		{"the old one not yet removed", func(dir string) error {
			return os.CopyFS(filepath.Join(dir, "latest.old"), os.DirFS(filepath.Join(dir, "latest")))
		}, 2},
		{"a damaged one beside a good one", func(dir string) error {
			return os.Truncate(filepath.Join(dir, "latest", "optimizer.gguf"), 100)
		}, 1},
	} {
		dir := t.TempDir()
		save(t, dir, "earlier", m, 1)
		save(t, dir, "latest", m, 2)
		if err := c.leave(dir); err != nil {
			t.Fatal(err)
		}
		_, h, err := Latest(dir)
		if err != nil || h.Counter != c.want {
			t.Errorf("%s: counter %d, %v; want %d", c.name, h.Counter, err, c.want)
		}
		left, err := filepath.Glob(filepath.Join(dir, "*.old"))
		if parts, _ := filepath.Glob(filepath.Join(dir, ".*.part")); err != nil || len(left)+len(parts) > 0 {
			t.Errorf("%s: left %v %v", c.name, left, parts)
		}
	}
}

func TestOnlyDamagedOnes(t *testing.T) {
	dir := t.TempDir()
	save(t, dir, "latest", newModel(t, 1), 1)
	state := filepath.Join(dir, "latest", "state.json")
	for _, text := range []string{"", "{", `{"version": "one"}`} {
		if err := os.WriteFile(state, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, _, err := Latest(dir); fault.Code(err) != int(fault.Damaged) {
			t.Errorf("state.json %q gave %v", text, err)
		}
	}
}

func TestNewerVersionIsRefused(t *testing.T) {
	dir := t.TempDir()
	save(t, dir, "latest", newModel(t, 1), 1)
	state := filepath.Join(dir, "latest", "state.json")
	if err := os.WriteFile(state, fmt.Appendf(nil, `{"version": %d}`, FormatVersion+1), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Latest(dir); fault.Code(err) != int(fault.Usage) {
		t.Errorf("a newer version gave %v", err)
	}
}

// TestFullDisk writes through a link to /dev/full, whose writes the kernel
// refuses for want of space.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	m := newModel(t, 1)
	save(t, dir, "latest", m, 1)
	before, err := readHeader(filepath.Join(dir, "latest"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"student.gguf", "optimizer.gguf", "state.json"} {
		part := filepath.Join(dir, fmt.Sprintf(".latest.%d.part", os.Getpid()))
		if err := os.Mkdir(part, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink("/dev/full", filepath.Join(part, file)); err != nil {
			t.Fatal(err)
		}
		_, err := Save(dir, "latest", Contents{Model: m, Vocabulary: vocabulary(), Counter: 2, State: counters{2}})
		if !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("%s: %v, want ENOSPC", file, err)
		}
		after, err := readHeader(filepath.Join(dir, "latest"))
		if err != nil || !reflect.DeepEqual(before, after) {
			t.Errorf("%s: the last checkpoint is not what it was: %v", file, err)
		}
	}
}

func TestWrongShapeIsNamed(t *testing.T) {
	dir := t.TempDir()
	save(t, dir, "latest", newModel(t, 1), 1)
	other, err := student.New(student.Config{Layers: 1, Heads: 2, Width: 16, Context: 16, Vocab: 12, LayerNormEpsilon: 1e-5},
		student.Options{Backend: "ref", Threads: 1, MaxTokens: 16, MaxStories: 2})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := LoadWeights(filepath.Join(dir, "latest", "student.gguf"), other); fault.Code(err) != int(fault.Damaged) {
		t.Errorf("another width gave %v", err)
	}
}
