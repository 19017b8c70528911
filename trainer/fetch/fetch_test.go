package fetch

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"onceupon/trainer/fault"
)

// body is a file that begins as a GGUF does.
func body(n int) []byte {
	b := append([]byte("GGUF"), make([]byte, n-4)...)
	for i := 4; i < n; i++ {
		b[i] = byte(i * 2654435761 >> 7)
	}
	return b
}

func sum(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}

// file serves a body honestly.
func file(b []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", `"one"`)
		http.ServeContent(w, r, "f.gguf", time.Time{}, bytes.NewReader(b))
	}
}

// hang ends a connection in the middle of a body.
func hang(w http.ResponseWriter) {
	w.(http.Flusher).Flush()
	panic(http.ErrAbortHandler)
}

// breakFirst ends the first answer after 1,000 bytes; one that asks for the
// rest is left to the caller.
func breakFirst(w http.ResponseWriter, r *http.Request, b []byte) {
	if r.Header.Get("Range") == "" {
		w.Header().Set("Content-Length", strconv.Itoa(len(b)))
		w.Write(b[:1000])
		hang(w)
	}
}

func fetchFrom(t *testing.T, handler http.HandlerFunc, change func(*Options)) (Result, string, error) {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	o := Options{URL: server.URL + "/f.gguf", To: filepath.Join(t.TempDir(), "f.gguf"), Begins: "GGUF", Attempts: 3, Pause: time.Millisecond, Stall: 300 * time.Millisecond}
	if change != nil {
		change(&o)
	}
	r, err := File(context.Background(), o)
	if err != nil && strings.Contains(err.Error(), "\n") {
		t.Errorf("error of several lines: %v", err)
	}
	return r, o.To, err
}

func size(path string) int64 {
	info, err := os.Stat(path)
	if err != nil {
		return -1
	}
	return info.Size()
}

func TestWhole(t *testing.T) {
	b := body(3 << 20)
	var progress int64
	r, to, err := fetchFrom(t, file(b), func(o *Options) {
		o.SHA256, o.Bytes = sum(b), int64(len(b))
		o.Progress = func(done, total int64) { progress = done + total }
	})
	if err != nil || r.Bytes != int64(len(b)) || r.SHA256 != sum(b) || r.Connections != 1 || progress != 2*int64(len(b)) {
		t.Fatalf("%+v, %v, progress %d", r, err, progress)
	}
	got, _ := os.ReadFile(to)
	if !bytes.Equal(got, b) || size(to+".part") != -1 || size(to+".part.json") != -1 {
		t.Error("the file differs, or its part is still there")
	}
}

// A server that breaks every 300,000 bytes: each connection goes on where the
// last one ended.
func TestBreaksMidWay(t *testing.T) {
	b := body(1 << 20)
	var ranges []string
	r, to, err := fetchFrom(t, func(w http.ResponseWriter, r *http.Request) {
		ranges = append(ranges, r.Header.Get("Range"))
		from := 0
		if s := r.Header.Get("Range"); s != "" {
			from, _ = strconv.Atoi(strings.TrimSuffix(strings.TrimPrefix(s, "bytes="), "-"))
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(b)-1, len(b)))
		}
		w.Header().Set("ETag", `"one"`)
		w.Header().Set("Content-Length", strconv.Itoa(len(b)-from))
		if from > 0 {
			w.WriteHeader(http.StatusPartialContent)
		}
		end := min(from+300_000, len(b))
		w.Write(b[from:end])
		if end < len(b) {
			hang(w)
		}
	}, func(o *Options) { o.SHA256 = sum(b) })
	if err != nil || r.Connections != 4 || r.Fetched != int64(len(b)) {
		t.Fatalf("%+v, %v", r, err)
	}
	if want := []string{"", "bytes=300000-", "bytes=600000-", "bytes=900000-"}; fmt.Sprint(ranges) != fmt.Sprint(want) {
		t.Errorf("asked for %q", ranges)
	}
	if got, _ := os.ReadFile(to); !bytes.Equal(got, b) {
		t.Error("the file differs")
	}
}

// Nobody answers: that is said, and nothing is left behind. One who answers
// with a failure is there.
func TestUnreachable(t *testing.T) {
	gone := httptest.NewServer(nil)
	gone.Close()
	r, to, err := fetchFrom(t, nil, func(o *Options) { o.URL = gone.URL + "/f.gguf" })
	if fault.Code(err) != int(fault.Failed) || !errors.Is(err, ErrUnreachable) || r.Connections != 3 ||
		!strings.Contains(err.Error(), "/f.gguf cannot be reached in 3 attempts, the last: dial") || strings.Contains(err.Error(), "kept") {
		t.Errorf("%+v, %v", r, err)
	}
	if size(to+".part") != -1 || size(to+".part.json") != -1 {
		t.Error("an empty part is left")
	}
	_, _, err = fetchFrom(t, func(w http.ResponseWriter, r *http.Request) { http.Error(w, "busy", http.StatusServiceUnavailable) }, nil)
	if errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), "503") {
		t.Error(err)
	}
}

