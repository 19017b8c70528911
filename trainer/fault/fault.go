// Package fault owns the kinds of failure that the command line turns into
// exit codes. An error keeps its kind through any number of fmt.Errorf("%w")
// wrappings; the outermost kind wins, since the caller knows best what the
// failure means for the person at the terminal.
package fault

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
)

// Kind is a documented exit code of the program.
type Kind int

// The exit codes of design section 9. 0 is success and has no kind.
const (
	Failed      Kind = 1   // any other failure
	Usage       Kind = 2   // wrong flag, argument or configuration value
	Capability  Kind = 3   // the machine lacks a file, library or device
	Numbers     Kind = 4   // NaN, or the guard on the KL tripped
	Teacher     Kind = 5   // ratings unreadable above the limit, or the probe failed
	Damaged     Kind = 6   // a file is not what its format promises
	Interrupted Kind = 130 // stopped by a signal, a checkpoint was written
)

type fault struct {
	kind Kind
	err  error
}

func (f *fault) Error() string { return f.err.Error() }
func (f *fault) Unwrap() error { return f.err }

// New returns an error of the given kind; format and args are those of
// fmt.Errorf, including %w.
func New(kind Kind, format string, args ...any) error {
	return &fault{kind, fmt.Errorf(format, args...)}
}

// Wrap gives err a kind. Wrap(kind, nil) is nil.
func Wrap(kind Kind, err error) error {
	if err == nil {
		return nil
	}
	return &fault{kind, err}
}

// Brief says in short what a decoder of text found. encoding/json's messages
// repeat what they read, which may be as long as the file, and name types of the
// program. What the error wraps is lost where it is said anew.
func Brief(err error) error {
	const most = 200
	if other, is := err.(*json.UnmarshalTypeError); is { // itself: a wrapping says more
		needed := "a number in range"
		switch other.Type.Kind() {
		case reflect.String:
			needed = "text"
		case reflect.Bool:
			needed = "true or false"
		case reflect.Struct, reflect.Map:
			needed = "an object"
		case reflect.Slice, reflect.Array:
			needed = "a list"
		}
		err = fmt.Errorf("must be %s, found %s", needed, other.Value)
		if other.Field != "" {
			err = fmt.Errorf("field %.80s %w", other.Field, err)
		}
	}
	if text := err.Error(); len(text) > most {
		return errors.New(strings.ToValidUTF8(text[:most], "") + "...")
	}
	return err
}

// Code returns the exit code for err: 0 for nil, the outermost kind if there
// is one, Interrupted for a cancelled context, Failed otherwise.
func Code(err error) int {
	if err == nil {
		return 0
	}
	var f *fault
	if errors.As(err, &f) {
		return int(f.kind)
	}
	if errors.Is(err, context.Canceled) {
		return int(Interrupted)
	}
	return int(Failed)
}
