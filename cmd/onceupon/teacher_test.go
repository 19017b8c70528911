package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"onceupon/ggml"
	"onceupon/trainer/fault"
	"onceupon/trainer/fetch"
	"onceupon/trainer/judge"
	"onceupon/trainer/synthetic"
)

// run calls the program; result is the last line of its output.
func runProgram(t *testing.T, args ...string) (code int, result map[string]any, stderr string) {
	t.Helper()
	var out, err bytes.Buffer
	code = program(context.Background(), append([]string{"onceupon"}, args...), &out, &err)
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if last := lines[len(lines)-1]; strings.HasPrefix(last, "{") {
		if e := json.Unmarshal([]byte(last), &result); e != nil {
			t.Fatal(e)
		}
	}
	return code, result, err.String()
}

// The whole command against a hub of this test's: licence first, a break in the
// middle, the hub's hash, the header's check, the file under its name.
func TestTeacherPull(t *testing.T) {
	smol, _, err := judge.FindModel("smollm2-135m")
	if err != nil {
		t.Skip(err)
	}
	made := filepath.Join(t.TempDir(), "made.gguf")
	shape := synthetic.Shape{Name: "tiny", Layers: 1, Width: 64, Heads: 4, KVHeads: 2, FeedForward: 128, Vocabulary: 49_200, Context: 512, RopeBase: 1e4, Epsilon: 1e-5}
	if err := synthetic.Write(t.Context(), made, shape, ggml.Q8_0, smol, 1); err != nil {
		t.Fatal(err)
	}
	body, err := os.ReadFile(made)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(body)
	stated := hex.EncodeToString(sum[:])
	asked := 0
	hub := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasPrefix(r.URL.Path, "/bartowski/"):
			w.Header().Set("X-Linked-Etag", `"`+stated+`"`)
			w.Header().Set("X-Linked-Size", strconv.Itoa(len(body)))
			http.Redirect(w, r, "/blob", http.StatusFound)
		case r.URL.Path == "/blob" || r.URL.Path == "/any/tiny.gguf":
			if asked++; asked == 1 {
				w.Header().Set("ETag", `"v1"`)
				w.Header().Set("Content-Length", strconv.Itoa(len(body)))
				w.Write(body[:100_000])
				w.(http.Flusher).Flush()
				panic(http.ErrAbortHandler)
			}
			w.Header().Set("ETag", `"v1"`)
			http.ServeContent(w, r, "x", time.Time{}, bytes.NewReader(body))
		default:
			http.NotFound(w, r)
		}
	}))
	defer hub.Close()
	data := t.TempDir()
	t.Setenv("XDG_DATA_HOME", data)
	t.Setenv("HF_HUB_CACHE", filepath.Join(data, "hub"))
	t.Setenv("HF_ENDPOINT", hub.URL)
	teachers := filepath.Join(data, "onceupon", "teachers")

	// The hub has another model under this name.
	code, _, said := runProgram(t, "teacher", "pull", "llama-3.1-8b-q8_0", "--json")
	if code != int(fault.Damaged) || !strings.Contains(said, "another model than its name says") {
		t.Errorf("another model: %d, %s", code, said)
	}
	if at := strings.Index(said, "Llama 3.1 Community License"); at < 0 || at > strings.Index(said, hub.URL) {
		t.Errorf("the licence was not named first: %s", said)
	}
	file := filepath.Join(teachers, "Meta-Llama-3.1-8B-Instruct-Q8_0.gguf")
	if _, err := os.Stat(file); err == nil {
		t.Error("it got its name all the same")
	}

	// By address, with a hash; the first connection breaks.
	asked = 0
	code, result, said := runProgram(t, "teacher", "pull", hub.URL+"/any/tiny.gguf", "--sha256", stated, "--json")
	if code != 0 || result["connections"] != 2.0 || result["sha256"] != stated || result["architecture"] != "llama" || result["sha256_from"] != "given" {
		t.Errorf("by address: %d, %v, %s", code, result, said)
	}
	got, err := os.ReadFile(filepath.Join(teachers, "tiny.gguf"))
	if err != nil || !bytes.Equal(got, body) {
		t.Errorf("the file: %v", err)
	}
	for _, c := range []struct {
		args []string
		code fault.Kind
		says string
	}{
		{[]string{hub.URL + "/any/tiny.gguf", "--sha256", stated}, fault.Usage, "is already there"},
		{[]string{hub.URL + "/none.gguf", "--sha256", stated}, fault.Capability, "404"},
		{[]string{hub.URL + "/any/tiny.gguf", "--to", t.TempDir()}, fault.Usage, "give --sha256"},
		{[]string{hub.URL + "/any/page"}, fault.Usage, "must end in the name of a .gguf file"},
		{[]string{"llama-3.1-8b"}, fault.Usage, "neither a name"},
		{[]string{"gemma-270m"}, fault.Capability, "make fetch"},
		{nil, fault.Usage, "give one NAME"},
		{[]string{made, "--sha256", strings.Repeat("0", 64)}, fault.Damaged, "sha256 is " + stated},
		{[]string{made, "--sha256", "abc"}, fault.Usage, "64 hexadecimal digits"},
		{[]string{made, "--sha256", strings.ToUpper(stated)}, 0, "sha256 " + stated + " (as given)"},
		{[]string{made}, 0, "sha256 " + stated + " (compared with none)"},
	} {
		if code, _, said := runProgram(t, append([]string{"teacher", "pull"}, c.args...)...); code != int(c.code) || !strings.Contains(said, c.says) {
			t.Errorf("%q: %d, %s; want %d with %q", c.args, code, said, c.code, c.says)
		}
	}

	// A file that is there is used where it lies: a path, and the hub's cache.
	if code, result, said := runProgram(t, "teacher", "pull", made, "--json"); code != 0 || result["path"] != made || result["sha256"] != stated || result["fetched_bytes"] != 0.0 {
		t.Errorf("a path: %d, %v, %s", code, result, said)
	}
	cached := filepath.Join(data, "hub", "models--bartowski--Meta-Llama-3.1-8B-Instruct-GGUF", "snapshots", "abc", "Meta-Llama-3.1-8B-Instruct-Q4_K_M.gguf")
	os.MkdirAll(filepath.Dir(cached), 0o755)
	if err := os.Symlink(made, cached); err != nil {
		t.Fatal(err)
	}
	if code, _, said := runProgram(t, "teacher", "pull", "llama-3.1-8b-q4_k_m"); code != int(fault.Damaged) || !strings.Contains(said, cached) {
		t.Errorf("from the cache, another model: %d, %s", code, said)
	}
	code, result, _ = runProgram(t, "teacher", "list", "--json")
	all, _ := result["teachers"].([]any)
	if code != 0 || len(all) != len(judge.Catalogue()) || !strings.Contains(string(must(json.Marshal(all))), cached) {
		t.Errorf("list: %d, %v", code, result)
	}
}

func TestUnreachableHub(t *testing.T) {
	t.Setenv("HF_HUB_CACHE", t.TempDir())
	t.Setenv("XDG_DATA_HOME", t.TempDir())
	for name, says := range map[string]string{"llama-3.1-8b-q8_0": "HF_ENDPOINT names another hub", "http://localhost/x.gguf": ""} {
		s, err := findSource(name)
		if err != nil {
			t.Fatal(err)
		}
		err = s.otherwise(fault.New(fault.Failed, "%s %w", s.url, fetch.ErrUnreachable))
		if fault.Code(err) != int(fault.Failed) || strings.Contains(err.Error(), "HF_ENDPOINT") != (says != "") || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func must(b []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return b
}
