package runfolder

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"onceupon/trainer/config"
	"onceupon/trainer/fault"
	"onceupon/trainer/xtest"
)

// open opens a folder that also holds a checkpoint, so that it is a run's.
func open(t *testing.T, path string, c config.Config) *Folder {
	t.Helper()
	f, err := Open(path, c)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(f.Checkpoints(), "latest"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Close)
	return f
}

func TestLogsAreCutBack(t *testing.T) {
	path := filepath.Join(t.TempDir(), "run")
	f := open(t, path, config.Default())
	write := func(name string) {
		t.Helper()
		if err := f.Log(map[string]string{"event": name}); err != nil {
			t.Fatal(err)
		}
		if err := f.Stories([]any{map[string]string{"text": name + " 1"}, map[string]string{"text": name + " 2"}}); err != nil {
			t.Fatal(err)
		}
	}
	write("kept")
	at, err := f.Offsets()
	if err != nil {
		t.Fatal(err)
	}
	write("lost in a crash")
	f.Close()

	f = open(t, path, config.Default())
	if err := f.CutBack(at); err != nil {
		t.Fatal(err)
	}
	write("again")
	log, err := os.ReadFile(filepath.Join(path, "log.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	if string(log) != "{\"event\":\"kept\"}\n{\"event\":\"again\"}\n" {
		t.Errorf("log: %s", log)
	}
	text := xtest.ReadZstd(t, filepath.Join(path, "stories.jsonl.zst"))
	var told []string
	for line := range strings.Lines(string(text)) {
		var r struct{ Text string }
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatal(err)
		}
		told = append(told, r.Text)
	}
	if got := strings.Join(told, ", "); got != "kept 1, kept 2, again 1, again 2" {
		t.Errorf("stories: %s", got)
	}
	if err := f.CutBack(Offsets{Log: 1 << 20}); fault.Code(err) != int(fault.Damaged) {
		t.Errorf("a log shorter than the checkpoint says gave %v", err)
	}
}

func TestOneProcessAtATime(t *testing.T) {
	path := t.TempDir()
	open(t, path, config.Default())
	if _, err := Open(path, config.Default()); err == nil || !strings.Contains(err.Error(), "is in use by process") {
		t.Errorf("a locked folder gave %v", err)
	}
}

func TestAnotherConfiguration(t *testing.T) {
	path := t.TempDir()
	open(t, path, config.Default()).Close()
	c := config.Default()
	c.PPO.LR = 1e-3
	if _, err := Open(path, c); fault.Code(err) != int(fault.Usage) || !strings.Contains(err.Error(), "lr") {
		t.Errorf("another configuration gave %v", err)
	}
	if err := os.WriteFile(filepath.Join(path, "config.toml"), []byte("[ppo]\nlearning = 1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path, c); fault.Code(err) != int(fault.Damaged) {
		t.Errorf("a damaged configuration gave %v", err)
	}
}

// A full disk: what is said to be there is there.
func TestFullSaysWhatIsLeft(t *testing.T) {
	f, err := Open(t.TempDir(), config.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, step := range []struct{ folder, want string }{
		{".latest.7.part", "there is no checkpoint yet"},
		{"pretrained", "there is no checkpoint yet"}, // no optimizer in it
		{"latest", "the last checkpoint is intact"},
	} {
		folder := filepath.Join(f.Checkpoints(), step.folder)
		if err := os.Mkdir(folder, 0o755); err != nil {
			t.Fatal(err)
		}
		if step.folder != "pretrained" {
			if err := os.WriteFile(filepath.Join(folder, "optimizer.gguf"), nil, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if err := f.Full(syscall.ENOSPC, "x"); !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), step.want) {
			t.Errorf("with %s: %v, want %q", step.folder, err, step.want)
		}
	}
}

// A folder that never got to a checkpoint takes another configuration.
func TestBeginAgain(t *testing.T) {
	path := t.TempDir()
	f, err := Open(path, config.Default())
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	c := config.Default()
	c.Corpus.Path = "right.txt"
	f, err = Open(path, c)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
}
