package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"

	"onceupon/ggml"
	"onceupon/trainer/judge"
	"onceupon/trainer/synthetic"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"onceupon": main})
}

// TestScripts runs the command line's stories. They see the real libllama and
// the real teachers where `make fetch` put them; a story that needs one says
// so when it is absent.
func TestScripts(t *testing.T) {
	llama, noLlama := judge.FindLlama("", "")
	gemma, _, noGemma := judge.FindModel("gemma-270m")
	smol, _, noSmol := judge.FindModel("smollm2-135m")
	teacher := errors.Join(noLlama, noGemma, noSmol)
	golden, err := filepath.Abs("../../../shared/data/golden")
	if err != nil {
		t.Fatal(err)
	}
	_, noGolden := os.Stat(golden)
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(e *testscript.Env) error {
			data := os.Getenv("XDG_DATA_HOME")
			if data == "" {
				data = filepath.Join(os.Getenv("HOME"), ".local", "share")
			}
			e.Setenv("XDG_DATA_HOME", data)
			e.Setenv("DATA", data)
			e.Setenv("GOLDEN", golden)
			e.Setenv("LLAMA", llama)
			e.Setenv("GEMMA", gemma)
			e.Setenv("SMOLLM2", smol)
			e.Setenv("EMULATED", os.Getenv("ONCEUPON_CUDA_EMULATED"))
			for _, name := range []string{"LD_PRELOAD", "ASAN_OPTIONS", "TSAN_OPTIONS"} { // make test-emulation
				e.Setenv(name, os.Getenv(name))
			}
			return nil
		},
		Condition: func(name string) (bool, error) {
			switch name {
			case "teacher":
				return teacher == nil, nil
			case "emulated":
				return os.Getenv("ONCEUPON_CUDA_EMULATED") != "", nil
			case "golden":
				return noGolden == nil, nil
			}
			return false, errors.New("unknown condition " + name)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": exits, "cut": cut, "bytes": writeBytes, "gguf": writeGGUF, "teacher": writeTeacher, "retype": retype, "safetensors": writeSafetensors, "lock": lock, "replace": replace,
		},
	})
}

// exits CODE PROGRAM ARGS... runs a program that must end with this exit code;
// a failure must be told in exactly one line.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d\n%s", got, want, ts.ReadFile("stderr"))
	}
	if want != 0 {
		said := strings.TrimRight(ts.ReadFile("stderr"), "\n")
		last := said[strings.LastIndexByte(said, '\n')+1:]
		if !strings.HasPrefix(last, "onceupon: ") || strings.Count(said, "onceupon: ") != 1 {
			ts.Fatalf("the error is not one line:\n%s", said)
		}
	}
}

// cut SOURCE BYTES TARGET writes the first bytes of a file.
func cut(ts *testscript.TestScript, _ bool, args []string) {
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	text := ts.ReadFile(args[0])
	ts.Check(os.WriteFile(ts.MkAbs(args[2]), []byte(text[:n]), 0o644))
}

// bytes FILE TEXT writes a quoted Go string.
func writeBytes(ts *testscript.TestScript, _ bool, args []string) {
	text, err := strconv.Unquote(`"` + args[1] + `"`)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(text), 0o644))
}

// gguf FILE ARCHITECTURE writes a well-formed file that holds one tensor.
func writeGGUF(ts *testscript.TestScript, _ bool, args []string) {
	f, err := os.Create(ts.MkAbs(args[0]))
	ts.Check(err)
	ts.Check(ggml.WriteArrays(f, args[1], []ggml.Tensor{{Name: "x", Cols: 4, Read: func() ([]float32, error) { return make([]float32, 4), nil }}}))
	ts.Check(f.Close())
}

// teacher FILE CONTEXT writes a tiny teacher with random weights, the tokens of
// $SMOLLM2 and the chat template of Llama 3.1.
func writeTeacher(ts *testscript.TestScript, _ bool, args []string) {
	cells, err := strconv.Atoi(args[1])
	ts.Check(err)
	shape := synthetic.Shape{Name: "tiny", Layers: 1, Width: 64, Heads: 4, KVHeads: 2, FeedForward: 128, Vocabulary: 49_200, Context: cells, RopeBase: 1e4, Epsilon: 1e-5}
	ts.Check(synthetic.Write(context.Background(), ts.MkAbs(args[0]), shape, ggml.Q8_0, ts.Getenv("SMOLLM2"), 1))
}

// retype FILE TENSOR TYPE gives a matrix of a GGUF another type: the number
// behind its name, its 4 bytes of dimensions' count and 2 x 8 of dimensions.
func retype(ts *testscript.TestScript, _ bool, args []string) {
	raw := []byte(ts.ReadFile(args[0]))
	kind, err := strconv.Atoi(args[2])
	ts.Check(err)
	raw[bytes.Index(raw, []byte(args[1]))+len(args[1])+20] = byte(kind)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), raw, 0o644))
}

// safetensors FILE HEADER BYTES writes a header, as it is, and so many zeros.
func writeSafetensors(ts *testscript.TestScript, _ bool, args []string) {
	n, err := strconv.Atoi(args[2])
	ts.Check(err)
	raw := append(binary.LittleEndian.AppendUint64(nil, uint64(len(args[1]))), args[1]...)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), append(raw, make([]byte, n)...), 0o644))
}

// lock FOLDER holds a run folder's lock until the script ends, as another
// process would.
func lock(ts *testscript.TestScript, _ bool, args []string) {
	f, err := os.OpenFile(filepath.Join(ts.MkAbs(args[0]), "lock"), os.O_RDWR|os.O_CREATE, 0o644)
	ts.Check(err)
	ts.Check(unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB))
	ts.Defer(func() { f.Close() })
}

// replace FILE OLD NEW edits a file.
func replace(ts *testscript.TestScript, _ bool, args []string) {
	text := ts.ReadFile(args[0])
	if !strings.Contains(text, args[1]) {
		ts.Fatalf("%s has no %q", args[0], args[1])
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(strings.ReplaceAll(text, args[1], args[2])), 0o644))
}
