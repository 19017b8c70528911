// Package runfolder owns the folder of a run: its lock, its configuration and
// its two logs, which are cut back to the checkpoint on resume.
package runfolder

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"onceupon/trainer/config"
	"onceupon/trainer/fault"
)

// Folder is an open, locked run folder.
type Folder struct {
	Path string

	lock    *os.File
	log     *os.File
	stories *os.File
	encoder *zstd.Encoder
}

// Offsets are the lengths of the logs, in bytes, as a checkpoint keeps them.
type Offsets struct {
	Log     int64 `json:"log"`
	Stories int64 `json:"stories"`
}

// Open locks a folder, makes it if need be, and compares its configuration
// with c: another one is fault.Usage naming the first key that differs.
func Open(path string, c config.Config) (*Folder, error) {
	f := &Folder{Path: path}
	if err := os.MkdirAll(filepath.Join(path, "checkpoints"), 0o755); err != nil {
		return nil, fmt.Errorf("run folder: %w: choose another --run", err)
	}
	if err := f.acquire(); err != nil {
		return nil, err
	}
	if err := f.configure(c); err != nil {
		f.Close()
		return nil, err
	}
	var err error
	if f.encoder, err = zstd.NewWriter(nil); err == nil {
		if f.log, err = f.open("log.jsonl"); err == nil {
			f.stories, err = f.open("stories.jsonl.zst")
		}
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("run folder: %w", err)
	}
	return f, nil
}

func (f *Folder) open(name string) (*os.File, error) {
	return os.OpenFile(filepath.Join(f.Path, name), os.O_CREATE|os.O_RDWR, 0o644)
}

// acquire takes the lock, which the kernel frees when the process ends, however
// it ends.
func (f *Folder) acquire() error {
	lock, err := f.open("lock")
	if err != nil {
		return fmt.Errorf("run folder: %w: choose another --run", err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		defer lock.Close()
		return fmt.Errorf("%w: wait for it or choose another --run", inUse(f.Path, lock))
	}
	f.lock = lock
	if err := lock.Truncate(0); err != nil {
		return err
	}
	_, err = lock.WriteAt(fmt.Appendf(nil, "%d\n", os.Getpid()), 0)
	return err
}

func inUse(path string, lock *os.File) error {
	holder, _ := io.ReadAll(io.LimitReader(lock, 32))
	return fmt.Errorf("run folder %s is in use by process %s", path, strings.TrimSpace(string(holder)))
}

// Idle is an error naming the process that works in a folder, if one does. It
// writes nothing, so a folder that may only be read can be asked.
func Idle(path string) error {
	lock, err := os.Open(filepath.Join(path, "lock"))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_SH|unix.LOCK_NB); err != nil {
		return inUse(path, lock)
	}
	return nil
}

func (f *Folder) configure(c config.Config) error {
	path := filepath.Join(f.Path, "config.toml")
	stored, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) && f.resumable() {
		return fault.New(fault.Damaged, "%w, and this run was begun with what it says: restore it or choose another --run", err)
	}
	if errors.Is(err, os.ErrNotExist) {
		return f.Full(writeWhole(path, c.Text()), "config.toml")
	}
	if err != nil {
		return fmt.Errorf("run folder: %w: choose another --run", err)
	}
	if bytes.Equal(stored, c.Text()) {
		return nil
	}
	if checkpoints, err := os.ReadDir(f.Checkpoints()); err == nil && len(checkpoints) == 0 {
		// Stopped before the first checkpoint, by a wrong setting perhaps: there is
		// nothing to go on with.
		if err := os.Remove(filepath.Join(f.Path, "tokenizer.json")); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		return f.Full(writeWhole(path, c.Text()), "config.toml")
	}
	other, err := config.Parse(path, stored)
	if err != nil {
		return fault.New(fault.Damaged, "%s: %w", path, err)
	}
	return fault.New(fault.Usage, "run folder %s was begun with another configuration: %s: give the same settings or another --run", f.Path, config.Difference(other, c))
}

// writeWhole writes a file beside and renames it.
func writeWhole(path string, text []byte) error {
	if err := os.WriteFile(path+".part", text, 0o644); err != nil {
		return err
	}
	return os.Rename(path+".part", path)
}

// WriteFile writes a whole file into the folder.
func (f *Folder) WriteFile(name string, text []byte) error {
	return f.Full(writeWhole(filepath.Join(f.Path, name), text), name)
}

// Checkpoints is the folder of the checkpoints.
func (f *Folder) Checkpoints() string { return filepath.Join(f.Path, "checkpoints") }

// Full says so when the error of writing what is that of a full disk, with the
// remedy and what is left of the run.
func (f *Folder) Full(err error, what string) error {
	if !errors.Is(err, syscall.ENOSPC) && !errors.Is(err, syscall.EDQUOT) {
		return err
	}
	left := "the last checkpoint is intact"
	if !f.resumable() {
		left = "there is no checkpoint yet"
	}
	return fmt.Errorf("disk full while writing %s: %s; free some space and run the same command again: %w", what, left, err)
}

// resumable says whether there is a checkpoint that a run goes on from.
func (f *Folder) resumable() bool {
	entries, _ := os.ReadDir(f.Checkpoints())
	return slices.ContainsFunc(entries, func(e os.DirEntry) bool {
		_, err := os.Stat(filepath.Join(f.Checkpoints(), e.Name(), "optimizer.gguf"))
		return err == nil && !strings.HasPrefix(e.Name(), ".")
	})
}

// Log appends one event as a line of JSON.
func (f *Folder) Log(event any) error {
	line, err := json.Marshal(event)
	if err != nil {
		return err
	}
	_, err = f.log.Write(append(line, '\n'))
	return f.Full(err, "log.jsonl")
}

// Stories appends records as one zstd frame of JSON lines, so that any zstd
// tool reads the file and it can be cut between frames.
func (f *Folder) Stories(records []any) error {
	var lines bytes.Buffer
	for _, r := range records {
		line, err := json.Marshal(r)
		if err != nil {
			return err
		}
		lines.Write(append(line, '\n'))
	}
	_, err := f.stories.Write(f.encoder.EncodeAll(lines.Bytes(), nil))
	return f.Full(err, "stories.jsonl.zst")
}

// Offsets syncs the logs and returns their lengths.
func (f *Folder) Offsets() (o Offsets, err error) {
	for file, to := range map[*os.File]*int64{f.log: &o.Log, f.stories: &o.Stories} {
		if err := file.Sync(); err != nil {
			return o, f.Full(err, file.Name())
		}
		if *to, err = file.Seek(0, io.SeekEnd); err != nil {
			return o, err
		}
	}
	return o, nil
}

// CutBack removes from the logs what came after a checkpoint.
func (f *Folder) CutBack(o Offsets) error {
	for file, length := range map[*os.File]int64{f.log: o.Log, f.stories: o.Stories} {
		info, err := file.Stat()
		if err != nil {
			return err
		}
		if info.Size() < length {
			return fault.New(fault.Damaged, "%s has %d bytes; the checkpoint was written at %d: the log was cut", file.Name(), info.Size(), length)
		}
		if info.Size() > length {
			if err := file.Truncate(length); err != nil {
				return err
			}
		}
		if _, err := file.Seek(length, io.SeekStart); err != nil {
			return err
		}
	}
	return nil
}

// Close frees the lock.
func (f *Folder) Close() {
	for _, file := range []*os.File{f.log, f.stories, f.lock} {
		if file != nil {
			file.Close()
		}
	}
}
