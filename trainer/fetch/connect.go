package fetch

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"onceupon/trainer/fault"
)

// note says what a part is of.
type note struct {
	URL    string `json:"url"`
	ETag   string `json:"etag,omitempty"`
	Total  int64  `json:"total,omitempty"`
	SHA256 string `json:"sha256,omitempty"` // as the hub states it
}

func readNote(to string) (n note) {
	text, err := os.ReadFile(to + ".part.json")
	if err == nil && json.Unmarshal(text, &n) != nil {
		n = note{} // a torn note is none: the part begins anew
	}
	return n
}

func (t *transfer) writeNote() error {
	text, err := json.Marshal(t.note)
	if err != nil {
		return err
	}
	return fault.Wrap(fault.Capability, os.WriteFile(t.To+".part.json", text, 0o644))
}

// connect asks for what is missing and reads it. nil means that the file is
// whole and right.
func (t *transfer) connect(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stalled := &watch{cancel: cancel, after: t.Stall}
	defer stalled.stop()
	stalled.beat()

	if t.total == 0 {
		t.total = t.note.Total
	}
	if t.total > 0 && t.have >= t.total && t.want() != "" {
		// A whole part: only its hash was not the one wanted.
		if err := t.verify(); err == nil {
			return nil
		}
		t.Say("%s.part is whole but its hash is not the one wanted: fetching it anew", t.To)
		if err := t.restart(); err != nil {
			return err
		}
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, t.URL, nil)
	if err != nil {
		return refuse(fault.Usage, "%s: %w", t.URL, err)
	}
	// No compression: ranges and lengths are those of the file.
	request.Header.Set("Accept-Encoding", "identity")
	if t.have > 0 {
		request.Header.Set("Range", fmt.Sprintf("bytes=%d-", t.have))
		if t.note.ETag != "" {
			request.Header.Set("If-Range", t.note.ETag)
		}
	}
	client := *t.Client
	client.CheckRedirect = t.redirect
	response, err := client.Do(request)
	if err != nil {
		if stalled.ended() {
			return fmt.Errorf("no answer for %s", t.Stall)
		}
		return err
	}
	defer response.Body.Close()
	t.answered = true
	t.stated(response.Header)
	if err := t.accept(response); err == errWhole {
		return nil
	} else if err != nil {
		return err
	}
	if t.want() == "" {
		return refuse(fault.Usage, "%s: neither a hash was given nor does the server state one: give --sha256", t.URL)
	}
	if err := t.room(); err != nil {
		return err
	}
	if err := t.writeNote(); err != nil {
		return final{err}
	}
	if err := t.read(response, stalled); err != nil {
		if stalled.ended() {
			return fmt.Errorf("silent for %s", t.Stall)
		}
		return err
	}
	if t.total == 0 {
		t.total = t.have // no length was promised: the hash decides
	}
	return t.verify()
}

// errWhole says that nothing was missing.
var errWhole = errors.New("the part is whole")

// redirect follows up to ten redirections, none from TLS to plain text, and
// keeps what the hub says of the file on the way: X-Linked-Etag is the sha256
// of a large file, X-Linked-Size its length.
func (t *transfer) redirect(next *http.Request, via []*http.Request) error {
	if len(via) > 10 {
		return refuse(fault.Failed, "%s: more than ten redirections", t.URL)
	}
	if via[0].URL.Scheme == "https" && next.URL.Scheme != "https" {
		return refuse(fault.Failed, "%s: redirects from https to %s", t.URL, next.URL.Scheme)
	}
	if next.Response != nil {
		t.stated(next.Response.Header)
	}
	return nil
}

func (t *transfer) stated(h http.Header) {
	if sum := strings.Trim(strings.TrimPrefix(h.Get("X-Linked-Etag"), "W/"), `"`); IsHash(sum) {
		t.note.SHA256 = sum
	}
	if n, err := strconv.ParseInt(h.Get("X-Linked-Size"), 10, 64); err == nil && n > 0 && t.total == 0 {
		t.total = n
	}
}

// want is the hash that the file must have: the one given, else the hub's.
func (t *transfer) want() string {
	if t.SHA256 != "" {
		return t.SHA256
	}
	t.result.HashFrom = "hub"
	return t.note.SHA256
}