// Two calls: the first gives up and keeps its part, the second goes on.
func TestGoesOn(t *testing.T) {
	b := body(1 << 20)
	var broken atomic.Bool
	broken.Store(true)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !broken.Load() {
			file(b)(w, r)
			return
		}
		if r.Header.Get("Range") != "" {
			http.Error(w, "busy", http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("ETag", `"one"`)
		w.Header().Set("Content-Length", strconv.Itoa(len(b)))
		w.Write(b[:500_000])
		hang(w)
	}))
	defer server.Close()
	o := Options{URL: server.URL, To: filepath.Join(t.TempDir(), "f.gguf"), SHA256: sum(b), Begins: "GGUF", Attempts: 2, Pause: time.Millisecond}
	if _, err := File(context.Background(), o); fault.Code(err) != int(fault.Failed) || !strings.Contains(err.Error(), "500000 bytes are kept") {
		t.Fatalf("a server that breaks: %v", err)
	}
	if size(o.To) != -1 || size(o.To+".part") != 500_000 {
		t.Fatalf("part of %d bytes, file of %d", size(o.To+".part"), size(o.To))
	}
	broken.Store(false)
	r, err := File(context.Background(), o)
	if err != nil || r.ResumedFrom != 500_000 || r.Fetched != int64(len(b))-500_000 || r.SHA256 != sum(b) {
		t.Fatalf("%+v, %v", r, err)
	}
}

func TestIgnoresRange(t *testing.T) {
	b := body(1 << 20)
	n := 0
	r, _, err := fetchFrom(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", strconv.Itoa(len(b)))
		if n++; n == 1 {
			w.Write(b[:400_000])
			hang(w)
		}
		w.Write(b)
	}, func(o *Options) { o.SHA256 = sum(b) })
	if err != nil || r.Connections != 2 || r.Fetched != int64(len(b))+400_000 {
		t.Fatalf("%+v, %v", r, err)
	}
}

// Another version of the file appears while the first is fetched: nothing of
// the first one may stay.
func TestChangesMidWay(t *testing.T) {
	old, now := body(1<<20), append(body(1<<20), 1, 2, 3)
	for _, honest := range []bool{true, false} {
		n := 0
		r, to, err := fetchFrom(t, func(w http.ResponseWriter, r *http.Request) {
			if n++; n == 1 {
				w.Header().Set("ETag", `"one"`)
				w.Header().Set("Content-Length", strconv.Itoa(len(old)))
				w.Write(old[:400_000])
				hang(w)
			}
			if !honest {
				r.Header.Del("If-Range")
			}
			w.Header().Set("ETag", `"two"`)
			http.ServeContent(w, r, "f.gguf", time.Time{}, bytes.NewReader(now))
		}, func(o *Options) { o.SHA256 = sum(now) })
		if got, _ := os.ReadFile(to); err != nil || !bytes.Equal(got, now) {
			t.Fatalf("honest %v: %+v, %v", honest, r, err)
		}
	}
}

func TestLengthsThatLie(t *testing.T) {
	b := body(1 << 20)
	for name, c := range map[string]struct {
		handler http.HandlerFunc
		change  func(*Options)
		want    fault.Kind
		says    string
	}{
		"promises more than it has": {func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Range") != "" {
				w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
				return
			}
			w.Header().Set("Content-Length", strconv.Itoa(len(b)+1000))
			w.Write(b)
			hang(w)
		}, func(o *Options) { o.SHA256 = sum(b[1:]) }, fault.Failed, "without progress"},
		"offers another size than is known": {file(b), func(o *Options) { o.Bytes = int64(len(b)) + 7 }, fault.Damaged, "it is another file"},
		"a range that is not the one asked for": {func(w http.ResponseWriter, r *http.Request) {
			breakFirst(w, r, b)
			w.Header().Set("Content-Range", fmt.Sprintf("bytes 0-%d/%d", len(b)-1, len(b)))
			w.WriteHeader(http.StatusPartialContent)
			w.Write(b)
		}, nil, fault.Failed, "without progress"},
		"more than the total of its range": {func(w http.ResponseWriter, r *http.Request) {
			breakFirst(w, r, b)
			w.Header().Set("Content-Range", fmt.Sprintf("bytes 1000-%d/%d", len(b)-1, len(b)))
			w.WriteHeader(http.StatusPartialContent)
			w.Write(append(b[1000:len(b):len(b)], 1, 2, 3))
			w.(http.Flusher).Flush()
		}, nil, fault.Damaged, "sends more than the"},
		"more than any disk": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", strconv.FormatInt(1<<60, 10))
			w.Write(b)
			hang(w)
		}, nil, fault.Capability, "GiB are free"},
	} {
		_, to, err := fetchFrom(t, c.handler, func(o *Options) {
			o.SHA256 = sum(b)
			if c.change != nil {
				c.change(o)
			}
		})
		if fault.Code(err) != int(c.want) || !strings.Contains(err.Error(), c.says) || size(to) != -1 {
			t.Errorf("%s: %v, exit code %d; want %d with %q; file of %d bytes", name, err, fault.Code(err), c.want, c.says, size(to))
		}
	}
}

