package judge

import (
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"onceupon/bindings/llama"
	"onceupon/trainer/fault"
)

// folders are searched for libllama and the teachers: beside the program, then
// the user's data folder.
func folders() []string {
	var all []string
	if program, err := os.Executable(); err == nil {
		all = append(all, filepath.Dir(program), filepath.Join(filepath.Dir(program), "..", "share", "onceupon"))
	}
	return append(all, DataFolder())
}

// DataFolder is the user's: where `make fetch` and `teacher pull` put things.
func DataFolder() string {
	base := os.Getenv("XDG_DATA_HOME")
	if base == "" {
		if home, err := os.UserHomeDir(); err == nil {
			base = filepath.Join(home, ".local", "share")
		}
	}
	return filepath.Join(base, "onceupon")
}

func find(parts ...string) (string, bool) {
	for _, dir := range folders() {
		path := filepath.Join(append([]string{dir}, parts...)...)
		if _, err := os.Stat(path); err == nil {
			return path, true
		}
	}
	return "", false
}

// FindLlama returns the folder of libllama for a device: dir if given, else
// where it was fetched to.
func FindLlama(dir, device string) (string, error) {
	if dir != "" {
		return dir, nil
	}
	if device == "" {
		device = "cpu"
	}
	card, _, err := llama.ParseDevice(device)
	if err != nil {
		return "", err
	}
	if card {
		for _, name := range []string{"libllama.cuda.v0.5.0.so", "libllama.so"} {
			if path, ok := find("llama-cuda", name); ok {
				return filepath.Dir(path), nil
			}
		}
		return "", fault.New(fault.Capability, "teacher.device = %s: libllama for the card is not there: run `make teacher-cuda` or give --llama-dir DIR", device)
	}
	if path, ok := find("llama", "libllama.v0.5.0.so"); ok {
		return filepath.Dir(path), nil
	}
	return "", fault.New(fault.Capability, "libllama is not there: run `make fetch` or give --llama-dir DIR")
}

// OpenLlama opens libllama for a device: what was fetched, by its hash, or
// whatever lies in the folder given.
func OpenLlama(dir, device string, log *slog.Logger) (*llama.Library, error) {
	found, err := FindLlama(dir, device)
	if err != nil {
		return nil, err
	}
	return llama.Open(found, llama.Options{AnyHash: dir != "", Device: device, Log: log})
}

// FindModel returns the path of a teacher and the rubric it reads best with;
// "" leaves the choice to the model's chat template.
func FindModel(name string) (path, rubric string, err error) {
	known, isName := Named(name)
	if !isName {
		// What looks like no path may be a name mistyped.
		if _, err := os.Stat(name); err != nil && !strings.Contains(name, "/") && !strings.HasSuffix(strings.ToLower(name), ".gguf") {
			return "", "", fault.New(fault.Capability, "teacher %q is neither a name nor a file; the names are %s (`onceupon teacher list`)", name, strings.Join(Names(), ", "))
		}
		return name, "", nil
	}
	if path, ok := known.Find(); ok {
		return path, known.Rubric, nil
	}
	command := "`make fetch`"
	if known.Repository != "" {
		command = "`onceupon teacher pull " + known.Name + "`"
	}
	return "", "", fault.New(fault.Capability, "teacher %s (%s) is not there: run %s or give --teacher PATH", name, known.File, command)
}

// Find returns where a teacher's file lies: beside the program, in the data
// folder, or in the cache of the hub's own client.
func (k Known) Find() (string, bool) {
	if path, ok := find("teachers", k.File); ok {
		return path, true
	}
	if k.Repository == "" {
		return "", false
	}
	return FindInHubCache(k.Repository, k.File)
}

// FindInHubCache looks where Hugging Face's client keeps its downloads:
// hub/models--OWNER--NAME/snapshots/REVISION/FILE.
func FindInHubCache(repository, file string) (string, bool) {
	cache := os.Getenv("HF_HUB_CACHE")
	if cache == "" {
		home := os.Getenv("HF_HOME")
		if home == "" {
			base := os.Getenv("XDG_CACHE_HOME")
			if base == "" {
				user, err := os.UserHomeDir()
				if err != nil {
					return "", false
				}
				base = filepath.Join(user, ".cache")
			}
			home = filepath.Join(base, "huggingface")
		}
		cache = filepath.Join(home, "hub")
	}
	all, err := filepath.Glob(filepath.Join(cache, "models--"+strings.ReplaceAll(repository, "/", "--"), "snapshots", "*", file))
	if err != nil || len(all) == 0 {
		return "", false
	}
	slices.Sort(all)
	for _, path := range all {
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			return path, true
		}
	}
	return "", false
}