// accept checks status and lengths, and puts the part where the body goes on.
func (t *transfer) accept(r *http.Response) error {
	switch r.StatusCode {
	case http.StatusOK:
		if t.have > 0 {
			t.Say("the server sends the whole file: beginning anew")
			if err := t.restart(); err != nil {
				return final{err}
			}
		}
		if err := t.promise(r.ContentLength); err != nil {
			return err
		}
	case http.StatusPartialContent:
		from, total, err := contentRange(r.Header.Get("Content-Range"))
		if err != nil || from != t.have {
			// Its bytes are not those that were asked for.
			if restartErr := t.restart(); restartErr != nil {
				return final{restartErr}
			}
			return fmt.Errorf("the server answers a request for %s with %q", r.Request.Header.Get("Range"), r.Header.Get("Content-Range"))
		}
		if tag := r.Header.Get("ETag"); t.note.ETag != "" && tag != t.note.ETag {
			t.note.ETag = ""
			if err := t.restart(); err != nil {
				return final{err}
			}
			return errors.New("the server has another version of the file than the one begun")
		}
		if err := t.promise(total); err != nil {
			return err
		}
	case http.StatusRequestedRangeNotSatisfiable:
		if t.want() != "" && t.verify() == nil {
			return errWhole
		}
		if err := t.restart(); err != nil {
			return final{err}
		}
		return errors.New("the server has no byte after those in the part: it serves another file")
	case http.StatusUnauthorized, http.StatusForbidden:
		return refuse(fault.Capability, "%s: %s: accept the licence there and fetch it with the hub's own client; its cache is found by `onceupon teacher pull`", t.URL, r.Status)
	case http.StatusRequestTimeout, http.StatusTooManyRequests:
		return errors.New(r.Status)
	default:
		if r.StatusCode >= 500 {
			return errors.New(r.Status)
		}
		return refuse(fault.Capability, "%s: %s: no such file there", t.URL, r.Status)
	}
	t.note.ETag = ""
	// A weak tag does not promise the same bytes (RFC 9110, 13.1.5).
	if tag := r.Header.Get("ETag"); !strings.HasPrefix(tag, "W/") {
		t.note.ETag = tag
	}
	return nil
}

// promise compares the length that the server promises with the one known.
func (t *transfer) promise(total int64) error {
	switch {
	case total <= 0:
	case t.total == 0:
		t.total = total
	case t.total != total && t.Bytes == t.total:
		return refuse(fault.Damaged, "%s: the server offers %d bytes, the file has %d: it is another file", t.URL, total, t.total)
	case t.total != total:
		if err := t.restart(); err != nil {
			return final{err}
		}
		old := t.total
		t.total = 0
		t.note.Total = 0
		return fmt.Errorf("the server offers %d bytes, it promised %d before", total, old)
	}
	t.note.Total = t.total
	return nil
}

// contentRange reads "bytes FROM-TO/TOTAL"; a total of * is 0.
func contentRange(text string) (from, total int64, err error) {
	span, size, ok := strings.Cut(strings.TrimPrefix(text, "bytes "), "/")
	start, _, dash := strings.Cut(span, "-")
	if !ok || !dash {
		return 0, 0, fmt.Errorf("Content-Range %q", text)
	}
	if from, err = strconv.ParseInt(start, 10, 64); err != nil || size == "*" {
		return from, 0, err
	}
	total, err = strconv.ParseInt(size, 10, 64)
	return from, total, err
}

// read appends the body to the part.
func (t *transfer) read(r *http.Response, stalled *watch) error {
	buffer := make([]byte, 1<<20)
	for {
		n, err := r.Body.Read(buffer)
		stalled.beat()
		if n > 0 {
			if t.total > 0 && t.have+int64(n) > t.total {
				return refuse(fault.Damaged, "%s: the server sends more than the %d bytes it promised", t.URL, t.total)
			}
			if t.have < int64(len(t.Begins)) {
				if head := min(len(t.Begins)-int(t.have), n); string(buffer[:head]) != t.Begins[t.have:int(t.have)+head] {
					t.restart()
					return refuse(fault.Damaged, "%s: what the server sends does not begin with %q (a page, not the file?)", t.URL, t.Begins)
				}
			}
			if _, err := t.part.Write(buffer[:n]); err != nil {
				// Only whole writes are in t.have: the next call begins there.
				t.part.Truncate(t.have)
				if errors.Is(err, syscall.ENOSPC) {
					return refuse(fault.Capability, "%s.part: the disk is full; %d bytes are kept, the same command goes on", t.To, t.have)
				}
				return final{fault.Wrap(fault.Capability, err)}
			}
			t.sum.Write(buffer[:n])
			t.have += int64(n)
			t.result.Fetched += int64(n)
			t.Progress(t.have, t.total)
		}
		if err == io.EOF {
			if t.have < t.total {
				return fmt.Errorf("the connection ended at byte %d of %d", t.have, t.total)
			}
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// verify compares the hash of the whole part.
func (t *transfer) verify() error {
	got := hex.EncodeToString(t.sum.Sum(nil))
	if got == t.want() {
		return nil
	}
	source := "--sha256"
	if t.SHA256 == "" {
		source = "the hub's"
	}
	return refuse(fault.Damaged, "%s: sha256 of the %d bytes is %s, %s is %s: kept as %s.part; the same command fetches it anew", t.URL, t.have, got, source, t.want(), t.To)
}

// watch cancels a connection that is silent.
type watch struct {
	cancel context.CancelFunc
	after  time.Duration
	timer  *time.Timer
	fired  atomic.Bool
}

func (w *watch) beat() {
	if w.timer == nil {
		w.timer = time.AfterFunc(w.after, func() {
			w.fired.Store(true)
			w.cancel()
		})
		return
	}
	w.timer.Reset(w.after)
}

func (w *watch) stop() { w.timer.Stop() }

func (w *watch) ended() bool { return w.fired.Load() }
