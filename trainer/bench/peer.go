package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"slices"
	"strings"

	"onceupon/trainer/fault"
)

// Command is a peer that is a program: it is called with the task, the name of
// the shape and the number of threads, and prints one JSON object
// {"seconds": S} with the least time of one op, or {"missing": WHY}; with
// peak_bytes where it knows them. The scripts of scripts/peers do so.
type Command struct {
	Name string
	Args []string
}

// ParseCommand reads NAME=PROGRAM ARGS..., or the name of one of builtIn, whose
// command has no arguments.
func ParseCommand(text string, builtIn []string) (Command, error) {
	if slices.Contains(builtIn, text) {
		return Command{Name: text}, nil
	}
	name, line, ok := strings.Cut(text, "=")
	args := strings.Fields(line)
	if !ok || name == "" || len(args) == 0 {
		return Command{}, fault.New(fault.Usage, "--peer %q: NAME=PROGRAM ARGS, such as torch=scripts/peers/torch_student; built in here: %q", text, builtIn)
	}
	return Command{name, args}, nil
}

// Run asks the peer for its time. A peer that cannot run has no figure, and
// says why; one that talks nonsense is an error.
func (p Command) Run(ctx context.Context, task, shape string, threads int) (Peer, error) {
	program := exec.CommandContext(ctx, p.Args[0], append(p.Args[1:len(p.Args):len(p.Args)], task, shape, fmt.Sprint(threads))...)
	var stderr bytes.Buffer
	program.Stderr = &stderr
	out, err := program.Output()
	if ctx.Err() != nil {
		return Peer{}, ctx.Err()
	}
	if err != nil {
		why := err.Error()
		if last := lastLine(stderr.Bytes()); len(last) > 0 {
			why += ": " + string(last)
		}
		return Peer{Name: p.Name, Missing: why}, nil
	}
	var answer struct {
		Seconds   float64 `json:"seconds"`
		PeakBytes int64   `json:"peak_bytes"`
		Missing   string  `json:"missing"`
	}
	if err := json.Unmarshal(lastLine(out), &answer); err != nil || (answer.Missing == "") == (answer.Seconds <= 0) {
		return Peer{}, fault.New(fault.Failed, "peer %s: its last line %q is not {\"seconds\": S} or {\"missing\": WHY}", p.Name, lastLine(out))
	}
	return Peer{Name: p.Name, NsPerOp: answer.Seconds * 1e9, PeakBytes: answer.PeakBytes, Missing: answer.Missing}, nil
}