// Without any length, the hash alone says whether the file is whole.
func TestNoLength(t *testing.T) {
	b := body(1 << 20)
	r, _, err := fetchFrom(t, func(w http.ResponseWriter, r *http.Request) {
		w.Write(b[:1000])
		w.(http.Flusher).Flush()
		w.Write(b[1000:])
	}, func(o *Options) { o.SHA256 = sum(b) })
	if err != nil || r.Bytes != int64(len(b)) {
		t.Fatalf("%+v, %v", r, err)
	}
}

func TestWrongHash(t *testing.T) {
	b := body(1 << 20)
	bad := bytes.Clone(b)
	bad[777777]++
	var honest atomic.Bool
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if honest.Load() {
			file(b)(w, r)
		} else {
			file(bad)(w, r)
		}
	}))
	defer server.Close()
	o := Options{URL: server.URL, To: filepath.Join(t.TempDir(), "f.gguf"), SHA256: sum(b), Begins: "GGUF"}
	if _, err := File(context.Background(), o); fault.Code(err) != int(fault.Damaged) || !strings.Contains(err.Error(), sum(bad)) || size(o.To) != -1 {
		t.Fatalf("a wrong hash: %v", err)
	}
	// The hash was mistyped: the bytes that are there do.
	right := o
	right.SHA256 = sum(bad)
	if size(o.To+".part") != int64(len(bad)) {
		t.Fatal("the part was not kept")
	}
	if r, err := File(context.Background(), right); err != nil || r.Fetched != 0 {
		t.Fatalf("with the hash of what was fetched: %+v, %v", r, err)
	}
	os.Remove(o.To)
	// The bytes were wrong: the same command fetches them anew.
	if _, err := File(context.Background(), o); err == nil {
		t.Fatal("wrong bytes were accepted")
	}
	honest.Store(true)
	if r, err := File(context.Background(), o); err != nil || r.SHA256 != sum(b) || r.Fetched != int64(len(b)) {
		t.Fatalf("anew: %+v, %v", r, err)
	}
}

func TestStatuses(t *testing.T) {
	for status, want := range map[int]fault.Kind{404: fault.Capability, 410: fault.Capability, 401: fault.Capability, 403: fault.Capability, 503: fault.Failed, 429: fault.Failed} {
		n := 0
		_, to, err := fetchFrom(t, func(w http.ResponseWriter, r *http.Request) {
			n++
			http.Error(w, "no", status)
		}, func(o *Options) { o.SHA256 = sum(nil) })
		again := 1
		if want == fault.Failed {
			again = 3
		}
		if fault.Code(err) != int(want) || n != again || size(to) != -1 {
			t.Errorf("%d: %v, exit code %d, asked %d times", status, err, fault.Code(err), n)
		}
	}
}

// A page instead of the file is refused at its first bytes.
func TestPage(t *testing.T) {
	_, to, err := fetchFrom(t, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "<!DOCTYPE html>", strings.Repeat("please log in ", 1000))
	}, func(o *Options) { o.SHA256 = sum(nil) })
	if fault.Code(err) != int(fault.Damaged) || !strings.Contains(err.Error(), "does not begin with") || size(to+".part") != 0 {
		t.Errorf("%v, part of %d bytes", err, size(to+".part"))
	}
}

