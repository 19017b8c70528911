package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestReadOnlyFolder gives a run folder that cannot be written to. Root may
// write anywhere, so under root the program runs as nobody.
func TestReadOnlyFolder(t *testing.T) {
	dir, err := os.MkdirTemp("", "onceupon-readonly")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	folder := filepath.Join(dir, "run")
	if err := errors.Join(os.Chmod(dir, 0o755), os.Mkdir(folder, 0o555), copyProgram(filepath.Join(dir, "onceupon"))); err != nil {
		t.Fatal(err)
	}
	c := exec.Command(filepath.Join(dir, "onceupon"), "pretrain", "--run", folder)
	c.Dir, c.Env = dir, []string{"PATH=/usr/bin:/bin"}
	if os.Geteuid() == 0 {
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
	var said bytes.Buffer
	c.Stderr = &said
	err = c.Run()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 {
		t.Fatalf("%v: %s", err, said.String())
	}
	if text := said.String(); !strings.Contains(text, "permission denied: choose another --run") || strings.Count(text, "\n") != 1 {
		t.Errorf("said %q", text)
	}
}

func copyProgram(to string) error {
	program, err := os.Executable()
	if err != nil {
		return err
	}
	from, err := os.Open(program)
	if err != nil {
		return err
	}
	defer from.Close()
	f, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, from)
	return errors.Join(err, f.Close())
}
