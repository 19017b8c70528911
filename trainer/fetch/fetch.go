// Package fetch owns the download of large files: it goes on with what is
// there, believes no length and no server, and gives a file its name only when
// its hash is right.
//
// While it is fetched, FILE is FILE.part; FILE.part.json says which version of
// which address the part is of (the server's ETag), so that the halves of two
// versions are never joined.
package fetch

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"golang.org/x/sys/unix"

	"onceupon/trainer/fault"
)

// Options of File.
type Options struct {
	URL    string
	To     string // the file to make
	SHA256 string // 64 hexadecimal digits; "" takes the one that the hub states
	Bytes  int64  // the size that is expected, 0 = unknown
	Begins string // what the file must begin with
	// Check looks at the whole file before it gets its name.
	Check func(path string) error
	// Progress and Say tell the person at the terminal; nil is silent.
	Progress func(done, total int64)
	Say      func(format string, args ...any)

	Client *http.Client
	// Attempts without a byte of progress before it gives up, and the first
	// pause between them, which doubles up to a minute; 0 = 6 and a second.
	Attempts int
	Pause    time.Duration
	// Stall is how long a connection may be silent; 0 = a minute.
	Stall time.Duration
}

// Result is what File did.
type Result struct {
	Path        string `json:"path"`
	Bytes       int64  `json:"bytes"`
	SHA256      string `json:"sha256"`
	Fetched     int64  `json:"fetched_bytes"` // in this call
	ResumedFrom int64  `json:"resumed_from"`
	Connections int    `json:"connections"`
	HashFrom    string `json:"sha256_from"` // "given" or "hub"
}

// reserve is left free on the disk.
const reserve = 256 << 20

var hexHash = regexp.MustCompile(`^[0-9a-f]{64}$`)

// IsHash says whether text is a sha256 as File wants it.
func IsHash(text string) bool { return hexHash.MatchString(text) }

// transfer is one call of File.
type transfer struct {
	Options
	part  *os.File
	note  note
	have  int64 // bytes in part, all of them hashed
	sum   hash.Hash
	total int64 // 0 = unknown
	// furthest is the greatest have of this call: only bytes beyond it are
	// progress, or a server that promises more than it has would be asked for
	// ever.
	furthest int64
	answered bool // by the server, in this call
	result   Result
}

// File fetches o.URL to o.To. Errors are one line; the part stays for the next
// call, unless it can be of no use.
func File(ctx context.Context, o Options) (Result, error) {
	if o.SHA256 != "" && !IsHash(o.SHA256) {
		return Result{}, fault.New(fault.Usage, "--sha256 %q must be 64 hexadecimal digits in lower case", o.SHA256)
	}
	if o.Attempts == 0 {
		o.Attempts = 6
	}
	if o.Pause == 0 {
		o.Pause = time.Second
	}
	if o.Stall == 0 {
		o.Stall = time.Minute
	}
	if o.Say == nil {
		o.Say = func(string, ...any) {}
	}
	if o.Progress == nil {
		o.Progress = func(int64, int64) {}
	}
	if o.Client == nil {
		o.Client = &http.Client{}
	}
	t := &transfer{Options: o, total: o.Bytes}
	t.result = Result{Path: o.To, HashFrom: "given"}
	if err := t.open(ctx); err != nil {
		if t.part != nil {
			t.part.Close()
		}
		return t.result, err
	}
	defer t.part.Close()
	t.result.ResumedFrom = t.have
	t.furthest = t.have
	if err := t.all(ctx); err != nil {
		if ctx.Err() != nil {
			return t.result, fault.New(fault.Interrupted, "interrupted: %d bytes are kept in %s.part, the same command goes on", t.have, o.To)
		}
		return t.result, err
	}
	return t.result, t.finish()
}