// The hub's redirection states hash and size of what it leads to.
func TestRedirect(t *testing.T) {
	b := body(1 << 20)
	store := httptest.NewServer(file(b))
	defer store.Close()
	stated, length := sum(b), len(b)
	hub := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Linked-Etag", `"`+stated+`"`)
		w.Header().Set("X-Linked-Size", strconv.Itoa(length))
		http.Redirect(w, r, store.URL+"/blob", http.StatusFound)
	}
	r, _, err := fetchFrom(t, hub, nil)
	if err != nil || r.HashFrom != "hub" || r.SHA256 != sum(b) {
		t.Errorf("%+v, %v", r, err)
	}
	stated = sum(b[1:])
	if _, _, err := fetchFrom(t, hub, nil); fault.Code(err) != int(fault.Damaged) || !strings.Contains(err.Error(), "the hub's is") {
		t.Errorf("a hub that states a wrong hash: %v", err)
	}
	stated, length = sum(b), len(b)+1
	if _, _, err := fetchFrom(t, hub, nil); fault.Code(err) != int(fault.Failed) || !strings.Contains(err.Error(), "it promised") {
		t.Errorf("a hub that states a wrong size: %v", err)
	}
	if _, _, err := fetchFrom(t, file(b), nil); fault.Code(err) != int(fault.Usage) || !strings.Contains(err.Error(), "give --sha256") {
		t.Errorf("no hash from anywhere: %v", err)
	}
	if _, _, err := fetchFrom(t, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, r.URL.Path, http.StatusFound) }, func(o *Options) { o.SHA256 = sum(b) }); err == nil || !strings.Contains(err.Error(), "more than ten") {
		t.Errorf("a circle: %v", err)
	}
}

func TestSilence(t *testing.T) {
	b := body(1 << 20)
	n := 0
	r, _, err := fetchFrom(t, func(w http.ResponseWriter, r *http.Request) {
		if n++; n == 1 {
			w.Header().Set("ETag", `"one"`)
			w.Header().Set("Content-Length", strconv.Itoa(len(b)))
			w.Write(b[:1000])
			w.(http.Flusher).Flush()
			<-r.Context().Done()
			return
		}
		file(b)(w, r)
	}, func(o *Options) { o.SHA256 = sum(b) })
	if err != nil || r.Connections != 2 || r.Fetched != int64(len(b)) {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestInterrupted(t *testing.T) {
	b := body(1 << 20)
	ctx, cancel := context.WithCancel(context.Background())
	_, to, err := fetchFrom(t, func(w http.ResponseWriter, r *http.Request) { file(b)(w, r) }, func(o *Options) {
		o.SHA256 = sum(b)
		o.Client = &http.Client{Transport: cancelled{cancel, ctx}}
	})
	if fault.Code(err) == 0 || size(to) != -1 {
		t.Errorf("%v", err)
	}
	o := Options{URL: "http://127.0.0.1:1/", To: filepath.Join(t.TempDir(), "f"), SHA256: sum(b)}
	if _, err := File(ctx, o); fault.Code(err) != int(fault.Interrupted) {
		t.Errorf("a cancelled context: %v", err)
	}
}

// cancelled fails every request as an interrupt would.
type cancelled struct {
	cancel context.CancelFunc
	ctx    context.Context
}

func (c cancelled) RoundTrip(*http.Request) (*http.Response, error) {
	c.cancel()
	return nil, context.Canceled
}

func TestCheckAndLock(t *testing.T) {
	b := body(1 << 20)
	_, to, err := fetchFrom(t, file(b), func(o *Options) {
		o.SHA256 = sum(b)
		o.Check = func(path string) error { return fault.New(fault.Damaged, "%s: no model", filepath.Base(path)) }
	})
	if fault.Code(err) != int(fault.Damaged) || size(to) != -1 || size(to+".part") != int64(len(b)) {
		t.Errorf("a file that fails its check: %v", err)
	}
	_, _, err = fetchFrom(t, file(b), func(o *Options) {
		o.SHA256 = sum(b)
		inner := *o
		o.Check = func(string) error {
			_, err := File(context.Background(), inner)
			if err == nil || !strings.Contains(err.Error(), "another process") {
				return errors.New("a second fetch of the same file was let in")
			}
			return nil
		}
	})
	if err != nil {
		t.Error(err)
	}
	if _, _, err := fetchFrom(t, file(b), func(o *Options) { o.SHA256 = "abc" }); fault.Code(err) != int(fault.Usage) {
		t.Errorf("a hash of three letters: %v", err)
	}
}

// A server promises more than it has, but what it has is the file: the hash
// decides.
func TestHashDecides(t *testing.T) {
	b := body(1 << 20)
	r, to, err := fetchFrom(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Range") != "" {
			w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
			return
		}
		w.Header().Set("Content-Length", strconv.Itoa(len(b)+1000))
		w.Write(b)
		hang(w)
	}, func(o *Options) { o.SHA256 = sum(b) })
	if err != nil || r.Bytes != int64(len(b)) || size(to) != int64(len(b)) {
		t.Errorf("%+v, %v", r, err)
	}
}
