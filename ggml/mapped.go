package ggml

import (
	"errors"
	"os"
	"runtime/debug"

	"golang.org/x/sys/unix"

	"onceupon/trainer/fault"
)

// mapFile maps a file for reading; kind names the format in messages. A file
// of no bytes, or one that has no size (a folder, a pipe), is refused.
func mapFile(path, kind string) ([]byte, error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fault.New(fault.Capability, "%s: no such file: give the path of a %s file", path, kind)
	}
	if err != nil {
		return nil, fault.New(fault.Capability, "%w: it must be readable", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	switch {
	case info.IsDir():
		return nil, fault.New(fault.Damaged, "%s: is a folder, not a %s file", path, kind)
	case info.Size() == 0 || int64(int(info.Size())) != info.Size():
		return nil, fault.New(fault.Damaged, "%s: is not a %s file (it has %d bytes): give another", path, kind, info.Size())
	}
	mapped, err := unix.Mmap(int(f.Fd()), 0, int(info.Size()), unix.PROT_READ, unix.MAP_PRIVATE)
	if err != nil {
		return nil, fault.New(fault.Failed, "%s: cannot be mapped: %w", path, err)
	}
	return mapped, nil
}

// reading runs read, which looks into mapped memory, and returns its error. A
// file that another process cuts meanwhile faults there; that becomes an error.
func reading(path string, read func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		switch r := recover().(type) {
		case nil:
		case interface{ Addr() uintptr }: // runtime's error of a fault
			err = fault.New(fault.Damaged, "%s: became shorter while it was read: write it again", path)
		default:
			panic(r)
		}
	}()
	return read()
}