// open locks the part and hashes what is in it.
func (t *transfer) open(ctx context.Context) error {
	if err := os.MkdirAll(filepath.Dir(t.To), 0o755); err != nil {
		return fault.Wrap(fault.Capability, err)
	}
	var err error
	if t.part, err = os.OpenFile(t.To+".part", os.O_RDWR|os.O_CREATE, 0o644); err != nil {
		return fault.Wrap(fault.Capability, err)
	}
	if err := unix.Flock(int(t.part.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return fault.New(fault.Failed, "%s.part: another process is fetching this file; wait for it", t.To)
	}
	t.note = readNote(t.To)
	if t.note.URL != t.URL {
		// Another address may serve another file: begin anew.
		t.note = note{URL: t.URL}
		return t.restart()
	}
	return t.rehash(ctx)
}

// restart forgets the part.
func (t *transfer) restart() error {
	t.have, t.sum = 0, sha256.New()
	if err := t.part.Truncate(0); err != nil {
		return fault.Wrap(fault.Capability, err)
	}
	_, err := t.part.Seek(0, io.SeekStart)
	return err
}

// rehash reads the part; the file's position is then its end.
func (t *transfer) rehash(ctx context.Context) error {
	t.sum = sha256.New()
	if _, err := t.part.Seek(0, io.SeekStart); err != nil {
		return err
	}
	info, err := t.part.Stat()
	if err != nil {
		return err
	}
	if info.Size() > 0 {
		t.Say("going on from %d bytes in %s.part", info.Size(), t.To)
	}
	t.have, err = io.Copy(t.sum, contextReader{ctx, t.part})
	return err
}

type contextReader struct {
	context.Context
	r io.Reader
}

func (c contextReader) Read(b []byte) (int, error) {
	if err := c.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(b)
}

// all connects until the file is whole and its hash right.
func (t *transfer) all(ctx context.Context) error {
	failures, pause := 0, t.Pause
	for {
		t.result.Connections++
		err := t.connect(ctx)
		if err == nil {
			return nil
		}
		var f final
		if errors.As(err, &f) || ctx.Err() != nil {
			return err
		}
		var u *url.Error
		if errors.As(err, &u) { // whose address was said
			err = u.Err
		}
		if t.have > t.furthest {
			t.furthest = t.have
			failures, pause = 0, t.Pause
		} else if failures++; failures >= t.Attempts {
			return t.givenUp(failures, err)
		}
		t.Say("%v; again in %s from byte %d", err, pause, t.have)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
		pause = min(2*pause, time.Minute)
	}
}

// ErrUnreachable says that no attempt had an answer.
var ErrUnreachable = errors.New("cannot be reached")

func (t *transfer) givenUp(attempts int, last error) error {
	kept := ""
	if t.have > 0 {
		kept = fmt.Sprintf("; %d bytes are kept in %s.part, the same command goes on", t.have, t.To)
	} else { // an empty part is of no use
		os.Remove(t.To + ".part")
		os.Remove(t.To + ".part.json")
	}
	if !t.answered {
		return fault.New(fault.Failed, "%s %w in %d attempts, the last: %w%s", t.URL, ErrUnreachable, attempts, last, kept)
	}
	return fault.New(fault.Failed, "%s: %d attempts without progress, the last: %w%s", t.URL, attempts, last, kept)
}

// final is an error that another attempt cannot mend.
type final struct{ error }

func (f final) Unwrap() error { return f.error }

func refuse(kind fault.Kind, format string, args ...any) error {
	return final{fault.New(kind, format, args...)}
}

// room checks the free space of the folder.
func (t *transfer) room() error {
	var fs unix.Statfs_t
	if err := unix.Statfs(filepath.Dir(t.To), &fs); err != nil || t.total == 0 {
		return nil // told by the write, then
	}
	free := int64(fs.Bavail) * fs.Bsize
	if need := t.total - t.have + reserve; need > free {
		return refuse(fault.Capability, "%s: %.2f GiB are needed, %.2f GiB are free: make room or give another --to", filepath.Dir(t.To), gib(need), gib(free))
	}
	return nil
}

// finish checks hash and contents, and gives the file its name.
func (t *transfer) finish() error {
	if err := t.part.Sync(); err != nil {
		return fault.Wrap(fault.Capability, err)
	}
	if t.Check != nil {
		if err := t.Check(t.To + ".part"); err != nil {
			return err
		}
	}
	if err := os.Rename(t.To+".part", t.To); err != nil {
		return fault.Wrap(fault.Capability, err)
	}
	os.Remove(t.To + ".part.json")
	t.result.Bytes, t.result.SHA256 = t.have, hex.EncodeToString(t.sum.Sum(nil))
	return nil
}

// Hash is the sha256 of a file, with progress.
func Hash(ctx context.Context, path string, progress func(done, total int64)) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	sum, done := sha256.New(), int64(0)
	for {
		n, err := io.CopyN(sum, contextReader{ctx, f}, 1<<24)
		if done += n; progress != nil {
			progress(done, info.Size())
		}
		if err == io.EOF {
			return hex.EncodeToString(sum.Sum(nil)), nil
		}
		if err != nil {
			return "", fmt.Errorf("%s: %w", path, err)
		}
	}
}

func gib(n int64) float64 { return float64(n) / (1 << 30) }
